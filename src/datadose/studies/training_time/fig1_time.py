"""Beside Figure 1: the error against B at four training times, at the best one and at the best penalty.

The axes are Figure 1's with d, m, n and B scaled down alike (preset quick: by two), so that B/d and n/d are
the paper's; preset paper has its sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.style import GREY, LOOKS, Look, caption, new_grid
from datadose.power import CONFIDENCE
from datadose.studies.ledger import both, judge_settings, paired, paired_errors, seeds_of
from datadose.studies.sft_curves.curves import INTERFERENCES
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import LSA, TwoBlock, grid
from datadose.studies.training_time.time_curves import (
    CONVERGED,
    TUNED,
    Column,
    TimeCurves,
    curves_of,
    fixed,
    never_rises,
    stops_match,
    theory_never_rises,
)
from datadose.studies.training_time.time_figures import (
    draw_rule,
    draw_tuned,
    legends_of_tuned,
    setting,
    share_limits,
)

NAME = "fig1_time"
TIMES = (10.0, 50.0, 250.0, 1250.0)
"""From far too early to far too late for most B: they were set before any claim was judged."""


@dataclass(frozen=True)
class Figure1Time(TimeCurves):
    """Error against B, three lengths, every way to stop."""

    figure = NAME

    @classmethod
    def preset(cls, name: Preset) -> Figure1Time:
        """The configuration of a preset; B up to 5 d, as in Figure 1."""
        if name == "smoke":
            return cls._of(20, (0, 4, 8, 19, 100), 2, 3)
        shares = (0.025, 0.05, 0.125, 0.25, 0.375, 0.47, 0.53, 0.625, 0.75, 0.875, 0.95, 1.05, 1.125, 1.25)
        d = 200 if name == "quick" else 400
        counts = [0, *(round(share * d) for share in (*shares, 1.5, 2, 2.5, 3, 4, 5))]
        return cls._of(d, counts, 16 if name == "quick" else 50, 41 if name == "quick" else 101)

    @classmethod
    def _of(cls, d: int, counts: tuple[int, ...] | list[int], seeds: int, theory: int) -> Figure1Time:
        # Even steps of the figure's own scale, the square root of B.
        places = np.square(np.linspace(0, np.sqrt(5 * d), theory)).round().astype(int)
        lengths = (d, 2 * d, 3 * d)
        return cls(
            TwoBlock(d, d // 2),
            INTERFERENCES,
            lengths,
            tuple(counts),
            lengths,
            grid(places.tolist(), [d // 2, d], counts),
            TIMES,
            seeds,
        )


_ENDED = Look(GREY, "-", "")
_NOTE: dict[str, Any] = {"color": GREY, "fontsize": 8.5}


def draw(table: pd.DataFrame, config: Figure1Time) -> Figure:
    """Above, one length at fixed times; below, all at the best time and penalty; convergence in both."""
    middle, d = config.lengths[len(config.lengths) // 2], config.block.dimension
    shape: dict[str, Any] = {"width": 11, "height": 6.9, "sharex": True, "sharey": True}
    with new_grid(2, len(config.interferences), **shape) as (figure, axes):
        for column, r in enumerate(config.interferences):
            rows = table[np.isclose(table[Column.INTERFERENCE], r)]
            _draw_times(axes[0, column], rows[rows[Column.LENGTH] == middle], config)
            curves = [(f"n = {n}", rows[rows[Column.LENGTH] == n]) for n in config.lengths]
            draw_tuned(axes[1, column], curves, Column.PROMPTS, config)
            axes[0, column].set_title("no interference (r = 0)" if r == 0 else f"interference r = {r:g}")
            axes[1, column].set_xlabel("SFT prompts B / d (square-root scale)")
            for axis in axes[:, column]:
                place = config.block.peak(r) / d
                axis.axvline(place, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), zorder=0)
                peak = f"B = {'m' if r == 0 else 'd'}"
                axis.text(1.03 * place, 0.02, peak, transform=axis.get_xaxis_transform(), **_NOTE)
        share_limits(axes, table, [*TUNED, *map(fixed, config.times)])
        square_root_scale(axes[0, 0], max(config.theory_prompts) / d)
        for row, title in enumerate((f"stopped at a fixed time, n = {middle}", "stopped or penalised best")):
            axes[row, 0].set_ylabel(f"{title}\npost-test error / d")
        axes[0, 0].legend(loc="upper right", bbox_to_anchor=(1, 0.93))
        names = [f"n = {n}" for n in config.lengths]
        legends_of_tuned(axes[1, 0], axes[1, 1], names)
        caption(figure, setting(config))
    return figure


def _draw_times(axis: Axes, rows: pd.DataFrame, config: Figure1Time) -> None:
    draw_rule(axis, rows, CONVERGED, Column.PROMPTS, _ENDED, "converged", config, linewidth=1.2)
    for look, time in zip(LOOKS, config.times, strict=True):
        draw_rule(axis, rows, fixed(time), Column.PROMPTS, look, fixed(time), config)


def square_root_scale(axis: Axes, largest: float) -> None:
    """Room for the small sets and the long tail, ticks at shares of d."""
    axis.set_xscale("function", functions=(lambda x: np.sqrt(np.abs(x)), np.square))
    axis.set_xlim(0, 1.03 * largest)
    ticks = [0, *(largest * share for share in (0.025, 0.1, 0.2, 0.4, 0.6, 1.0))]
    axis.set_xticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])


def _double_descent(saved: Saved[Figure1Time], threshold: float) -> Judgement:
    """At convergence: the error falls, rises towards the peak, and falls again past it."""
    verdicts: dict[str, Verdict] = {}
    simulated = saved.table[saved.table[Column.MODEL] == LSA]
    for name, rows in curves_of(simulated, CONVERGED, Column.PROMPTS):
        B, errors = paired_errors(rows, Column.PROMPTS)
        peak = saved.config.block.peak(float(rows[Column.INTERFERENCE].iloc[0]))
        late = int(np.abs(B - 0.95 * peak).argmin())
        inside = np.flatnonzero((B > 0) & (B < B[late]))
        best = errors[:, inside[errors[:, inside].mean(axis=0).argmin()]]
        verdicts[name] = both(
            paired(best, errors[:, 0]), paired(best, errors[:, late]), paired(errors[:, -1], errors[:, late])
        )
    return judge_settings(verdicts, threshold, seeds_of(simulated))


_SIZES = (
    "d=200, m=100, rho=0.1, eta=0.2, r in {0, 0.01, 0.1}, n in {200, 400, 600}, B up to 5d (sizes of the "
    "preset); times and penalties are the theory's"
)
_JUDGES = "tests/studies/training_time/test_time_figures.py"

CLAIMS = (
    Claim(
        id="fig-1-time-monotone",
        paper="ours, on Fig 1",
        statement="With the best time, and with the best penalty, the predicted error never rises with B.",
        setting=_SIZES,
        statistic="largest relative rise of the theory between neighbouring B of its grid",
        threshold=1e-6,
        judge=theory_never_rises,
        test=f"{_JUDGES}::test_a_rise_is_seen_in_theory_and_in_simulation",
    ),
    Claim(
        id="fig-1-time-monotone-simulated",
        paper="ours, on Fig 1",
        statement="In simulation, too, the error at the best time and at the best penalty does not rise "
        "with B.",
        setting=_SIZES,
        statistic="largest mean log ratio of the errors at neighbouring B over paired seeds, with an "
        "interval "
        f"that covers all of them at {CONFIDENCE:.0%} confidence",
        threshold=0.02,
        judge=never_rises,
        test=f"{_JUDGES}::test_a_rise_is_seen_in_theory_and_in_simulation",
    ),
    Claim(
        id="fig-1-time-converged",
        paper="Fig 1",
        statement="Trained to convergence on the same prompts the error falls, rises to a peak and falls "
        "again.",
        setting=_SIZES,
        statistic=f"share of (r, n) where all three hold, each at {CONFIDENCE:.0%} confidence over paired "
        f"seeds",
        threshold=1.0,
        judge=_double_descent,
        test=f"{_JUDGES}::test_double_descent_needs_all_three",
    ),
    Claim(
        id="fig-1-time-theory",
        paper="ours",
        statement="The theory predicts the simulated error at every fixed time, at the best time and at the "
        "best penalty, for all r, n and B.",
        setting=_SIZES + ", also at the peak",
        statistic="largest relative deviation of the prediction from the mean over seeds",
        threshold=0.05,
        judge=stops_match,
        test=f"{_JUDGES}::test_deviations_leave_out_convergence",
    ),
)
STUDY = Study(
    name=NAME,
    title="How many SFT examples, if one stops in time? (beside Figure 1)",
    story=(
        "The peak and the rise of Figure 1 belong to long training: short training has neither, and at the "
        "best time, or with the best penalty, more examples of one kind never hurt. The largest sets, which "
        "at convergence stay worse than the best small one under strong interference, are then the best by "
        "far."
    ),
    experiment=Figure1Time,
    draw=draw,
    claims=CLAIMS,
)
