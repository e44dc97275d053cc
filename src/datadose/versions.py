"""Versions that numbers may depend on, for the records beside them."""

from __future__ import annotations

import platform
from importlib import metadata

from datadose._version import __version__


def versions() -> dict[str, str]:
    """Package, Python, libraries and machine kind."""
    packages = ("numpy", "scipy", "joblib", "pandas", "matplotlib", "torch")
    return {
        "datadose": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "machine": f"{platform.system()} {platform.machine()}",
    }
