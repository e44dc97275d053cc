"""Optional libraries: one clear error where one is missing."""

from __future__ import annotations

import importlib.util

from datadose.errors import reject


def require_extra(extra: str, *modules: str) -> None:
    """InputError naming the ``pip install`` that brings the first of ``modules`` that is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            reject("module", f"no {module}", f"{module}, which pip install 'datadose[{extra}]' installs")
