"""Enforces the shapes that annotations state; all other types are left to the type checker."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from types import CodeType
from typing import Any, get_args

import jaxtyping
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
FIRST = 100
"""How many calls of each function a test checks: a check takes longer than most formulas."""
calls: Counter[CodeType] = Counter()
"""Of each function in the test that runs, and how often one inside another was made."""
_unshaped: set[CodeType] = set()
_jaxtyped = jaxtyping.jaxtyped


def enforce_shapes() -> None:
    """Check the modules of those rooms that are imported from now on."""
    # The name that jaxtyping's hook writes above every function and class. Its own would wrap those without a
    # shape too, and compile a function inside another each time that it is made: minutes of the tests.
    jaxtyping.jaxtyped = _first_calls
    jaxtyping.install_import_hook(CHECKED, "helpers.shape_checks.shapes_only")


def _first_calls(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    """``jaxtyped``, for functions and classes with shapes, and for FIRST calls of each in a test."""

    def decorate(found: Any) -> Any:
        is_class = isinstance(found, type)
        if is_class and not dataclasses.is_dataclass(found):
            return found
        plain = found.__init__ if is_class else found
        code, shaped = plain.__code__, False
        calls[code] += 1
        if code in _unshaped or calls[code] > FIRST:
            return found

        def noting(function: Callable[..., Any]) -> Callable[..., Any]:
            nonlocal shaped
            checked = typechecker(function)
            shaped = shaped or checked is not function
            return checked

        checked = _jaxtyped(plain, typechecker=noting)
        if not shaped:
            _unshaped.add(code)
            return found

        @functools.wraps(checked)
        def either(*values: Any, **options: Any) -> Any:
            calls[code] += 1
            return (checked if calls[code] <= FIRST else plain)(*values, **options)

        if is_class:
            found.__init__ = either
        return found if is_class else either

    return decorate


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
