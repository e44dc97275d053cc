"""Figure 2: the error after SFT against the prompt length n (of all stages), at four numbers of prompts.

Departures from the paper: as Figure 1's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from datadose.drawing.style import LOOKS, caption, new_figure
from datadose.power import CONFIDENCE
from datadose.studies.ledger import both, judge_settings, paired, paired_errors, seeds_of
from datadose.studies.sft_curves.curves import INTERFERENCES, SftCurves, draw_both, panels, setting
from datadose.studies.study import Claim, Judgement, Preset, Saved, Study, Verdict
from datadose.studies.tables import LSA, Column, TwoBlock, grid

NAME = "fig2"


@dataclass(frozen=True)
class Figure2(SftCurves):
    """Error against n, four numbers of prompts."""

    figure = NAME

    @classmethod
    def preset(cls, name: Preset) -> Figure2:
        """The configuration of a preset."""
        if name == "smoke":
            prompts: tuple[int, ...] = (5, 15, 30, 50)
            return cls(
                TwoBlock(40, 20),
                INTERFERENCES,
                lengths=(4, 10, 25, 60, 100),
                prompts=prompts,
                theory_lengths=grid(range(2, 101, 2)),
                theory_prompts=prompts,
                seeds=3,
            )
        prompts = (50, 150, 300, 500)
        return cls(
            TwoBlock(400, 200),
            INTERFERENCES,
            lengths=_even_steps(40 if name == "paper" else 16),
            prompts=prompts,
            theory_lengths=_even_steps(120),
            theory_prompts=prompts,
            seeds=50 if name == "paper" else 10,
        )


def _even_steps(count: int) -> tuple[int, ...]:
    """About ``count`` lengths from 20 to 1000 in even steps of log n: the curves turn at small n."""
    return grid([round(float(n)) for n in np.geomspace(20, 1000, count)])


def draw(table: pd.DataFrame, config: Figure2) -> Figure:
    """Log error against n, one panel an interference, one curve a number of prompts."""
    with new_figure(len(config.interferences)) as (figure, axes):
        for _, axis, rows in panels(table, config, axes):
            for look, B in zip(LOOKS, config.prompts, strict=False):
                draw_both(axis, rows[rows[Column.PROMPTS] == B], Column.LENGTH, look, f"B = {B}")
            axis.set_xscale("log")
            axis.set_xlabel("prompt length n (all stages)")
        axes[0].legend(loc="upper left")
        caption(figure, setting(config.block, config.seeds))
    return figure


def _u_shape(saved: Saved[Figure2], threshold: float) -> Judgement:
    table = saved.table
    moderate = (table[Column.INTERFERENCE] > 0) & (table[Column.PROMPTS] < max(saved.config.prompts))
    verdicts: dict[str, Verdict] = {}
    for (r, B), rows in table[(table[Column.MODEL] == LSA) & moderate].groupby(
        [Column.INTERFERENCE, Column.PROMPTS]
    ):
        _, errors = paired_errors(rows, Column.LENGTH)
        best = errors[:, errors.mean(axis=0).argmin()]
        verdicts[f"r={r:g} B={B:.0f}"] = both(paired(best, errors[:, 0]), paired(best, errors[:, -1]))
    return judge_settings(verdicts, threshold, seeds_of(table))


CLAIMS = (
    Claim(
        id="fig-2-u-shape",
        paper="Fig 2",
        statement="Under interference the error is U-shaped in n for small and moderate B.",
        setting="d=400, m=200, rho=0.1, eta=0.2, n tied across stages from 20 to 1000, r in {0.01, 0.1}, B "
        "in {50, 150, 300} (sizes of the preset)",
        statistic=f"share of (r, B) with both sides above the minimum, each at {CONFIDENCE:.0%} confidence",
        threshold=1.0,
        judge=_u_shape,
        test="tests/studies/sft_curves/test_claims.py::test_u_shape_needs_both_sides",
    ),
)
STUDY = Study(
    name=NAME,
    title="How long should the prompts be? (Figure 2)",
    story=(
        "Longer prompts make each example cleaner, but they also make the pretrained model surer of "
        "the old distribution, so under interference the error of small sets falls and then rises with n. "
        "Prompt length and number of examples have to be chosen together."
    ),
    experiment=Figure2,
    draw=draw,
    claims=CLAIMS,
)
