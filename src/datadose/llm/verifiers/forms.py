"""The parts of a final form: its choice letter, brackets, parts, name, value and unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from datadose.llm.verifiers.one_number import bare

_UNICODE = {
    **{"\u2212": "-", "\u2013": "-", "\uff0d": "-", "\u00d7": "\\times ", "\u00b7": "\\cdot ", "\u00f7": "/"},
    **{"\u2264": "\\le ", "\u2265": "\\ge ", "\u2260": "\\ne ", "\u221e": "\\infty ", "\u03c0": "\\pi "},
    **{"\u222a": "\\cup ", "\u2229": "\\cap ", "\u2208": "\\in ", "\u00b0": "^\\circ", "\u00b1": "\\pm "},
    **{"\u00b2": "^2", "\u00b3": "^3", "\u221a": "\\sqrt", "\u03b8": "\\theta ", "\u03b1": "\\alpha "},
}
_TABLE = str.maketrans(_UNICODE)
_SPACES = re.compile(
    r"\\(?:left|right|big|Big|bigl|bigr|displaystyle|textstyle)(?![A-Za-z])|(?<!\\)\\[,;:! ]|~|\\q?quad\b"
)
_FRACTIONS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)|\\sqrt\s*\(([^()]*)\)")
_BARE_ROOT = re.compile(r"\\sqrt\s*([0-9]+)")
_PI = re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])")
_JOINED = re.compile(r"\s*,?\s*(?:\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)\s*")

_LETTER = r"\(?\s*([A-J])\s*\)?"
_CHOICE = re.compile(rf"(?:\\(?:text|textbf|mathrm|mathbf)\{{\s*)?{_LETTER}\s*\}}?[.:]?")
_CHOICE_WITH_TEXT = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf)\{\s*)?(?:\(([A-J])\)|([A-J])[).:](?=\s))\s*\}?\s*(\S.*)", re.DOTALL
)
_NAME = re.compile(r"([A-Za-z](?:_(?:[A-Za-z0-9]|\{\w+\}))?(?:\([a-z]\))?)\s*(?:=|\\in(?![a-z]))\s*(?=\S)")
_TEXT = r"\\(?:text|mathrm|textrm|mbox|textit|mathit|operatorname)\s*\{\s*([^{}]*?)\s*\}"
_POWER = r"(?:\s*\^\s*(?:\{\s*-?[0-9]\s*\}|-?[0-9]))?"
_UNIT = re.compile(
    rf"(.*[0-9A-Za-z)}}\]])\s*((?:{_TEXT}{_POWER}[\s/]*)+)|(.*[0-9)}}\]])\s*((?:[A-Za-z]{{2,}}+\.?{_POWER}[\s/]*)+)",
    re.DOTALL,
)
_DEGREES = re.compile(r"(.*\S)\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)\s*[CF]?|\bdegrees?)", re.DOTALL)
_PERCENT = re.compile(r"(.*[^\s\\])\s*(?:\\?%|\bpercent)", re.DOTALL)
_ANY_TEXT = re.compile(_TEXT)
_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[a-z*]+\}|\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{3,}")
_FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "log",
        "exp",
        "sqrt",
        "max",
        "min",
        "gcd",
        "lcm",
        "mod",
        "det",
        "deg",
        "dim",
        "arg",
        "abs",
    ]
)
_LITERAL = re.compile(
    r"[0-9)}]\s*_\s*\{?\s*[0-9]"  # a numeral with its base
    r"|^[0-9A-F]*[0-9][0-9A-F]*\s*_"
    r"|\b0[xXbBoO][0-9A-Fa-f]"  # one of a programming language
    r"|[0-9]\s*:\s*[0-9]"  # a time or a ratio
    r"|(?<!_)[0-9.]\s+[0-9.]"  # two numbers
    r"|[0-9]\s*[eE][+-]?[0-9]"  # a power of ten inside a formula
)
_GROUPED = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:(?:,|\{,\})[0-9]{3})+(?![0-9,])")
_BASE = re.compile(r"\s*_\s*\{?\s*([0-9a-z]+)\s*\}?")
_PAIRS = {"(": ")", "[": "]", "\\{": "\\}"}


@dataclass(frozen=True)
class Form:
    """A final form, taken apart."""

    text: str
    """All of it, written in one way."""
    choice: str = ""
    """The letter of a choice."""
    choice_text: str = ""
    """What stands beside the letter."""
    brackets: str = ""
    """``()``, ``[)``, ``{}`` and so on around several parts; "" for a list without or for one part."""
    parts: tuple[str, ...] = ()
    name: str = ""
    """What stands before "=" or "in": ``x`` of ``x = 5``."""
    value: str = ""
    """A single part without name and unit."""
    unit: str = ""
    literal: str = ""
    """The value as folded text."""
    is_literal: bool = False
    """Whether it is words, or a numeral that no formula has: it equals only the same text."""

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the parts counts."""
        return self.brackets not in {"", "{}"}


