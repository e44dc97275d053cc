"""Where Figure 3's claims hold: post-training a tiny and a small GPT in settings drawn from what is unstated.

A setting is a draw of the learning rate of post-training, the data (Delta, Sigma0 + Delta, or Delta with as
many prompts of Sigma0), the length of pretraining, eta, how long outcome supervision lasts, and whether the
test has the n of post-training ("tied") or the base one. Numbers of steps and both versions of n are read off
the same trainings, so that a setting tells more than what was drawn for it.

Design. The levels of each choice are dealt evenly over the settings (a Latin hypercube), of many random
deals that with the least association between any two choices; the seed ``draw`` fixes it. So a share by level
is a mean over all other choices, with about as many settings at each of their levels. Shares have exact
intervals for independent draws, which an even deal makes a little wide.

Not varied: d = 5, the grids of B, n and k, batches of 16 (the paper's 64 would cost four times as much), and
one pretrained model for each length, eta and size, whose chance is in no interval. Pretraining saw all n, and
has the eta of post-training. Where n or k moves trainings are shorter; the small GPT has fewer levels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pandas as pd

from datadose.configs import Stage
from datadose.prompts import random_stream
from datadose.studies import trends
from datadose.studies.gpt.paths import GptPath, follow_path, untouched_errors
from datadose.studies.gpt.runs import (
    GPT,
    VARIANTS,
    GptPretraining,
    GptTask,
    Variant,
    pretrained_cells,
    pretraining_round,
)
from datadose.studies.study import Preset
from datadose.studies.tables import PRETRAINED, TRAINED, as_table
from datadose.sweep import Cell, Round

NAME = "fig3map"
TINY, SMALL = "tiny", "small"
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
            Column.FIGURE: NAME,
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
        settings: their number.
        pretrain_steps: optimiser steps of pretraining, from early to converged.
        os_steps: lengths of outcome supervision; one that stands twice is dealt twice as often.
        sft_looks: steps at which SFT is measured where B moves; it lasts to the last.
        outcome_looks: the same of outcome supervision, up to the setting's length.
        most_steps: of either stage where n or k moves.
        side_by_side: runs that train at once, as a matter of speed.
        batch, learning_rate: of pretraining.
    """

    preset: str
    settings: int
    rates: tuple[float, ...]
    pretrain_steps: tuple[int, ...]
    etas: tuple[float, ...]
    os_steps: tuple[int, ...]
    sft_looks: tuple[int, ...]
    outcome_looks: tuple[int, ...]
    most_steps: tuple[int, int]
    side_by_side: int
    batch: int
    learning_rate: float
    variants: tuple[Variant, ...] = VARIANTS

    def looks(self, stage: Stage, setting: MapSetting, moved: bool) -> tuple[int, ...]:
        """The steps at which a path of the setting is measured; ``moved``: n or k is not the base one."""
        steps, last = self.sft_looks, self.sft_looks[-1]
        if stage != "sft":
            steps, last = self.outcome_looks, setting.os_steps
        if moved:
            last = min(last, self.most_steps[STAGES.index(stage)])
        return tuple(step for step in steps if step <= last)


@cache
def drawn_settings(size: MapSize, seed: int) -> tuple[MapSetting, ...]:
    """The settings of a size: of DEALS even deals the one whose choices are least associated in pairs."""
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


