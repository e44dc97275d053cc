"""Equal steps, equal epochs and forgetting: what is run over random shifts, and what is stated.

The path is gradient flow; the noise of small batches is a study of its own (fresh_batches). At equal epochs
the number of steps is 130 ceil(B / 32), the paper's training of its transformers, at one learning rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import scipy

from datadose.covariance import is_spectrum, wishart_second_moment
from datadose.shapes import Array, Operator
from datadose.studies.ledger import judge_settings, judge_share, judge_worst, none_of, told_apart
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.tables import THEORY, Setting, SettingsExperiment
from datadose.studies.training_time.equal_figure import draw_equal_time
from datadose.studies.training_time.names import LARGE
from datadose.studies.training_time.path_names import (
    ALLOWED,
    AT_EPOCHS,
    BATCH,
    BEFORE,
    BEST,
    EPOCHS,
    FACTORS,
    HELD,
    PACES,
    PATH,
    ROWS,
    SHOWN,
    STEPS,
    Column,
    wide_errors,
)
from datadose.studies.training_time.shifts import KINDS, Kind, random_shift
from datadose.sweep import Cell
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.time_search import BestTime, best_time
from datadose.theory.training_time import trained_path
from datadose.theory.weighted_test import WeightedTest

NAME = "equal_time"
Row: TypeAlias = list[Any]


@dataclass(frozen=True)
class _Run:
    """A shift with its start and its two tests."""

    start: Operator
    eta: float
    data: Operator
    length: int
    target: WeightedTest
    known: WeightedTest

    @classmethod
    def of(cls, kind: Kind, dimension: int, seed: int) -> _Run:
        shift, n = random_shift(kind, dimension, seed)
        start = pretrained_operator(shift.sigma0, n)
        tests = WeightedTest.of(shift.target, n), WeightedTest.of(shift.sigma0, n)
        return cls(start, shift.eta, shift.data, n, *tests)

    def source(self, prompts: float) -> Source:
        return Source(self.data, self.length, prompts)

    def errors(self, prompts: float, times: Array) -> tuple[Array, Array]:
        """Errors on the target and on Sigma0 at these times, an infinite one being convergence."""
        stoppings = [Stopping(time=float(t)) if np.isfinite(t) else Stopping() for t in times]
        models = trained_path(self.start, self.eta, [self.source(prompts)], stoppings)
        return tuple(np.array([t.error(m) for m in models]) for t in (self.target, self.known))  # type: ignore[return-value]

    @property
    def largest_eigenvalue(self) -> float:
        """Of the data's second moment."""
        C = wishart_second_moment(self.data, self.length)
        return float(C.max() if is_spectrum(C) else np.linalg.eigvalsh(C)[-1])


def along_path(kind: Kind, dimension: int, seed: int) -> list[Row]:
    """Cell: errors at equal steps, at equal epochs and along the path of B = 30 d."""
    run = _Run.of(kind, dimension, seed)
    large = round(LARGE * dimension)
    best = best_time(run.start, run.eta, [run.source(large)], run.target, per_decade=3)
    rows: list[Row] = []
    if best.time is not None and best.time > 0:
        times = best.time * np.array(FACTORS)
        for size in ROWS:
            errors, _ = run.errors(round(size * dimension), times)
            rows += [[STEPS, f, size, float(e), None] for f, e in zip(FACTORS, errors, strict=True)]
    for size in ROWS:
        B = round(size * dimension)
        steps = EPOCHS * ceil(B / BATCH)
        errors, _ = run.errors(B, steps * np.array(PACES) / run.largest_eigenvalue)
        rows += [[AT_EPOCHS, pace, size, float(e), None] for pace, e in zip(PACES, errors, strict=True)]
    return rows + _forgetting(run, large, best, keep=seed < SHOWN)