@lru_cache(maxsize=512)
def read_form(form: str) -> Form:
    """``form`` taken apart."""
    text = _one_way(form)
    if (letter := _CHOICE.fullmatch(text)) is not None:
        return Form(text, choice=letter.group(1), parts=(text,), value=text, literal=text)
    if (letter := _CHOICE_WITH_TEXT.fullmatch(text)) is not None:
        rest = bare(letter.group(3))
        return Form(text, letter.group(1) or letter.group(2), rest, parts=(text,), value=text, literal=text)
    name, rest = _split_name(text)
    brackets, inner = _brackets(rest)
    if not brackets:
        rest = _GROUPED.sub(lambda match: re.sub(r"\D", "", match.group()), rest)
    parts = _split(inner if brackets else _JOINED.sub(", ", rest))
    if len(parts) > 1:
        return Form(text, brackets=brackets, parts=parts, name=name)
    if brackets in {"()", "[]"} and "," not in inner:
        rest = inner if brackets == "()" else rest
        brackets = ""
    value, unit = _split_unit(rest)
    literal = _BASE.sub(r"_\1", " ".join(_ANY_TEXT.sub(r"\1", value).lower().split()))
    if len(_ANY_TEXT.sub(r"\1", value).strip()) == 1:
        literal = value.strip()  # a letter's case is its meaning
    return Form(
        text, "", "", brackets, (rest,) if rest else (), name, value, unit, literal, _is_literal(value)
    )


def _one_way(form: str) -> str:
    text = bare(form).translate(_TABLE)
    text = text.replace("\\$", "").replace("$", "").replace("\\(", "").replace("\\)", "")
    text = text.replace("**", "^").replace("\\lbrace", "\\{").replace("\\rbrace", "\\}")
    text = _SPACES.sub(" ", text)
    text = _FRACTIONS.sub(lambda _: "\\frac", text)
    text = _ROOT.sub(lambda match: f"\\sqrt{{{match.group(1) or match.group(2)}}}", text)
    text = _BARE_ROOT.sub(lambda match: f"\\sqrt{{{match.group(1)}}}", text)
    text = _PI.sub(lambda _: "\\pi ", text)
    return " ".join(text.split()).removeprefix("=").strip()


def _split_name(text: str) -> tuple[str, str]:
    """``("x", "5")`` of ``x = 5``; no name where there is more than one relation."""
    found = _NAME.match(text)
    if found is None or "=" in text[found.end() :]:
        return "", text
    return found.group(1), text[found.end() :].strip()


def _brackets(text: str) -> tuple[str, str]:
    """The pair of brackets around all of ``text``, and what is inside; ``("", text)`` if there is none."""
    start = next((mark for mark in _PAIRS if text.startswith(mark)), None)
    stop = next((mark for mark in _PAIRS.values() if text.endswith(mark)), None)
    if start is None or stop is None or len(text) < len(start) + len(stop):
        return "", text
    if (start == "\\{") != (stop == "\\}"):
        return "", text
    inner = text[len(start) : len(text) - len(stop)]
    depth = 0
    for character in inner:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return "", text
    return ("" if depth else (start + stop).replace("\\", "")), (text if depth else inner.strip())


def _split(text: str) -> tuple[str, ...]:
    """``text`` at the commas outside all brackets."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character in ",;" and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    parts.append(text[start:].strip())
    return tuple(parts)


def _split_unit(text: str) -> tuple[str, str]:
    """The value and its unit; no unit where there would be no value with a digit or a formula."""
    for pattern, unit in ((_PERCENT, "%"), (_DEGREES, "degree")):
        if (found := pattern.fullmatch(text)) is not None:
            return found.group(1).strip(), unit
    found = _UNIT.fullmatch(text)
    if found is None:
        return text, ""
    value = (found.group(1) or found.group(4)).strip()
    unit = " ".join(_ANY_TEXT.sub(r"\1", found.group(2) or found.group(5)).split())
    if unit.lower() in _FUNCTIONS or not any(c.isdigit() or c == "\\" for c in value):
        return text, ""
    return value, unit.removesuffix("s") if len(unit) > 3 else unit


def _is_literal(value: str) -> bool:
    plain = _COMMAND.sub(" ", _ANY_TEXT.sub(r" \1 ", value))
    words = [word for word in _WORD.findall(plain) if word.lower() not in _FUNCTIONS]
    letters_only = plain.strip() != "" and all(c.isalpha() or c.isspace() for c in plain)
    only_word = letters_only and "\\" not in _ANY_TEXT.sub("", value) and len(plain.strip()) > 1
    return bool(words) or only_word or _LITERAL.search(value) is not None
