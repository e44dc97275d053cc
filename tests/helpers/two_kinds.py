"""A shift, and a pool with a good source and a misleading one, for tests of how training is planned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from datadose.planner import PoolSource, plan
from datadose.planner.goal import Goal
from datadose.planner.pool import Pool
from datadose.planner.training_choice import TrainingChoice
from datadose.shift import Shift
from datadose.theory import Source, WeightedTest, pretrained_operator

D, N, ETA = 24, 60, 0.2
SHIFT = Shift.two_block(D, 12, 0.1, ETA, 0.01)
START = pretrained_operator(SHIFT.sigma0, N)
TARGET = WeightedTest.of(SHIFT.target, N)
GOOD = ETA * SHIFT.target
WRONG = 0.2 * np.geomspace(3, 0.05, D)


def two_kinds(
    sizes: Sequence[int] = (40, 400), limit: int | None = None, costs: Sequence[float | None] = (None, None)
) -> Pool:
    """Rows of the target, and ten times as many that mislead."""
    sources = [
        PoolSource(name, Source(A, N, 0), size, cost)
        for name, A, size, cost in zip(("good", "wrong"), (GOOD, WRONG), sizes, costs, strict=True)
    ]
    goal = Goal.of(SHIFT.target, SHIFT.sigma0, N)
    return Pool.of(START, ETA, sources, goal, limit or sum(sizes), 1)


def pools(pool: Pool) -> list[PoolSource]:
    return [
        PoolSource(name, s, int(s.prompts), cost)
        for name, s, cost in zip(pool.names, pool.sources, pool.costs, strict=True)
    ]


def chosen(shift: Shift = SHIFT, **options: Any) -> TrainingChoice:
    """What a plan decides about training."""
    found = plan(shift, **{"length": N, "max_prompts": 200, **options}).training
    assert found is not None
    return found


def section(shift: Shift = SHIFT, **options: Any) -> Any:
    """The part of it that is about the time, or the penalty."""
    found = chosen(shift, **options)
    return found.stopping or found.penalty
