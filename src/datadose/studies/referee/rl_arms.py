"""Arms of the RL table: pass probabilities by seed at equal steps or at equal samples, and paired gains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import pandas as pd

from datadose.covariance import Array
from datadose.studies.referee.judging import paired
from datadose.studies.referee.rl import Panel
from datadose.studies.referee.rl_prompts import RlRun, Selector
from datadose.studies.referee.rl_runs import Column

Comparisons: TypeAlias = Mapping[str, Array]
"""Name -> gains by seed."""


@dataclass(frozen=True)
class RlArm:
    """The runs of all seeds of an arm, as :class:`~datadose.studies.referee.rl_prompts.RlRun` names it."""

    selector: str
    samples: int = 0
    prompts: int = 0

    @classmethod
    def of(cls, run: RlRun) -> RlArm:
        """The arm of a run."""
        return cls(run.selector, run.samples, run.prompts)

    @property
    def name(self) -> str:
        """The arm in figures and notes."""
        return RlRun(self.selector, self.samples, self.prompts, 0).name

    def looks(self, table: pd.DataFrame) -> pd.DataFrame:
        """All looks of the arm's runs."""
        found = (table[Column.PANEL] == Panel.SELECTORS) & (table[Column.ARM] == self.selector)
        found &= (table[Column.SAMPLES] == self.samples) & (table[Column.PROMPTS] == self.prompts)
        return table[found]

    def read(self, table: pd.DataFrame, measure: str, budget: int | None = None) -> pd.Series:
        """The ``measure`` by seed at the last look, or at the last within ``budget`` samples in all.

        Runs that have no look after their first step within the budget are left out.
        """
        looks = self.looks(table)
        if budget is not None:
            looks = looks[(looks[Column.TOTAL] <= budget) & (looks[Column.STEP] > 0)]
        last = looks.sort_values(Column.STEP).groupby(Column.SEED).tail(1)
        return last.set_index(Column.SEED)[measure].sort_index().astype(float)


UNFILTERED = RlArm(Selector.UNFILTERED)


def arms_of(table: pd.DataFrame) -> list[RlArm]:
    """The arms of the table, in their order."""
    rows = table[table[Column.PANEL] == Panel.SELECTORS]
    columns = [Column.ARM, Column.SAMPLES, Column.PROMPTS]
    found = rows[columns].drop_duplicates().itertuples(index=False, name=None)
    return [RlArm(arm, int(samples), int(prompts)) for arm, samples, prompts in found]


def budget_of(table: pd.DataFrame) -> int:
    """The samples of a run that scores nothing."""
    return int(UNFILTERED.looks(table)[Column.TOTAL].max())


def gains(table: pd.DataFrame, first: RlArm, second: RlArm, measure: str, *, samples: bool = False) -> Array:
    """By how much the pass probability of ``first`` lies above that of ``second``, by seed.

    At equal steps, or with ``samples`` at equal samples in all. Seeds that only one of them has are left out.
    """
    budget = budget_of(table) if samples else None
    return paired(first.read(table, measure, budget), second.read(table, measure, budget))
