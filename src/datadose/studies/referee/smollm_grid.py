"""The runs that fixed the learning rate and the power of SmolLM2's sea, kept with every configuration.

Made by COMMAND: a run each of two methods at three rates, then two more seeds at the best of these.
"""

from __future__ import annotations

from dataclasses import dataclass

from datadose.studies.referee.judging import Pilot


@dataclass(frozen=True)
class GridPoint:
    """One run of the first pilot seed, at its best update on validation rows of the target.

    Args:
        method: what chose its rows.
        rate: its learning rate.
        step: that update.
        validation: the loss there, nats a token.
    """

    method: str
    rate: float
    step: int
    validation: float


COMMAND = (
    "python -c 'from pathlib import Path; from datadose.studies.referee.smollm_pilot import run_pilot; "
    'print(run_pilot(Path("results/studies")))\''
)
GRID: tuple[GridPoint, ...] = (
    GridPoint("random", 5e-4, 40, 1.317),
    GridPoint("rds", 5e-4, 40, 0.575),
    GridPoint("random", 1e-3, 40, 1.212),
    GridPoint("rds", 1e-3, 40, 0.568),
    GridPoint("random", 2e-3, 40, 1.158),
    GridPoint("rds", 2e-3, 20, 0.474),
)
"""Seed 100; the untouched model has 3.279. Chosen: 2e-3, the lowest sum of both."""
PILOT = Pilot(0.1, (100, 101, 102), COMMAND)
