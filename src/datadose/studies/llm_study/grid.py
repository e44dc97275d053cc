"""The validation runs that fixed the learning rates, kept with every configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GridPoint:
    """One run, on 32 random rows (SFT) or 16 sums (RL) of a pool of its own, measured on validation rows."""

    stage: Literal["base", "sft", "rl"]
    steps: int
    learning_rate: float
    target_probability: float
    target_greedy: float
    earlier_probability: float
    earlier_greedy: float


GRID: tuple[GridPoint, ...] = (
    GridPoint("base", 0, 0.0, 0.057, 0.156, 0.361, 0.500),
    GridPoint("sft", 20, 3e-4, 0.094, 0.125, 0.422, 0.562),
    GridPoint("sft", 20, 1e-3, 0.190, 0.219, 0.548, 0.583),
    GridPoint("sft", 20, 3e-3, 0.159, 0.156, 0.458, 0.500),
    GridPoint("rl", 16, 3e-4, 0.111, 0.188, 0.457, 0.500),
    GridPoint("rl", 16, 1e-3, 0.195, 0.250, 0.453, 0.479),
)
"""Chosen: the largest probability on the target, 1e-3 for both. Steps: what an hour on one core allows."""
