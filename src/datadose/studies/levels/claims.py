"""The claims of the four levels: each question at each level that it is put to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datadose.power import CONFIDENCE
from datadose.studies.levels.arms import ADAM, ARMS, DESCENT, GPT, LANGUAGE, Arm
from datadose.studies.levels.forecasts import CHANGED, forecast_of
from datadose.studies.levels.judges import (
    MANY_EPOCHS,
    Judge,
    averaging,
    best_falls,
    dilution,
    not_run,
    repetition,
    saturation,
    weight_or_removal,
)
from datadose.studies.levels.schema import AVERAGED, LOWER_WEIGHT, Column
from datadose.studies.study import Claim, Judgement, Saved

_TEST = "tests/studies/levels/test_judges.py"
_AT_BEST = "each at its best time"
_QUESTIONS: tuple[tuple[str, str, str, float, Judge, str, tuple[Arm, ...]], ...] = (
    (
        "dilution",
        "a large set is worse than a small one when trained long, and not at its own best time.",
        "error of the largest set over that of the best one at most an eighth as large, at the longest "
        "training",
        1.0,
        dilution,
        "test_dilution_is_late_or_not_at_all",
        ARMS,
    ),
    (
        "best-falls",
        "the error at the best time falls with the number of rows.",
        "slope of the log error at the best time over log B",
        0.0,
        best_falls,
        "test_the_best_error_falls_or_rises",
        ARMS,
    ),
    (
        "weights",
        "a lower weight on misleading rows beats their removal.",
        f"share of B at which weight {LOWER_WEIGHT:g} has the lower error, {_AT_BEST}",
        1.0,
        weight_or_removal,
        "test_weight_against_removal_by_rows",
        ARMS,
    ),
    (
        "repetition",
        "at equal updates many epochs on few rows beat one pass over many.",
        f"least error of a set met {MANY_EPOCHS:g} times or more over that of a single pass, at its end",
        1.0,
        repetition,
        "test_repetition_is_judged_at_the_longest_pass",
        (ADAM, GPT, LANGUAGE),
    ),
    (
        "saturation",
        "stopping where the fit of the training rows saturates costs at most a tenth of the best error.",
        "share of B at which the error at 95% of the fit's gain is at most 1.1 times the best",
        1.0,
        saturation,
        "test_saturation_reads_losses_and_accuracies",
        ARMS,
    ),
    (
        "averaging",
        f"the mean of {AVERAGED} models of disjoint shares of the rows beats one of them.",
        f"error of the mean over that of one model, {_AT_BEST}",
        1.0,
        averaging,
        "test_averaging_beside_one_model",
        (ADAM, GPT, LANGUAGE),
    ),
    (
        "forecast",
        "the forecast has nine in ten pairs of pools in the real order of their errors on the target.",
        f"share of pairs at equal updates that differ by over {CHANGED:.0%}, mean over seeds",
        0.9,
        forecast_of(Column.ERROR),
        "test_forecasts_are_judged_by_order_and_sign",
        (DESCENT, GPT, LANGUAGE),
    ),
    (
        "forecast-kept",
        "the forecast has nine in ten pairs of pools in the real order of what is lost of what was known.",
        f"share of pairs at equal updates that differ by over {CHANGED:.0%}, mean over seeds",
        0.9,
        forecast_of(Column.KEPT),
        "test_forecasts_are_judged_by_order_and_sign",
        (DESCENT, GPT, LANGUAGE),
    ),
)


def _judged(judge: Judge, arm: Arm) -> Callable[[Saved[Any], float], Judgement]:
    def judged(saved: Saved[Any], threshold: float) -> Judgement:
        if arm.rows(saved.table).empty:
            return not_run(f"row of the {arm.title}")
        return judge(saved.table, arm, threshold)

    return judged


def claims() -> tuple[Claim, ...]:
    """Every question at every level that it is put to."""
    return tuple(
        Claim(
            f"levels-{name}-{arm.key}",
            "ours",
            f"{arm.title[0].upper()}{arm.title[1:]}: {statement}",
            "SFT along its way; sizes and seeds of the preset",
            f"{statistic} ({CONFIDENCE:.0%} interval)",
            threshold,
            _judged(judge, arm),
            f"{_TEST}::{test}",
        )
        for name, statement, statistic, threshold, judge, test, arms in _QUESTIONS
        for arm in arms
    )