@dataclass(frozen=True)
class Figure3Map:
    """The settings of all sizes, and what every one of them has in common.

    ``base_*`` are B, n and k where another axis moves; ``lengths`` includes the base n, ``chains`` the base
    k. ``judged_sft`` is the number of SFT steps (the paper's 100) at which a setting's verdicts count.
    """

    sizes: tuple[MapSize, ...]
    dimension: int
    prompts: tuple[int, ...]
    lengths: tuple[int, ...]
    chains: tuple[int, ...]
    base_prompts: int
    base_length: int
    base_chain: int
    judged_sft: int
    test_prompts: int
    seeds: int
    batch: int = 16
    test_steps: int = 3
    draw: int = 23

    @classmethod
    def preset(cls, name: Preset) -> Figure3Map:
        """The configuration of a preset: ``quick`` is nine settings of the tiny GPT, ``paper`` all 30.

        A pilot (seeds 1000 to 1003; tiny GPT, eta 0.5, pretrained 2,500 steps) gives the spread over seeds
        of the log ratio of errors at two B after up to 100 steps. At learning rates 1e-5, 1e-4 and 1e-3 it is
        at most .01, .04 and .11 between B = 128 and 1,024, and .03, .11 and .27 between 16 and 1,024. Four
        seeds see 2.1 spreads with power .8: ratios of 1.02, 1.1 and 1.26, and of 1.07, 1.26 and 1.8. A share
        over 24 settings is told from one half if it is at least .83, over 12 if at least .9, over 8 or 9 if
        nearly all.

        Levels that the pilot ruled out: after 1,000 steps of pretraining the tiny GPT has not left zero
        (error 1.05 at eta 0.2 and 0.5), and at eta 0.2 it has not after 2,500 (.98, where 0.5 has .66, and
        .13 after 6,000; eta 0.8 has .51 after 2,000).

        Cost: about 115 core-minutes for ``paper`` by cell times on a machine with three times as many busy
        processes as cores, perhaps 85 on a quiet one; 15 or 11 for ``quick``.
        """
        if name == "smoke":
            return cls._smoke()
        tiny = MapSize(
            preset=TINY,
            settings=24,
            rates=(1e-5, 1e-4, 1e-3),
            pretrain_steps=(2500, 4000, 6000),
            etas=(0.5, 0.8),
            os_steps=(100, 100, 300, 1000),
            sft_looks=(30, 100, 300),
            outcome_looks=(30, 100, 300, 1000),
            most_steps=(100, 300),
            side_by_side=12,
            batch=32,
            learning_rate=3e-3,
        )
        if name == "quick":
            cut = {"pretrain_steps": (2500, 4000), "etas": (0.5,), "os_steps": (100,), "sft_looks": (30, 100)}
            few: Any = {**cut, "settings": 9, "most_steps": (100, 100)}
            return cls._sized((replace(tiny, **few),), seeds=4)
        small = replace(
            tiny,
            preset=SMALL,
            settings=6,
            pretrain_steps=(2000, 4000),
            etas=(0.5,),
            os_steps=(100,),
            sft_looks=(30, 100),
            most_steps=(30, 30),
            side_by_side=1,
            learning_rate=1e-3,
        )
        return cls._sized((tiny, small), seeds=4)

    @classmethod
    def _sized(cls, sizes: tuple[MapSize, ...], seeds: int) -> Figure3Map:
        return cls(
            sizes,
            dimension=5,
            prompts=(16, 128, 1024),
            lengths=(4, 8, 16),
            chains=(1, 3, 5),
            base_prompts=128,
            base_length=8,
            base_chain=3,
            judged_sft=100,
            test_prompts=256,
            seeds=seeds,
        )

    @classmethod
    def _smoke(cls) -> Figure3Map:
        looks: dict[str, Any] = {"sft_looks": (2, 4), "outcome_looks": (2, 4), "most_steps": (2, 4)}
        own: dict[str, Any] = {**looks, "side_by_side": 4, "batch": 8, "learning_rate": 3e-3}
        tiny = MapSize(TINY, 3, (1e-4, 1e-3), (5, 10), (0.5,), (2, 4), **own)
        return cls((tiny,), 5, (8, 16, 32), (4, 6, 8), (1, 2, 3), 16, 6, 2, 2, 32, 2, batch=8, test_steps=2)

    def settings(self) -> list[tuple[MapSize, MapSetting]]:
        """Each setting with its size."""
        return [(size, setting) for size in self.sizes for setting in drawn_settings(size, self.draw)]

    def task(self, eta: float) -> GptTask:
        """The task of Figure 3; its n and k are the longest, which pretraining goes up to."""
        n, k = max(self.lengths), max(self.chains)
        return GptTask(self.dimension, n, k, self.test_steps, eta, self.test_prompts)

    def paths(self, size: MapSize, setting: MapSetting) -> Iterator[GptPath]:
        """Of each stage: all B at the base n and k, then every other n, then every other k."""
        n0, k0 = self.base_length, self.base_chain
        for stage in STAGES:
            places = [(n0, k0), *((n, k0) for n in self.lengths), *((n0, k) for k in self.chains)]
            for n, k in dict.fromkeys(places):
                moved = (n, k) != (n0, k0)
                yield GptPath(
                    stage=stage,
                    variant=setting.variant,
                    prompts=(self.base_prompts,) if moved else self.prompts,
                    length=n,
                    chain_steps=k,
                    looks=size.looks(stage, setting, moved),
                    test_lengths=tuple(dict.fromkeys((n, n0))),
                    learning_rate=setting.learning_rate,
                    batch=self.batch,
                )

    def _models(self) -> dict[tuple[str, float, int], GptPretraining]:
        """(size, eta, steps) of each pretrained model that a setting starts from, and how it is made."""
        used = {(setting.size, setting.eta, setting.pretrain_steps) for _, setting in self.settings()}
        return {
            (size.preset, eta, T): GptPretraining(
                size.preset,
                T,
                size.batch,
                size.learning_rate,
                warmup=min(200, T // 5),
                start_length=min(self.lengths),
                every=40,
            )
            for size in self.sizes
            for eta in size.etas
            for T in size.pretrain_steps
            if (size.preset, eta, T) in used
        }

    def rounds(self, folder: Path) -> Iterator[Round]:
        """The pretrained models, then the untouched errors and every path of every setting."""
        models = {
            key: pretrained_cells(self.task(key[1]), [how], folder)[how.steps]
            for key, how in self._models().items()
        }
        yield pretraining_round(dict(enumerate(models.values())))
        seeds = list(range(self.seeds))
        cells = []
        for (_, eta, _), cell in models.items():
            start = {"model": cell.file, "task": self.task(eta)}
            cells.append(Cell(untouched_errors, {**start, "lengths": list(self.lengths), "seeds": seeds}))
        for size, setting in self.settings():
            start = {
                "model": models[setting.size, setting.eta, setting.pretrain_steps].file,
                "task": self.task(setting.eta),
            }
            own = {**start, "seeds": seeds, "side_by_side": size.side_by_side}
            cells += [Cell(follow_path, {**own, "path": path}) for path in self.paths(size, setting)]
        yield "", cells

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a setting, path, B, seed, number of steps and test length; the untouched at no steps."""
        found = iter(results)
        untouched = {key: next(found) for key in self._models()}
        rows: list[dict[str, Any]] = []
        for size, setting in self.settings():
            before = untouched[setting.size, setting.eta, setting.pretrain_steps]
            rows += setting_rows(setting, before, [(p, next(found)) for p in self.paths(size, setting)])
        return map_table(rows)


def setting_rows(
    setting: MapSetting, untouched: Sequence[Any], trained: Sequence[tuple[GptPath, Sequence[Any]]]
) -> Iterator[dict[str, Any]]:
    """The table's rows of a setting, from what ``untouched_errors`` and, by path, ``follow_path`` found."""
    own = setting.columns
    for seed, n, *errors in untouched:
        place = {Column.PROMPTS: 0, Column.SEED: seed, Column.OPTIMISER_STEPS: 0}
        yield own | place | {Column.ESTIMATOR: PRETRAINED} | _measured(n, errors)
    for path, found in trained:
        way = {Column.STAGE: path.stage, Column.LENGTH: path.length, Column.STEPS: path.chain_steps}
        for B, seed, steps, n, *errors in found:
            place = {Column.PROMPTS: B, Column.SEED: seed, Column.OPTIMISER_STEPS: steps}
            yield own | way | place | {Column.ESTIMATOR: TRAINED} | _measured(n, errors)


def map_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The table of these rows."""
    whole = (Column.SETTING, Column.PRETRAIN_STEPS, Column.OS_STEPS, Column.TEST_LENGTH, Column.TIED)
    return as_table(rows, Column, (*whole, Column.OPTIMISER_STEPS))


def _measured(length: int, errors: Sequence[float | None]) -> dict[str, Any]:
    """The columns of what ``HeldOut.measure`` returns."""
    names = (Column.ERROR, Column.RARE_ERROR, Column.COMMON_ERROR, Column.PRETRAINING_ERROR)
    lost = {Column.DIVERGED: int(errors[0] is None)}
    return {Column.TEST_LENGTH: length, **lost, **dict(zip(names, errors, strict=True))}
