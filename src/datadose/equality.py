"""Equality by value for records that hold arrays, whose own ``==`` has no single answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

import numpy as np


class ByValue:
    """A dataclass with ``eq=False`` that equals another of its kind if all their fields are the same."""

    def __eq__(self, other: object) -> bool:
        return same(self, other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        values = (getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]
        return hash((type(self), *(value for value in values if isinstance(value, (str, int, float)))))


def same(one: object, other: object) -> bool:
    """Whether two values are equal, arrays and what holds them included; NaN equals NaN inside an array."""
    if one is other:
        return True
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        return both and np.array_equal(one, other, equal_nan=True)  # type: ignore[arg-type]
    if is_dataclass(one) and type(one) is type(other):
        names = (field.name for field in fields(one) if field.compare)
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and type(one) is type(other):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
