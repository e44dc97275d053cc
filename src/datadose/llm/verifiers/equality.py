"""Whether two answers are equal as mathematics: the math-verify library, with its false passes shut out.

math-verify reads LaTeX and compares formulas. It drops what it does not handle (units, the base of a numeral,
the rest of a text after the first number), rounds to six decimals and takes words for products of letters.
So it gets formulas only: numbers, choices, units, words, pairs and sets are compared here, part by part, and
what it finds equal is checked once more at fifty digits.

The module imports sympy; what needs it imports it late.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Eq, Expr, Float, MatrixBase, Pow, Rational, factorial, preorder_traversal, simplify
from sympy.core.relational import Relational

from datadose.llm.verifiers.forms import Form, read_form
from datadose.llm.verifiers.one_number import read_number

_PARSING = LatexExtractionConfig(
    boxed_match_priority=-1,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    ),
)
_DIGITS = 50
_LARGEST_POWER = 20_000
"""Exponent up to which a power is computed."""
_CLOSE, _CLOSE_TO_A_DECIMAL = 1e-30, 1e-6
"""Largest relative difference of equal values; of one that is written with decimals from an exact one."""


def can_be_read(answer: str) -> bool:
    """Whether ``answer`` is a number, a choice, words or a formula that math-verify reads, or several."""
    form = read_form(answer)
    if len(form.parts) > 1:
        return all(map(can_be_read, form.parts))
    known = form.choice or form.is_literal or read_number(form.value) is not None
    return bool(form.text) and (
        bool(known) or _parsed(form.value) is not None or _parsed(form.text) is not None
    )


def equal(answer: str, given: str) -> bool:
    """Whether ``given`` equals ``answer``, both final forms.

    Numbers are compared exactly (0.75 equals 3/4; 0.333 does not equal 1/3), choices by their letter, words
    as text, pairs and intervals part by part in their order, sets and lists in any order, everything else by
    math-verify. A unit that only one of the two has is ignored; two units must be the same. A numeral with a
    base, a time, or two numbers without an operator between them equals only what is written alike.
    """
    numbers = read_number(answer), read_number(given)
    if numbers[0] is not None and numbers[1] is not None:
        return Fraction(numbers[0].value) == Fraction(numbers[1].value)
    left, right = read_form(answer), read_form(given)
    if left.text == right.text:
        return bool(left.text)
    if left.choice or right.choice:
        return _equal_choices(left, right)
    return _equal_forms(left, right)


def _equal_forms(answer: Form, given: Form) -> bool:
    if answer.unit and given.unit and answer.unit != given.unit:
        return False
    if answer.brackets != given.brackets or len(answer.parts) != len(given.parts):
        plus_minus = any("\\pm" in form.text for form in (answer, given))
        return plus_minus and _equal_formulas(answer.text, given.text)
    if len(answer.parts) > 1:
        pairs = [[read_form(part) for part in form.parts] for form in (answer, given)]
        if answer.is_ordered:
            return all(itertools.starmap(_equal_parts, zip(*pairs, strict=True)))
        return _matched(*pairs)
    return _equal_atoms(answer, given)


def _equal_parts(answer: Form, given: Form) -> bool:
    return equal(answer.text, given.text)


def _matched(answers: Sequence[Form], given: Sequence[Form]) -> bool:
    """Whether each part has a partner of its own; equality is transitive, so that the first one will do."""
    left = list(given)
    for part in answers:
        found = next((place for place, other in enumerate(left) if _equal_parts(part, other)), None)
        if found is None:
            return False
        del left[found]
    return not left


def _equal_choices(answer: Form, given: Form) -> bool:
    """Letters decide where both have one; a letter alone has no value."""
    if not (answer.choice and given.choice):
        return False
    if answer.choice_text and given.choice_text:
        return answer.choice == given.choice and equal(answer.choice_text, given.choice_text)
    return answer.choice == given.choice


def _equal_atoms(answer: Form, given: Form) -> bool:
    left, right = answer.value, given.value
    if answer.name and given.name:
        if answer.name != given.name:
            return False
    elif answer.name or given.name:
        other = given if answer.name else answer
        if "=" in other.text:
            return False
    values = read_number(left), read_number(right)
    if values[0] is not None and values[1] is not None:
        first, second = Fraction(values[0].value), Fraction(values[1].value)
        # 50% is 50 in percent, or 0.5.
        in_percent = (answer.unit == "%") != (given.unit == "%")
        percent, plain = (first, second) if answer.unit == "%" else (second, first)
        return first == second or (in_percent and percent / 100 == plain)
    if answer.is_literal or given.is_literal:
        # The morning is no unit of 7:45.
        return answer.literal == given.literal and answer.unit == given.unit
    if left == right:
        return True
    return _equal_formulas(left, right)


def _equal_formulas(answer: str, given: str) -> bool:
    if _case_differs(answer, given):
        return False
    left, right = _parsed(answer), _parsed(given)
    if left is None or right is None:
        return False
    if _is_huge(left) or _is_huge(right):
        return bool(left == right)
    found = verify(left, right, float_rounding=6, numeric_precision=15, timeout_seconds=None)
    return bool(found) and not _refuted(left, right)


_COMMAND = re.compile(r"\\[A-Za-z]+")


def _case_differs(answer: str, given: str) -> bool:
    """Whether the letters are the same but for their case, which math-verify ignores."""
    letters = [{c for c in _COMMAND.sub(" ", text) if c.isalpha()} for text in (answer, given)]
    return letters[0] != letters[1] and {c.lower() for c in letters[0]} == {c.lower() for c in letters[1]}


@lru_cache(maxsize=256)
def _parsed(form: str) -> Any:
    """What math-verify reads in the whole of ``form``, None if it cannot."""
    # Both warn that they run without their own time limits; the process that calls them has one.
    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    found = parse(
        f"${form}$", extraction_config=[_PARSING], fallback_mode="no_fallback", parsing_timeout=None
    )
    return found[0] if found else None


def _is_huge(value: Any) -> bool:
    """Whether a power or factorial in ``value`` has more digits than can be computed."""
    for part in preorder_traversal(value):
        if isinstance(part, Pow | factorial):
            size = part.exp if isinstance(part, Pow) else part.args[0]
            if size.is_number and not abs(size.evalf(15)) <= _LARGEST_POWER:
                return True
    return False


def _refuted(left: Any, right: Any) -> bool:
    """Whether fifty digits show a difference that rounding hid."""
    if isinstance(left, MatrixBase) and isinstance(right, MatrixBase):
        return any(map(_refuted, left.flat(), right.flat()))
    if isinstance(left, Relational) and isinstance(right, Relational):
        return _other_relation(left, right)
    if isinstance(left, Expr) and isinstance(right, Expr):
        return _differs(left, right)
    return False


def _points(left: Any, right: Any) -> list[dict[Any, Any]]:
    """Two points away from integers, where equal formulas have equal values."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    steps = (Rational(3, 7), Rational(5, 11))
    return [{s: step + i * Rational(2, 13) + 1 for i, s in enumerate(symbols)} for step in steps]