def _forgetting(run: _Run, prompts: int, best: BestTime, *, keep: bool) -> list[Row]:
    """Errors on the target and on Sigma0: before, at the best time, held back, and along the path if kept."""
    before = run.errors(prompts, np.zeros(1))
    end = np.inf if best.time is None else best.time
    bar = (1 + ALLOWED) * before[1][0]
    at_best = run.errors(prompts, np.array([end]))
    times = np.array([t for t in best.grid if t < end])
    target, known = run.errors(prompts, times) if len(times) else (np.zeros(0), np.zeros(0))
    times, target, known = (
        np.append(a, b) for a, b in ((times, end), (target, at_best[0]), (known, at_best[1]))
    )
    rows = [
        [BEFORE, 1.0, LARGE, float(before[0][0]), float(before[1][0])],
        [BEST, 1.0, LARGE, float(at_best[0][0]), float(at_best[1][0])],
    ]
    over = np.flatnonzero(known > bar)
    if not len(over):
        held = target.min(), known[target.argmin()]
    else:
        # The last time at which no more is forgotten than allowed, before it first is.
        first = int(over[0])
        low, high = times[max(first - 1, 0)], times[first]
        high = high if np.isfinite(high) else best.grid[-1]
        crossing = _crossing(run, prompts, bar, low, high)
        there = run.errors(prompts, np.array([crossing]))
        held = min(
            [
                (before[0][0], before[1][0]),
                (there[0][0], there[1][0]),
                *zip(target[:first], known[:first], strict=True),
            ]
        )
    rows.append([HELD, 1.0, LARGE, float(held[0]), float(held[1])])
    if keep:
        for t, a, b in zip(times, target, known, strict=True):
            rows.append([PATH, float(t) if np.isfinite(t) else None, LARGE, float(a), float(b)])
    return rows


def _crossing(run: _Run, prompts: int, bar: float, low: float, high: float) -> float:
    """The time in [low, high] at which the error on Sigma0 reaches ``bar``."""

    def excess(x: float) -> float:
        return float(run.errors(prompts, np.array([np.exp(x)]))[1][0] - bar)

    ends = np.log([low, high])
    if excess(ends[0]) >= 0 or excess(ends[1]) <= 0:
        return float(low)
    return float(np.exp(scipy.optimize.brentq(excess, *ends, xtol=1e-3)))


@dataclass(frozen=True)
class EqualTime(SettingsExperiment):
    """Paths of several numbers of rows for each of ``seeds`` random shifts of each kind."""

    figure, columns = NAME, Column
    measured = (Column.CLOCK, Column.FACTOR, Column.SIZE, Column.ON_TARGET, Column.ON_KNOWN)
    dimension: int
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> EqualTime:
        """The configuration of a preset; 100 shifts of a kind distinguish a share of .67 from one half."""
        if name == "smoke":
            return cls(12, 2)
        return cls(48, 100) if name == "quick" else cls(96, 200)

    def settings(self) -> Iterator[Setting]:
        """A cell a shift."""
        for kind in KINDS:
            for seed in range(self.seeds):
                arguments = {"kind": kind, "dimension": self.dimension, "seed": seed}
                shared = {Column.MODEL: THEORY, Column.KIND: kind, Column.SEED: seed}
                yield Cell(along_path, arguments), shared


# --- judges -----------------------------------------------------------------------------------------------


def _gain(wide: pd.DataFrame) -> pd.Series:
    """The least error over B < d, over that of B = 30 d: below 1 where a small set wins."""
    return wide[[size for size in wide.columns if size < 1]].min(axis=1) / wide[LARGE]


def equal_steps(saved: Saved[EqualTime], threshold: float) -> Judgement:
    """The least error of a small set over that of B = 30 d at equal steps, up to the latter's best time."""
    ratios, late = [], []
    for _, wide in wide_errors(saved.table, STEPS, up_to=1.0):
        ratios.append(_gain(wide).groupby(level=Column.SEED).min().to_numpy())
    for factor in (f for f in FACTORS if f > 1):
        won = [float((_gain(wide) < 1).mean()) for _, wide in wide_errors(saved.table, STEPS, at=factor)]
        late.append(f"{factor:g} times it: " + ", ".join(f"{share:.0%}" for share in won))
    every = np.concatenate(ratios)
    note = (
        f"{int((every < threshold).sum())} of {len(every)} shifts; {none_of(len(every))}; "
        f"a small set wins past the best time at {'; '.join(late)} of the shifts ({', '.join(KINDS)})"
    )
    return judge_worst(every, threshold, below=False, note=note)


def equal_epochs(saved: Saved[EqualTime], threshold: float) -> Judgement:
    """Whether a small set beats B = 30 d after 130 epochs, by kind and learning rate."""
    verdicts, notes = {}, []
    for pace in PACES:
        for kind, wide in wide_errors(saved.table, AT_EPOCHS, at=pace):
            gain = _gain(wide)
            label = f"{kind}, rate {pace:g}"
            verdicts[label] = judge_share(gain < 1, 0.5).verdict
            notes.append(f"{label}: {(gain < 1).mean():.0%}, small/large {gain.median():.3g}")
    note = "; ".join([*notes, told_apart(saved.config.seeds, 0.5)])
    return judge_settings(verdicts, threshold, saved.config.seeds, note)


