"""Formulas that a text writes in ASCII, as MathML, which a browser draws without script, font or network.

The texts of studies and claims stay plain, since terminals and JSON show them too. A page typesets what it
can read: Greek names, symbols with their decorations (``V*``, ``W~``, ``Sigma0``, ``c_k``, ``M^{k-1}``) and
the operators between them. Everything else stays text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape

from markupsafe import Markup, escape

_LETTERS = (
    "Sigma", "Delta", "Gamma", "Omega", "Phi", "Lambda", "rho", "eta", "beta", "gamma", "lambda", "mu", "tau",
)  # fmt: skip
_GREEK = {name: unescape(f"&{name};") for name in _LETTERS}
_NAMED = {"<=": "le", ">=": "ge", "->": "rarr", "||": "Vert", "-": "minus", "~": "sim", "*": "middot"}
_OPERATORS = {text: unescape(f"&{name};") for text, name in _NAMED.items()}
_FUNCTIONS = "tr|exp|log|diag|Err|max|min|rank|range"
_NAMES = "|".join((*_GREEK, r"sum(?=_)", r"infinity(?=\))", r"df(?=\d)", r"c(?=_)", r"what(?=_)", "Sbar"))
_HATS = {"what": ("w", "^"), "Sbar": ("S", "¯")}
_EXPONENT = r"\^(?:\{[^{}]*\}|\([^()]*\)|[-+]?\w+)"
_MARKS = rf"\*|~|'|_\{{[^{{}}]*\}}|_[A-Za-z0-9]+|{_EXPONENT}"
_TOKENS = re.compile(
    rf"""
      (?P<space>\s+)
    | (?P<code>`[^`]+`)
    | (?P<function>\b(?:{_FUNCTIONS})(?=\())
    | (?P<trace>\btr(?=\ [A-Z(])|\blog(?=\ (?:Err|\|)))
    | (?P<symbol>(?<![A-Za-z_.])(?P<base>{_NAMES}|[ABFGILMPRSTVWdkmnrstuwxy])
        (?P<digits>\d*)(?P<marks>(?:\*(?![A-Za-z0-9*])|~|'(?!\w)|_\{{[^{{}}]*\}}|_[A-Za-z0-9]+|{_EXPONENT})*)
        (?![A-Za-z0-9]|\.\d))
    | (?P<number>(?<![\w.])(?:\d[\d,]*\d|\d)?\.?\d+(?:e-?\d+)?(?!\w)|(?<![\w.])\d+(?=[BMdkmnr](?!\w)))
    | (?P<closed>(?:[)\]]|\|\|)(?:{_EXPONENT}))
    | (?P<operator><=|>=|->|\|\||[-=+*/<>|~()\[\]])
    | (?P<text>[A-Za-z][\w'-]*|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_LONE = ("A", "I", "s", "L", "R")
"""Letters that are words or labels too: symbols only beside an operator or with a decoration."""
_LONG = 24
"""Tokens of a formula that may be wider than a phone: it scrolls by itself."""
_EDGES = {"operator", "space", "closed"}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    match: re.Match[str]


def typeset(text: str) -> Markup:
    """``text`` as HTML in which the formulas that were recognised are MathML; the rest is escaped.

    >>> typeset("fewer than B rows")
    Markup('fewer than <math><mi>B</mi></math> rows')
    """
    tokens = [_Token(_kind(found), found[0], found) for found in _TOKENS.finditer(text)]
    parts: list[Markup] = []
    run: list[_Token] = []
    for place, token in enumerate(tokens):
        if token.kind == "code":
            parts += [*_written(run), Markup("<code>{}</code>").format(token.text.strip("`"))]
            run = []
        elif token.kind == "text" or (token.kind == "symbol" and not _is_symbol(tokens, place)):
            parts += [*_written(run), escape(token.text)]
            run = []
        elif token.kind == "number" and _ends_factor(run):
            # Two factors side by side would read as one number.
            parts += _written(run)
            run = [token]
        else:
            run.append(token)
    return Markup("").join([*parts, *_written(run)])


def _kind(found: re.Match[str]) -> str:
    names = ("space", "code", "function", "trace", "symbol", "number", "closed", "operator", "text")
    return next(name for name in names if found[name] is not None)


def _is_symbol(tokens: Sequence[_Token], place: int) -> bool:
    """Whether a letter is a symbol and not a word."""
    token = tokens[place]
    if token.text not in _LONE:
        return True
    beside = [
        t for t in (*tokens[max(0, place - 2) : place], *tokens[place + 1 : place + 3]) if t.kind != "space"
    ]
    return any(
        t.kind == "closed"
        or (t.kind == "operator" and t.text not in "([")
        or (t.kind == "symbol" and t.match["base"] in _GREEK)
        for t in beside
    )


