"""Versions that numbers may depend on, for the records beside them and for the keys of kept results."""

from __future__ import annotations

import platform
from importlib import metadata

from datadose._version import __version__

_NUMERICAL = ("numpy", "scipy", "torch")
_LANGUAGE_MODELS = ("transformers", "tokenizers", "peft", "trl", "accelerate", "datasets", "reasoning-gym")


def versions() -> dict[str, str]:
    """Package, Python, the libraries that are installed, and machine kind."""
    return {
        "datadose": __version__,
        "python": platform.python_version(),
        **_installed(*_NUMERICAL, "joblib", "pandas", "matplotlib"),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def numerical_versions() -> dict[str, str]:
    """The libraries whose version may change a number, and the machine kind."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        **_installed(*_NUMERICAL, "pandas", *_LANGUAGE_MODELS),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _installed(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
