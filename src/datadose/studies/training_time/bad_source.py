"""A misleading source: removed, or given a smaller weight? What is run over random pools, and what is stated.

Each pool has a good source (the target's covariance at its right scale), a misleading one with up to 40 d
rows, and in two of three pools a mixed one. All is exact theory; the error is at the best time of each way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from datadose.drawing.curves import level, log_y
from datadose.drawing.style import LOOKS, caption, draw_points, name_ticks, new_grid
from datadose.shapes import Operator
from datadose.studies import tables
from datadose.studies.ledger import judge_share, judge_worst, none_of
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.tables import THEORY, Setting, SettingsExperiment
from datadose.studies.training_time.shifts import between, power_law, random_delta
from datadose.sweep import Cell
from datadose.theory.effective_weights import EffectiveSources
from datadose.theory.equal_weights import best_equal_weights
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.time_search import best_time
from datadose.theory.tuned_weights import tuned_weights
from datadose.theory.weighted_test import WeightedTest

NAME = "bad_source"
WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Of a misleading row in the loss; 0 removes the source."""
UNTOUCHED, PENALTY, TUNED = "untouched", "best penalty", "tuned weights"
STOPPED = "best time"
TEN = 10
"""How many times the misleading rows are multiplied."""


class Column(tables.Column):
    """Columns of a pool: the way of training, the misleading row's weight and the multiple of its rows."""

    WAY = "way"
    WEIGHT = "weight"
    TIMES = "times"


@dataclass(frozen=True)
class Pool:
    """A start, a test and sources; the misleading one is the second."""

    start: Operator
    eta: float
    test: WeightedTest
    sources: tuple[Source, ...]

    @classmethod
    def drawn(cls, dimension: int, seed: int) -> Pool:
        """Sigma0 and Delta as in the shifts of power laws.

        Misleading data are another power law in random order, .1 to 10 times as large as eta Sigma; the mixed
        source is half of the target's covariance and half such a law.
        """
        rng = np.random.default_rng([21, dimension, seed])
        d, eta = dimension, float(rng.uniform(0.1, 0.9))
        n = round(d * between(rng, 0.5, 5))
        sigma0, delta = power_law(rng, d), random_delta(rng, d)
        target = sigma0 + delta
        wrong, other = (power_law(rng, d) * target.mean() * between(rng, 0.1, 10) for _ in range(2))
        sources = [
            Source(eta * target, n, d * between(rng, 0.2, 4)),
            Source(eta * wrong, n, d * between(rng, 1, 40)),
            Source(eta * (target + other) / 2, n, d * between(rng, 0.2, 4)),
        ]
        kept = tuple(sources if seed % 3 else sources[:2])
        return cls(pretrained_operator(sigma0, n), eta, WeightedTest.of(target, n), kept)

    def with_more(self, times: int) -> Pool:
        """The same with so many times the misleading rows."""
        bad = replace(self.sources[1], prompts=times * self.sources[1].prompts)
        return replace(self, sources=(self.sources[0], bad, *self.sources[2:]))


def errors_of_pool(dimension: int, seed: int) -> list[list[Any]]:
    """Cell: errors untouched, at the best time by weight, at the best penalty and with tuned weights."""
    rows: list[list[Any]] = []
    first = Pool.drawn(dimension, seed)
    for times in (1, TEN):
        pool = first.with_more(times)
        known = EffectiveSources.of(pool.start, pool.eta, pool.sources)
        untouched = known.at(np.zeros(len(pool.sources))).error(pool.test)
        rows.append([UNTOUCHED, None, times, untouched])
        for weight in WEIGHTS if times == 1 else (1.0,):
            weights = [1.0] * len(pool.sources)
            weights[1] = weight
            best = best_time(
                pool.start, pool.eta, pool.sources, pool.test, weights=weights, per_decade=3
            ).error
            rows.append([STOPPED, weight, times, best])
        rows.append([PENALTY, 1.0, times, best_equal_weights(known, pool.test).error])
        rows.append([TUNED, None, times, tuned_weights(known, pool.test).error])
    return rows


