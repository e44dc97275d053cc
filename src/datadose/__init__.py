"""datadose: which data, how much of it, at which stage.

The theory of data for pre- and post-training reasoning models (Javanmard, Mirzasoleiman, Mirrokni, ICML 2026,
arXiv 2603.01293), exact and runnable. Names are loaded on first use, so `import datadose` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from datadose._version import __version__
from datadose.deprecation import MovedModules

if TYPE_CHECKING:
    from datadose import models, stages, theory
    from datadose.errors import InputError
    from datadose.planner import PoolSource, PostTraining, plan
    from datadose.shift import Shift
    from datadose.simulation.curves import SimulatedError, sft_error_curve, simulate_error
    from datadose.stages.pipeline import run_pipeline
    from datadose.studies.reproduce import reproduce
    from datadose.theory.asymptotics import mixture_error, predict_curve, predict_error
    from datadose.theory.source import Source

_HOMES = {
    "InputError": "datadose.errors",
    "Shift": "datadose.shift",
    "SimulatedError": "datadose.simulation.curves",
    "Source": "datadose.theory.source",
    "PoolSource": "datadose.planner",
    "PostTraining": "datadose.planner",
    "mixture_error": "datadose.theory.asymptotics",
    "plan": "datadose.planner",
    "predict_curve": "datadose.theory.asymptotics",
    "predict_error": "datadose.theory.asymptotics",
    "reproduce": "datadose.studies.reproduce",
    "run_pipeline": "datadose.stages.pipeline",
    "sft_error_curve": "datadose.simulation.curves",
    "simulate_error": "datadose.simulation.curves",
}
_MODULES = ("models", "stages", "theory")

__all__ = [
    "InputError",
    "PoolSource",
    "PostTraining",
    "Shift",
    "SimulatedError",
    "Source",
    "__version__",
    "mixture_error",
    "models",
    "plan",
    "predict_curve",
    "predict_error",
    "reproduce",
    "run_pipeline",
    "sft_error_curve",
    "simulate_error",
    "stages",
    "theory",
]

sys.meta_path.append(MovedModules())


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"datadose.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    msg = f"module 'datadose' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
