"""The numbers behind the explorer: `datadose`'s own theory and planner at a setting, remembered.

Nothing here draws and no formula stands here. Errors are post-test errors / d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from threading import Lock
from typing import Literal, TypeVar

import numpy as np

from datadose.covariance import Array
from datadose.errors import InternalError
from datadose.explore.setting import WEIGHTS, Setting
from datadose.planner import (
    BetterAllocation,
    Dose,
    ErrorModel,
    StageChoice,
    better_allocation,
    choose_stage,
    dose_of,
    stage_problem,
)
from datadose.planner.dose import COARSE
from datadose.planner.dynamics import (
    Ground,
    outcome,
    outcome_request,
    sft,
    start_curvature,
)
from datadose.planner.stage_choice import error_is_known
from datadose.theory.equivalent import Columns
from datadose.theory.outcome import adaptation_radius, rollout_radius
from datadose.theory.post_test import hardness
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source

T = TypeVar("T")
_DRAGGED = ("levels",)
STAGES = ("chain_steps", "steps", "reward", "tolerance")
_STOPPED = ("time", *WEIGHTS)
"""Fields that only those functions look at that say so."""
SFT_IGNORES = (*_DRAGGED, *STAGES, *_STOPPED)
"""Fields that the error after SFT on the paper's data does not depend on."""
_DATA = ("interference", "max_prompts")


def remembered(
    *ignored: str, uses: Sequence[str] = ()
) -> Callable[[Callable[[Setting], T]], Callable[[Setting], T]]:
    """Remember a function of a setting that does not look at the fields ``ignored``.

    Neither does it look at the training time and at the weights of the pool, unless ``uses`` names them.

    Requests that come at once share one computation: the second waits for the first. (A function asks only
    for those above it, so that waiting never goes in a circle.)
    """

    unseen = {*ignored, *_STOPPED} - {*uses}

    def decorate(function: Callable[[Setting], T]) -> Callable[[Setting], T]:
        kept, busy = lru_cache(maxsize=128)(function), Lock()

        @wraps(function)
        def look_up(setting: Setting) -> T:
            with busy:
                return kept(setting.without(*unseen))

        return look_up

    return decorate


@remembered(*SFT_IGNORES)
def error_model(setting: Setting) -> ErrorModel:
    """The exact error of V* as a function of the data, for one thinking step."""
    shift = setting.shift()
    V0 = pretrained_operator(shift.sigma0, setting.length)
    return ErrorModel(V0, shift.eta, shift.target, setting.length)


@remembered(*SFT_IGNORES)
def dose(setting: Setting) -> Dose:
    """The best number of prompts of the paper's data, and the curve around it."""
    return dose_of(error_model(setting), setting.shift().data, setting.length, setting.max_prompts)


@remembered(*STAGES)
def dragged_dose(setting: Setting) -> Dose:
    """The same for the dragged data, on fewer points: it is drawn while a hand moves."""
    if not setting.exponents().any():
        return dose(setting)
    data = setting.dragged_data()
    return dose_of(error_model(setting), data, setting.length, setting.max_prompts, COARSE)


@remembered(*SFT_IGNORES)
def better(setting: Setting) -> BetterAllocation:
    """The planner's allocation at the cost of the paper's."""
    model = error_model(setting)
    found = better_allocation(setting.shift(), model, setting.length, setting.max_prompts, dose(setting))
    if found is None:
        raise InternalError("the paper's allocation has data on the shift: please report this")
    return found


@remembered(*SFT_IGNORES)
def better_dose(setting: Setting) -> Dose:
    """The dose of the planner's allocation, with its curve."""
    data = better(setting).allocation
    return dose_of(error_model(setting), data, setting.length, setting.max_prompts, COARSE)


@remembered(*SFT_IGNORES, *_DATA)
def radius(setting: Setting) -> float:
    """rho(Gamma0^-1 Delta): below 1 the shift is incremental, above it is novel."""
    shift = setting.shift()
    return adaptation_radius(shift.sigma0, shift.delta, setting.length)


