"""How much SFT data at convergence, at the best time and at the best penalty: what is run and stated.

Over random shifts of three kinds the exact theory gives the error on the target at nine numbers of rows. The
verdicts are over draws of shifts: within one shift there is no noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from datadose.studies.ledger import (
    judge_difference,
    judge_settings,
    judge_share,
    judge_worst,
    none_of,
    told_apart,
)
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.tables import THEORY, Setting, SettingsExperiment
from datadose.studies.training_time.figures import draw_best_time
from datadose.studies.training_time.names import (
    CEILING,
    CONVERGED,
    LARGE,
    PENALTY,
    SIZES,
    STOPPED,
    TIME,
    UNLIMITED,
    UNTOUCHED,
    Column,
    best_small,
    by_kind,
)
from datadose.studies.training_time.shifts import KINDS, Kind, random_shift
from datadose.sweep import Cell
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.time_search import best_time
from datadose.theory.weighted_test import WeightedTest

NAME = "best_time"
_PER_DECADE = 3
"""Three times a decade find the same minimum as six to 2e-8 in 72 pairs of a pilot."""


def errors_by_size(kind: Kind, dimension: int, seed: int, sizes: tuple[float, ...]) -> list[list[Any]]:
    """Cell: for each B / d the errors converged, at the best penalty and time, that time, F* and B = 0."""
    shift, n = random_shift(kind, dimension, seed)
    start, test = pretrained_operator(shift.sigma0, n), WeightedTest.of(shift.target, n)
    curve = EffectivePenalty.of(start, shift.eta, Source(shift.data, n, 1.0), test)
    counts = [size * dimension for size in sizes]
    converged = curve.errors(counts, 0.0)
    untouched = curve.at(0.0, 0.0).error
    rows: list[list[Any]] = []
    for size, B, end in zip(sizes, counts, converged, strict=True):
        best = best_time(start, shift.eta, [Source(shift.data, n, B)], test, per_decade=_PER_DECADE)
        known = [float(end), curve.best(B).error, best.error, best.time, curve.ceiling.error, untouched]
        rows.append([size, *known])
    return rows


@dataclass(frozen=True)
class BestTimes(SettingsExperiment):
    """Nine numbers of rows for each of ``seeds`` random shifts of each kind."""

    figure, columns = NAME, Column
    measured = (Column.SIZE, CONVERGED, PENALTY, STOPPED, TIME, CEILING, UNTOUCHED)
    dimension: int
    seeds: int
    sizes: tuple[float, ...] = SIZES

    @classmethod
    def preset(cls, name: Preset) -> BestTimes:
        """The configuration of a preset; 67 shifts of a kind distinguish a share of .70 from one half."""
        if name == "smoke":
            return cls(12, 2)
        return cls(24, 67) if name == "quick" else cls(60, 200)

    def settings(self) -> Iterator[Setting]:
        """A cell a shift."""
        for kind in KINDS:
            for seed in range(self.seeds):
                arguments = {
                    "kind": kind,
                    "dimension": self.dimension,
                    "seed": seed,
                    "sizes": self.sizes,
                }
                shared = {Column.MODEL: THEORY, Column.KIND: kind, Column.SEED: seed}
                yield Cell(errors_by_size, arguments), shared


# --- judges -----------------------------------------------------------------------------------------------


def _small_wins(saved: Saved[BestTimes], columns: dict[str, str], threshold: float) -> Judgement:
    """Whether the best B < d beats B = 30 d in more than half of the shifts of a kind, for all kinds."""
    verdicts, notes = {}, []
    for name, column in columns.items():
        for kind, wide in by_kind(saved.table, column):
            ratio = wide[LARGE] / best_small(wide)
            judged = judge_share(ratio > 1, 0.5)
            label = f"{name}{kind}"
            verdicts[label] = judged.verdict
            notes.append(
                f"{label}: small wins in {int((ratio > 1).sum())} of {len(ratio)}, large/small "
                f"{spread(ratio)}"
            )
    power = told_apart(saved.config.seeds, 0.5)
    return judge_settings(verdicts, threshold, saved.config.seeds, "; ".join([*notes, power]))


def spread(values: pd.Series) -> str:
    """Median and range as text."""
    return f"{values.median():.3g} ({values.min():.3g} to {values.max():.3g})"


def small_at_convergence(saved: Saved[BestTimes], threshold: float) -> Judgement:
    """Insight 2 where every model is trained to convergence."""
    return _small_wins(saved, {"": CONVERGED}, threshold)


def small_when_tuned(saved: Saved[BestTimes], threshold: float) -> Judgement:
    """Insight 2 where every model has its best time, or its best penalty."""
    return _small_wins(saved, {"best time, ": STOPPED, "best penalty, ": PENALTY}, threshold)


def never_rises(saved: Saved[BestTimes], threshold: float) -> Judgement:
    """The largest relative rise of the error at the best time from one number of rows to the next."""
    rises, places = _rises(saved.table, STOPPED)
    penalised, _ = _rises(saved.table, PENALTY)
    worst = int(rises.argmax())
    note = (
        f"{int((rises > threshold).sum())} of {len(rises)} rise, {none_of(len(rises))}; worst "
        f"{places[worst]}; "
        f"at the best penalty {int((penalised > threshold).sum())} rise (a theorem), worst "
        f"{max(0.0, penalised.max()):.2g}"
    )
    return judge_worst(np.maximum(rises, 0), threshold, note=note)


def _rises(table: pd.DataFrame, column: str) -> tuple[np.ndarray, list[str]]:
    """The largest rise of each shift, and where it is."""
    found, places = [], []
    for kind, wide in by_kind(table, column):
        rise = wide.to_numpy()[:, 1:] / wide.to_numpy()[:, :-1] - 1
        found.append(rise.max(axis=1))
        for seed, at in zip(wide.index, rise.argmax(axis=1), strict=True):
            places.append(f"{kind}, seed {seed}, to B = {wide.columns[at + 1]:g} d")
    return np.concatenate(found), places


DETECTABLE = 0.02
"""The smallest mean difference of log errors between two filters that matters."""


def time_against_penalty(saved: Saved[BestTimes], threshold: float) -> Judgement:
    """The log ratio of the errors at the best time and at the best penalty, B = 30 d, by kind."""
    verdicts, notes = {}, []
    penalties = dict(by_kind(saved.table, PENALTY))
    for kind, wide in by_kind(saved.table, STOPPED):
        ratio = wide / penalties[kind]
        verdicts[kind] = judge_difference(np.log(ratio[LARGE].to_numpy()), DETECTABLE).verdict
        sizes = ", ".join(f"B = {size:g} d {spread(ratio[size])}" for size in (0.2, LARGE, UNLIMITED))
        notes.append(f"{kind}: {sizes}")
    return judge_settings(verdicts, threshold, saved.config.seeds, "; ".join(notes))


def clocks(saved: Saved[BestTimes], threshold: float) -> Judgement:
    """Whether the best time grows in steps and falls in epochs from B = d/10 to 30 d, where it is inside."""
    verdicts, notes = {}, []
    for kind, wide in by_kind(saved.table, TIME):
        few, many = wide[0.1], wide[LARGE]
        kept = (few > 0) & (many > 0) & few.notna() & many.notna()
        slope = np.log(many[kept] / few[kept]) / np.log(LARGE / 0.1)
        verdicts[f"{kind}, steps grow"] = judge_share(slope > 0, 0.9).verdict
        verdicts[f"{kind}, epochs fall"] = judge_share(slope < 1, 0.9).verdict
        notes.append(
            f"{kind}: d log t / d log B {spread(slope)}, steps grow in {int((slope > 0).sum())}, epochs fall "
            f"in {int((slope < 1).sum())} of {int(kept.sum())}"
        )
    note = "; ".join([*notes, told_apart(saved.config.seeds, 0.9)])
    return judge_settings(verdicts, threshold, saved.config.seeds, note)


_SETTING = (
    "random shifts of three kinds (two blocks; power laws with the paper's allocation; dense data partly the "
    "target), B from d/10 to 30 d and 1e5 d; exact theory (sizes of the preset)"
)
_TEST = "tests/studies/training_time/test_best_time.py"
_OVER = "share of kinds in which the share of shifts is surely above one half (exact 95% interval)"
CLAIMS = (
    Claim(
        "time-small-converged",
        "Insight 2",
        "Trained to convergence, the best set below the peak (B < d) beats B = 30 d in most shifts.",
        _SETTING,
        _OVER,
        1.0,
        small_at_convergence,
        f"{_TEST}::test_small_sets_are_judged_by_kind",
        shown_by=("insight2_size",),
    ),
    Claim(
        "time-small-tuned",
        "Insight 2",
        "The best set below the peak still beats B = 30 d where each is trained for its best time, "
        "or with its "
        "best penalty.",
        _SETTING,
        _OVER,
        1.0,
        small_when_tuned,
        f"{_TEST}::test_small_sets_are_judged_by_kind",
    ),
    Claim(
        "time-more-rows",
        "ours",
        "With the best time more rows of one kind never hurt: the error never rises with B.",
        _SETTING,
        "largest relative rise between neighbouring numbers of rows, over all shifts",
        1e-6,
        never_rises,
        f"{_TEST}::test_one_rise_refutes",
    ),
    Claim(
        "time-against-penalty",
        "ours",
        "Stopping at the best time is the better filter than the best penalty (B = 30 d).",
        _SETTING,
        "share of kinds in which the mean log ratio of errors is surely below 0; within "
        f"{DETECTABLE:g} of 0 there "
        "is no difference",
        1.0,
        time_against_penalty,
        f"{_TEST}::test_two_filters_are_compared",
    ),
    Claim(
        "time-clocks",
        "ours",
        "From B = d/10 to 30 d the best number of steps grows and the best number of epochs falls, "
        "in nine of "
        "ten shifts whose best time is neither none nor endless.",
        _SETTING + "; one learning rate and batch for all B",
        "share of kinds and clocks in which the share of shifts is surely above .9 (exact 95% interval)",
        1.0,
        clocks,
        f"{_TEST}::test_steps_and_epochs_are_told_apart",
    ),
)
STUDY = Study(
    name=NAME,
    title="How long, and how much of one kind?",
    story=(
        "Trained to convergence a small SFT set often beats a large one; stopped at its best time, "
        "or with its "
        "best penalty, the large set wins in every shift. The best number of steps grows with the "
        "rows, in most "
        "shifts more slowly than they do, so epochs that suit a small set overtrain a large one."
    ),
    experiment=BestTimes,
    draw=draw_best_time,
    claims=CLAIMS,
)
