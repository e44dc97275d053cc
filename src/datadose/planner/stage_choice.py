"""Which stage: none, SFT, outcome supervision / RL, or SFT then RL, from the forecast of each within T steps.

All four are forecast, which gives their order; a number is given only where real training runs on shifts that
nothing was built on was within a fifth of it, and is withheld, with a reason, elsewhere. Both the order
and the numbers are judged in docs/derivations/planner.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeAlias

import numpy as np

from datadose.covariance import is_spectrum, range_basis, range_projector, spectral_basis, transpose
from datadose.planner.dynamics import (
    Ground,
    PostTraining,
    Reward,
    State,
    after_outcome,
    outcome,
    outcome_request,
    sft,
)
from datadose.planner.error_model import ErrorModel
from datadose.shift import Shift
from datadose.theory.equivalent import Columns
from datadose.theory.weighted_test import WeightedTest

Stage: TypeAlias = Literal["none", "sft", "rl", "sft then rl"]

ENOUGH_PASSES = 1e4
"""k^2 times the passing samples that RL with a verifiable reward needs to get halfway to what it can reach.

Read off development runs (docs/derivations/planner.md), not derived.
"""
_NO_SIGNAL = 0.05
_SETTLED = 0.05
WORTH_A_STAGE = 0.02
"""A stage must improve on a simpler choice by this fraction of its error, or by this pass rate."""


@dataclass(frozen=True)
class Outlook:
    """The forecast for one choice of stages, as far as it is known."""

    stage: Stage
    demonstrations: int
    outcome_prompts: int
    error: float | None
    """Predicted one-step post-test error / d; None where no forecast of it is reliable."""
    pass_rate: float | None
    """Predicted pass rate of the verifiable reward on the target's prompts, or None likewise."""
    has_signal: bool
    """Whether its RL stage, if it has one, gets enough passing samples to learn (always for dense)."""
    note: str | None = None
    """Why a number is withheld; None if none is."""

    @classmethod
    def of(cls, forecast: Forecast, training: PostTraining) -> Outlook:
        """The forecast without the numbers that are not reliable under this ``training``.

        RL is shown where a theorem covers it, one thinking step with a dense reward, and where a verifiable
        reward is paid too rarely to move the model.
        """
        told = cls(*(getattr(forecast, field.name) for field in fields(cls)))
        if forecast.note is not None:
            return replace(told, error=None, pass_rate=None)
        if forecast.stage in ("rl", "sft then rl"):
            if training.reward == "verifiable" and forecast.has_signal:
                return replace(told, error=None, pass_rate=None, note=_PAID)
            if training.reward == "dense" and training.chain_steps > 1:
                return replace(told, error=None, pass_rate=None, note=_LONG_CHAINS)
        if not error_is_known(forecast.correction):
            return replace(told, error=None, note=_FEW_DIRECTIONS)
        return told


@dataclass(frozen=True)
class Forecast(Outlook):
    """The forecast for one choice of stages by the formulas, whether or not they are known to hold there."""

    error: float
    pass_rate: float
    correction: float = np.nan
    """The O(1/d) correction that the error leaves out, over the error (``Ground.correction``)."""

    @classmethod
    def diverged(cls, stage: Stage, demonstrations: int, outcome_prompts: int) -> Forecast:
        """The forecast for a ``stage`` whose learning rate is not stable: an infinite error."""
        return cls(stage, demonstrations, outcome_prompts, np.inf, 0.0, True, _UNSTABLE)


def error_is_known(correction: float) -> bool:
    """Whether an error with this relative O(1/d) correction is reported: the next order is about as large."""
    return abs(correction) <= _LARGE_CORRECTION


_LARGE_CORRECTION = 0.1
_LONG_CHAINS = (
    "where RL with more than one thinking step ends is not forecast: no formula is known to hold for it on "
    "prompts of finite length"
)
_PAID = (
    "where RL ends that a verifiable reward moves is not forecast: it depends on the course of training, and "
    "directions that the reward does not judge drift"
)
_UNSTABLE = (
    "the stage diverges: the learning rate is at or above the largest stable one on these prompts, in the "
    "limit of many directions"
)
_FEW_DIRECTIONS = (
    "the error is not forecast: with so few directions, or so nearly as many prompts as directions, its mean "
    "is far from the limit that is known"
)