def _ends_factor(run: Sequence[_Token]) -> bool:
    """Whether a space after a factor ends ``run``."""
    return len(run) > 1 and run[-1].kind == "space" and run[-2].kind in ("symbol", "number", "closed")


def _written(run: Sequence[_Token]) -> list[Markup]:
    """A run of tokens: MathML between whatever stands loose at its edges, or text if it has no symbol."""
    if not any(token.kind == "symbol" for token in run):
        return [_loose(run)]
    first, last = 0, len(run)
    while run[first].kind in _EDGES and not _opens(run[first:last]):
        first += 1
    while run[last - 1].kind in _EDGES and not _closes(run[first:last]):
        last -= 1
    formula = Markup("<math>{}</math>").format(_row(run[first:last]))
    if last - first > _LONG:
        formula = Markup('<span class="formula">{}</span>').format(formula)
    return [_loose(run[:first]), formula, _loose(run[last:])]


def _loose(run: Sequence[_Token]) -> Markup:
    """Tokens that belong to no formula, as text."""
    texts = (_OPERATORS[t.text] if t.text in ("<=", ">=") else t.text for t in run)
    return escape("".join(texts))


def _opens(run: Sequence[_Token]) -> bool:
    """Whether ``run`` begins with a bracket or bar that it closes, or with a sign."""
    text = "".join(token.text for token in run)
    if text[0] in "([":
        return _depth(text[1:]) < 0
    return text.startswith("|") and text.count("|") % 2 == 0


def _closes(run: Sequence[_Token]) -> bool:
    """Whether ``run`` ends with a bracket or bar that it opened."""
    text = "".join(token.text for token in run)
    if run[-1].kind == "space":
        return False
    if text[-1] in ")]" or run[-1].kind == "closed":
        return _depth("".join(token.text[:1] if token.kind == "closed" else token.text for token in run)) >= 0
    return text.endswith("|") and text.count("|") % 2 == 0


def _depth(text: str) -> int:
    """The lowest nesting of brackets along ``text``."""
    depth = lowest = 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        lowest = min(lowest, depth)
    return lowest


def _row(tokens: Sequence[_Token]) -> Markup:
    return Markup("").join(_element(token) for token in tokens if token.kind != "space")


def _element(token: _Token) -> Markup:
    if token.kind == "symbol":
        return _symbol(token.match)
    if token.kind == "closed":
        raised = Markup('<msup><mo stretchy="false">{}</mo>{}</msup>')
        bracket, exponent = token.text.split("^", 1)
        return raised.format(_OPERATORS.get(bracket, bracket), _inside("^" + exponent))
    if token.kind == "operator":
        stretchy = (
            Markup('<mo stretchy="false">{}</mo>')
            if token.text in ("(", ")", "[", "]", "|", "||")
            else Markup("<mo>{}</mo>")
        )
        return stretchy.format(_OPERATORS.get(token.text, token.text))
    if token.kind == "trace":
        return Markup('<mi>{}</mi><mspace width="0.17em"></mspace>').format(token.text)
    return Markup("<mn>{}</mn>" if token.kind == "number" else "<mi>{}</mi>").format(token.text)


def _symbol(found: re.Match[str]) -> Markup:
    """A letter with what stands below, above and over it."""
    base, digits, marks = found["base"], found["digits"], found["marks"]
    letter, hat = _HATS.get(base, ({"sum": "∑", "infinity": "∞", **_GREEK}.get(base, base), ""))
    core = Markup("<mo>{}</mo>" if base == "sum" else "<mi>{}</mi>").format(letter)
    below, above = Markup(""), Markup("")
    if digits:
        number = Markup("<mn>{}</mn>").format(digits)
        below, above = (below, number) if base == "R" else (number, above)
    for mark in [*hat, *re.findall(_MARKS, marks)]:
        if mark in ("~", "^", "¯"):
            core = Markup('<mover accent="true">{}<mo>{}</mo></mover>').format(core, mark)
        elif mark[0] == "_":
            below += _inside(mark)
        else:
            above += (
                Markup("<mo>{}</mo>").format(unescape("&prime;") if mark == "'" else mark)
                if mark in "*'"
                else _inside(mark)
            )
    if below and above:
        return Markup("<msubsup>{}<mrow>{}</mrow><mrow>{}</mrow></msubsup>").format(core, below, above)
    if below:
        return Markup("<msub>{}<mrow>{}</mrow></msub>").format(core, below)
    return Markup("<msup>{}<mrow>{}</mrow></msup>").format(core, above) if above else core


def _inside(mark: str) -> Markup:
    """What an index or an exponent holds: a formula of its own, or a name."""
    text = mark[1:]
    if text[0] in "{(" and text[-1] in "})":
        text = text[1:-1]
    if text == "inf":
        return Markup("<mi>∞</mi>")
    tokens = [_Token(_kind(found), found[0], found) for found in _TOKENS.finditer(text)]
    return Markup("<mrow>{}</mrow>").format(_row(tokens))