@dataclass(frozen=True)
class BadSource(SettingsExperiment):
    """``seeds`` random pools."""

    figure, columns = NAME, Column
    measured = (Column.WAY, Column.WEIGHT, Column.TIMES, Column.PREDICTED)
    dimension: int
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> BadSource:
        """The preset; 60 pools distinguish a share of .72 from one half, 200 one of .62."""
        if name == "smoke":
            return cls(12, 2)
        return cls(40, 60) if name == "quick" else cls(80, 200)

    def settings(self) -> Iterator[Setting]:
        """A cell a pool."""
        for seed in range(self.seeds):
            shared = {Column.MODEL: THEORY, Column.SEED: seed}
            yield Cell(errors_of_pool, {"dimension": self.dimension, "seed": seed}), shared


# --- judges -----------------------------------------------------------------------------------------------

MARGIN = 0.01
"""The relative difference of two errors of one pool that counts."""


def _errors(table: pd.DataFrame, way: str, times: int = 1, weight: float | None = None) -> pd.Series:
    """Errors by seed."""
    rows = table[(table[Column.WAY] == way) & (table[Column.TIMES] == times)]
    if weight is not None:
        rows = rows[rows[Column.WEIGHT] == weight]
    return rows.set_index(Column.SEED)[Column.PREDICTED].astype(float)


