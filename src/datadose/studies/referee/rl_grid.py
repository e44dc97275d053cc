"""The runs that fixed the RL study's learning rates, targets and power, kept with every configuration.

They were printed by :mod:`~datadose.studies.referee.rl_pilot`.
"""

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


@dataclass(frozen=True)
class StagePoint:
    """One stage alone on one target at one learning rate: pass probability on validation rows, best look."""

    target: str
    stage: str
    rate: float
    validation: float


@dataclass(frozen=True)
class RlPilot:
    """The pilot of comparisons by one test: of two selectors that read pass rates, which have much in common,
    or of other arms."""

    measure: str
    scored: bool
    pilot: Pilot


RL_GRID: tuple[RlPoint, ...] = (
    RlPoint("unfiltered", 3e-05, 0, 0.565, 0.235),
    RlPoint("unfiltered", 3e-05, 39, 0.571, 0.261),
    RlPoint("unfiltered", 3e-05, 78, 0.578, 0.283),
    RlPoint("unfiltered", 3e-05, 117, 0.580, 0.293),
    RlPoint("unfiltered", 3e-05, 156, 0.580, 0.307),
    RlPoint("unfiltered", 3e-05, 195, 0.582, 0.315),
    RlPoint("unfiltered", 3e-05, 234, 0.589, 0.324),
    RlPoint("unfiltered", 0.0001, 0, 0.565, 0.235),
    RlPoint("unfiltered", 0.0001, 39, 0.556, 0.274),
    RlPoint("unfiltered", 0.0001, 78, 0.581, 0.314),
    RlPoint("unfiltered", 0.0001, 117, 0.585, 0.327),
    RlPoint("unfiltered", 0.0001, 156, 0.588, 0.341),
    RlPoint("unfiltered", 0.0001, 195, 0.581, 0.373),
    RlPoint("unfiltered", 0.0001, 234, 0.582, 0.373),
    RlPoint("unfiltered", 0.0003, 0, 0.565, 0.235),
    RlPoint("unfiltered", 0.0003, 39, 0.509, 0.258),
    RlPoint("unfiltered", 0.0003, 78, 0.517, 0.259),
    RlPoint("unfiltered", 0.0003, 117, 0.505, 0.284),
    RlPoint("unfiltered", 0.0003, 156, 0.489, 0.252),
    RlPoint("unfiltered", 0.0003, 195, 0.508, 0.296),
    RlPoint("unfiltered", 0.0003, 234, 0.540, 0.309),
)
"""Seed 100. Chosen: 1e-4, the highest mean of both at the end."""
_COMMAND = "python -m datadose.studies.referee rl-spread FOLDER"
_SEEDS = (100, 101, 102)
RL_PILOTS: tuple[RlPilot, ...] = (
    RlPilot("all", False, Pilot(0.0380, _SEEDS, _COMMAND)),
    RlPilot("all", True, Pilot(0.0095, _SEEDS, _COMMAND)),
    RlPilot("rare", False, Pilot(0.0700, _SEEDS, _COMMAND)),
    RlPilot("rare", True, Pilot(0.0218, _SEEDS, _COMMAND)),
)
"""Differences in pass probability at the end, between random prompts, medium, hardest-passed and signal."""
STAGE_GRID: tuple[StagePoint, ...] = (
    StagePoint("NOY 9-9", "sft", 0.0003, 0.997),
    StagePoint("PWX 9-9", "sft", 0.0003, 0.447),
    StagePoint("OTX 3-5", "sft", 0.0003, 0.625),
    StagePoint("NOY 9-9", "sft", 0.001, 1.000),
    StagePoint("PWX 9-9", "sft", 0.001, 0.460),
    StagePoint("OTX 3-5", "sft", 0.001, 0.649),
    StagePoint("NOY 9-9", "sft", 0.003, 0.958),
    StagePoint("PWX 9-9", "sft", 0.003, 0.297),
    StagePoint("OTX 3-5", "sft", 0.003, 0.434),
    StagePoint("NOY 9-9", "rl", 3e-05, 0.000),
    StagePoint("PWX 9-9", "rl", 3e-05, 0.391),
    StagePoint("OTX 3-5", "rl", 3e-05, 0.676),
    StagePoint("NOY 9-9", "rl", 0.0001, 0.000),
    StagePoint("PWX 9-9", "rl", 0.0001, 0.569),
    StagePoint("OTX 3-5", "rl", 0.0001, 0.789),
    StagePoint("NOY 9-9", "rl", 0.0003, 0.000),
    StagePoint("PWX 9-9", "rl", 0.0003, 0.308),
    StagePoint("OTX 3-5", "rl", 0.0003, 0.800),
)
"""Seed 100, three development targets. Chosen: 1e-3 for SFT and 1e-4 for RL, the highest means."""
TARGETS = (
    StageTarget("NOY", (9,), 1.1e-05),
    StageTarget("OUW", (9,), 1.7e-05),
    StageTarget("STV", (9,), 3.8e-05),
    StageTarget("OPV", (9,), 4.2e-05),
    StageTarget("OQU", (9,), 0.00014),
    StageTarget("NSW", (9,), 0.00015),
    StageTarget("OQS", (9,), 0.00044),
    StageTarget("MUY", (9,), 0.0027),
    StageTarget("PWX", (9,), 0.0022),
    StageTarget("QTV", (9,), 0.0035),
    StageTarget("QTX", (9,), 0.0044),
    StageTarget("OTU", (9,), 0.009),
    StageTarget("RSZ", (9,), 0.016),
    StageTarget("NRU", (9,), 0.02),
    StageTarget("QYZ", (9,), 0.057),
    StageTarget("QRW", (9,), 0.14),
    StageTarget("OTX", (3, 4, 5), 0.2),
    StageTarget("MST", (9,), 0.3),
    StageTarget("PUY", (3, 4, 5), 0.41),
    StageTarget("NXZ", (9,), 0.6),
    StageTarget("NSO", (6, 7, 8), 0.71),
    StageTarget("NPR", (9,), 0.85),
    StageTarget("MWX", (6, 7, 8), 0.9),
)
"""Of seed 100, on validation strings."""