def _differs(left: Expr, right: Expr) -> bool:
    decimal = left.has(Float) or right.has(Float)
    for point in _points(left, right):
        values = [value.doit().subs(point).evalf(_DIGITS) for value in (left, right)]
        if not all(value.is_number and value.is_finite for value in values):
            return False
        scale = max(abs(value) for value in values)
        allowed = (_CLOSE_TO_A_DECIMAL if decimal else _CLOSE) * scale
        if abs(values[0] - values[1]) > allowed:
            # Rounding of what cancels to 0 is no difference.
            return decimal or bool(simplify(left - right) != 0)
    return False


def _other_relation(left: Relational, right: Relational) -> bool:
    """Whether the two are no multiples of each other: their differences of sides have no fixed ratio."""
    sides = left.lhs - left.rhs, right.lhs - right.rhs
    ratios = []
    for point in _points(*sides):
        top, bottom = (side.doit().subs(point).evalf(_DIGITS) for side in sides)
        if not (top.is_number and bottom.is_number) or bottom == 0:
            return True
        ratios.append(top / bottom)
    if abs(ratios[0] - ratios[1]) > _CLOSE * abs(ratios[0]) or ratios[0] == 0:
        return True
    # A factor below 0 turns an inequality round, as writing it from the other side does.
    turned = left.func != right.func
    return not isinstance(left, Eq) and bool((ratios[0] < 0) != turned)
