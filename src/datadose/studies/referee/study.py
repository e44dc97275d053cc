"""Claims on the sea: which method wins, by how much, with the power to tell; from sea.csv.

A gain is a difference of logarithms of the test loss over paired seeds: 0.1 is a loss lower by a tenth. The
detectable one is that of the pilot, stated before the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pandas as pd

from datadose.power import CONFIDENCE, mean_interval
from datadose.studies.ledger import is_more, judge_settings, seeds_of
from datadose.studies.referee.arms import (
    Arm,
    Pairs,
    at_both_stops,
    budgets_of,
    gains,
    methods_of,
    middle_budget,
    settings_of,
)
from datadose.studies.referee.default import (
    judge_choice,
    judge_pairs,
    judge_random,
    judge_rivals,
    judge_unverified,
)
from datadose.studies.referee.experiment import CANDIDATE, NAME, RANDOM, SeaStudy
from datadose.studies.referee.figure import draw_sea
from datadose.studies.referee.runs import Column, Reference
from datadose.studies.study import Claim, Judgement, Saved, Study, Verdict

Judge: TypeAlias = Callable[[Saved[SeaStudy], float], Judgement]
_TEST = "tests/studies/referee/test_claims.py"


def _judge(find: Callable[[pd.DataFrame], Pairs]) -> Judge:
    return lambda saved, threshold: judge_pairs(saved, find(saved.table), threshold)


def _over_random(place: int) -> Callable[[pd.DataFrame], Pairs]:
    """Each method over random rows, on the development setting (0) or on all others (1)."""

    def find(table: pd.DataFrame) -> Pairs:
        pools = settings_of(table)
        return {
            f"{contents} {pair}, {method}, {budget:.0%}": (
                Arm(contents, pair, method, budget),
                Arm(contents, pair, RANDOM, budget),
            )
            for contents, pair in (pools[:1] if place == 0 else pools[1:])
            for method in methods_of(table)
            if method != RANDOM
            for budget in budgets_of(table, method)
        }

    return find


def _turns(table: pd.DataFrame) -> Pairs:
    return {
        f"{contents} {pair}, {budget:.0%}": (
            Arm(contents, pair, "sketch", budget),
            Arm(contents, pair, "sketch-mean", budget),
        )
        for contents, pair in settings_of(table)
        for budget in budgets_of(table, "sketch")
    }


def _verified(table: pd.DataFrame) -> Pairs:
    return {
        f"{contents} {pair}, {method}, {budget:.0%}": (
            Arm(contents, pair, method, budget),
            Arm(contents, pair, method, budget, verified=False),
        )
        for contents, pair in settings_of(table)
        for method in methods_of(table)
        for budget in budgets_of(table, method, verified=False)
    }


def _over_cut(method: str) -> Callable[[pd.DataFrame], Pairs]:
    """A reference arm over the candidate's cut at the middle budget, at both stops."""

    def find(table: pd.DataFrame) -> Pairs:
        middle, found = middle_budget(table, CANDIDATE), {}
        for contents, pair in settings_of(table):
            cut = at_both_stops(Arm(contents, pair, CANDIDATE, middle))
            for stop, arm in at_both_stops(Arm(contents, pair, method, middle)).items():
                found[f"{contents} {pair}, {stop}"] = (arm, cut[stop])
        return found

    return find


