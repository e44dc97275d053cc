"""The objective that a post-training stage minimises, by the stage's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datadose.configs import Stage
from datadose.stages.engine import Objective
from datadose.stages.outcome import Outcome
from datadose.stages.rl import PolicyGradient
from datadose.stages.sft import Sft


def stage_objective(
    stage: Stage, chain_steps: int, *, eta: float, seeds: Sequence[int], **policy: Any
) -> Objective:
    """The objective of ``stage`` with ``chain_steps`` = k thinking steps.

    Args:
        stage: ``sft``, ``outcome`` or ``rl``; each uses what is its own of the other arguments.
        chain_steps: k >= 0 for SFT, k >= 1 for the other two.
        eta: step of SFT's demonstrated chains, in (0, 2).
        seeds: one per run, for the noise of RL's policy.
        policy: any further field of :class:`~datadose.stages.rl.PolicyGradient`, such as ``reward``.

    Raises:
        InputError: a value out of its range.
    """
    if stage == "sft":
        return Sft(eta, chain_steps)
    if stage == "outcome":
        return Outcome(chain_steps)
    return PolicyGradient(chain_steps, seeds, **policy)
