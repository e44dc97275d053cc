"""Claims on the sea of SmolLM2: which method wins, with the power to tell; from sea_smollm.csv.

A gain is a difference of logarithms of the test loss over paired seeds, each run stopped at its best update
on validation: 0.1 is a loss lower by a tenth. The detectable gain is the pilot's, stated before the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import pandas as pd

from datadose.covariance import Array
from datadose.power import CONFIDENCE
from datadose.studies.ledger import judge_mean
from datadose.studies.referee.judging import beaten_by, compare_all
from datadose.studies.referee.smollm_arms import Arm, gains
from datadose.studies.referee.smollm_experiment import CANDIDATE, NAME, RANDOM, SmolStudy
from datadose.studies.referee.smollm_figure import draw_sea_smollm
from datadose.studies.referee.smollm_runs import ORACLE, UNTOUCHED, Column
from datadose.studies.study import Claim, Judgement, Saved, Study

Comparisons: TypeAlias = Mapping[str, Array]
"""Name -> gains by seed."""
Judge: TypeAlias = Callable[[Saved[SmolStudy], float], Judgement]
_TEST = "tests/studies/referee/test_smollm_claims.py::test_verdicts_follow_the_gains"
_MARGIN: Final = -0.05
"""A loss on earlier abilities larger by a twentieth counts as none."""


def _judge(find: Callable[[pd.DataFrame], Comparisons]) -> Judge:
    def judge(saved: Saved[SmolStudy], threshold: float) -> Judgement:
        return compare_all(find(saved.table), saved.config.pilot, threshold)

    return judge


def _rivals(table: pd.DataFrame, *, verified: bool = True) -> list[str]:
    """The methods of the table but for the candidate with its verifier."""
    runs = table[(table[Column.VERIFIED] == verified) & ~table[Column.METHOD].isin([ORACLE, UNTOUCHED])]
    return [name for name in runs[Column.METHOD].unique() if name != CANDIDATE or not verified]


def _over_random(table: pd.DataFrame) -> Comparisons:
    rivals = [name for name in _rivals(table) if name != RANDOM]
    return {name: gains(table, Arm(name), Arm(RANDOM)) for name in rivals}


def _default_over_random(table: pd.DataFrame) -> Comparisons:
    return {RANDOM: gains(table, Arm(CANDIDATE), Arm(RANDOM))}


def _over_unverified(table: pd.DataFrame) -> Comparisons:
    rivals = _rivals(table, verified=False)
    return {name: gains(table, Arm(CANDIDATE), Arm(name, verified=False)) for name in rivals}


def _turns(table: pd.DataFrame) -> Comparisons:
    return {"sketch": gains(table, Arm("sketch"), Arm("sketch-mean"))}


def _oracle(table: pd.DataFrame) -> Comparisons:
    return {ORACLE: gains(table, Arm(ORACLE), Arm(CANDIDATE))}


def _judge_rivals(saved: Saved[SmolStudy], threshold: float) -> Judgement:
    table = saved.table
    found = {name: gains(table, Arm(name), Arm(CANDIDATE)) for name in _rivals(table)}
    return beaten_by(found, saved.config.pilot)


def _judge_forgetting(saved: Saved[SmolStudy], threshold: float) -> Judgement:
    first, second = Arm(CANDIDATE, best=False), Arm(RANDOM, best=False)
    values = gains(saved.table, first, second, Column.EARLIER)
    if len(values) < 2:
        return Judgement(None, None, len(values), "not run", "too few finished seeds")
    return judge_mean(values, threshold, below=False)


_SETTING = (
    "SmolLM2-135M-Instruct, LoRA, pool of short questions of reasoning-gym, two unlike families being the "
    "target; some of the target's rows have a wrong answer or another format, which a verifier finds; equal "
    "updates and tokens (sizes of the preset)"
)
_GAIN = (
    f"mean gain in log test loss over paired seeds, and its {CONFIDENCE:.0%} Student interval (several "
    "comparisons: the share of them); the detectable gain is the pilot's"
)


def _claim(
    name: str, statement: str, where: str, judge: Judge, statistic: str = _GAIN, threshold: float = 1.0
) -> Claim:
    return Claim(
        f"sea-smollm-{name}",
        "ours (language models)",
        f"SmolLM2 in a sea of rows: {statement}",
        f"{_SETTING}; {where}",
        statistic,
        threshold,
        judge,
        _TEST,
    )


_BEST = "best stop on validation"
CLAIMS = [
    _claim("random", f"the default, {CANDIDATE}, beats random rows.", _BEST, _judge(_default_over_random)),
    _claim(
        "methods", "each other method that reads the target beats random rows.", _BEST, _judge(_over_random)
    ),
    _claim(
        "rivals",
        f"no method beats the default, {CANDIDATE}, by more than the detectable gain.",
        _BEST,
        _judge_rivals,
        "largest mean gain of another method in log test loss, and its interval",
        0.0,
    ),
    _claim(
        "unverified",
        f"the default, {CANDIDATE}, with a verifier beats the methods without one.",
        _BEST,
        _judge(_over_unverified),
    ),
    _claim(
        "turns",
        "rows nearest to each target row in turn beat those nearest to the target's mean.",
        f"sketches of gradients, {_BEST}",
        _judge(_turns),
    ),
    _claim(
        "oracle",
        f"right rows of the target alone are better than what the default, {CANDIDATE}, takes.",
        f"as many of either, {_BEST}",
        _judge(_oracle),
    ),
    _claim(
        "forgetting",
        f"the default, {CANDIDATE}, costs earlier abilities no more than random rows do.",
        "after all updates; a loss larger by a twentieth counts as none",
        _judge_forgetting,
        f"mean gain in log loss on families that the untouched model solves, its {CONFIDENCE:.0%} interval",
        _MARGIN,
    ),
]

STUDY = Study(
    name=NAME,
    title="A real model in a sea of rows: which selector finds the few useful ones",
    story=(
        "SmolLM2-135M-Instruct and a pool of short questions from many families, of which two are the target "
        "and some of its rows are faulty. Every method takes as many rows as there are right ones; all arms "
        "train on the same number of tokens, and points show how far the loss on the target lies below that "
        "of random rows."
    ),
    experiment=SmolStudy,
    draw=draw_sea_smollm,
    claims=CLAIMS,
)
