"""Judgements that several studies of training time share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from datadose.covariance import Array
from datadose.power import CONFIDENCE
from datadose.studies.ledger import decide, judge_deviation, seeds_of
from datadose.studies.study import Judgement
from datadose.studies.tables import Column


def deviations(rows: pd.DataFrame, settings: Sequence[str]) -> tuple[Array, Array]:
    """Relative deviation of the prediction from the mean over seeds, and its standard error, by setting.

    Args:
        rows: simulated rows with their prediction.
        settings: the columns that make a setting; a missing value is one like another.
    """
    grouped = rows.groupby(list(settings), dropna=False)
    mean, sem = grouped[Column.ERROR].mean(), grouped[Column.ERROR].sem()
    ratio = grouped[Column.PREDICTED].first() / mean
    return (ratio - 1).to_numpy(), (ratio * sem / mean).to_numpy()


def judge_prediction(rows: pd.DataFrame, settings: Sequence[str], threshold: float) -> Judgement:
    """Judge the largest deviation of the prediction over all ``settings`` of the simulated ``rows``."""
    deviation, sem = deviations(rows, settings)
    note = f"{len(deviation)} settings, median |deviation| {np.median(np.abs(deviation)):.2%}"
    return judge_deviation(deviation, sem, seeds_of(rows), threshold, note)


def judge_exact(value: float, threshold: float, note: str) -> Judgement:
    """Judge a number of the theory, which no seed changes, that should not exceed a threshold."""
    return Judgement(value, (value, value), 0, decide(value, value, threshold), note)


def judge_ratio(logs: Sequence[Array], threshold: float, note: str) -> Judgement:
    """Judge the largest of several geometric mean ratios against a threshold that it should not exceed.

    Args:
        logs: log ratios over paired seeds, (seeds,) each; their intervals hold together (Bonferroni).
        threshold: of the ratio.
        note: further remarks; the width of the intervals is added.
    """
    seeds = len(logs[0])
    quantile = float(stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * len(logs)), max(seeds - 1, 1)))
    mean = np.array([log.mean() for log in logs])
    half = np.array([quantile * log.std(ddof=1) / len(log) ** 0.5 for log in logs])
    low, high = (float(np.exp(end.max())) for end in (mean - half, mean + half))
    told = f"{note}; ratios known within {float(np.expm1(half.max())):.2%}"
    return Judgement(float(np.exp(mean.max())), (low, high), seeds, decide(low, high, threshold), told)
