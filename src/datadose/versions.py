"""Versions that numbers may depend on, for the records beside them and for the keys of kept results."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata

from datadose._version import __version__

_LANGUAGE_MODELS = ("transformers", "tokenizers", "peft", "trl", "accelerate", "datasets", "reasoning-gym")
_MACHINE = f"{platform.system()} {platform.machine()}"


def versions(*more: str) -> dict[str, str]:
    """Package, Python, the libraries that are installed, machine kind, and ``more`` libraries."""
    return {
        "datadose": __version__,
        "python": platform.python_version(),
        **_installed("numpy", "scipy", "torch", "joblib", "pandas", "matplotlib"),
        "machine": _MACHINE,
        **_installed(*more),
    }


def library_versions(imported: Iterable[str]) -> dict[str, str]:
    """What besides its code a number may depend on.

    Returns the versions of the libraries whose modules are ``imported`` (top-level names) and of those that
    these call, the Python version and the machine kind.
    """
    # Annotations are of jaxtyping under the tests alone, and no number depends on them.
    names = {name for name in imported if name not in sys.stdlib_module_names and name != "jaxtyping"}
    if not names.isdisjoint(("scipy", "pandas", "torch")):
        names.add("numpy")
    if not names.isdisjoint(_LANGUAGE_MODELS):
        names.update(_LANGUAGE_MODELS)
    found = _installed(*names)
    if unknown := names - found.keys():
        # Slow, for the few that are distributed under another name than they are imported by.
        found |= _installed(*(one for name in unknown for one in _distributions().get(name, ())))
    return {
        **dict(sorted(found.items())),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": _MACHINE,
    }


_distributions = cache(metadata.packages_distributions)


def _installed(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
