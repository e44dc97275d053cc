"""Claims on every method in every sort of pool, from sea_methods.csv.

Gains are those of the sea (:mod:`~datadose.studies.referee.study`): differences of logarithms of the test
loss over paired seeds, at the best stop on validation. The claims were written before the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import pandas as pd

from datadose.power import CONFIDENCE
from datadose.studies.referee.arms import Arm, Pairs, all_gains, budgets_of, methods_of, settings_of
from datadose.studies.referee.default import judge_pairs, pilots_of
from datadose.studies.referee.experiment import CANDIDATE, RANDOM, SeaStudy
from datadose.studies.referee.judging import beaten_by
from datadose.studies.referee.methods_experiment import BLIND, NAME, MethodsStudy
from datadose.studies.referee.methods_figure import draw_methods
from datadose.studies.referee.runs import GRADIENT
from datadose.studies.study import Claim, Judgement, Saved, Study

Judge: TypeAlias = Callable[[Saved[SeaStudy], float], Judgement]
_DEFAULT = "bm25"
_TEST = "tests/studies/referee/test_methods.py::test_a_claim_holds_fails_or_finds_no_difference"


def _against(table: pd.DataFrame, first: Iterable[str], second: str) -> Pairs:
    """Each of the methods ``first`` and the method ``second``, in every pool, at every budget."""
    return {
        f"{contents} {pair}, {method}, {budget:.0%}": (
            Arm(contents, pair, method, budget),
            Arm(contents, pair, second, budget),
        )
        for contents, pair in settings_of(table)
        for method in first
        for budget in budgets_of(table, method)
    }


def _beats(methods: Iterable[str], other: str) -> Judge:
    """Whether each of the methods has the lower loss than the other in every pool."""
    return lambda saved, threshold: judge_pairs(saved, _against(saved.table, methods, other), threshold)


def _unbeaten(saved: Saved[SeaStudy], pairs: Pairs) -> Judgement:
    """Whether no first arm of a pair has a loss lower by more than the detectable difference."""
    return beaten_by(all_gains(saved.table, pairs), pilots_of(saved, pairs))


def _blind(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    return _unbeaten(saved, _against(saved.table, BLIND, RANDOM))


def _rivals(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    rivals = [name for name in methods_of(saved.table) if name != _DEFAULT]
    return _unbeaten(saved, _against(saved.table, rivals, _DEFAULT))


def _faults(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    """The default in each faulty pool against itself in the clean one of the same targets."""
    pairs = {
        f"{contents} {pair}, {budget:.0%}": (
            Arm(contents, pair, _DEFAULT, budget),
            Arm("clean", pair, _DEFAULT, budget),
        )
        for contents, pair in settings_of(saved.table)
        if contents != "clean"
        for budget in budgets_of(saved.table, _DEFAULT)
    }
    losses = {name: -values for name, values in all_gains(saved.table, pairs).items()}
    return beaten_by(losses, pilots_of(saved, pairs))


_SETTING = (
    "0.3M-parameter character Llama that knows 36 string families; a target of two unlike families, rare in "
    "pretraining, 5 percent of a pool of 40 families; clean pools with either pair of targets, and with the "
    "second pair pools with wrong answers, another format, repetitions, and all three; with a verifier, "
    "equal steps, best stop on validation (sizes of the preset)"
)
_SHARE = (
    f"share of comparisons, each the mean gain in log test loss over paired seeds with its {CONFIDENCE:.0%} "
    "Student interval; the detectable gain is the pilot's"
)
_LARGEST = "largest mean gain in log test loss, and its interval"


def _claim(name: str, statement: str, judge: Judge, statistic: str, threshold: float) -> Claim:
    return Claim(
        f"sea-methods-{name}",
        "ours (language models)",
        f"Every method: {statement}",
        _SETTING,
        statistic,
        threshold,
        judge,
        _TEST,
    )


CLAIMS = [
    _claim(
        "blind",
        "none that does not read the target (longest, easiest, middle, hardest, ifd) beats random rows by "
        "more than the detectable gain.",
        _blind,
        _LARGEST,
        0.0,
    ),
    _claim(
        "turns-random",
        "words, hidden states and gradients of all weights, target rows taking turns (bm25, rds, gradient), "
        "beat random rows in every pool.",
        _beats((_DEFAULT, CANDIDATE, GRADIENT), RANDOM),
        _SHARE,
        1.0,
    ),
    _claim(
        "rivals",
        f"none beats the default, {_DEFAULT}, by more than the detectable gain in any pool.",
        _rivals,
        _LARGEST,
        0.0,
    ),
    _claim(
        "gradient-sketch",
        "gradients of all weights beat sketches of the last layer's gradient, by the same turns.",
        _beats((GRADIENT,), "sketch"),
        _SHARE,
        1.0,
    ),
    _claim(
        "states-gradient",
        "position-weighted hidden states (rds) beat gradients of all weights, by the same turns.",
        _beats((CANDIDATE,), GRADIENT),
        _SHARE,
        1.0,
    ),
    _claim(
        "transport",
        "optimal transport beats turns over the same hidden states (rds).",
        _beats(("transport",), CANDIDATE),
        _SHARE,
        1.0,
    ),
    _claim(
        "faults",
        f"with a verifier no fault of the pool costs the default, {_DEFAULT}, more than the detectable loss.",
        _faults,
        "largest mean gain of the clean pool over one with faults, in log test loss, and its interval",
        0.0,
    ),
]

STUDY = Study(
    name=NAME,
    title="Every method in every sort of pool",
    story=(
        "A small language model knows thirty-six string tasks; two others are the target, and 5 percent of "
        "the pool. Each method takes as many rows, and all train for the same number of steps. A point shows "
        "how far the loss on the target lies below that of random rows, its bar is the 95 percent interval "
        "over pretrained models. The methods below the line do not read the target."
    ),
    experiment=MethodsStudy,
    draw=draw_methods,
    claims=CLAIMS,
)
