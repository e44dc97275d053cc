"""The runs that fixed the learning rate and the power, kept with every configuration."""

from __future__ import annotations

from dataclasses import dataclass

from datadose.studies.referee.judging import Pilot


@dataclass(frozen=True)
class GridPoint:
    """One run on the clean pool of pair A, 5 percent of it, measured on validation rows of the target."""

    method: str
    rate: float
    end: float
    best: float
    step: int


GRID: tuple[GridPoint, ...] = ()
PILOT = Pilot(0.1, (100, 101, 102), "not yet")
