"""Texts that are one number, read exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

_LONGEST = 400
"""Characters of a number at most."""

_LAYERS = (
    re.compile(r"\\\[(.*)\\\]", re.DOTALL),
    re.compile(r"\\\((.*)\\\)", re.DOTALL),
    re.compile(
        r"\\begin\{(?:equation|align|aligned|gather|displaymath|math)\*?\}(.*)\\end\{[a-z]+\*?\}", re.DOTALL
    ),
    re.compile(
        r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox|boldsymbol|bm|displaystyle|emph)\s*\{([^{}]*)\}"
    ),
    re.compile(r"\\(?:displaystyle|textstyle|large|Large|bf)\s*(.*)", re.DOTALL),
    re.compile(r"\{([^{}]*)\}"),
    re.compile(r"<answer>(.*)</answer>", re.DOTALL),
)
_THIN_SPACE = re.compile(r"\{,\}|,\\!|\\[,;: ]|(?<=[0-9])~(?=[0-9])|[\u202f\u2009\u00a0](?=[0-9])")
_MINUS = str.maketrans({"\u2212": "-", "\uff0d": "-", "\ufe63": "-", "\uff0b": "+"})
_GROUPED = r"[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"
_POWER_OF_TEN = (
    r"[eE](?P<e>[+-]?[0-9]{1,4})"
    r"|\s*(?:\\times|\\cdot|\u00d7|\u00b7|\*)\s*10\s*(?:\^|\*\*)\s*(?:\{(?P<braced>[+-]?[0-9]{1,4})\}|(?P<bare>[+-]?[0-9]{1,4}))"
)
_DECIMAL = re.compile(rf"(?P<sign>[+-]?)(?P<whole>{_GROUPED}|[0-9]*)(?P<part>\.[0-9]*)?(?:{_POWER_OF_TEN})?")
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<top>[0-9]+)\s*/\s*(?P<bottom>[0-9]+)"
    r"|\\[dt]?frac\s*\{\s*(?P<Top>[+-]?[0-9]+)\s*\}\s*\{\s*(?P<Bottom>[0-9]+)\s*\}"
    r"|\\[dt]?frac\s*(?P<tOp>[0-9])\s*(?P<bOttom>[0-9]))"
)


@dataclass(frozen=True)
class OneNumber:
    """A number that a text is, and whether it is written as a fraction."""

    value: Decimal | Fraction
    is_fraction: bool


def bare(form: str) -> str:
    """``form`` without what only frames it: white space, dollars, display brackets, bold, a full stop."""
    # Each layer that goes makes the text shorter, and no answer has more than a few.
    for _ in range(12):
        before = form
        form = form.strip().strip("*`\u200b").strip()
        if len(form) > 1:
            form = form.rstrip(".,;").rstrip()
        form = form.removeprefix("\\$").removeprefix("$$").removeprefix("$")
        form = form.removesuffix("\\$").removesuffix("$$").removesuffix("$")
        form = form.removesuffix("\\,").removesuffix("\\!").removeprefix("\\,").removeprefix("\\!")
        for layer in _LAYERS:
            if (found := layer.fullmatch(form)) is not None:
                form = found.group(1)
        if form == before:
            break
    return form


def read_number(form: str) -> OneNumber | None:
    """The one number that ``form`` is, None if it is anything else.

    Read are signs, decimals, thousands in threes (or the Indian way) parted by commas or thin spaces, powers
    of ten (``1.5e3``, ``1.5 \\times 10^{3}``), one fraction of integers, all in dollars, display brackets or
    round brackets. A unit, a percent sign, a choice, an interval, a time, a power or a second number makes it
    no number.
    """
    if len(form) > 2 * _LONGEST:
        return None
    form = bare(form).translate(_MINUS)
    form = form.replace("\\left(", "(").replace("\\right)", ")")
    bracketed = form.startswith("(") and form.endswith(")")
    if bracketed:
        form = form[1:-1].strip()
    form = _THIN_SPACE.sub(",", form)
    # In round brackets (1,500) may as well be a point or an interval.
    if len(form) > _LONGEST or (bracketed and "," in form):
        return None
    return _read_decimal(form) or _read_fraction(form)


def _read_decimal(form: str) -> OneNumber | None:
    found = _DECIMAL.fullmatch(form)
    if found is None or not (found["whole"] or (found["part"] or ".") != "."):
        return None
    exponent = found["e"] or found["braced"] or found["bare"] or "0"
    digits = f"{found['sign']}{found['whole'].replace(',', '') or '0'}{found['part'] or ''}"
    return OneNumber(Decimal(f"{digits}e{exponent}"), is_fraction=False)


def _read_fraction(form: str) -> OneNumber | None:
    found = _FRACTION.fullmatch(form)
    if found is None:
        return None
    top = int(found["top"] or found["Top"] or found["tOp"])
    bottom = int(found["bottom"] or found["Bottom"] or found["bOttom"])
    if bottom == 0:
        return None
    value = Fraction(top, bottom)
    return OneNumber(-value if found["sign"] == "-" else value, is_fraction=True)
