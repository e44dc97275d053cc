"""What a command turns into one line: bad input, a run that could not finish, a request to stop."""

from __future__ import annotations

import difflib
import importlib.util
import re
import signal
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from datadose.printing import shortened


class InputError(ValueError):
    """A value that a function or a command cannot use; ``str(error)`` says so in one line.

    Args:
        field: what the value was given for, such as ``prompts``.
        value: what was given.
        allowed: what is allowed in its place, in words.
        hint: what the value may mean, such as "did you mean ...?"; it follows the value in the line.
        said: the sentence on the field in place of "got VALUE; allowed: ALLOWED", where there is no value, as
            of a key that is missing.

    Example:
        >>> from datadose import InputError, Shift
        >>> try:
        ...     Shift.two_block(40, 20, 0.1, eta=2.5)
        ... except InputError as error:
        ...     print(error)
        eta: got 2.5; allowed: a number in (0, 2)
    """

    def __init__(self, field: str, value: object, allowed: str, hint: str = "", said: str = "") -> None:
        self.field, self.value, self.allowed, self.hint, self.said = field, value, allowed, hint, said
        shown = shortened(" ".join(str(value).split()) or "''", 300) + (f" ({hint})" if hint else "")
        super().__init__(f"{field}: {said or f'got {shown}; allowed: {allowed}'}")

    def __reduce__(self) -> tuple[type[InputError], tuple[object, ...]]:
        # Exceptions are rebuilt from their message by default; one from a worker process needs its parts.
        return type(self), (self.field, self.value, self.allowed, self.hint, self.said)

    def below(self, place: str) -> InputError:
        """The same error of a field that is part of ``place``."""
        return InputError(f"{place}.{self.field}", self.value, self.allowed, self.hint, self.said)


LARGEST_COUNT = 10**9
"""The largest number of prompts, lengths, steps and seeds: all are exact as decimal numbers."""


class RunError(RuntimeError):
    """A run that could not finish for a reason outside the input (disk full, worker killed).

    ``str(error)`` is one line that describes what happened. How to continue is for the command to add.
    """


class Stopped(KeyboardInterrupt):
    """A signal requested the end of the process; it is handled like Ctrl-C."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class InternalError(RuntimeError):
    """A computed number that cannot be right: a fault of this package, not of the input."""


def probability(name: str, value: float) -> float:
    """``value`` if it lies in [0, 1]; every probability that is computed passes through here.

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


def reject(field: str, value: object, allowed: str, *, hint: str = "", said: str = "") -> NoReturn:
    """Raise :class:`InputError`; reads as a sentence at the call site."""
    raise InputError(field, value, allowed, hint, said)


def close_match(name: object, known: Iterable[str]) -> str:
    """ "did you mean X?" with the one of the ``known`` names that is written most like ``name``; else ""."""
    close = difflib.get_close_matches(str(name)[:100], list(known), 1)
    return f"did you mean {close[0]}?" if close else ""


def require_choice(field: str, value: object, choices: Iterable[str]) -> None:
    """InputError where ``value`` is none of ``choices``, with the one that is written most like it."""
    choices = list(choices)
    if value not in choices:
        reject(field, value, ", ".join(choices), hint=close_match(value, choices))


_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20}"


def number_hint(value: object, high: float = float("inf"), *, whole: bool = False) -> str:
    """What a ``value`` that is no (``whole``) number up to ``high`` may mean: "20%", 50 for a share."""
    if isinstance(value, str):
        return _number_in_text(value.strip(), high, whole)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and high == 1 and 1 < value <= 100:
        return f"a share: write {value / 100:g} for {value:g} percent"
    return ""


def _number_in_text(text: str, high: float, whole: bool) -> str:
    """The number that a text may mean: thousands (1,000), in quotes, a decimal comma (0,2), a percent."""
    if re.fullmatch(r"[1-9][0-9]{0,2}(,[0-9]{3})+", text):
        return f"write {text.replace(',', '')}"
    if re.fullmatch(r"[0-9]{1,20}" if whole else _NUMBER, text):
        return "a text; write the number without quotes"
    if whole:
        return ""
    if re.fullmatch(r"[0-9]{1,20},[0-9]{1,20}", text):
        return f"write {text.replace(',', '.')}"
    found = re.fullmatch(rf"({_NUMBER})\s*%", text)
    share = float(found[1]) / 100 if found else float("inf")
    return f"write {share:g}" if share <= min(high, 1) else ""


def listed(value: Any) -> list[Any]:
    """The values of a sequence; a text, a number or whatever else is no sequence is a list of one."""
    return [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)


def require_kind(field: str, value: object, kind: type, example: str) -> None:
    """InputError where ``value`` is no ``kind``; ``example`` makes one."""
    if not isinstance(value, kind):
        reject(field, f"a {type(value).__name__}", f"a {kind.__name__}, such as {example}")


def require_extra(extra: str, *modules: str) -> None:
    """InputError naming the ``pip install`` that brings the first of ``modules`` that is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            allowed = f"pip install 'datadose[{extra}]'"
            reject(module, "none", allowed, said=f"is needed here and not installed: {allowed}")


def _shown(number: int) -> object:
    """``number``, or its size where it has more digits than Python prints."""
    return number if abs(number) < 10**300 else f"an integer of {number.bit_length()} bits"


def require_integer(field: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """``value`` as an int of at least ``minimum`` (and at most ``maximum``), else :class:`InputError`.

    Without a maximum of its own a number may be as large as 2^53: larger ones are not exact as floats.
    """
    limit = f"an integer >= {minimum}" if maximum is None else f"an integer in [{minimum}, {maximum}]"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        reject(field, value, limit)
    number = int(value.__index__())
    if number < minimum or (maximum is not None and number > maximum):
        reject(field, _shown(number), limit)
    if number > 2**53:
        reject(field, _shown(number), f"an integer in [{minimum}, 2^53]")
    return number


def require_number(field: str, value: object, low: float, high: float, *, open_ends: bool = False) -> float:
    """``value`` as a finite float inside the interval, else :class:`InputError`."""
    left = "(" if open_ends or low == float("-inf") else "["
    right = ")" if open_ends or high == float("inf") else "]"
    limit = f"a number in {left}{low:g}, {high:g}{right}"
    if isinstance(value, (bool, str)):
        reject(field, value, limit, hint=number_hint(value, high))
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        reject(field, _shown(value) if isinstance(value, int) else value, limit)
    inside = low < number < high if open_ends else low <= number <= high
    if not inside or number in (float("inf"), float("-inf")):
        reject(field, value, limit, hint=number_hint(value, high))
    return number
