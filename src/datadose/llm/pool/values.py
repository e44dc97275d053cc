"""What of a file's values can be written as JSON: the rest becomes text or null, and is noticed."""

from __future__ import annotations

import base64
import json
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from datadose.llm.pool.row import Columns

DEEPEST = 100
"""Lists and objects inside each other, at most: readers and writers of JSON give up at some depth."""

WRITABLE = f"values that JSON has (finite numbers, whole characters, at most {DEEPEST} levels)"


def make_writable(columns: Columns) -> dict[str, str]:
    """Replace in place the values that JSON cannot hold, and return a description of each by column.

    Dates and times become ISO 8601 text, bytes become base64 text, and numbers without a finite value become
    null. A value with a broken character or too many levels becomes null as a whole. A column whose name has
    a broken character is removed.
    """
    if _trouble(columns) is None:
        return {}
    found: dict[str, str] = {}
    for name, value in list(columns.items()):
        if (trouble := _trouble([name, value])) is None:
            continue
        if not isinstance(name, str) or _trouble(name):
            found[ascii(name).strip("'")] = trouble
            del columns[name]
            continue
        found[name] = trouble
        plain = None if _too_deep([value]) else _as_json(value)
        columns[name] = None if _trouble([name, plain]) else plain
    return found


def kind_of(value: Any) -> str:
    """The kind of a column's value: whole and decimal numbers are one."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return "number" if number else type(value).__name__


def without_nulls(value: Any) -> Any:
    """``value`` without the keys of null: where rows differ in their keys, Arrow fills in the others'."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _as_json(value: Any) -> Any:
    """The nearest value of JSON."""
    if isinstance(value, dict):
        return {str(name): _as_json(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(inner) for inner in value]
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((datetime, date, time, timedelta), "a date or a time"),
    (bytes, "bytes"),
    (Decimal, "a decimal number"),
)


def _trouble(value: Any) -> str | None:
    """Why ``value`` cannot be written as JSON, None if it can."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_refuse)
        text.encode()
    except UnicodeEncodeError:
        return "half a character (a lone surrogate)"
    except RecursionError:
        return "too many levels"
    except ValueError:
        return "a number without a finite value"
    except TypeError as error:
        return str(error)
    # Most rows hold fewer brackets than levels are allowed, in their texts and out of them.
    return "too many levels" if text.count("[") + text.count("{") > DEEPEST and _too_deep(value) else None


def _refuse(value: Any) -> Any:
    name = next((name for kind, name in _NAMES if isinstance(value, kind)), f"a value of {type(value)}")
    raise TypeError(f"{name}, which JSON does not have")


def _too_deep(value: Any) -> bool:
    """Whether more than DEEPEST lists and objects are inside each other."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [x for x in level if isinstance(x, (dict, list))]
        level = [inner for x in level for inner in (x.values() if isinstance(x, dict) else x)]
    return any(isinstance(x, (dict, list)) for x in level)