@dataclass(frozen=True)
class StageChoice:
    """The recommended stage, the sentence with the reason, and the four outlooks."""

    stage: Stage | None
    """The recommended stage; None where it is not known which is best (:func:`order_is_known`)."""
    reason: str
    spectral_radius: float
    """rho(Gamma0^{-1} Delta)."""
    regime: Literal["incremental", "novel"]
    stable_step: float | None
    """Largest stable step of gradient descent on the outcome loss L_OS at the pretrained model.

    None for more than one thinking step: a few prompts whose S is far from Sigma set it, so that it can be a
    thousandth of the long-prompt limit. ``datadose.theory.outcome.largest_stable_step`` has it for prompts
    at hand."""
    steps_needed: int | None
    """Steps, at half of that, until outcome supervision's predicted error is within 5 percent of its end.

    None above a million, and for more than one thinking step, where that error is not known."""
    is_exact: bool
    """Whether the outcome stage is forecast by the exact theorem (k = 1) or long-prompt dynamics (k > 1)."""
    reward: Reward
    outlooks: tuple[Outlook, ...]
    order_right: float | None
    """The share of the unseen test cases of this kind in which the recommended stage was as good as the best.

    It is None where no stage is recommended, and beside tests, of which no case was run.
    """
    judged_by: Literal["target", "tests"] = "target"
    """The test of the errors in the outlooks; RL's prompts and pass rates are the target's in either case."""

    def of(self, stage: Stage) -> Outlook:
        """The outlook of a choice."""
        return next(outlook for outlook in self.outlooks if outlook.stage == stage)


def stage_problem(
    shift: Shift,
    model: ErrorModel,
    columns: Sequence[Columns],
    training: PostTraining,
    tests: WeightedTest | None = None,
) -> tuple[Ground, list[Columns]]:
    """The ground and the columns of :func:`choose_stage`, in the target's eigenbasis.

    In that basis outcome supervision is elementwise. A verifiable reward judges the directions of Delta.

    Args:
        shift: Sigma0, Delta, the data and eta.
        model: the pretrained model and the target, in the basis of ``shift``.
        columns: SFT's data, with their numbers of prompts.
        training: how post-training is run.
        tests: the tests that replace the target in the errors, in the basis of ``shift``.
    """
    target, basis = spectral_basis(shift.target)
    judged = range_projector(shift.delta) if is_spectrum(shift.delta) else range_basis(shift.delta)
    if basis is not None:
        model = model.rotated(basis, target)
        judged = transpose(basis) @ judged
        columns = [c.rotated(basis) for c in columns]
        tests = tests and tests.rotated(basis)
    return Ground(model, judged, training, tests), list(columns)


def choose_stage(
    ground: Ground, columns: Sequence[Columns], outcome_prompts: int, spectral_radius: float
) -> StageChoice:
    """Compare no training, SFT, RL, and SFT then RL (with half of the steps each), and recommend one.

    The measure is the forecast error for a dense reward, and the forecast pass rate for a verifiable one. A
    choice with more stages must be better by 2 percent (0.02 in pass rate).

    Args:
        ground: the model, the target and how post-training is run.
        columns: the data of SFT, with their numbers of prompts.
        outcome_prompts: number of target prompts of RL.
        spectral_radius: rho(Gamma0^{-1} Delta), which is reported.
    """
    training = ground.training
    forecasts = forecast_stages(ground, columns, outcome_prompts)
    # Where no choice passes often enough to be ranked by its pass rate, the error decides.
    verifiable = training.reward == "verifiable"
    verifiable = verifiable and max(forecast.pass_rate for forecast in forecasts) > WORTH_A_STAGE
    chosen = forecasts[0]
    for forecast in forecasts[1:]:
        idle = forecast.stage in ("sft", "sft then rl") and forecast.demonstrations == 0
        if not idle and _better(forecast, chosen, verifiable=verifiable):
            chosen = forecast
    regime: Literal["incremental", "novel"] = "incremental" if spectral_radius < 1 else "novel"
    step, needed = _outcome_speed(ground, outcome_prompts)
    outlooks = tuple(Outlook.of(forecast, training) for forecast in forecasts)
    stage, order = None, None
    if order_is_known(ground, forecasts):
        stage, order = chosen.stage, _order_right(ground) if ground.tests is None else None
    reason = _reason(stage, outlooks, spectral_radius, verifiable=verifiable)
    if training.chain_steps > 1 and order is not None:
        reason += f" (with more than one thinking step such advice was right in {order:.0%} of test cases)"
    return StageChoice(
        stage=stage,
        reason=reason,
        spectral_radius=spectral_radius,
        regime=regime,
        stable_step=step,
        steps_needed=needed,
        is_exact=training.chain_steps == 1,
        reward=training.reward,
        outlooks=outlooks,
        order_right=order,
        judged_by="target" if ground.tests is None else "tests",
    )


