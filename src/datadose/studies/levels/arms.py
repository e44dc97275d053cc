"""What the picture and the judges of the levels read out of a table: one arm's curves by seed and updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from datadose.shapes import Array
from datadose.studies.levels.schema import Column, Level, Model, Pool

SATURATED = 0.95
"""Of all that the fit of the training rows gains in a run: where it counts as saturated."""


@dataclass(frozen=True)
class Arm:
    """A kind of model and its optimiser."""

    key: str
    """In the name of a claim."""
    level: str
    optimiser: str
    title: str
    pool: str = Pool.ONE_KIND
    """The pool on which numbers of rows are compared."""

    def rows(self, table: pd.DataFrame, model: str = Model.REAL) -> pd.DataFrame:
        """The rows of this arm."""
        own = (table[Column.LEVEL] == self.level) & (table[Column.OPTIMISER] == self.optimiser)
        return table[own & (table[Column.MODEL] == model)]

    def curves(
        self,
        table: pd.DataFrame,
        *,
        pool: str | None = None,
        weight: float = 1.0,
        models: int = 1,
        model: str = Model.REAL,
        column: str = Column.ERROR,
    ) -> dict[int, pd.DataFrame]:
        """B -> the ``column`` by seed (rows; one without a seed is 0) and updates (columns).

        ``pool`` None is that of the arm; the other arguments are those of the columns of these names.
        """
        rows = self.rows(table, model)
        rows = rows[
            (rows[Column.POOL] == (pool or self.pool))
            & (rows[Column.MODELS] == models)
            & np.isclose(rows[Column.WEIGHT].astype(float), weight)
        ]
        return {
            int(B): own.assign(**{Column.SEED: own[Column.SEED].fillna(0).astype(int)})
            .pivot(index=Column.SEED, columns=Column.UPDATES, values=column)
            .astype(float)
            for B, own in rows.groupby(Column.PROMPTS)
        }


ADAM = Arm("linear", Level.LINEAR, "adam", "linear transformer (Adam)")
DESCENT = Arm("linear-gd", Level.LINEAR, "gd", "linear transformer (gradient descent)")
GPT = Arm("gpt", Level.GPT, "adamw", "GPT")
LANGUAGE = Arm("language", Level.LANGUAGE, "adamw", "language model")
SMOLLM = Arm("smollm2", Level.SMOLLM, "adamw", "SmolLM2", Pool.MISLEADING)
ARMS = (ADAM, DESCENT, GPT, LANGUAGE, SMOLLM)


def best(curve: pd.DataFrame) -> pd.Series:
    """The least value over all updates, by seed."""
    return curve.min(axis=1)


def at_saturation(error: pd.DataFrame, train: pd.DataFrame) -> pd.Series:
    """The error at the first look where the training rows' fit has made ``SATURATED`` of its way, by seed.

    ``train`` is a loss that falls or an accuracy that rises; its way is from the untouched model to the
    extreme of the run.
    """
    start = train.iloc[:, 0]
    way = train.sub(start, axis=0).abs()
    reached = way.ge(SATURATED * way.max(axis=1), axis=0)
    places = reached.to_numpy().argmax(axis=1)
    return pd.Series(error.to_numpy()[np.arange(len(error)), places], index=error.index)


def common_updates(curves: dict[int, pd.DataFrame]) -> list[int]:
    """The numbers of updates above 0 at which all of the curves were measured."""
    shared = set.intersection(*({*curve.columns} for curve in curves.values()))
    return sorted(int(u) for u in shared if u > 0)


def epochs_of(arm: Arm, table: pd.DataFrame, prompts: int) -> dict[int, float]:
    """Updates -> epochs of the arm's runs of one model of ``prompts`` rows."""
    curve = arm.curves(table, column=Column.EPOCHS)[prompts]
    return {int(u): float(e) for u, e in curve.iloc[0].items()}


def log_ratio(first: pd.Series, second: pd.Series) -> Array:
    """log(first / second) over the seeds that both have."""
    pairs = pd.concat([first, second], axis=1, join="inner").dropna()
    return np.asarray(np.log(pairs.iloc[:, 0] / pairs.iloc[:, 1]), dtype=np.float64)
