"""Old names of what has moved or has another name now: they work for one release, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def renamed(module: str, homes: dict[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of ``module`` that serves old names, each with a DeprecationWarning.

    Args:
        module: ``__name__`` of the module that had the names.
        homes: the full name of what each old name is now, such as ``{"Rl": "package.rl.PolicyGradient"}``.
    """

    def serve(name: str) -> Any:
        if name not in homes:
            msg = f"module {module!r} has no attribute {name!r}"
            raise AttributeError(msg)
        warnings.warn(f"{module}.{name} is now {homes[name]}", DeprecationWarning, stacklevel=2)
        home, _, new = homes[name].rpartition(".")
        return getattr(import_module(home), new)

    return serve
