"""Arms of the table of SmolLM2's sea: what their runs measured where they were stopped, and paired gains."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.studies.referee.judging import paired
from datadose.studies.referee.smollm_experiment import untouched
from datadose.studies.referee.smollm_runs import Column


class Arm(NamedTuple):
    """The runs of all seeds; ``best``: at the update with the lowest loss on validation, the untouched model
    among them, else at the last update."""

    method: str
    verified: bool = True
    best: bool = True


def stopped(table: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """The rows of the table at which the arm's runs are stopped, by seed."""
    runs = table[(table[Column.METHOD] == arm.method) & (table[Column.VERIFIED] == arm.verified)]
    before = untouched(table)
    found = {}
    for seed, run in runs.groupby(Column.SEED):
        last = run.loc[run[Column.STEP].idxmax()]
        looks = [before, *(row for _, row in run.iterrows())]
        found[seed] = min(looks, key=lambda row: float(row[Column.VALIDATION])) if arm.best else last
    return pd.DataFrame.from_dict(found, orient="index", columns=table.columns).sort_index()


def gains(table: pd.DataFrame, first: Arm, second: Arm, column: str = Column.LOSS) -> Array:
    """By how much a loss of ``first`` lies below that of ``second``: differences of logarithms, by seed.

    Seeds that only one of them has finished are left out.
    """
    one, two = (np.log(stopped(table, arm)[column].astype(float)) for arm in (first, second))
    return paired(two, one)