@remembered(*_DRAGGED)
def ground(setting: Setting) -> tuple[Ground, list[Columns]]:
    """What all stages share, and the columns of SFT at its best dose."""
    shift, model = setting.shift(), replace(error_model(setting), chain_steps=setting.chain_steps)
    columns = model.columns(Source(shift.data, setting.length, dose(setting).prompts))
    return stage_problem(shift, model, [columns], setting.training())


@remembered(*_DRAGGED)
def stages(setting: Setting) -> StageChoice:
    """The planner's choice of stage; RL has as many target prompts as SFT may have prompts."""
    return choose_stage(*ground(setting), setting.max_prompts, radius(setting))


def hardness_by_level(setting: Setting, covariance: Array) -> Array:
    """How hard a direction of each level is for the pretrained model (section 5.1, infinite prompts).

    ``covariance`` is the spectrum (d,) of data or of the target. One value for each of :func:`level_places`.
    """
    V0 = error_model(setting).V0
    return np.array([hardness(covariance[[i]], V0[[i]]) for i in level_places(setting)])


def level_places(setting: Setting) -> list[int]:
    """The index of one direction of each level, then of one outside the shift if there is one."""
    return setting.level_edges()[:-1]


@dataclass(frozen=True)
class StabilityMap:
    """The largest stable learning rate of outcome supervision at the pretrained model, over like shifts.

    For many long prompts; on the prompts that there are it is the planner's ``StageChoice.stable_step``.
    """

    radii: Array
    """rho(Gamma0^-1 Delta), shape (R,): Delta scaled as a whole."""
    chain_steps: Array
    """k, shape (K,)."""
    stable_step: Array
    """2 / largest curvature of L_OS for long prompts, shape (K, R)."""
    growth: Array
    """rho(I + V0 Sigma), shape (R,): above 1 errors grow along the chain."""
    radius: float
    here: float
    """The stable step of the current shift and k, for long prompts like the others."""


@remembered(*_DRAGGED, *_DATA, "steps", "reward", "tolerance")
def stability_map(setting: Setting) -> StabilityMap:
    """The largest stable step over rho(Gamma0^-1 Delta) in [0.1, 10] and k in 1..8."""
    shift, places = setting.shift(), level_places(setting)
    # Directions of one level share their curvature: one of each is enough for the largest.
    V0 = error_model(setting).V0[places]
    sigma0, delta, own = shift.sigma0[places], shift.delta[places], radius(setting)
    radii, steps = np.geomspace(0.1, 10, 41), np.arange(1.0, 9.0)
    targets = [sigma0 + R / own * delta for R in radii]
    stable = [[2 / start_curvature(V0, target, int(k)) for target in targets] for k in steps]
    growth = np.array([rollout_radius(V0, target) for target in targets])
    here = 2 / start_curvature(V0, sigma0 + delta, setting.chain_steps)
    return StabilityMap(radii, steps, np.array(stable), growth, own, here)


@dataclass(frozen=True)
class LearningCurve:
    """Predicted post-test error / d after each number of optimiser steps."""

    stage: Literal["sft", "rl"]
    label: str
    steps: tuple[int, ...]
    errors: tuple[float, ...]


@remembered(*_DRAGGED, "reward", "tolerance")
def learning_curves(setting: Setting) -> tuple[LearningCurve, ...]:
    """SFT at its best dose, and outcome supervision with one thinking step: the planner's dynamics.

    RL with more thinking steps is not forecast (see ``Outlook``). Neither is SFT whose error is far from its
    limit at the end.
    """
    counts = tuple(int(T) for T in np.unique(np.geomspace(1, max(10, setting.steps), 14).round()))
    shared, columns = ground(setting)
    own = replace(shared, training=replace(shared.training, chain_steps=1))
    found = []
    if dose(setting).prompts:
        stage = sft(shared, columns)
        if error_is_known(shared.correction(stage.after(counts[-1]).last)):
            errors = tuple(stage.errors(counts))
            found.append(LearningCurve("sft", f"SFT on {dose(setting).prompts} prompts", counts, errors))
    request = outcome_request(own.model, setting.max_prompts)
    errors = tuple(outcome(own, own.start, request).errors(counts))
    found.append(LearningCurve("rl", "RL, k = 1", counts, errors))
    return tuple(found)
