"""The settings of the map of Figure 3: what is left open, and an even deal of its levels.

The levels of each choice are dealt evenly over the settings (a Latin hypercube), of many random deals that
with the least association between any two choices. So a share by level is a mean over all other choices, with
about as many settings at each of their levels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import Any, Literal

from datadose.configs import Stage
from datadose.prompts import random_stream
from datadose.stages.config import Precision
from datadose.studies import trends
from datadose.studies.gpt.runs import GPT, VARIANTS, Variant

DEALS = 500
"""So many deals of the settings are compared."""
STAGES: tuple[Stage, ...] = ("sft", "outcome")
"""Those of the paper's six claims."""


class Column(trends.Column):
    """The columns of ``fig3map.csv``; the error is on the target, ``variant`` what the prompts are of."""

    SETTING = "setting"
    SIZE = "size"
    RATE = "learning_rate"
    PRETRAIN_STEPS = "pretrain_steps"
    ETA = "eta"
    OS_STEPS = "os_steps"
    TIED = "tied"
    TEST_LENGTH = "test_length"
    RARE_ERROR, COMMON_ERROR = "target_rare_error", "target_common_error"
    PRETRAINING_ERROR = "pretraining_error"


CHOICES = {
    Column.SIZE: "size",
    Column.RATE: "learning rate",
    Column.VARIANT: "data",
    Column.PRETRAIN_STEPS: "pretraining",
    Column.ETA: "eta",
    Column.OS_STEPS: "OS steps",
    Column.TIED: "test n",
}
"""What is drawn for a setting: its column, and its name in words."""


@dataclass(frozen=True)
class MapSetting:
    """One draw; ``os_steps`` is how long outcome supervision lasts, ``tied`` whether n moves in the test."""

    number: int
    size: str
    learning_rate: float
    variant: Variant
    pretrain_steps: int
    eta: float
    os_steps: int
    tied: bool

    @property
    def name(self) -> str:
        """The panel of the setting's rows."""
        return f"{self.size}-{self.number:02d}"

    @property
    def columns(self) -> dict[str, Any]:
        """What all rows of the setting have in common in the table."""
        return {
            Column.PANEL: self.name,
            Column.MODEL: GPT,
            Column.INTERFERENCE: 0.0,
            Column.SETTING: self.number,
            Column.SIZE: self.size,
            Column.RATE: self.learning_rate,
            Column.VARIANT: self.variant,
            Column.PRETRAIN_STEPS: self.pretrain_steps,
            Column.ETA: self.eta,
            Column.OS_STEPS: self.os_steps,
            Column.TIED: int(self.tied),
        }


@dataclass(frozen=True)
class MapSize:
    """A size of GPT: how many settings, the levels that they are drawn from, where paths are measured.

    Args:
        preset: the GPT's.
        settings: their number, if they are drawn.
        rates: learning rates of post-training.
        pretrain_steps: optimiser steps of pretraining, from early to converged.
        os_steps: lengths of outcome supervision; one that stands twice is dealt twice as often.
        sft_looks: steps at which SFT is measured where B moves; it lasts to the last.
        outcome_looks: the same of outcome supervision, up to the setting's length.
        rl_looks: the same of RL, where there is any.
        most_steps: of SFT and outcome supervision where n or k moves.
        side_by_side: runs that train at once, as a matter of speed.
        batch, learning_rate, optimiser: of pretraining; ``every`` so many of its steps the prompts grow.
        precision: of all training.
        given: the settings, if they are not drawn.
    """

    preset: str
    sft_looks: tuple[int, ...]
    outcome_looks: tuple[int, ...]
    most_steps: tuple[int, int]
    side_by_side: int
    batch: int
    learning_rate: float
    settings: int = 0
    rates: tuple[float, ...] = ()
    pretrain_steps: tuple[int, ...] = ()
    etas: tuple[float, ...] = ()
    os_steps: tuple[int, ...] = ()
    variants: tuple[Variant, ...] = VARIANTS
    rl_looks: tuple[int, ...] = ()
    every: int = 40
    optimiser: Literal["adamw", "muon"] = "adamw"
    precision: Precision = "fp32"
    given: tuple[MapSetting, ...] = ()

    def looks(self, stage: Stage, setting: MapSetting, moved: bool) -> tuple[int, ...]:
        """The steps at which a path of the setting is measured; ``moved``: n or k is not the base one."""
        steps = {"sft": self.sft_looks, "outcome": self.outcome_looks, "rl": self.rl_looks}[stage]
        last = setting.os_steps if stage == "outcome" else steps[-1]
        if moved:
            last = min(last, self.most_steps[STAGES.index(stage)])
        return tuple(step for step in steps if step <= last)


@cache
def settings_of(size: MapSize, seed: int) -> tuple[MapSetting, ...]:
    """The settings of a size: those given, or of DEALS even deals that with the least associated choices."""
    if size.given:
        return size.given
    choices: tuple[Sequence[Any], ...] = (
        size.rates,
        size.variants,
        size.pretrain_steps,
        size.etas,
        size.os_steps,
        (True, False),
    )
    deals = [
        [_dealt([seed, deal, place], levels, size.settings) for place, levels in enumerate(choices)]
        for deal in range(DEALS)
    ]
    rows = zip(*min(deals, key=_association), strict=True)
    return tuple(MapSetting(number, size.preset, *row) for number, row in enumerate(rows))


def _dealt(seed: Sequence[int], levels: Sequence[Any], count: int) -> list[Any]:
    """The levels in turn, in a random order; chance decides which are dealt once more if they do not fit."""
    random = random_stream(seed, "order")
    whole, rest = divmod(count, len(levels))
    deck = [*levels] * whole + [levels[i] for i in random.permutation(len(levels))[:rest]]
    return [deck[i] for i in random.permutation(count)]


def _association(columns: Sequence[Sequence[Any]]) -> float:
    """How far pairs of choices are from meeting each other's levels evenly: the sum of their chi-squares."""
    total = 0.0
    for first, second in combinations(columns, 2):
        together, one, other = Counter(zip(first, second, strict=True)), Counter(first), Counter(second)
        for a, b in product(one, other):
            expected = one[a] * other[b] / len(first)
            total += (together[a, b] - expected) ** 2 / expected
    return total
