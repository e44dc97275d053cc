"""Beside Figure 2: the error against the prompt length n, at four training times, the best one, best penalty.

As beside Figure 1, with n of pretraining, post-training and test tied as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from datadose.covariance import Array
from datadose.drawing.curves import plain_log_ticks
from datadose.drawing.style import GREY, LOOKS, Look, caption, new_grid
from datadose.power import CONFIDENCE
from datadose.studies.ledger import both, judge_settings, paired, paired_errors, seeds_of
from datadose.studies.sft_curves.curves import INTERFERENCES
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import LSA, TwoBlock, grid
from datadose.studies.training_time.fig1_time import TIMES
from datadose.studies.training_time.judges import judge_ratio
from datadose.studies.training_time.time_curves import (
    CONVERGED,
    TUNED,
    Column,
    TimeCurves,
    curves_of,
    fixed,
    stops_match,
)
from datadose.studies.training_time.time_figures import (
    draw_rule,
    draw_tuned,
    legends_of_tuned,
    setting,
    share_limits,
)

NAME = "fig2_time"


@dataclass(frozen=True)
class Figure2Time(TimeCurves):
    """Error against n, four numbers of prompts, every way to stop."""

    figure = NAME

    @classmethod
    def preset(cls, name: Preset) -> Figure2Time:
        """The configuration of a preset; B/d and n/d are Figure 2's."""
        if name == "smoke":
            return cls._of(20, 3, 4, 2)
        return cls._of(200, 9, 25, 16) if name == "quick" else cls._of(400, 20, 60, 50)

    @classmethod
    def _of(cls, d: int, simulated: int, theory: int, seeds: int) -> Figure2Time:
        counts = tuple(round(share * d) for share in (0.125, 0.375, 0.75, 1.25))
        few, many = (
            grid(np.geomspace(d / 20, 2.5 * d, k).round().astype(int).tolist()) for k in (simulated, theory)
        )
        return cls(TwoBlock(d, d // 2), INTERFERENCES, few, counts, grid(few, many), counts, TIMES, seeds)


_ENDED = Look(GREY, "-", "")


def draw(table: pd.DataFrame, config: Figure2Time) -> Figure:
    """Above, one B at fixed times; below, every B at the best time and penalty; convergence in both."""
    middle = config.prompts[2]
    shape: dict[str, Any] = {"width": 11, "height": 6.9, "sharex": True, "sharey": "row"}
    with new_grid(2, len(config.interferences), **shape) as (figure, axes):
        for column, r in enumerate(config.interferences):
            rows = table[np.isclose(table[Column.INTERFERENCE], r)]
            upper, one = axes[0, column], rows[rows[Column.PROMPTS] == middle]
            draw_rule(upper, one, CONVERGED, Column.LENGTH, _ENDED, "converged", config, linewidth=1.2)
            for look, time in zip(LOOKS, config.times, strict=True):
                draw_rule(upper, one, fixed(time), Column.LENGTH, look, fixed(time), config)
            curves = [(f"B = {B}", rows[rows[Column.PROMPTS] == B]) for B in config.prompts]
            draw_tuned(axes[1, column], curves, Column.LENGTH, config)
            upper.set_title("no interference (r = 0)" if r == 0 else f"interference r = {r:g}")
            axes[1, column].set_xlabel("prompt length n / d (all stages)")
        plain_log_ticks(axes[0, 0], (0.05, 0.1, 0.2, 0.5, 1, 2))
        share_limits(axes[0], table, [fixed(time) for time in config.times])
        share_limits(axes[1], table, TUNED, 0.3, 3.0)
        for row, title in enumerate((f"stopped at a fixed time, B = {middle}", "stopped or penalised best")):
            axes[row, 0].set_ylabel(f"{title}\npost-test error / d")
        axes[0, 0].legend(loc="upper left")
        legends_of_tuned(axes[1, 0], axes[1, 1], [f"B = {B}" for B in config.prompts])
        caption(figure, setting(config))
    return figure


def _moderate(saved: Saved[Figure2Time]) -> pd.DataFrame:
    """The simulated rows under interference, without the largest B."""
    table = saved.table
    kept = (table[Column.INTERFERENCE] > 0) & (table[Column.PROMPTS] < max(saved.config.prompts))
    return table[(table[Column.MODEL] == LSA) & kept]


def _u_shape(saved: Saved[Figure2Time], threshold: float) -> Judgement:
    """Whether at convergence the shortest and the longest prompts are worse than those in between."""
    verdicts: dict[str, Verdict] = {}
    simulated = _moderate(saved)
    for name, rows in curves_of(simulated, CONVERGED, Column.LENGTH):
        _, errors = paired_errors(rows, Column.LENGTH)
        best = errors[:, errors.mean(axis=0).argmin()]
        verdicts[name] = both(paired(best, errors[:, 0]), paired(best, errors[:, -1]))
    return judge_settings(verdicts, threshold, seeds_of(simulated))


def _left_arm(simulated: pd.DataFrame, rule: str) -> tuple[dict[str, Array], str]:
    """By curve: log error of the shortest prompts over the best length's, per seed; then put in words."""
    logs: dict[str, Array] = {}
    for name, rows in curves_of(simulated, rule, Column.LENGTH):
        _, errors = paired_errors(rows, Column.LENGTH)
        logs[f"{rule}, {name}"] = np.log(errors[:, 0] / errors[:, errors.mean(axis=0).argmin()])
    factors = [float(np.exp(log.mean())) for log in logs.values()]
    return logs, f"{rule}: {min(factors):.3g} to {max(factors):.3g}"


def _no_left_arm(saved: Saved[Figure2Time], threshold: float) -> Judgement:
    """How much the shortest prompts lose to the best length at the best time and penalty, at most."""
    simulated = _moderate(saved)
    kept = [_left_arm(simulated, rule) for rule in (CONVERGED, *TUNED)]
    logs = [log for found, _ in kept[1:] for log in found.values()]
    note = "error of the shortest prompts over the best length's: " + "; ".join(told for _, told in kept)
    return judge_ratio(logs, threshold, note)


_SIZES = (
    "d=200, m=100, rho=0.1, eta=0.2, r in {0, 0.01, 0.1}, n tied across stages from d/20 to 2.5d, B in {25, "
    "75, 150, 250} (sizes of the preset); times and penalties are the theory's"
)
_JUDGES = "tests/studies/training_time/test_time_figures.py"

CLAIMS = (
    Claim(
        id="fig-2-time-converged",
        paper="Fig 2",
        statement="Trained to convergence the error is U-shaped in n under interference, for small and "
        "moderate B.",
        setting=_SIZES,
        statistic=f"share of (r, B) with both sides above the minimum, each at {CONFIDENCE:.0%} confidence",
        threshold=1.0,
        judge=_u_shape,
        test=f"{_JUDGES}::test_a_u_needs_both_sides",
    ),
    Claim(
        id="fig-2-time-left-arm",
        paper="ours, on Fig 2",
        statement="At the best time and with the best penalty the left arm of that U is gone: the shortest "
        "prompts cost no more than a twentieth of the error, as a model is then hardly trained on them.",
        setting=_SIZES + "; r > 0, without the largest B",
        statistic="largest ratio, over rules, r and B, of the error of the shortest prompts to that of the "
        "best "
        f"length (geometric mean), all intervals together at {CONFIDENCE:.0%} confidence",
        threshold=1.05,
        judge=_no_left_arm,
        test=f"{_JUDGES}::test_the_left_arm_is_measured",
    ),
    Claim(
        id="fig-2-time-theory",
        paper="ours",
        statement="The theory predicts the simulated error at every fixed time, at the best time and at the "
        "best penalty, for all r, B and n.",
        setting=_SIZES,
        statistic="largest relative deviation of the prediction from the mean over seeds",
        threshold=0.05,
        judge=stops_match,
        test=f"{_JUDGES}::test_deviations_leave_out_convergence",
    ),
)
STUDY = Study(
    name=NAME,
    title="How long should the prompts be, if one stops in time? (beside Figure 2)",
    story=(
        "At convergence, under interference, both short and long prompts cost: the first make noisy "
        "examples, the second make the pretrained model surer of the old distribution. Stopped in time the "
        "noise is not fitted and the left side of the U is flat; few examples still lose with long prompts."
    ),
    experiment=Figure2Time,
    draw=draw,
    claims=CLAIMS,
)