def _forgotten(table: pd.DataFrame) -> Iterator[tuple[str, pd.Series, pd.Series]]:
    """By kind: the error on Sigma0 at the best time over before, and the price of holding it back."""
    for kind, rows in table.groupby(Column.KIND, sort=False):
        of = {
            clock: part.set_index(Column.SEED)[[Column.ON_TARGET, Column.ON_KNOWN]].astype(float)
            for clock, part in rows[rows[Column.CLOCK].isin([BEFORE, BEST, HELD])].groupby(Column.CLOCK)
        }
        rise = of[BEST][Column.ON_KNOWN] / of[BEFORE][Column.ON_KNOWN]
        price = of[HELD][Column.ON_TARGET] / of[BEST][Column.ON_TARGET]
        yield str(kind), rise, price


def best_time_forgets(saved: Saved[EqualTime], threshold: float) -> Judgement:
    """Whether the error on Sigma0 at the target's best time is above that before by more than 5 percent."""
    verdicts, notes = {}, []
    for kind, rise, _ in _forgotten(saved.table):
        verdicts[kind] = judge_share(rise > 1 + ALLOWED, 0.5).verdict
        notes.append(f"{kind}: {(rise > 1 + ALLOWED).mean():.0%}, median {rise.median():.3g}")
    note = "; ".join([*notes, told_apart(saved.config.seeds, 0.5)])
    return judge_settings(verdicts, threshold, saved.config.seeds, note)


CHEAP = 1.1


def price_of_keeping(saved: Saved[EqualTime], threshold: float) -> Judgement:
    """Whether less than 5 percent of forgetting costs at most a tenth of the target's best error."""
    verdicts, notes = {}, []
    for kind, _, price in _forgotten(saved.table):
        verdicts[kind] = judge_share(price <= CHEAP, 0.5).verdict
        notes.append(f"{kind}: {(price <= CHEAP).mean():.0%}, median price {price.median():.3g}")
    note = "; ".join([*notes, told_apart(saved.config.seeds, 0.5)])
    return judge_settings(verdicts, threshold, saved.config.seeds, note)


_SETTING = (
    "random shifts of three kinds, B from d/10 to 30 d, gradient flow; exact theory (sizes of the preset)"
)
_TEST = "tests/studies/training_time/test_equal_time.py"
_OVER = "share of kinds{} in which the share of shifts is surely above one half (exact 95% interval)"
CLAIMS = (
    Claim(
        "time-equal-steps",
        "Insight 2",
        "At equal steps there is no dilution up to the best time of B = 30 d: no set below the peak "
        "is better.",
        _SETTING,
        "least error of a set B < d over that of B = 30 d, at .1, .3 and 1 of the latter's best time",
        1.0,
        equal_steps,
        f"{_TEST}::test_a_small_set_that_wins_early_refutes",
    ),
    Claim(
        "time-equal-epochs",
        "Insight 2",
        "At equal epochs (130 in batches of 32) a set below the peak beats B = 30 d in most shifts.",
        _SETTING
        + "; learning rates of .01, .1 and 1 over the largest eigenvalue of the data's second moment",
        _OVER.format(" and rates"),
        1.0,
        equal_epochs,
        f"{_TEST}::test_epochs_are_judged_by_kind_and_rate",
    ),
    Claim(
        "time-forgets",
        "ours",
        "The target's best time forgets: with B = 30 d the error on Sigma0 is then above that before "
        "by more than "
        "5 percent in most shifts.",
        _SETTING,
        _OVER.format(""),
        1.0,
        best_time_forgets,
        f"{_TEST}::test_forgetting_and_its_price",
    ),
    Claim(
        "time-price-of-keeping",
        "ours",
        "Stopping before 5 percent of forgetting costs at most a tenth of the target's best error in "
        "most shifts "
        "(B = 30 d).",
        _SETTING,
        _OVER.format(""),
        1.0,
        price_of_keeping,
        f"{_TEST}::test_forgetting_and_its_price",
    ),
)
STUDY = Study(
    name=NAME,
    title="Equal steps, equal epochs, and what is forgotten on the way",
    story=(
        "At equal steps no set below the peak beats the large one up to the large one's best time, "
        "and only about "
        "a hundred times later is dilution common; at 130 epochs the large set takes more steps and is "
        "overtrained at large learning rates. The target's best time costs 4 to 14 percent of the error on "
        "Sigma0 (medians), and keeping that below 5 percent is dear on two-block shifts alone."
    ),
    experiment=EqualTime,
    draw=draw_equal_time,
    claims=CLAIMS,
)
