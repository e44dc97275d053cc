"""Does hardness decide which data is good once training time is chosen well, or the ceiling? (Insight 1)

In a pool of data covariances of equal trace, all with B rows, the paper's choice is what is hard for the
pretrained model. Judged is the rank correlation over the pool of hardness, and of the ceiling F*, with the
error on the target; over pools it has an interval. Outcome supervision with k = 1 on prompts of covariance X
is SFT on eta X (the same Phi up to a scale), so the same errors judge prompts for it, by the hardness of X.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from datadose.drawing.curves import level
from datadose.drawing.style import LOOKS, caption, name_ticks, new_grid
from datadose.power import mean_interval
from datadose.shapes import Array
from datadose.studies import tables
from datadose.studies.ledger import judge_mean, judge_settings
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import THEORY, Setting, SettingsExperiment
from datadose.studies.training_time.shifts import between, power_law, random_delta
from datadose.sweep import Cell
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.post_test import hardness
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.time_search import best_time
from datadose.theory.weighted_test import WeightedTest

NAME = "hard_data"
POOLS = BLOCKS, SPECTRA = ("share on the shift", "random spectra")
FEW, MANY, UNLIMITED = 0.4, 4.0, 1e5
"""B / d; the last represents rows without limit."""
CONVERGED, STOPPED = "converged", "best time"
WAYS = tuple((way, size) for way in (CONVERGED, STOPPED) for size in (FEW, MANY, UNLIMITED))


class Column(tables.Column):
    """Columns of one covariance in a pool, under one way of training."""

    POOL = "pool"
    MEMBER = "member"
    WAY = "way"
    SIZE = "size"
    HARDNESS = "hardness"
    OUTCOME_HARDNESS = "outcome_hardness"
    CEILING = "ceiling"


def pool(kind: str, dimension: int, members: int, seed: int) -> tuple[float, int, Array, Array, list[Array]]:
    """eta, n, Sigma0, Sigma and the pool's covariances, spectra (d,) of the trace of eta Sigma.

    "share on the shift": eta Sigma with a share of .02 to .98 of the trace on the shift's directions, on a
    two-block shift or one of power laws in turn. "random spectra": eta Sigma times log-normal factors of
    log-spread 1, on shifts of power laws.
    """
    rng = np.random.default_rng([20, POOLS.index(kind), dimension, seed])
    d, eta = dimension, float(rng.uniform(0.1, 0.9))
    length = round(d * between(rng, 0.5, 5))
    if kind == BLOCKS and seed % 2 == 0:
        inside = np.arange(d) < round(d * rng.uniform(0.2, 0.8))
        sigma0, delta = np.where(inside, between(rng, 0.02, 0.5), 1.0), np.where(inside, 1.0, 0.0)
    else:
        sigma0, delta = power_law(rng, d), random_delta(rng, d)
    target, inside = sigma0 + delta, delta > 0
    found = []
    for _ in range(members):
        if kind == BLOCKS:
            share = rng.uniform(0.02, 0.98)
            scale = np.where(inside, share / target[inside].sum(), (1 - share) / target[~inside].sum())
            data = target * scale
        else:
            data = target * rng.lognormal(0, 1, d)
        found.append(data * (eta * target.sum() / data.sum()))
    return eta, length, sigma0, target, found


def errors_in_pool(kind: str, dimension: int, members: int, seed: int) -> list[list[Any]]:
    """Cell: hardness, ceiling and error of every covariance of a pool, in each of WAYS."""
    eta, n, sigma0, target, covariances = pool(kind, dimension, members, seed)
    start, test = pretrained_operator(sigma0, n), WeightedTest.of(target, n)
    rows: list[list[Any]] = []
    for member, A in enumerate(covariances):
        curve = EffectivePenalty.of(start, eta, Source(A, n, 1.0), test)
        hard = [float(hardness(data, start, n)) for data in (A, A / eta)]
        known = [*hard, curve.ceiling.error]
        for way, size in WAYS:
            B = size * dimension
            error = (
                curve.at(B, 0.0).error
                if way == CONVERGED
                else best_time(start, eta, [Source(A, n, B)], test, per_decade=3).error
            )
            rows.append([member, way, size, *known, error])
    return rows


@dataclass(frozen=True)
class HardData(SettingsExperiment):
    """Pools of ``members`` covariances, ``seeds`` of each kind."""

    figure, columns = NAME, Column
    measured = (
        Column.MEMBER,
        Column.WAY,
        Column.SIZE,
        Column.HARDNESS,
        Column.OUTCOME_HARDNESS,
        Column.CEILING,
        Column.PREDICTED,
    )
    dimension: int
    members: int
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> HardData:
        """The configuration of a preset.

        In a pilot of 12 pools on seeds of another stream rank correlations had a spread of about .6 over
        pools, so 30 pools detect a mean that is .33 from zero with power .8, and 100 pools one that is .17.
        """
        if name == "smoke":
            return cls(12, 4, 2)
        return cls(40, 9, 30) if name == "quick" else cls(80, 12, 100)

    def settings(self) -> Iterator[Setting]:
        """A cell a pool."""
        for kind in POOLS:
            for seed in range(self.seeds):
                arguments = {
                    "kind": kind,
                    "dimension": self.dimension,
                    "members": self.members,
                    "seed": seed,
                }
                shared = {Column.MODEL: THEORY, Column.POOL: kind, Column.SEED: seed}
                yield Cell(errors_in_pool, arguments), shared


# --- judges -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranks:
    """Rank correlations over the members of each pool with the error, (seeds,)."""

    label: str
    hardness: Array
    outcome: Array
    """Of the hardness of the prompts X = A / eta, for outcome supervision."""
    ceiling: Array
    price: Array
    """The error of the hardest over the least in the pool."""
    price_of_ceiling: Array
    """The error of the one with the lowest ceiling over the least."""


def ranks(table: pd.DataFrame) -> Iterator[Ranks]:
    """The correlations, by kind of pool and way of training; 0 in a pool whose errors are all the same."""
    groups = table.groupby([Column.POOL, Column.WAY, Column.SIZE], sort=False)
    for (kind, way, size), rows in groups:
        found = []
        for _, one in rows.groupby(Column.SEED):
            hard, outcome, ceiling, error = (
                one[c].to_numpy(float)
                for c in (Column.HARDNESS, Column.OUTCOME_HARDNESS, Column.CEILING, Column.PREDICTED)
            )
            least = error.min()
            found.append(
                [
                    float(stats.spearmanr(hard, error).statistic),
                    float(stats.spearmanr(outcome, error).statistic),
                    float(stats.spearmanr(ceiling, error).statistic),
                    error[hard.argmax()] / least,
                    error[ceiling.argmin()] / least,
                ]
            )
        rows_label = "unlimited" if size == UNLIMITED else f"B = {size:g} d"
        yield Ranks(f"{kind}, {way}, {rows_label}", *np.nan_to_num(np.array(found, dtype=float)).T)


HARD = -0.5
"""A mean rank correlation of hardness with the error at or below this counts as deciding."""


def hardness_decides(saved: Saved[HardData], threshold: float) -> Judgement:
    """Whether hard data have the low errors: a mean rank correlation of at most -.5, in every setting."""
    verdicts: dict[str, Verdict] = {}
    notes = []
    for one in ranks(saved.table):
        verdicts[one.label] = judge_mean(one.hardness, HARD).verdict
        mean, low, high = mean_interval(one.hardness)
        notes.append(
            f"{one.label}: {mean:.2f} ({low:.2f} to {high:.2f}), hardest/best {np.median(one.price):.3g}"
        )
    return judge_settings(verdicts, threshold, saved.config.seeds, "; ".join(notes))


def easy_prompts_win(saved: Saved[HardData], threshold: float) -> Judgement:
    """Whether prompts that are easy have the low errors in outcome supervision: a mean correlation "
    "above 0."""
    verdicts: dict[str, Verdict] = {}
    notes = []
    for one in ranks(saved.table):
        verdicts[one.label] = judge_mean(one.outcome, 0.0, below=False).verdict
        mean, low, high = mean_interval(one.outcome)
        notes.append(f"{one.label}: {mean:.2f} ({low:.2f} to {high:.2f})")
    return judge_settings(verdicts, threshold, saved.config.seeds, "; ".join(notes))


