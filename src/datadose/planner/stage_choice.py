"""Which stage: none, SFT, outcome supervision / RL, or SFT then RL, from what each promises within T steps.

Validated against real training runs on shifts that the rule never saw: docs/derivations/planner.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from datadose.planner.dynamics import (
    Ground,
    Reward,
    State,
    after_outcome,
    after_sft,
    long_prompt_path,
    sample_edge,
    start_curvature,
)
from datadose.theory.equivalent import Columns

Stage: TypeAlias = Literal["none", "sft", "rl", "sft then rl"]

ENOUGH_PASSES = 1e4
"""k^2 times the passing samples that RL with a verifiable reward needs to get halfway to what it can reach.

Read off development runs (docs/derivations/planner.md), not derived.
"""
_NO_SIGNAL = 0.05
_SETTLED = 0.05
_WORTH_A_STAGE = 0.02
"""A stage must improve on a simpler choice by this fraction of its error, or by this pass rate."""


@dataclass(frozen=True)
class Outlook:
    """What one choice of stages promises."""

    stage: Stage
    demonstrations: int
    outcome_prompts: int
    error: float
    """Predicted one-step post-test error / d."""
    pass_rate: float
    """Predicted pass rate of the verifiable reward on the target's prompts."""
    has_signal: bool
    """Whether its RL stage, if it has one, sees enough passing samples to learn (always for dense)."""


@dataclass(frozen=True)
class StageChoice:
    """The recommended stage, the sentence that says why, and the four outlooks."""

    stage: Stage
    reason: str
    spectral_radius: float
    """rho(Gamma0^{-1} Delta)."""
    regime: Literal["incremental", "novel"]
    stable_step: float
    """Largest stable step of gradient descent on the outcome loss L_OS at the pretrained model."""
    steps_needed: int | None
    """Steps, at half of that, until outcome supervision's predicted error is within 5 percent of its end."""
    is_exact: bool
    """Whether the outcome stage is predicted by the exact theorem (k = 1) or long-prompt dynamics (k > 1)."""
    reward: Reward
    outlooks: tuple[Outlook, ...]

    def of(self, stage: Stage) -> Outlook:
        """The outlook of a choice."""
        return next(outlook for outlook in self.outlooks if outlook.stage == stage)


