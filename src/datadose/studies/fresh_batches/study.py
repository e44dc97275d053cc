"""Many epochs on few rows against one pass at the same number of updates: what is judged and stated."""

from __future__ import annotations

import numpy as np
from scipy import stats

from datadose.covariance import Array
from datadose.power import CONFIDENCE
from datadose.studies.fresh_batches.experiment import (
    EPOCHS,
    FRESH,
    NAME,
    POPULATION,
    WHOLE,
    Column,
    FreshBatches,
    comparisons,
)
from datadose.studies.fresh_batches.figure import draw_fresh
from datadose.studies.ledger import decide
from datadose.studies.study import Claim, Judgement, Saved, Study, Verdict

__all__ = ["NAME", "STUDY", "Column"]

MARGIN = 0.05
"""The smallest difference that counts, as a share of one pass's error; the seeds are chosen to detect it."""


def _interval(values: Array, tests: int) -> tuple[float, float, float]:
    """Mean and its Student interval, of 95 percent for all of ``tests`` intervals together (Bonferroni)."""
    mean = float(values.mean())
    if len(values) < 2 or not np.isfinite(mean):
        return mean, mean if np.isinf(mean) else -np.inf, np.inf
    quantile = stats.t.isf((1 - CONFIDENCE) / 2 / tests, len(values) - 1)
    half = float(quantile * values.std(ddof=1) / len(values) ** 0.5)
    return mean, mean - half, mean + half


def equal_updates(saved: Saved[FreshBatches], threshold: float) -> Judgement:
    """The share of cells (setting, B, T) where repetition wins, each at 95 percent confidence over seeds."""
    won, lost, total = [], 0, 0
    for one in comparisons(saved.table):
        for T in one.repeated:
            _, low, high = _interval(one.ratios[T].to_numpy(), 1)
            total += 1
            lost += low > 1
            if high < 1:
                won.append((T / one.best_time, one.ratios[T].mean(), one.name, T))
    share = (len(won) / total, (total - lost) / total)
    verdict: Verdict = "holds" if share[0] >= threshold else "fails" if lost == total else "mixed"
    note = f"{len(won)} of {total} cells won, {lost} lost, {total - len(won) - lost} undecided"
    if won:
        first, most = min(won), min(won, key=lambda one: one[1])
        note += (
            f"; earliest win at {first[0]:.3g} of one pass's best time ({first[2]}, {first[3]} updates, "
            f"ratio {first[1]:.3g}), largest {most[1]:.3g} ({most[2]}, {most[3]} updates)"
        )
    return Judgement(share[0], share, saved.config.seeds, verdict, note)


def _smallest(found: list[tuple[float, float, float, str]], seeds: int, threshold: float) -> Judgement:
    """Judge the smallest of several ratios, each with its interval: all must keep ``threshold``."""
    if not found:
        return Judgement(None, None, seeds, "not run", "no cell to compare")
    value, _, _, place = min(found)
    low, high = min(one[1] for one in found), min(one[2] for one in found)
    verdict = decide(low, high, threshold, below=False)
    return Judgement(value, (low, high), seeds, verdict, f"smallest of {len(found)}: {place}")


def before_best(saved: Saved[FreshBatches], threshold: float) -> Judgement:
    """The smallest error of repetition over that of one pass, up to the best time of one pass."""
    return _before(saved, threshold, EPOCHS, FRESH)


def without_step_noise(saved: Saved[FreshBatches], threshold: float) -> Judgement:
    """The same without the noise of steps: all B rows at once, over the population."""
    return _before(saved, threshold, WHOLE, POPULATION)


def _before(saved: Saved[FreshBatches], threshold: float, training: str, reference: str) -> Judgement:
    every = comparisons(saved.table, training, reference)
    cells = [(one, T) for one in every for T in one.repeated if T <= one.best_time]
    found = [
        (*_interval(one.ratios[T].to_numpy(), len(cells)), f"{one.name}, {T} updates") for one, T in cells
    ]
    return _smallest(found, saved.config.seeds, threshold)


def at_best(saved: Saved[FreshBatches], threshold: float) -> Judgement:
    """The smallest error of repetition at its best time over that of one pass at its own."""
    every = [one for one in comparisons(saved.table) if one.repeated]
    found = []
    for one in every:
        # Before its second epoch it is one pass.
        T = int(one.errors[one.repeated].mean().idxmin())
        ratio = one.errors[T].to_numpy() / one.one_pass.min()
        found.append((*_interval(ratio, len(every)), f"{one.name}, best at {T} updates"))
    return _smallest(found, saved.config.seeds, threshold)


_SETTING = "two-block shifts, batches of 1 and 8 rows, steps of .1 and .5 of the largest stable one"
_TEST = "tests/studies/test_fresh_batches.py"
CLAIMS = (
    Claim(
        "repetition-equal-updates",
        "Kopiczko et al. 2602.11149 (7B models), in this model",
        "At equal updates, many epochs on few rows beat one pass over many.",
        _SETTING,
        "share of cells (shift, step, batch, B, T >= two epochs) where it holds, each at "
        f"{CONFIDENCE:.0%} confidence over seeds",
        1.0,
        equal_updates,
        f"{_TEST}::test_equal_updates_are_judged_cell_by_cell",
    ),
    Claim(
        "repetition-before-best",
        "ours",
        "Up to the best time of one pass, epochs on few rows are nowhere better by more than 5 percent.",
        _SETTING,
        "smallest error of epochs over the exact one of one pass at equal updates, simultaneous 95% interval",
        1 - MARGIN,
        before_best,
        f"{_TEST}::test_a_win_before_the_best_time_refutes",
    ),
    Claim(
        "repetition-best-time",
        "ours",
        "Each stopped at its best time, epochs on few rows are nowhere better than one pass by more than 5 "
        "percent.",
        _SETTING,
        "smallest best error of epochs over the best exact one of one pass, simultaneous 95% interval",
        1 - MARGIN,
        at_best,
        f"{_TEST}::test_best_against_best",
    ),
    Claim(
        "repetition-dilution",
        "ours",
        "Without the noise of steps few rows do not win either: descent on all of them at once is, up to the "
        "best time, nowhere better than on the population by more than 5 percent.",
        _SETTING,
        "smallest error on B rows over that on the population at equal updates, simultaneous 95% interval",
        1 - MARGIN,
        without_step_noise,
        f"{_TEST}::test_the_noise_of_steps_is_set_apart",
    ),
)
STUDY = Study(
    name=NAME,
    title="Many epochs on few rows, or one pass over many?",
    story=(
        "At the same number of updates fresh rows are at least as good as repeated ones until one pass is "
        "far past its best time: repetition wins only among models that were trained for too long, because "
        "a small set leaves most directions as they were. The noise of a large step costs both; a smaller "
        "step removes it."
    ),
    experiment=FreshBatches,
    draw=draw_fresh,
    claims=CLAIMS,
)
