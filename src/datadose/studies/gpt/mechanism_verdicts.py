"""Paths of the GPT beside the linear model's, read off the table of ``fig3path``.

The linear path is the theory's, and where there is none (outcome supervision of several thoughts) the mean
of the linear transformer's runs. Its time t is matched to the GPT's optimiser steps T by t = a T with one a
for each pretraining and arm, fitted to one curve: the error on rare directions of the target, in log ratios
to the start, after training on the most prompts of the target. All other curves are then predictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.power import mean_interval
from datadose.studies.gpt.linear_paths import Arm
from datadose.studies.gpt.mechanism import Column, Mechanism
from datadose.studies.gpt.runs import COMMON, GPT, PHI, PRETRAINING, RARE, TARGET, of
from datadose.studies.tables import LSA, THEORY
from datadose.studies.trends import SHORT_NAMES

ERRORS = {
    TARGET: "target",
    of(TARGET, RARE): "rare",
    of(TARGET, COMMON): "common",
    PRETRAINING: "Sigma0",
}
"""The error curves and their names in words."""
CLOCK = of(TARGET, RARE)
"""The curve that the clock is fitted to."""
SLOPES = {group: of(TARGET, group, "slope", PHI) for group in (RARE, COMMON)}
FLAT = 0.05
"""A log ratio of errors below this is no change."""
_CLOCKS = 241

Way: TypeAlias = Literal["falls", "rises", "flat", "open"]


@dataclass(frozen=True)
class StagePath:
    """One arm on B prompts of one kind, from one GPT: its rows, and those of the linear model."""

    pretrain_steps: int
    arm: Arm
    variant: str
    prompts: int
    gpt: pd.DataFrame
    linear: pd.DataFrame

    @property
    def name(self) -> str:
        """In words, for notes."""
        return f"{arm_name(self.arm)}, {self.variant}, B = {self.prompts}, pretrained {self.pretrain_steps:,}"

    @property
    def looks(self) -> Array:
        """The GPT's optimiser steps, from 0."""
        return np.array(sorted(self.gpt[Column.OPTIMISER_STEPS].unique()), dtype=np.float64)

    def of_gpt(self, column: str) -> Array:
        """Values (seeds, looks); NaN where a run was lost."""
        wide = self.gpt.pivot(index=Column.SEED, columns=Column.OPTIMISER_STEPS, values=column)
        return np.asarray(wide.sort_index(axis=1), dtype=np.float64)

    def of_linear(self, column: str) -> tuple[Array, Array]:
        """Times and values (T,) of the linear path."""
        means = self.linear.groupby(Column.TIME)[column].mean()
        return means.index.to_numpy(dtype=np.float64), means.to_numpy(dtype=np.float64)

    def matched(self, column: str, clock: float) -> Array:
        """The linear path at the times ``clock`` x looks; what is later than its last time is as there."""
        times, values = self.of_linear(column)
        return np.interp(clock * self.looks, times, values)

    def ratios(self, column: str) -> Array:
        """The GPT's log ratios of errors to the first, (seeds, looks); lost runs count as tenfold."""
        values = self.of_gpt(column)
        ratios = np.log(values / values[:, :1])
        return np.where(np.isnan(ratios), np.log(10.0), ratios)

    def changes(self, column: str) -> Array:
        """The last of :meth:`ratios` by seed."""
        return self.ratios(column)[:, -1]


def arm_name(arm: Arm) -> str:
    """An arm in words."""
    return f"{SHORT_NAMES[arm.stage]} (k = {arm.chain_steps})"


def paths(table: pd.DataFrame, config: Mechanism) -> Iterator[StagePath]:
    """All paths: by pretraining, arm, kind of data and B."""
    for p in config.pretrainings:
        for arm in config.arms:
            here = table[(table[Column.STAGE] == arm.stage) & (table[Column.STEPS] == arm.chain_steps)]
            for variant in dict.fromkeys(here[Column.VARIANT]):
                for B in config.prompts:
                    rows = here[(here[Column.VARIANT] == variant) & (here[Column.PROMPTS] == B)]
                    gpt = rows[(rows[Column.MODEL] == GPT) & (rows[Column.PRETRAIN_STEPS] == p.steps)]
                    linear = rows[rows[Column.MODEL] == (THEORY if arm.exact else LSA)]
                    yield StagePath(p.steps, arm, str(variant), B, gpt, linear)


def clocks(table: pd.DataFrame, config: Mechanism) -> dict[tuple[int, Arm], float]:
    """(pretraining, arm) -> a: the linear model's time that passes in one optimiser step of the GPT."""
    return {
        (path.pretrain_steps, path.arm): _clock(path)
        for path in paths(table, config)
        if path.variant == "target" and path.prompts == max(config.prompts)
    }


def _clock(path: StagePath) -> float:
    """Least squares over the looks, on a grid from a standstill to the whole linear path."""
    times, _ = path.of_linear(CLOCK)
    grid = times[-1] / path.looks[-1] * np.geomspace(1e-4, 10, _CLOCKS)
    goal = path.ratios(CLOCK).mean(axis=0)
    found = np.stack([path.matched(CLOCK, a) for a in grid])
    misses = np.square(np.log(found / found[:, :1]) - goal).sum(axis=1)
    return float(grid[misses.argmin()])


def way_of(changes: Array) -> Way:
    """Where the mean of log ratios over seeds goes: "flat" if surely within FLAT, "open" if not known."""
    _, low, high = mean_interval(changes)
    if max(-low, high) <= FLAT:
        return "flat"
    return "falls" if high < 0 else "rises" if low > 0 else "open"


def way_of_linear(path: StagePath, column: str, clock: float) -> Way:
    """Where the linear path goes until the GPT's last look."""
    values = path.matched(column, clock)
    change = float(np.log(values[-1] / values[0]))
    return "flat" if abs(change) <= FLAT else "falls" if change < 0 else "rises"


def turns(values: Array) -> bool:
    """Whether a curve is lowest inside, and ends clearly above that."""
    place = int(values.argmin())
    return 0 < place < len(values) - 1 and bool(np.log(values[-1] / values[place]) > FLAT)
