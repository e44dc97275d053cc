"""Arms of the sea's table: their losses by seed, and the paired gains of one over another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.errors import reject
from datadose.studies.referee.judging import paired
from datadose.studies.referee.runs import Column, Reference, Stop


@dataclass(frozen=True)
class Arm:
    """The runs of all seeds that differ in nothing else.

    Args:
        contents: faults of the pool.
        pair: its targets.
        method: a method, or one of Reference.
        budget: share of the pool.
        verified: whether the verifier's verdicts were used.
        stop: at the end of equal steps, or at the best step on validation.
    """

    contents: str
    pair: str
    method: str
    budget: float
    verified: bool = True
    stop: str = Stop.BEST

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """The arm's rows in the order of the seeds, one each."""
        found = (table[Column.CONTENTS] == self.contents) & (table[Column.PAIR] == self.pair)
        found &= (table[Column.METHOD] == self.method) & (table[Column.STOP] == self.stop)
        found &= np.isclose(table[Column.BUDGET], self.budget) & (table[Column.VERIFIED] == self.verified)
        return table[found].sort_values(Column.SEED)

    def losses(self, table: pd.DataFrame, column: str = Column.LOSS) -> pd.Series:
        """Test losses in nats a token, by seed: on the target, or Column.KNOWN."""
        return self.rows(table).set_index(Column.SEED)[column]


def at_best_stop(table: pd.DataFrame) -> pd.DataFrame:
    """The table's rows at the best stop; InputError if one has a loss without a logarithm.

    No run makes one: the untouched model, whose loss is finite, is among the steps of the best stop.
    """
    rows = table[table[Column.STOP] == Stop.BEST]
    # A file without rows has columns without a type.
    losses = rows[Column.LOSS].astype(float)
    bad = rows[~(np.isfinite(losses) & (losses > 0))]
    if len(bad):
        which = ", ".join(str(bad[name].iloc[0]) for name in (Column.CONTENTS, Column.PAIR, Column.METHOD))
        found = f"{bad[Column.LOSS].iloc[0]} ({which}, seed {bad[Column.SEED].iloc[0]})"
        reject(Column.LOSS, found, "finite numbers above 0")
    return rows


def settings_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(contents, pair) of the table's pools, in their order."""
    return list(table[[Column.CONTENTS, Column.PAIR]].drop_duplicates().itertuples(index=False, name=None))


def budgets_of(table: pd.DataFrame, method: str, *, verified: bool = True) -> list[float]:
    """The budgets at which a method was run, ascending."""
    found = table[(table[Column.METHOD] == method) & (table[Column.VERIFIED] == verified)]
    return sorted(found[Column.BUDGET].unique().tolist())


def methods_of(table: pd.DataFrame) -> list[str]:
    """The methods of the table, without the references, in their order."""
    references = {Reference.UNTOUCHED, Reference.ORACLE, Reference.FULL, Reference.WEIGHTED}
    return [name for name in table[Column.METHOD].unique() if name not in references]


def gains(table: pd.DataFrame, first: Arm, second: Arm, column: str = Column.LOSS) -> Array:
    """By how much the loss of ``first`` lies below that of ``second``: differences of logarithms, by seed.

    Seeds that only one of them has finished are left out.
    """
    one, two = (np.log(arm.losses(table, column)) for arm in (first, second))
    return paired(two, one)


Pairs: TypeAlias = Mapping[str, tuple[Arm, Arm]]
"""Comparisons by name: the arm that is to be better, and the other."""


def all_gains(table: pd.DataFrame, pairs: Pairs) -> dict[str, Array]:
    """The gains of each comparison, by name."""
    return {name: gains(table, first, second) for name, (first, second) in pairs.items()}


def middle_budget(table: pd.DataFrame, method: str) -> float:
    """The middle one of a method's budgets, the lower one of two."""
    budgets = budgets_of(table, method)
    return budgets[(len(budgets) - 1) // 2]


def at_both_stops(arm: Arm) -> dict[str, Arm]:
    """The arm at the best stop and at the end, by a name for notes."""
    return {
        "best stop": replace(arm, stop=Stop.BEST),
        "equal steps": replace(arm, stop=Stop.END),
    }