def choose_stage(
    ground: Ground, columns: Sequence[Columns], outcome_prompts: int, spectral_radius: float
) -> StageChoice:
    """Compare none, SFT on ``columns``, RL and SFT then RL (half of the steps each) and recommend one.

    The measure is the predicted error for a dense reward, the predicted pass rate for a verifiable one; a
    choice with more stages must be better by 2 percent (0.02 in pass rate).
    """
    T, verifiable = ground.training.steps, ground.training.reward == "verifiable"
    demonstrations = round(sum(c.count for c in columns))
    base, taught = State(ground.model.V0), after_sft(ground, columns, T)
    halfway = after_sft(ground, columns, max(1, T // 2))
    outlooks = [
        Outlook("none", 0, 0, ground.error(base), ground.pass_rate(base), has_signal=True),
        Outlook("sft", demonstrations, 0, ground.error(taught), ground.pass_rate(taught), has_signal=True),
    ]
    second: tuple[tuple[Stage, State, int], ...] = (
        ("rl", base, T),
        ("sft then rl", halfway, max(1, T - T // 2)),
    )
    for stage, start, steps in second:
        state, error = after_outcome(ground, start, outcome_prompts, steps)
        passed, progress = ground.pass_rate(state), 1.0
        if verifiable:
            before = ground.pass_rate(start)
            progress = _progress(ground, before, steps)
            error = progress * error + (1 - progress) * ground.error(start)
            passed = progress * passed + (1 - progress) * before
        count = demonstrations if stage == "sft then rl" else 0
        signal = progress > _NO_SIGNAL
        outlooks.append(Outlook(stage, count, outcome_prompts, error, passed, signal))
    # Where no choice passes often enough to be told apart by its pass rate, the error decides.
    verifiable = verifiable and max(outlook.pass_rate for outlook in outlooks) > _WORTH_A_STAGE
    chosen = outlooks[0]
    for outlook in outlooks[1:]:
        idle = outlook.stage in ("sft", "sft then rl") and demonstrations == 0
        if not idle and _better(outlook, chosen, verifiable=verifiable):
            chosen = outlook
    regime: Literal["incremental", "novel"] = "incremental" if spectral_radius < 1 else "novel"
    step, needed = _outcome_speed(ground, outcome_prompts)
    reason = _reason(chosen, outlooks, spectral_radius, verifiable=verifiable)
    exact = ground.training.chain_steps == 1
    return StageChoice(
        chosen.stage,
        reason,
        spectral_radius,
        regime,
        step,
        needed,
        exact,
        ground.training.reward,
        tuple(outlooks),
    )


def _progress(ground: Ground, pass_rate: float, steps: int) -> float:
    """How far RL with a verifiable reward gets, in [0, 1), from the passing samples that it will see."""
    training = ground.training
    passes = pass_rate * training.samples * steps * training.chain_steps**2
    return passes / (passes + ENOUGH_PASSES)


def _better(outlook: Outlook, chosen: Outlook, *, verifiable: bool) -> bool:
    if verifiable:
        return outlook.pass_rate > chosen.pass_rate + _WORTH_A_STAGE
    return outlook.error < (1 - _WORTH_A_STAGE) * chosen.error


def _outcome_speed(ground: Ground, prompts: int) -> tuple[float, int | None]:
    """Largest stable step of L_OS at the start, and steps until the error settles (None: above 1e6)."""
    model, k = ground.model, ground.training.chain_steps
    columns = Columns(prompts, model.test_second_moment, model.target)
    # L_OS of one step has curvature Phi Phi^T / B; more steps are told for long prompts.
    curvature = sample_edge([columns]) / prompts if k == 1 else start_curvature(model.V0, model.target, k)
    counts = [int(T) for T in np.unique(np.geomspace(1, 1e6, 25).round())]
    path = long_prompt_path(ground, model.V0, counts) if k > 1 else [model.V0] * len(counts)
    errors = [
        after_outcome(ground, State(model.V0), prompts, T, V)[1] for T, V in zip(counts, path, strict=True)
    ]
    settled = [abs(error - errors[-1]) <= _SETTLED * abs(errors[-1]) for error in errors]
    first = next(i for i in range(len(counts)) if all(settled[i:]))
    return 2 / curvature, None if first == len(counts) - 1 else counts[first]


def _reason(chosen: Outlook, outlooks: list[Outlook], radius: float, *, verifiable: bool) -> str:
    """One sentence: what is recommended and on which numbers."""

    def measure(outlook: Outlook) -> str:
        return f"pass rate {outlook.pass_rate:.3g}" if verifiable else f"error {outlook.error:.3g}"

    none, sft, rl, both = outlooks
    reach = "within reach of" if radius < 1 else "new to"
    size = f"the shift is {reach} the pretrained model (radius {radius:.2g})"
    rl_promise = (
        f"RL on {rl.outcome_prompts} prompts promises {measure(rl)}"
        if rl.has_signal
        else f"RL has no signal there (pass rate {rl.pass_rate:.1g})"
    )
    if chosen.stage == "none":
        return (
            f"no stage: {size}, and none improves on its {measure(none)} by more than 2 percent; {rl_promise}"
        )
    if chosen.stage == "sft":
        return (
            f"SFT on {sft.demonstrations} demonstrations: {size}, SFT promises {measure(sft)}; {rl_promise}"
        )
    if chosen.stage == "rl":
        many = sft.demonstrations
        against = f"after SFT on {many} demonstrations" if many else "without it; no demonstrations help"
        return (
            f"RL (outcome supervision) on {rl.outcome_prompts} target prompts: {size}, it promises "
            f"{measure(rl)} against {measure(sft)} {against}"
        )
    gap = f"beats RL alone ({measure(rl)})" if rl.has_signal else "gives RL the signal that it lacks"
    return (
        f"SFT on {both.demonstrations} demonstrations, then RL on {both.outcome_prompts} target prompts: "
        f"{size}, the two promise {measure(both)}, and SFT first {gap}"
    )
