"""datadose: which data, how much of it, at which stage.

The theory of data for pre- and post-training reasoning models (Javanmard, Mirzasoleiman, Mirrokni, ICML 2026,
arXiv 2603.01293), exact and runnable. Names are loaded on first use, so `import datadose` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datadose._version import __version__

if TYPE_CHECKING:
    from datadose import models, stages, theory
    from datadose.curves import SimulatedError, sft_error_curve, simulate_error
    from datadose.errors import InputError
    from datadose.pipeline import run_pipeline
    from datadose.planner import PoolSource, PostTraining, plan
    from datadose.reproduction import reproduce
    from datadose.shift import Shift
    from datadose.theory.asymptotics import Source, mixture_error, predict_curve, predict_error

_HOMES = {
    "InputError": "datadose.errors",
    "Shift": "datadose.shift",
    "SimulatedError": "datadose.curves",
    "Source": "datadose.theory.asymptotics",
    "PoolSource": "datadose.planner",
    "PostTraining": "datadose.planner",
    "mixture_error": "datadose.theory.asymptotics",
    "plan": "datadose.planner",
    "predict_curve": "datadose.theory.asymptotics",
    "predict_error": "datadose.theory.asymptotics",
    "reproduce": "datadose.reproduction",
    "run_pipeline": "datadose.pipeline",
    "sft_error_curve": "datadose.curves",
    "simulate_error": "datadose.curves",
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


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"datadose.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    msg = f"module 'datadose' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