def ceiling_decides(saved: Saved[HardData], threshold: float) -> Judgement:
    """Whether the ceiling's rank correlation with the error is surely nearer to 1 than hardness's to -1."""
    verdicts: dict[str, Verdict] = {}
    notes = []
    for one in ranks(saved.table):
        verdicts[one.label] = judge_mean(one.ceiling + one.hardness, 0.0, below=False).verdict
        notes.append(
            f"{one.label}: {one.ceiling.mean():.2f}, lowest ceiling/best "
            f"{np.median(one.price_of_ceiling):.3g}"
        )
    return judge_settings(verdicts, threshold, saved.config.seeds, "; ".join(notes))


def draw_hard_data(table: pd.DataFrame, config: HardData) -> Figure:
    """Rank correlations of hardness (turned) and of the ceiling with the error; what each choice costs."""
    with new_grid(1, 2, width=11.5, height=4.3, sharey=True) as (figure, axes):
        every = list(ranks(table))
        half = len(every) // len(POOLS)
        for axis, kind, part in zip(axes[0], POOLS, (every[:half], every[half:]), strict=True):
            for shift, look, label, values in (
                (-0.17, LOOKS[1], "hardness (turned: 1 = the hardest is best)", [-r.hardness for r in part]),
                (0.17, LOOKS[0], "ceiling F* (1 = the lowest is best)", [r.ceiling for r in part]),
            ):
                for place, v in enumerate(values):
                    spread = np.linspace(-0.1, 0.1, len(v))
                    axis.plot(
                        place + shift + spread, np.sort(v), ".", color=look.color, markersize=2.6, alpha=0.5
                    )
                intervals = np.array([mean_interval(v) for v in values])
                bars = np.abs(intervals[:, 1:].T - intervals[:, 0])
                axis.errorbar(
                    np.arange(len(values)) + shift,
                    intervals[:, 0],
                    yerr=bars,
                    color=look.color,
                    marker=look.marker,
                    linestyle="none",
                    markersize=6,
                    markerfacecolor="white",
                    label=label,
                )
            level(axis, 0.0)
            names = [one.label.removeprefix(f"{kind}, ").replace(", ", "\n") for one in part]
            name_ticks(axis.xaxis, names, label="")
            axis.set_title(f"pools: {kind}")
            axis.set_ylim(-1.6, 1.08)  # Room for the legend.
            axis.set_yticks([-1, -0.5, 0, 0.5, 1])
        axes[0][0].set_ylabel("rank correlation with a low error")
        axes[0][0].legend(loc="lower left")
        caption(
            figure,
            f"{config.seeds} pools of {config.members} covariances of equal trace, d = "
            f"{config.dimension}, exact theory; dots: "
            "pools, sorted; large markers: means with 95 percent intervals",
        )
    return figure