def _by_weight(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[(table[Column.WAY] == STOPPED) & (table[Column.TIMES] == 1)]
    return rows.pivot(index=Column.SEED, columns=Column.WEIGHT, values=Column.PREDICTED).astype(float)


def _middle(values: pd.Series) -> str:
    return f"{values.median():.3g} ({values.min():.3g} to {values.max():.3g})"


def removal_helps(saved: Saved[BadSource], threshold: float) -> Judgement:
    """Share of pools in which removing the misleading source lowers the error by over 1 percent."""
    wide = _by_weight(saved.table)
    ratio = wide[0.0] / wide[1.0]
    harmed = int((ratio > 1 + MARGIN).sum())
    note = f"removed/kept {_middle(ratio)}; removal raises the error by over 1 percent in {harmed}"
    return judge_share(ratio < 1 - MARGIN, threshold, note=note)


def weight_helps(saved: Saved[BadSource], threshold: float) -> Judgement:
    """Share of pools in which a smaller weight beats both removal and keeping by over 1 percent."""
    wide = _by_weight(saved.table)
    inner = wide[[w for w in WEIGHTS if 0 < w < 1]].min(axis=1)
    either = wide[[0.0, 1.0]].min(axis=1)
    ratio, base = inner / either, _errors(saved.table, UNTOUCHED)
    best = wide.min(axis=1)
    tuned = _errors(saved.table, TUNED)
    parts = (
        ("all alike", wide[1.0]),
        ("removed", wide[0.0]),
        ("best weight", best),
        ("alike, best penalty", _errors(saved.table, PENALTY)),
        ("tuned weights and penalty", tuned),
    )
    medians = ", ".join(f"{name} {(values / base).median():.3g}" for name, values in parts)
    note = f"weighted/better of both {_middle(ratio)}; error over untouched, medians: {medians}"
    return judge_share(ratio < 1 - MARGIN, threshold, note=note)


def more_bad_rows(saved: Saved[BadSource], threshold: float) -> Judgement:
    """Share of pools in which ten times the misleading rows raise the error at the best time, all alike."""
    ratio = _errors(saved.table, STOPPED, TEN, 1.0) / _errors(saved.table, STOPPED, 1, 1.0)
    penalised = _errors(saved.table, PENALTY, TEN) / _errors(saved.table, PENALTY)
    note = f"ten times/once {_middle(ratio)}; at the best penalty {_middle(penalised)}"
    return judge_share(ratio > 1 + MARGIN, threshold, note=note)


def more_when_tuned(saved: Saved[BadSource], threshold: float) -> Judgement:
    """The largest relative rise through ten times the misleading rows, weights and penalty tuned."""
    rise = (_errors(saved.table, TUNED, TEN) / _errors(saved.table, TUNED) - 1).to_numpy()
    risen = int((rise > threshold).sum())
    note = f"{risen} of {len(rise)} rise; {none_of(len(rise))}; smallest {rise.min():.3g}"
    return judge_worst(np.maximum(rise, 0), threshold, note=note)


def draw_bad_source(table: pd.DataFrame, config: BadSource) -> Figure:
    """The error by weight of the misleading rows, and over the ways, each pool a line or a dot."""
    wide = _by_weight(table)
    base = _errors(table, UNTOUCHED)
    with new_grid(1, 2, width=11.0, height=4.3) as (figure, axes):
        left, right = axes[0]
        shown = wide.div(wide.min(axis=1), axis=0)
        x = np.arange(len(WEIGHTS))
        for _, row in shown.iterrows():
            left.plot(x, row.to_numpy(), color=LOOKS[0].color, linewidth=0.7, alpha=0.3)
        draw_points(
            left,
            x,
            shown.median().to_numpy(),
            replace(LOOKS[1], dash="-"),
            "median",
            linestyle="-",
            markersize=5,
        )
        name_ticks(
            left.xaxis, ["removed", *(f"{w:g}" for w in WEIGHTS[1:])], label="weight of a misleading row"
        )
        left.set_ylabel("error at the best time / at the best weight")
        left.set_title("each line a pool")
        left.legend(loc="best")
        ways = (
            ("all alike", wide[1.0]),
            ("alike,\n10x bad rows", _errors(table, STOPPED, TEN, 1.0)),
            ("removed", wide[0.0]),
            ("best\nweight", wide.min(axis=1)),
            ("tuned\nweights", _errors(table, TUNED)),
            ("tuned,\n10x bad rows", _errors(table, TUNED, TEN)),
        )
        for place, (_, values) in enumerate(ways):
            ratio = np.sort((values / base).to_numpy())
            right.plot(
                place + np.linspace(-0.28, 0.28, len(ratio)), ratio, ".", color=LOOKS[0].color, markersize=3.5
            )
            right.hlines(np.median(ratio), place - 0.34, place + 0.34, color=LOOKS[1].color, linewidth=2.0)
        level(right, 1.0)
        log_y(right)
        name_ticks(right.xaxis, [name for name, _ in ways], label="")
        right.set_ylabel("error / that of the untouched model")
        right.set_title("dots: pools, sorted; bars: medians")
        caption(
            figure,
            f"{config.seeds} random pools of a good, a misleading and mostly a mixed source, d = "
            f"{config.dimension}; exact "
            "theory, at the best time unless a penalty is tuned",
        )
    return figure


_SETTING = (
    "random pools of a good source, a misleading one (d to 40 d rows) and in two of three a mixed one; exact "
    "theory (sizes of the preset)"
)
_TEST = "tests/studies/training_time/test_bad_source.py"
CLAIMS = (
    Claim(
        "time-removal",
        "ours",
        "At the best time, removing a misleading source lowers the error in most pools.",
        _SETTING,
        "share of pools in which removal lowers the error by over 1 percent (exact 95% interval)",
        0.5,
        removal_helps,
        f"{_TEST}::test_removal_and_weight_are_told_apart",
    ),
    Claim(
        "time-smaller-weight",
        "ours",
        "A smaller weight is better than both removing and keeping the misleading source in most pools.",
        _SETTING + "; weights .003, .01, .03, .1 and .3",
        "share of pools in which it is better by over 1 percent (exact 95% interval)",
        0.5,
        weight_helps,
        f"{_TEST}::test_removal_and_weight_are_told_apart",
    ),
    Claim(
        "time-ten-times-bad",
        "ours",
        "With all rows alike, ten times the misleading rows raise the error even at the best time, "
        "in most pools.",
        _SETTING,
        "share of pools in which they raise it by over 1 percent (exact 95% interval)",
        0.5,
        more_bad_rows,
        f"{_TEST}::test_more_bad_rows",
    ),
    Claim(
        "time-ten-times-tuned",
        "ours",
        "With tuned weights and penalty ten times the misleading rows never raise the error.",
        _SETTING,
        "largest relative rise over all pools",
        1e-6,
        more_when_tuned,
        f"{_TEST}::test_more_bad_rows",
    ),
)
STUDY = Study(
    name=NAME,
    title="A misleading source: remove it, or give it less weight?",
    story=(
        "At the best time a misleading source of many rows is better removed in about half of the pools and "
        "better kept in a quarter; a weight in between beats both by more than a percent in one of "
        "five. With "
        "weights and penalty tuned, ten times the misleading rows harm in none; with all rows alike "
        "they take "
        "most of the gain of training."
    ),
    experiment=BadSource,
    draw=draw_bad_source,
    claims=CLAIMS,
)
