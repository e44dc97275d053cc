"""The verdicts on the planner from the table of :mod:`datadose.studies.planner.stages`.

Rules for the choice of stage are compared on the best of what was measured; forecasts of errors and pass
rates are compared with the measured ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from datadose.studies.planner.stages import ARMS, DENSE, FORECAST, RL, SFT, SFT_THEN_RL, Column
from datadose.studies.tables import names

PLANNER = "planner"
RULES = (PLANNER, "paper", *(f"always {arm}" for arm in ARMS[1:]))
ALWAYS_RL, ALWAYS_SFT_THEN_RL = f"always {RL}", f"always {SFT_THEN_RL}"
_SHORT = 4
"""Prompts count as short up to this many times the dimension (none is between 2 and 8 times)."""
CLOSE_ERROR, CLOSE_PASS_RATE = 0.05, 0.05
"""An arm is as good as the best if its error is within 5 percent, or its pass rate within 0.05, of it."""
OFF = 0.2
"""A forecast is off if it is further than a fifth of the measured value from it; a pass rate also by 0.05."""


class RuleColumn:
    """The columns of :func:`compare_rules`, in their order."""

    CASE = "case"
    REWARD = "reward"
    RADIUS = "radius"
    RULE = "rule"
    ARM = "arm"
    BEST = "best"
    LOSS = "loss"
    GOOD = "good"


class ForecastColumn:
    """The columns of :func:`compare_forecasts`, in their order; ``measure`` is ERROR or PASS_RATE."""

    CASE = "case"
    REWARD = "reward"
    THINKING_STEPS = "thinking_steps"
    PROMPTS = "prompts"
    OPTIMISER = "optimiser"
    STAGE = "stage"
    MEASURE = "measure"
    FORECAST = "forecast"
    MEASURED = "measured"
    RATIO = "ratio"
    OFF = "off"
    WITHHELD = "withheld"


ERROR, PASS_RATE = "error", "pass rate"


def compare_rules(table: pd.DataFrame, *, forecasts: bool = False) -> pd.DataFrame:
    """On the cases of the choice of stage, or of the forecasts: what rules pick and what it costs.

    One row a case and rule: the arm that the rule picks, what was measured, and its loss to the best.

    ``loss`` is the error over the best arm's minus 1 (dense) or the best pass rate minus the arm's. The
    paper's rule of thumb is RL within reach of the pretrained model (radius < 1), else SFT then RL. Cases in
    which the planner recommends no stage (:func:`abstained`) are left out for all.
    """
    rows = []
    table = table[(forecast_panels(table) == forecasts) & table[Column.RECOMMENDED].notna()]
    if Column.OPTIMISER in table:
        table = table[table[Column.OPTIMISER] != "adam"]
    for panel, case in table.groupby(Column.PANEL, sort=False):
        reward, radius = case[Column.REWARD].iloc[0], float(case[Column.SPECTRAL_RADIUS].iloc[0])
        dense = reward == DENSE
        means = case.groupby(Column.KIND)[Column.ERROR if dense else Column.PASS_RATE].mean()
        best = means.idxmin() if dense else means.idxmax()
        picks = {
            PLANNER: case[Column.RECOMMENDED].iloc[0],
            "paper": RL if radius < 1 else SFT_THEN_RL,
            **{f"always {arm}": arm for arm in ARMS[1:]},
        }
        for rule, arm in picks.items():
            loss = float(means[arm] / means[best] - 1 if dense else means[best] - means[arm])
            good = loss <= (CLOSE_ERROR if dense else CLOSE_PASS_RATE)
            rows.append((panel, reward, radius, rule, arm, best, loss, good))
    return pd.DataFrame(rows, columns=names(RuleColumn))


def abstained(table: pd.DataFrame, *, forecasts: bool = False) -> tuple[int, int]:
    """In how many cases the planner recommends no stage, and of how many."""
    chosen = table[forecast_panels(table) == forecasts].groupby(Column.PANEL)[Column.RECOMMENDED]
    return int((chosen.count() == 0).sum()), len(chosen)


def forecast_panels(table: pd.DataFrame) -> pd.Series[bool]:
    """Which rows belong to the cases of the forecasts."""
    return table[Column.PANEL].str.startswith(FORECAST)


def compare_forecasts(table: pd.DataFrame) -> pd.DataFrame:
    """One row a case of the forecasts, optimiser, stage and measure ("error" or "pass rate").

    ``measured`` is the mean over runs, infinite if a run was lost; ``ratio`` is the forecast over it. SFT on
    no demonstrations is left out: it is no stage.
    """
    rows = []
    chosen = table[forecast_panels(table)]
    chosen = chosen[(chosen[Column.KIND] != SFT) | (chosen[Column.DEMONSTRATIONS] > 0)]
    for keys, arm in chosen.groupby([Column.PANEL, Column.OPTIMISER, Column.KIND], sort=False):
        panel, optimiser, kind = (str(key) for key in keys)
        first = arm.iloc[0]
        prompts = "short" if first[Column.LENGTH] < _SHORT * first[Column.DIMENSION] else "long"
        about = (panel, first[Column.REWARD], int(first[Column.STEPS]), prompts, optimiser, kind)
        error = np.inf if arm[Column.ERROR].isna().any() else float(arm[Column.ERROR].mean())
        rate = float(arm[Column.PASS_RATE].mean())
        told, told_rate = float(first[Column.PREDICTED]), float(first[Column.PREDICTED_PASS_RATE])
        off = not np.isfinite(error) or abs(told - error) > OFF * error
        rate_off = abs(told_rate - rate) > max(OFF * rate, CLOSE_PASS_RATE)
        for measure, forecast, measured, is_off, withheld in (
            (ERROR, told, error, off, first[Column.ERROR_WITHHELD]),
            (PASS_RATE, told_rate, rate, rate_off, first[Column.PASS_RATE_WITHHELD]),
        ):
            ratio = forecast / measured if measured > 0 else np.nan
            rows.append((*about, measure, forecast, measured, ratio, is_off, bool(withheld)))
    return pd.DataFrame(rows, columns=names(ForecastColumn))


def summarise_forecasts(found: pd.DataFrame) -> pd.DataFrame:
    """How good the forecasts are, one row a regime: the table of docs/derivations/planner.md.

    A regime is a measure, a stage, a reward, one or more thinking steps, short or long prompts, and an
    optimiser. Columns: ``shifts``, the ratio's ``median``, ``low`` (10 percent) and ``high`` (90 percent),
    the share ``off``, and how many the plan withholds and the share ``off`` of those that it shows.
    """
    found = found.assign(chain=np.where(found[ForecastColumn.THINKING_STEPS] == 1, "1", "2 to 4"))
    keys = [
        ForecastColumn.MEASURE,
        ForecastColumn.OPTIMISER,
        ForecastColumn.REWARD,
        ForecastColumn.STAGE,
        "chain",
        ForecastColumn.PROMPTS,
    ]
    rows = []
    for regime, part in found.groupby(keys, sort=True):
        # A ratio of two pass rates that are nearly zero means nothing.
        ratio = part[ForecastColumn.RATIO][
            np.isfinite(part[ForecastColumn.RATIO]) & (part[ForecastColumn.MEASURED] > CLOSE_PASS_RATE)
        ]
        told = part[~part[ForecastColumn.WITHHELD]]
        rows.append(
            {
                **dict(zip(keys, regime, strict=True)),
                "shifts": len(part),
                "median": ratio.median(),
                "low": ratio.quantile(0.1),
                "high": ratio.quantile(0.9),
                "off": float(part[ForecastColumn.OFF].mean()),
                "withheld": int(part[ForecastColumn.WITHHELD].sum()),
                "told_off": float(told[ForecastColumn.OFF].mean()) if len(told) else np.nan,
            }
        )
    return pd.DataFrame(rows)