_LONG = 4
"""Prompts count as long from this many times the dimension on."""


def order_is_known(ground: Ground, forecasts: Sequence[Forecast]) -> bool:
    """Whether the forecasts show which stage is best.

    They do not where RL moves the model on prompts shorter than 4 d with more than one thinking step: what
    few prompts and their length cost is not known there, and was measured to be more than what separates the
    stages (docs/derivations/planner.md).
    """
    if ground.training.chain_steps == 1 or ground.model.test_length >= _LONG * len(ground.model.target):
        return True
    return not any(f.has_signal for f in forecasts if f.outcome_prompts)


def _order_right(ground: Ground) -> float:
    """How often the order of the forecasts is right, read off the table of docs/derivations/planner.md."""
    return 23 / 24 if ground.training.chain_steps == 1 else 31 / 36


def forecast_stages(
    ground: Ground, columns: Sequence[Columns], outcome_prompts: int
) -> tuple[Forecast, Forecast, Forecast, Forecast]:
    """The forecasts for no training, SFT on ``columns``, RL, and SFT then RL (half of the steps each).

    ``ground`` is the model, the target and the recipe; ``outcome_prompts`` is the number of RL's prompts.
    """
    T, demonstrations = ground.training.steps, round(sum(c.count for c in columns))
    teaching, request = sft(ground, columns), outcome_request(ground.model, outcome_prompts)
    base, taught, halfway = ground.start, None, None
    if teaching.is_stable:
        taught, halfway = teaching.after(T), teaching.after(max(1, T // 2))

    def reinforced(stage: Stage, start: State | None, steps: int, count: int) -> Forecast:
        following = None if start is None else outcome(ground, start, request)
        if start is None or following is None or not following.is_stable:
            return Forecast.diverged(stage, count, outcome_prompts)
        state, error = after_outcome(ground, following, steps)
        passed, progress = ground.pass_rate(state), 1.0
        if ground.training.reward == "verifiable":
            before = ground.pass_rate(start)
            progress = _progress(ground, before, steps)
            error = progress * error + (1 - progress) * ground.error(start)
            passed = progress * passed + (1 - progress) * before
        signal = progress > _NO_SIGNAL
        correction = ground.correction((state if signal else start).last)
        return Forecast(stage, count, outcome_prompts, error, passed, signal, correction=correction)

    def plain(stage: Stage, state: State | None, count: int) -> Forecast:
        if state is None:
            return Forecast.diverged(stage, count, 0)
        error, passed = ground.error(state), ground.pass_rate(state)
        return Forecast(stage, count, 0, error, passed, True, correction=ground.correction(state.last))

    return (
        plain("none", base, 0),
        plain("sft", taught, demonstrations),
        reinforced("rl", base, T, 0),
        reinforced("sft then rl", halfway, max(1, T - T // 2), demonstrations),
    )


def _progress(ground: Ground, pass_rate: float, steps: int) -> float:
    """How far RL with a verifiable reward gets, in [0, 1), from the passing samples that it will get."""
    training = ground.training
    passes = pass_rate * training.samples * steps * training.chain_steps**2
    return passes / (passes + ENOUGH_PASSES)


def _better(outlook: Forecast, chosen: Forecast, *, verifiable: bool) -> bool:
    if verifiable:
        return outlook.pass_rate > chosen.pass_rate + WORTH_A_STAGE
    return outlook.error < (1 - WORTH_A_STAGE) * chosen.error


def _outcome_speed(ground: Ground, prompts: int) -> tuple[float | None, int | None]:
    """Largest stable step of L_OS at the start, and steps until the error settles (see StageChoice)."""
    if ground.training.chain_steps > 1:
        return None, None
    stage = outcome(ground, ground.start, outcome_request(ground.model, prompts))
    if not stage.is_stable:
        return stage.request.largest_rate, None
    counts = [int(T) for T in np.unique(np.geomspace(1, 1e6, 25).round())]
    errors = stage.errors(counts)
    settled = [abs(error - errors[-1]) <= _SETTLED * abs(errors[-1]) for error in errors]
    first = next(i for i in range(len(counts)) if all(settled[i:]))
    return stage.request.largest_rate, None if first == len(counts) - 1 else counts[first]


def show_pass_rate(rate: float) -> str:
    """Three digits; a rate below a thousandth counts as never."""
    return f"< {_RARELY}" if rate < _RARELY else f"{rate:.3g}"


_RARELY = 1e-3


def _reason(chosen: Stage | None, outlooks: Sequence[Outlook], radius: float, *, verifiable: bool) -> str:
    """One sentence: what is recommended and on which numbers, of which none is withheld."""
    none, sft, rl, both = outlooks

    def measure(outlook: Outlook) -> str | None:
        if verifiable:
            return None if outlook.pass_rate is None else f"pass rate {show_pass_rate(outlook.pass_rate)}"
        return None if outlook.error is None else f"error {outlook.error:.3g}"

    reach = "within reach of" if radius < 1 else "new to"
    size = f"the shift is {reach} the pretrained model (radius {radius:.2g})"
    if not rl.has_signal:
        rl_promise = f"RL has no signal there (pass rate {show_pass_rate(none.pass_rate or 0.0)} before it)"
    elif measure(rl) is None:
        rl_promise = f"what RL on {rl.outcome_prompts} prompts comes to is not forecast"
    else:
        rl_promise = f"RL on {rl.outcome_prompts} prompts promises {measure(rl)}"
    many = sft.demonstrations
    taught = measure(sft) or "an error that is not forecast"
    against = f"{taught} " + (
        f"after SFT on {many} demonstrations" if many else "without it; no demonstrations help"
    )
    if chosen is None:
        return (
            f"which stage is best is not known: {size}, and where RL with more than one thinking step ends "
            f"on prompts shorter than {_LONG} times the dimension is not forecast; known are "
            f"{measure(none)} without a stage and {against}"
        )
    unknown = "(by how much is not forecast)"
    if chosen == "none":
        return (
            f"no stage: {size}, and none improves on its {measure(none)} by more than 2 percent; {rl_promise}"
        )
    if chosen == "sft":
        return f"SFT on {many} demonstrations: {size}, SFT promises {taught}; {rl_promise}"
    if chosen == "rl":
        promise = f"promises {measure(rl)} against" if measure(rl) else f"should improve {unknown} on"
        return (
            f"RL (outcome supervision) on {rl.outcome_prompts} target prompts: {size}, it {promise} {against}"
        )
    if not rl.has_signal:
        gap = "gives RL the signal that it lacks"
    else:
        gap = f"beats RL alone ({measure(rl)})" if measure(rl) else "should beat RL alone"
    known = (
        f"the two promise {measure(both)}"
        if measure(both)
        else f"the two should improve {unknown} on {against}"
    )
    return (
        f"SFT on {both.demonstrations} demonstrations, then RL on {both.outcome_prompts} target prompts: "
        f"{size}, {known}, and SFT first {gap}"
    )
