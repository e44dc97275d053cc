"""datadose: which data, how much of it, at which stage.

The theory of data for pre- and post-training reasoning models (Javanmard, Mirzasoleiman, Mirrokni, ICML 2026,
arXiv 2603.01293), exact and runnable. Names are loaded on first use, so `import datadose` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from datadose._version import __version__
from datadose.deprecation import MovedModules, renamed

if TYPE_CHECKING:
    from datadose import models, stages, theory
    from datadose.error_curve import ErrorCurve
    from datadose.errors import InputError
    from datadose.planner import Costs, Plan, PoolSource, PostTraining, plan
    from datadose.shift import Shift
    from datadose.simulation.curves import SimulatedCurve, sft_error_curve, simulate_error
    from datadose.stages.config import TrainConfig
    from datadose.stages.pipeline import run_pipeline
    from datadose.studies.reproduce import reproduce
    from datadose.theory.asymptotics import mixture_error, predict_curve, predict_error
    from datadose.theory.equivalent import PeakError
    from datadose.theory.source import Source
    from datadose.workers import Workers

_HOMES = {
    "Costs": "datadose.planner",
    "ErrorCurve": "datadose.error_curve",
    "InputError": "datadose.errors",
    "PeakError": "datadose.theory.equivalent",
    "Plan": "datadose.planner",
    "PoolSource": "datadose.planner",
    "PostTraining": "datadose.planner",
    "Shift": "datadose.shift",
    "SimulatedCurve": "datadose.simulation.curves",
    "Source": "datadose.theory.source",
    "TrainConfig": "datadose.stages.config",
    "Workers": "datadose.workers",
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
_renamed = renamed(__name__, {"SimulatedError": f"{__name__}.SimulatedCurve"}, depth=3)

__all__ = [
    "Costs",
    "ErrorCurve",
    "InputError",
    "PeakError",
    "Plan",
    "PoolSource",
    "PostTraining",
    "Shift",
    "SimulatedCurve",
    "Source",
    "TrainConfig",
    "Workers",
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
    return _renamed(name)


def __dir__() -> list[str]:
    return sorted(__all__)
