"""The runs that fixed the RL study's learning rates, targets and power, kept with every configuration."""

from __future__ import annotations

from dataclasses import dataclass

from datadose.studies.referee.judging import Pilot
from datadose.studies.referee.stage_runs import StageTarget


@dataclass(frozen=True)
class RlPoint:
    """One run of a pilot at one learning rate: pass probabilities on validation rows, of all families and of
    the rare ones, after ``step`` steps."""

    arm: str
    rate: float
    step: int
    all: float
    rare: float


RL_GRID: tuple[RlPoint, ...] = ()
RL_PILOT = Pilot(0.02, (100, 101, 102), "not yet")
RARE_PILOT = Pilot(0.02, (100, 101, 102), "not yet")
TARGETS = (
    StageTarget("PWX", (9,), 0.0022),
    StageTarget("QTX", (9,), 0.0044),
    StageTarget("OTU", (9,), 0.0090),
    StageTarget("NRU", (9,), 0.0203),
    StageTarget("PUY", (6, 7, 8), 0.0421),
    StageTarget("PUZ", (9,), 0.0674),
    StageTarget("QRW", (9,), 0.1386),
    StageTarget("MST", (9,), 0.2974),
    StageTarget("RSZ", (6, 7, 8), 0.5645),
    StageTarget("NSW", (3, 4, 5), 0.6475),
    StageTarget("ZSW", (6, 7, 8), 0.7741),
    StageTarget("MWX", (6, 7, 8), 0.8997),
)
"""Of seed 100, on validation strings."""
