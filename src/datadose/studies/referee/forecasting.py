"""Does the curve over few rows foretell the loss at four times as many?

The pools of the sea, three times as large; right rows of the target, and what methods take that find them, at
several numbers of rows. The forms of ``datadose compare --budgets`` are fitted to all numbers but the largest
and held against the loss there. What the run can tell comes from three seeds outside the study (``grid``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy import stats

from datadose.covariance import Array
from datadose.errors import reject
from datadose.llm.compare.forecast import Estimate, Forecast, Trial, forecast, try_forms
from datadose.power import CONFIDENCE
from datadose.studies.referee.arms import Arm, settings_of
from datadose.studies.referee.experiment import SeaStudy, Setting
from datadose.studies.referee.grid import FORECAST_PILOTS
from datadose.studies.referee.runs import Column, Reference, SeaRun
from datadose.studies.study import Preset

NAME = "sea_forecast"
METHODS = (Reference.ORACLE, "bm25", "rds")
_ROWS = (8, 16, 32, 64, 256)
"""Rows that are taken; the largest is the one to foretell."""


@dataclass(frozen=True)
class ForecastStudy(SeaStudy):
    """The sea with the budgets of a curve, the largest four times the one before, and no other arms."""

    name: ClassVar[str] = NAME

    @classmethod
    def preset(cls, name: Preset) -> ForecastStudy:
        """Smoke: seconds. Quick: about half an hour of one core after pretraining. Paper: both pairs in both
        pools, twenty seeds; four hours of one core."""
        if name in ("small", "medium"):
            reject("preset", name, "smoke, quick or paper")
        sea = SeaStudy.preset(name)
        rows = 480 if name == "smoke" else 12_000
        counts = (2, 4, 6, 12) if name == "smoke" else _ROWS
        study = cls(**{**vars(sea), "pool_rows": rows, "budgets": tuple(count / rows for count in counts)})
        study = replace(study, methods=METHODS, unverified_budgets=(), pilots=FORECAST_PILOTS)
        if name == "paper":
            return replace(
                study, settings=tuple(Setting(c, p) for c in ("clean", "mixed") for p in ("A", "B"))
            )
        return study

    def _runs(self, setting: Setting, seed: int) -> Iterator[SeaRun]:
        first = SeaRun(setting.contents, setting.pair, Reference.UNTOUCHED, 0.0, seed)
        for budget in self.budgets:
            yield from (replace(first, method=method, budget=budget) for method in self.methods)


@lru_cache(maxsize=64)
def _fit(rows: tuple[int, ...], losses: tuple[tuple[float, ...], ...]) -> tuple[Forecast, Trial]:
    """The fits of a curve: once for all claims and the picture, which ask in turn."""
    values = np.array(losses)
    return forecast(rows[:-1], values[:, :-1]), try_forms(rows, values)


@dataclass(frozen=True)
class Curve:
    """The losses of one arm over numbers of rows: (seeds,) at each of ``rows``, ascending."""

    contents: str
    pair: str
    method: str
    rows: tuple[int, ...]
    losses: Array

    @property
    def name(self) -> str:
        """The curve in notes."""
        return f"{self.contents} {self.pair}, {self.method}"

    @property
    def ahead(self) -> Forecast:
        """The forecast that knows all numbers of rows but the largest."""
        return self._fits[0]

    @property
    def trial(self) -> Trial:
        """Both forms, held against the largest."""
        return self._fits[1]

    @property
    def _fits(self) -> tuple[Forecast, Trial]:
        return _fit(self.rows, tuple(map(tuple, self.losses.tolist())))

    def error(self, form: str | None = None) -> Estimate:
        """What ``form`` foretells for the largest number, over what was measured, minus 1; that of the
        forecast unless given."""
        found, loss = self.trial.errors[form or self.ahead.form], float(self.losses[:, -1].mean())
        low, value, high = (None if x is None else x / loss for x in (found.low, found.value, found.high))
        return Estimate(value, low, high)


def spread_of(error: Estimate, seeds: int) -> float:
    """The standard deviation over ``seeds`` seeds of a mean whose Student interval is as wide as this one."""
    low, high = ends(error)
    return (high - low) / 2 * float(np.sqrt(seeds) / stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1))


def ends(error: Estimate) -> tuple[float, float]:
    """The ends of an interval, infinite where it has none."""
    return -np.inf if error.low is None else error.low, np.inf if error.high is None else error.high


def curves_of(table: pd.DataFrame) -> list[Curve]:
    """The curves of a table, at the best stop; seeds that lack a number of rows are left out."""
    found = []
    for contents, pair in settings_of(table):
        for method in table[Column.METHOD].unique():
            arm = Arm(contents, pair, method, 0.0)
            budgets = sorted(table[Column.BUDGET].unique())
            each = [replace(arm, budget=budget).rows(table).set_index(Column.SEED) for budget in budgets]
            losses = pd.concat([rows[Column.LOSS] for rows in each], axis=1).dropna()
            if len(losses) > 1:
                counts = tuple(int(rows[Column.ROWS].iloc[0]) for rows in each)
                found.append(Curve(contents, pair, method, counts, losses.to_numpy(dtype=np.float64)))
    return found
