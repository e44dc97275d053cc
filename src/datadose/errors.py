"""The one error that bad input raises: it names the field, the value and what is allowed."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray


class InputError(ValueError):
    """Bad input. ``str(error)`` is one line: field, value, what is allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        shown = " ".join(str(value).split()) or "''"
        if len(shown) > 300:
            shown = shown[:297] + "..."
        super().__init__(f"{field}: got {shown}; allowed: {allowed}")


class RunError(RuntimeError):
    """A run that could not finish for a reason outside the input (disk full, worker killed)."""


class InternalError(RuntimeError):
    """A computed number that cannot be right: a fault of this package, not of the input."""


def probability(name: str, value: float) -> float:
    """``value`` if it lies in [0, 1]; every probability that is worked out passes through here.

    Raises InternalError otherwise, NaN included: a number outside is wrong, and cutting it off hides that.
    """
    if not 0 <= value <= 1:
        raise InternalError(f"{name} came out as {value!r}, outside [0, 1]: please report this")
    return float(value)


def probabilities(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """:func:`probability` of a whole array."""
    outside = values[~((values >= 0) & (values <= 1))]
    if outside.size:
        probability(name, float(outside.flat[0]))
    return values


def reject(field: str, value: object, allowed: str) -> NoReturn:
    """Raise :class:`InputError`; reads as a sentence at the call site."""
    raise InputError(field, value, allowed)


def require_integer(field: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """``value`` as an int of at least ``minimum`` (and at most ``maximum``), else :class:`InputError`."""
    limit = f"an integer >= {minimum}" if maximum is None else f"an integer in [{minimum}, {maximum}]"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        reject(field, value, limit)
    number = int(value.__index__())
    if number < minimum or (maximum is not None and number > maximum):
        reject(field, value, limit)
    return number


def require_number(field: str, value: object, low: float, high: float, *, open_ends: bool = False) -> float:
    """``value`` as a finite float inside the interval, else :class:`InputError`."""
    brackets = "()" if open_ends else "[]"
    limit = f"a number in {brackets[0]}{low:g}, {high:g}{brackets[1]}"
    if isinstance(value, (bool, str)):
        reject(field, value, limit)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        reject(field, value, limit)
    inside = low < number < high if open_ends else low <= number <= high
    if not inside or number in (float("inf"), float("-inf")):
        reject(field, value, limit)
    return number
