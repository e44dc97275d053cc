"""Claims on every method in every sort of pool, from sea_methods.csv.

Gains are those of the sea (:mod:`~datadose.studies.referee.study`): differences of logarithms of the test
loss over paired seeds, at the best stop on validation. The claims were written before the run. What is to be
compared is what the configuration has: a claim does not hold by a comparison that the table lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from datadose.covariance import Array
from datadose.power import CONFIDENCE
from datadose.studies.referee.arms import Arm, Pairs, all_gains, at_best_stop
from datadose.studies.referee.default import pilots_of
from datadose.studies.referee.experiment import CANDIDATE, RANDOM, SeaStudy
from datadose.studies.referee.judging import Pilots, beaten_by, compare_all
from datadose.studies.referee.methods_experiment import BLIND, NAME, MethodsStudy
from datadose.studies.referee.methods_figure import draw_methods
from datadose.studies.referee.runs import GRADIENT
from datadose.studies.study import Claim, Judgement, Saved, Study

Compare: TypeAlias = Callable[[Mapping[str, Array], Pilots], Judgement]
Judge: TypeAlias = Callable[[Saved[SeaStudy], float], Judgement]
_DEFAULT = "bm25"
_TEST = "tests/studies/referee/test_methods.py::test_a_claim_holds_fails_or_finds_no_difference"


def _against(study: SeaStudy, first: Iterable[str], second: str) -> Pairs:
    """Each of the methods ``first`` and the method ``second``, in every pool, at every budget."""
    return {
        f"{one.contents} {one.pair}, {method}, {budget:.0%}": (
            Arm(one.contents, one.pair, method, budget),
            Arm(one.contents, one.pair, second, budget),
        )
        for one in study.settings
        for method in first
        for budget in study.budgets
    }


def _judge(saved: Saved[SeaStudy], pairs: Pairs, compare: Compare) -> Judgement:
    """What ``compare`` finds in the gains of ``pairs``; what *holds* in some of them only is *mixed*."""
    found = all_gains(at_best_stop(saved.table), pairs)
    judgement = compare(found, pilots_of(saved, pairs))
    lacking = [name for name, values in found.items() if len(values) < 2]
    if not lacking or judgement.verdict == "not run":
        return judgement
    verdict = "mixed" if judgement.verdict == "holds" else judgement.verdict
    return replace(judgement, verdict=verdict, note=f"not finished: {', '.join(lacking)}; {judgement.note}")


def _beats(methods: Iterable[str], other: str) -> Judge:
    """Whether each of the methods has the lower loss than the other in every pool."""
    return lambda saved, threshold: _judge(
        saved,
        _against(saved.config, methods, other),
        lambda found, pilots: compare_all(found, pilots, threshold),
    )


def _blind(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    return _judge(saved, _against(saved.config, BLIND, RANDOM), beaten_by)


def _rivals(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    rivals = [name for name in saved.config.methods if name != _DEFAULT]
    return _judge(saved, _against(saved.config, rivals, _DEFAULT), beaten_by)


def _faults(saved: Saved[SeaStudy], threshold: float) -> Judgement:
    """The clean pool against each faulty one of the same targets, for the default."""
    pairs = {
        f"{one.contents} {one.pair}, {budget:.0%}": (
            Arm(one.contents, one.pair, _DEFAULT, budget),
            Arm("clean", one.pair, _DEFAULT, budget),
        )
        for one in saved.config.settings
        if one.contents != "clean"
        for budget in saved.config.budgets
    }

    def costs(found: Mapping[str, Array], pilots: Pilots) -> Judgement:
        return beaten_by({name: -values for name, values in found.items()}, pilots, "losses by faults")

    return _judge(saved, pairs, costs)


_SETTING = (
    "0.3M-parameter character Llama that knows 36 string families; a target of two unlike families, rare in "
    "pretraining, 5 percent of a pool of 40 families; clean pools with either pair of targets, and with the "
    "second pair (preset paper: with both) pools with wrong answers, another format, repetitions, and all "
    "three; with a verifier, equal steps, best stop on validation (sizes of the preset). Gradients of all "
    "weights are count sketches, without the LoRA and the scaling of LESS; transport chooses among the four "
    "times as many rows that rds takes first"
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
        "largest mean gain of the clean pool over one with faults, in log test loss, and its interval; the "
        "detectable loss is that of the faulty pool's pilot, whose comparisons are within one pool",
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
