"""Old names of what has moved or has another name now: they work for one release, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def renamed(module: str, homes: dict[str, str], depth: int = 2) -> Callable[[str], Any]:
    """The ``__getattr__`` of ``module`` that serves old names, each with a DeprecationWarning.

    Args:
        module: ``__name__`` of the module that had the names.
        homes: the full name of what each old name is now, such as ``{"Rl": "package.rl.PolicyGradient"}``.
        depth: 2 if it is that ``__getattr__`` itself, 3 if that calls it: the warning is the reader's.
    """

    def serve(name: str) -> Any:
        if name not in homes:
            msg = f"module {module!r} has no attribute {name!r}"
            raise AttributeError(msg)
        warnings.warn(f"{module}.{name} is now {homes[name]}", DeprecationWarning, stacklevel=depth)
        home, _, new = homes[name].rpartition(".")
        return getattr(import_module(home), new)

    return serve


_MOVED = {
    "datadose.curves": "datadose.simulation.curves",
    "datadose.llm.batching": "datadose.llm.language_model",
    "datadose.mixtures": "datadose.simulation.mixtures",
    "datadose.pipeline": "datadose.stages.pipeline",
    "datadose.report": "datadose.studies.report",
    "datadose.reproduction": "datadose.studies.reproduce",
}


class MovedModules:
    """Finds the documented modules that stand elsewhere now, each with a DeprecationWarning."""

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        """The place of the old name ``fullname``, if it is one."""
        # A base class from importlib.abc would double the time of `import datadose`.
        return ModuleSpec(fullname, self) if fullname in _MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module where it is now."""
        new = _MOVED[spec.name]
        warnings.warn(f"{spec.name} is now {new}", DeprecationWarning, stacklevel=2)
        module = import_module(new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It ran when it was imported; its own specification is put back."""
        module.__spec__ = self._spec
