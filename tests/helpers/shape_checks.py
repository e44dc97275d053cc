"""Enforces the shapes that annotations state; all other types are left to the type checker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray

CHECKED = [
    "datadose.theory",
    "datadose.simulation",
    "datadose.models",
    "datadose.stages",
    "datadose.prompts",
    "datadose.shift",
]
"""The rooms whose annotations are enforced under the tests."""


def shapes_only(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, which refuses arrays of other shapes than its annotations state."""
    hints = function.__annotations__
    shaped = {name: hint for name, hint in hints.items() if _has_shape(hint)}
    function.__annotations__ = shaped
    return beartype(function) if shaped else function


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(_has_shape(part) for part in get_args(hint))
