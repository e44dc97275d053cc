"""Every method in every sort of pool: the sea with all arms, and one budget.

Five methods do not read the target; the others do, by words, hidden states or gradients. The development
setting is that of the sea; the others have the targets of pair B, in a pool without faults, with each fault
alone and with all three, so that the effect of a fault is told from that of the targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from datadose.studies.referee.experiment import METHODS as SEA_METHODS
from datadose.studies.referee.experiment import RANDOM, SeaStudy, Setting
from datadose.studies.referee.grid import METHODS_PILOTS
from datadose.studies.referee.pools import CONTENTS, Contents
from datadose.studies.referee.runs import GRADIENT, Reference, SeaRun
from datadose.studies.study import Preset

NAME = "sea_methods"
BLIND = ("longest", "easiest", "middle", "hardest", "ifd")
"""Methods that do not read the target."""
METHODS = (RANDOM, *BLIND, *SEA_METHODS[1:], "transport", GRADIENT)


@dataclass(frozen=True)
class MethodsStudy(SeaStudy):
    """The sea with every method, with a verifier, at the middle budget; without the weighted arm."""

    name: ClassVar[str] = NAME

    @classmethod
    def preset(cls, name: Preset) -> MethodsStudy:
        """Smoke: seconds. Quick: about two hours of one core. Paper: both pairs in all pools at all budgets,
        twenty seeds; a day of one core."""
        sea = SeaStudy.preset(name)
        study = replace(cls(**vars(sea)), methods=METHODS, unverified_budgets=(), pilots=METHODS_PILOTS)
        if name == "paper":
            return study
        others: tuple[Contents, ...] = CONTENTS if name == "quick" else ("clean", "mixed")
        held_out = [Setting(contents, "B") for contents in others]
        return replace(study, settings=(Setting("clean", "A"), *held_out), budgets=(0.05,))

    def _runs(self, setting: Setting, seed: int) -> Iterator[SeaRun]:
        yield from (run for run in super()._runs(setting, seed) if run.method != Reference.WEIGHTED)