_SETTING = (
    "pools of covariances of one trace on random shifts, B = .4 d, 4 d and without limit, converged "
    "and at the "
    "best time; exact theory (sizes of the preset)"
)
_TEST = "tests/studies/training_time/test_hard_data.py"
CLAIMS = (
    Claim(
        "time-hardness",
        "Insight 1",
        "Hard data make good training data: in a pool of equal traces hardness and error are opposed.",
        _SETTING,
        "share of settings in which the mean rank correlation of hardness and error is surely below "
        f"{HARD:g}",
        1.0,
        hardness_decides,
        f"{_TEST}::test_hardness_is_judged_by_setting",
        shown_by=("insight1_selection",),
    ),
    Claim(
        "time-outcome-easy",
        "Finding 3, restated (ours)",
        "For outcome supervision (k = 1) prompts that are not hard are better: hardness and error go "
        "together.",
        _SETTING,
        "share of settings in which the mean rank correlation of the prompts' hardness and the error "
        "is surely "
        "above 0",
        1.0,
        easy_prompts_win,
        f"{_TEST}::test_hardness_is_judged_by_setting",
    ),
    Claim(
        "time-ceiling",
        "ours",
        "The ceiling F* orders a pool better than hardness does.",
        _SETTING,
        "share of settings in which the mean rank correlation of F* with the error is surely above that of "
        "hardness, turned",
        1.0,
        ceiling_decides,
        f"{_TEST}::test_the_ceiling_is_held_against_hardness",
    ),
)
STUDY = Study(
    name=NAME,
    title="Hard data or a low ceiling? (Insight 1 at the best time)",
    story=(
        "Trained to convergence hard data are on the whole the worse ones; at the best time hardness "
        "orders only "
        "pools that differ in their share on the shift, and only while rows are limited, for SFT as "
        "for outcome "
        "supervision. What unlimited rows reach with the best penalty (the ceiling F*) orders every "
        "kind of pool, "
        "the better the more rows."
    ),
    experiment=HardData,
    draw=draw_hard_data,
    claims=CLAIMS,
)
