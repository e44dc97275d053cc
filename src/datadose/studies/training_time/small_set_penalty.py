"""A small set is a penalty: the U over B at convergence taken apart into F(mu(B)) and the variance.

Training B < d prompts to convergence is, in the mean, training on unlimited prompts with the penalty mu(B) at
which df1(mu) = B; the prompts' chance adds G/(B - df2). The parts are measured by models trained on disjoint
sets: the error of the average of M of them is F + variance / M.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import log_y
from datadose.drawing.style import (
    GREY,
    LOOKS,
    Look,
    caption,
    draw_points,
    draw_simulation,
    draw_theory,
    new_figure,
)
from datadose.power import CONFIDENCE
from datadose.simulation.spectral import PostTest
from datadose.simulation.training import simulate_training, train_operator
from datadose.studies import tables
from datadose.studies.ledger import is_more, judge_deviation, judge_settings, paired_errors, seeds_of
from datadose.studies.sft_curves.curves import away_from_peak
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study
from datadose.studies.tables import LSA, THEORY, TwoBlock, as_table, grid
from datadose.studies.training_time.judges import deviations
from datadose.sweep import Cell
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.weighted_test import WeightedTest

NAME = "small_set_penalty"
ALL, LIMIT, VARIANCE, LARGE = "error", "F(mu)", "variance", "large set with the penalty mu(B)"
"""Values of ``part``: the error, its two parts, and the error of a large set with the same penalty."""


class Column(tables.Column):
    """The columns of this study."""

    PART = "part"
    PENALTY = "penalty"


def penalty_curve(block: TwoBlock, interference: float, length: int) -> EffectivePenalty:
    """Training of the pretrained model on the block's data, under any penalty."""
    shift = block.shift(interference)
    test = WeightedTest.of(shift.target, length)
    start = pretrained_operator(shift.sigma0, length)
    return EffectivePenalty.of(start, shift.eta, Source(shift.data, length, 1), test)


def measure_parts(
    block: TwoBlock, interference: float, length: int, prompts: int, models: int, seed: int
) -> list[float]:
    """Cell: error / d, F and variance at convergence on B = ``prompts``, from ``models`` disjoint sets.

    With e_1 the mean error of one of M models and e_M that of their average, the variance is
    M (e_1 - e_M) / (M - 1) and F = e_1 - variance, both without bias.
    """
    shift = block.shift(interference)
    V0 = pretrained_operator(shift.sigma0, length)
    (test,) = PostTest.all_of([shift.target], length, shift.dimension)
    sources = [Source(shift.data, length, prompts)]
    V = [train_operator(V0, shift.eta, sources, Stopping(), seed=(seed, number)) for number in range(models)]
    one, averaged = float(np.mean([test.error(v) for v in V])), test.error(sum(V[1:], V[0]) / models)
    variance = models / (models - 1) * (one - averaged)
    return [one, one - variance, variance]


def measure_large(
    block: TwoBlock, interference: float, length: int, prompts: int, ridges: list[float], seed: int
) -> list[float]:
    """Cell: error / d on B = ``prompts`` of one set, under each of ``ridges``."""
    shift = block.shift(interference)
    V0, stoppings = pretrained_operator(shift.sigma0, length), [Stopping(ridge=ridge) for ridge in ridges]
    sources = [Source(shift.data, length, prompts)]
    found = simulate_training(V0, shift.eta, sources, [shift.target], length, stoppings, seeds=[seed])
    return [float(error) for error in found.values[0, 0, :, 0]]