def _keeps(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    """Weights against the cut on the known families, whose spread no pilot has: by the intervals alone."""
    table = saved.table
    middle = middle_budget(table, CANDIDATE)
    verdicts: dict[str, Verdict] = {}
    told = []
    for contents, pair in settings_of(table):
        cut = at_both_stops(Arm(contents, pair, CANDIDATE, middle))
        for stop, arm in at_both_stops(Arm(contents, pair, Reference.WEIGHTED, middle)).items():
            values = gains(table, arm, cut[stop], Column.KNOWN)
            if len(values) > 1:
                name = f"{contents} {pair}, {stop}"
                verdicts[name] = is_more(values)
                told.append("{} {:+.3f} [{:+.3f}, {:+.3f}]".format(name, *mean_interval(values)))
    if not verdicts:
        return Judgement(None, None, 0, "not run", "no finished comparison")
    return judge_settings(verdicts, threshold, seeds_of(table), "; ".join(told))


def _over_full(table: pd.DataFrame) -> Pairs:
    found = {}
    for contents, pair in settings_of(table):
        full = at_both_stops(Arm(contents, pair, Reference.FULL, 1.0))
        for method in methods_of(table):
            if method != RANDOM:
                cut = at_both_stops(Arm(contents, pair, method, middle_budget(table, method)))
                for stop, arm in cut.items():
                    found[f"{contents} {pair}, {method}, {stop}"] = (arm, full[stop])
    return found


_SETTING = (
    "0.3M-parameter character Llama that knows 36 string families; a target of two unlike families, rare in "
    "pretraining, 5 percent of a pool of 40 families; equal steps (sizes of the preset)"
)
_SHARE = (
    f"share of comparisons, each the mean gain in log test loss over paired seeds with its {CONFIDENCE:.0%} "
    "Student interval; the detectable gain is the pilot's"
)


def _claim(
    name: str, statement: str, where: str, judge: Judge, statistic: str = _SHARE, threshold: float = 1.0
) -> Claim:
    return Claim(
        f"sea-{name}",
        "ours (language models)",
        statement,
        f"{_SETTING}; {where}",
        statistic,
        threshold,
        judge,
        f"{_TEST}::test_a_claim_holds_fails_or_finds_no_difference",
    )


_CLEAN = "clean pool with the targets of pair A (development), each budget, best stop on validation"
_FAULTY = (
    "pool with wrong answers, another format and repetitions, with the targets of pair B (held out), each "
    "budget, best stop on validation"
)
CLAIMS = [
    _claim(
        "random-clean",
        "A sea of rows: each method that reads the target beats random rows in a clean pool.",
        _CLEAN,
        _judge(_over_random(0)),
    ),
    _claim(
        "random-faulty",
        "A sea of rows: each method with a verifier beats random rows in a pool with faults.",
        _FAULTY,
        _judge(_over_random(1)),
    ),
    _claim(
        "turns",
        "A sea of rows: rows nearest to each target row in turn beat those nearest to the target's mean.",
        "sketches of gradients, both pools, each budget, best stop",
        _judge(_turns),
    ),
    _claim(
        "verifier",
        "A sea of rows: each method is better with the verifier's verdicts than without.",
        "pool with faults, the middle budget, best stop",
        _judge(_verified),
    ),
    _claim(
        "weights",
        "A sea of rows: every usable row, drawn with a weight that falls with its place, beats the cut.",
        "order of rds, scale and cut at the middle budget, both pools, best stop and equal steps",
        _judge(_over_cut(Reference.WEIGHTED)),
    ),
    _claim(
        "keeps",
        "A sea of rows: with weights the families that the model knew are forgotten less than with the cut.",
        "the same runs, loss on test rows of the 36 known families",
        _keeps,
    ),
    _claim(
        "full",
        "A sea of rows: 5 percent by any method that reads the target beats the whole pool.",
        "both pools, best stop and equal steps",
        _judge(_over_full),
    ),
    _claim(
        "oracle",
        "A sea of rows: right rows of the target alone are better than what rds takes.",
        "as many as the middle budget, or all there are; both pools, best stop and equal steps",
        _judge(_over_cut(Reference.ORACLE)),
    ),
    _claim(
        "default-choice",
        "A sea of rows: nearest rows by position-weighted hidden states (rds) are the best default.",
        _CLEAN,
        judge_choice,
        "mean log test loss over budgets and seeds above that of the best method",
        0.0,
    ),
    _claim(
        "default-random",
        "A sea of rows: the default chosen in development beats random rows on held-out settings.",
        _FAULTY,
        judge_random,
    ),
    _claim(
        "default-rivals",
        "A sea of rows: no method beats the default by more than the detectable gain on held-out settings.",
        _FAULTY,
        judge_rivals,
        "largest mean gain of another method in log test loss, and its interval",
        0.0,
    ),
    _claim(
        "default-unverified",
        "A sea of rows: the default with a verifier beats every method without one where rows are faulty.",
        f"{_FAULTY}; the middle budget",
        judge_unverified,
    ),
]

STUDY = Study(
    name=NAME,
    title="Few useful rows in a sea of others: which selector finds them",
    story=(
        "A small language model knows thirty-six string tasks; two others are the target, and 5 percent of "
        "the pool. Each method takes a share of the pool, and all train for the same number of steps: points "
        "show how far the loss on the target lies below that of random rows, bars are 95 percent intervals "
        "over pretrained models."
    ),
    experiment=SeaStudy,
    draw=draw_sea,
    claims=CLAIMS,
)
"""Which selector of SFT rows wins, where, and by how much."""