@dataclass(frozen=True)
class SmallSetPenalty:
    """One interference and length; B below and above the peak."""

    block: TwoBlock
    interference: float
    length: int
    prompts: tuple[int, ...]
    """Simulated; none near the peak, where the mean is infinite."""
    theory_prompts: tuple[int, ...]
    large: int
    """Prompts of the large set."""
    models: int
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> SmallSetPenalty:
        """The configuration of a preset."""
        if name == "smoke":
            return cls._of(30, 2, 2)
        return cls._of(300, 4, 16) if name == "quick" else cls._of(600, 6, 20)

    @classmethod
    def _of(cls, d: int, models: int, seeds: int) -> SmallSetPenalty:
        shares = (0.05, 0.1, 0.2, 0.3, 1 / 3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 1.3, 1.5, 2.0, 3.0)
        counts = tuple(round(share * d) for share in shares)
        return cls(
            TwoBlock(d, d // 2),
            0.01,
            3 * d,
            counts,
            grid(range(1, 3 * d + 1, max(1, d // 150))),
            100 * d,
            models,
            seeds,
        )

    @property
    def small(self) -> tuple[int, ...]:
        """The simulated B below the peak: those whose penalty the large set is trained with."""
        return tuple(B for B in self.prompts if self.block.peak(self.interference) > B)

    def _ridges(self) -> dict[int, float]:
        """lambda on the large set that has the effective penalty of B prompts at convergence."""
        curve = penalty_curve(self.block, self.interference, self.length)
        mu = {B: curve.penalty(B, 0.0) for B in self.small}
        return {B: m * (self.large - float(curve.degrees(m)[0])) for B, m in mu.items()}

    def cells(self) -> list[Cell]:
        """One cell a B and seed, then one a seed for the large set."""
        shared = {"block": self.block, "interference": self.interference, "length": self.length}
        parts = [
            Cell(measure_parts, {**shared, "prompts": B, "models": self.models, "seed": seed})
            for B in self.prompts
            for seed in range(self.seeds)
        ]
        ridges = list(self._ridges().values())
        # Prompts of their own: the seeds of the large sets follow those of the small ones.
        return parts + [
            Cell(
                measure_large, {**shared, "prompts": self.large, "ridges": ridges, "seed": self.seeds + seed}
            )
            for seed in range(self.seeds)
        ]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """Simulated parts (model lsa) with their prediction, then the theory on its grid."""
        return as_table(self._rows(results), Column)

    def _rows(self, results: Sequence[Any]) -> Iterator[dict[str, Any]]:
        curve = penalty_curve(self.block, self.interference, self.length)
        shared = {
            Column.FIGURE: NAME,
            Column.STAGE: "sft",
            Column.LENGTH: self.length,
            Column.INTERFERENCE: self.interference,
        }
        found, pairs = iter(results), [(B, seed) for B in self.prompts for seed in range(self.seeds)]
        for B, seed in pairs:
            for (part, predicted), value in zip(self._parts(curve, B).items(), next(found), strict=True):
                place = {Column.PROMPTS: B, Column.PART: part, Column.PREDICTED: predicted}
                yield {**shared, **place, Column.SEED: seed, Column.ERROR: value}
        ridges = self._ridges()
        for seed in range(self.seeds):
            for (B, ridge), value in zip(ridges.items(), next(found), strict=True):
                place = {
                    Column.PROMPTS: B,
                    Column.PART: LARGE,
                    Column.PREDICTED: curve.at(self.large, ridge).error,
                }
                yield {**shared, **place, Column.PENALTY: ridge, Column.SEED: seed, Column.ERROR: value}
        for B in self.theory_prompts:
            if self.block.peak(self.interference) != B:
                mu = {Column.PENALTY: curve.penalty(B, 0.0), Column.MODEL: THEORY, Column.PROMPTS: B}
                for part, predicted in self._parts(curve, B).items():
                    yield {**shared, **mu, Column.PART: part, Column.PREDICTED: predicted}

    @staticmethod
    def _parts(curve: EffectivePenalty, B: int) -> dict[str, float]:
        if abs(B - curve.curve.rank) <= 1:
            return {ALL: float("nan"), LIMIT: float("nan"), VARIANCE: float("nan")}
        at = curve.at(B, 0.0)
        return {ALL: at.error, LIMIT: at.limit, VARIANCE: at.variance}


_LOOKS = {ALL: Look("#202124", "-", "o"), LIMIT: LOOKS[0], VARIANCE: LOOKS[1], LARGE: LOOKS[2]}


def draw(table: pd.DataFrame, config: SmallSetPenalty) -> Figure:
    """Left, error, F and variance over B; right, F beside a large set with the penalty of B prompts."""
    d = config.block.dimension
    places = table.assign(place=table[Column.PROMPTS] / d)
    theory, simulated = places[places[Column.MODEL] == THEORY], places[places[Column.MODEL] == LSA]
    with new_figure(2, width=10.5, height=4.3) as (figure, axes):
        for axis, parts in zip(axes, ((ALL, LIMIT, VARIANCE), (ALL, LIMIT, LARGE)), strict=True):
            for part in parts:
                _draw_part(axis, theory, simulated, part, f"{config.large // d}d")
            axis.set_xscale("log")
            axis.set_xticks([0.05, 0.1, 0.2, 0.5, 1, 2], labels=["0.05", "0.1", "0.2", "0.5", "1", "2"])
            axis.set_xlim(0.045, config.theory_prompts[-1] / d * 1.05)
            log_y(axis)
            axis.set_xlabel("SFT prompts B / d, trained to convergence")
            axis.legend(loc="upper left")
        axes[0].set_ylim(0.1, 100)
        axes[1].set_xlim(0.045, 1)
        axes[0].axvline(1.0, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), zorder=0)
        axes[0].text(1.04, 0.12, "peak: B = d", color=GREY, fontsize=8.5)
        axes[0].set_ylabel("post-test error / d")
        axes[0].set_title("the U: a penalty that weakens, plus a variance that explodes")
        axes[1].set_title("F is the error of a large set with the penalty of B")
        for axis in axes:
            _mark_least(axis, theory)
        block = config.block
        caption(
            figure,
            f"d = {d}, m = {block.shifted}, rho = {block.rho:g}, eta = {block.eta:g}, r = "
            f"{config.interference:g}, n = {config.length}; lines: theory; markers: simulated, "
            f"{config.seeds} seeds with standard errors (parts from {config.models} disjoint sets each); "
            f"stars: least",
        )
    return figure


def _draw_part(axis: Axes, theory: pd.DataFrame, simulated: pd.DataFrame, part: str, large: str) -> None:
    look = _LOOKS[part]
    line, points = theory[theory[Column.PART] == part], simulated[simulated[Column.PART] == part]
    label = {ALL: "error", LIMIT: "F(mu(B)), error of the mean model", VARIANCE: "variance, G/(B - df2)"}.get(
        part
    )
    if label is None:
        label = f"{large} prompts with the penalty mu(B)"
        mean = points.groupby("place")[Column.PREDICTED].mean()
        draw_theory(axis, mean.index, mean, look, label)
    else:
        draw_theory(axis, line["place"], line[Column.PREDICTED], look, label)
    draw_simulation(axis, points, "place", look, f"_{label}, simulated")


def _mark_least(axis: Axes, theory: pd.DataFrame) -> None:
    for part in (ALL, LIMIT):
        below = theory[(theory[Column.PART] == part) & (theory["place"] < 1)]
        best = below.loc[below[Column.PREDICTED].idxmin()]
        style: dict[str, Any] = {"marker": "*", "markersize": 13, "markeredgecolor": "white", "zorder": 5}
        at = (best["place"], best[Column.PREDICTED])
        draw_points(axis, *at, _LOOKS[part], f"_least {part}, B = {best[Column.PROMPTS]:g}", **style)


def _away(saved: Saved[SmallSetPenalty], part: str) -> pd.DataFrame:
    """The simulated rows of one part, away from the peak."""
    rows = saved.table[(saved.table[Column.MODEL] == LSA) & (saved.table[Column.PART] == part)]
    return away_from_peak(rows, saved.config.block)


def _parts_match(saved: Saved[SmallSetPenalty], threshold: float) -> Judgement:
    both = {part: deviations(_away(saved, part), [Column.PROMPTS]) for part in (LIMIT, VARIANCE)}
    deviation, sem = (np.concatenate([pair[k] for pair in both.values()]) for k in (0, 1))
    told = "; ".join(f"{part}: largest {np.abs(pair[0]).max():.2%}" for part, pair in both.items())
    shown = [_spelled(saved, share) for share in (1 / 3, 0.5)]
    note = f"{told}. Theory / simulated: {'; '.join(shown)}"
    return judge_deviation(deviation, sem, seeds_of(saved.table), threshold, note)


def _spelled(saved: Saved[SmallSetPenalty], share: float) -> str:
    """The parts at the simulated B next to this share of d, in words."""
    B = min(saved.config.prompts, key=lambda B: abs(B - share * saved.config.block.dimension))
    own = saved.table[(saved.table[Column.MODEL] == LSA) & (saved.table[Column.PROMPTS] == B)]
    means = own.groupby(Column.PART)[[Column.PREDICTED, Column.ERROR]].mean()
    sums = [
        "{:.3f} = {:.3f} + {:.3f}".format(*(means.loc[part, column] for part in (ALL, LIMIT, VARIANCE)))
        for column in (Column.PREDICTED, Column.ERROR)
    ]
    return f"B={B}: {' / '.join(sums)}"


def _large_set_agrees(saved: Saved[SmallSetPenalty], threshold: float) -> Judgement:
    """The mean model of B prompts against a large set with the same penalty, both simulated."""
    small, large = (_away(saved, part).groupby(Column.PROMPTS)[Column.ERROR] for part in (LIMIT, LARGE))
    common = large.mean().index
    mean, held = small.mean()[common], large.mean()
    error = held / mean * np.hypot(large.sem() / held, small.sem()[common] / mean)
    return judge_deviation((held / mean - 1).to_numpy(), error.to_numpy(), seeds_of(saved.table), threshold)


def _means_least_is_later(saved: Saved[SmallSetPenalty], threshold: float) -> Judgement:
    """Whether from the B of the least error to that of the least F the error rises and F falls."""
    theory = saved.table[saved.table[Column.MODEL] == THEORY]
    below = theory[theory[Column.PROMPTS] < saved.config.block.peak(saved.config.interference)]
    least = {
        part: rows.loc[rows[Column.PREDICTED].idxmin()]
        for part, rows in below.groupby(Column.PART)
        if part != VARIANCE
    }
    B, errors = paired_errors(_away(saved, ALL), Column.PROMPTS)
    _, limits = paired_errors(_away(saved, LIMIT), Column.PROMPTS)
    early, late = (int(np.abs(B - float(least[part][Column.PROMPTS])).argmin()) for part in (ALL, LIMIT))
    verdicts = {
        "F falls": is_more(limits[:, early] - limits[:, late]),
        "the error rises": is_more(errors[:, late] - errors[:, early]),
    }
    note = "; ".join(
        f"theory's least {part} {row[Column.PREDICTED]:.3f} at B={row[Column.PROMPTS]:g}"
        for part, row in least.items()
    )
    return judge_settings(
        verdicts, threshold, seeds_of(saved.table), f"{note}; from B={B[early]:g} to {B[late]:g}"
    )


_SIZES = "d=300, m=150, rho=0.1, eta=0.2, r=0.01, n=900 (sizes of the preset)"
_JUDGES = "tests/studies/training_time/test_small_set_penalty.py"

CLAIMS = (
    Claim(
        id="small-set-parts",
        paper="ours, on Insight 2",
        statement="At convergence the error is F(mu(B)), the error of unlimited prompts with the penalty at "
        "which df1 = B, plus the variance G/(B - df2): both parts, measured one by one, are as predicted.",
        setting=_SIZES + ", |B - d| > 0.2 d",
        statistic="largest relative deviation of either predicted part from its mean over seeds",
        threshold=0.1,
        judge=_parts_match,
        test=f"{_JUDGES}::test_each_part_is_judged",
    ),
    Claim(
        id="small-set-is-a-penalty",
        paper="ours, on Insight 2",
        statement="The mean model of B < d prompts trained to convergence errs as a large set does that is "
        "trained with the penalty mu(B).",
        setting=_SIZES + ", B below 0.8 d, large sets of 100 d prompts",
        statistic="largest relative deviation between the two simulated errors",
        threshold=0.1,
        judge=_large_set_agrees,
        test=f"{_JUDGES}::test_a_large_set_has_to_agree",
    ),
    Claim(
        id="small-set-turning-point",
        paper="ours, on Insight 2",
        statement="The best small set is smaller than what its penalty alone would make it: where the error "
        "has turned, F still falls.",
        setting=_SIZES + ", at the simulated B next to the theory's two minima",
        statistic=f"share of the two comparisons that hold, each at {CONFIDENCE:.0%} confidence over paired "
        f"seeds",
        threshold=1.0,
        judge=_means_least_is_later,
        test=f"{_JUDGES}::test_f_has_to_fall_on",
    ),
)
STUDY = Study(
    name=NAME,
    title="Why is a small set best at convergence? It is a penalty",
    story=(
        "Trained to convergence, B examples act in the mean like unlimited examples with a penalty towards "
        "the pretrained model, and the fewer they are the stronger it is; on top comes a variance that "
        "explodes at B = d. The U of Figure 1 is this sum: a tuned penalty, or stopping in time, has its "
        "benefit without its noise."
    ),
    experiment=SmallSetPenalty,
    draw=draw,
    claims=CLAIMS,
)
