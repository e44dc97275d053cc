"""The picture of the study of pretraining shares."""

from __future__ import annotations

from typing import Protocol

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import level, log_y, plain_log_ticks
from datadose.drawing.style import LOOKS, caption, draw_points, draw_theory, name_ticks, new_grid
from datadose.studies.planner.pretraining_cells import (
    CHOICE,
    CURVE,
    EXAMPLES,
    KINDS,
    MARK,
    OUTCOME,
    PRETRAINED,
    RIVAL,
    ROWS,
    SCARCE,
    SFT,
    STARVED,
    Column,
    Kind,
)
from datadose.studies.training_time.figures import draw_middle

_NAMES = {
    "alike": "all alike",
    "sizes": "group sizes\ndiffer",
    "scales": "input scales\ndiffer",
    "shifts": "shifts\ndiffer",
    "costs": "costs differ\n(budget)",
}
_PRETRAINING = ((None, "unlimited prompts"), (PRETRAINED, f"{PRETRAINED} d prompts"))
_LONG = 4.0


class Drawn(Protocol):
    """The configuration, in the words of the picture."""

    @property
    def dimension(self) -> int:
        """d."""

    @property
    def seeds(self) -> int:
        """Settings of each kind."""


def _pretrained(rows: pd.DataFrame, pretrained: int | None) -> pd.DataFrame:
    at = rows[Column.PRETRAINED].isna() if pretrained is None else rows[Column.PRETRAINED] == pretrained
    return rows[at]


def _draw_curve(axis: Axes, table: pd.DataFrame, kind: Kind) -> None:
    """Worst error of two shifts against the share of the first category; balanced and best shares marked."""
    rows = table[table[Column.KIND] == kind]
    for look, (pretrained, name) in zip(LOOKS, _PRETRAINING, strict=False):
        own = _pretrained(rows, pretrained)
        worst = own[own[Column.PART] == CURVE].groupby(Column.SHARE)[Column.PREDICTED].max()
        draw_theory(axis, worst.index.to_numpy(float), worst.to_numpy(float), look, f"worst, {name}")
        marks = own[own[Column.PART] == MARK].groupby(Column.PLAN)[[Column.SHARE, Column.PREDICTED]].max()
        for plan, mark in marks.iterrows():
            marker = "s" if plan == RIVAL else "*"
            label = f"_{'balanced' if plan == RIVAL else 'best'}, {name}"
            style = {"marker": marker, "markersize": 6 if plan == RIVAL else 11, "zorder": 5}
            draw_points(axis, [mark[Column.SHARE]], [mark[Column.PREDICTED]], look, label, **style)
    axis.plot([], [], "s", color="#3c4043", markersize=6, label="balanced")
    axis.plot([], [], "*", color="#3c4043", markersize=10, label="best")
    axis.set(xlabel="share of the first category", ylabel="error / d of the worse shift")
    axis.set_title("two categories, all alike" if kind == "alike" else "two categories, input scales differ")
    axis.legend(loc="best")


def _draw_gains(axis: Axes, table: pd.DataFrame) -> None:
    """Every setting's gain by kind: a point each, the median as a bar."""
    rows = table[(table[Column.PART] == CHOICE) & (table[Column.OBJECTIVE] == "worst")]
    for side, (look, (pretrained, name)) in enumerate(zip(LOOKS, _PRETRAINING, strict=False)):
        own = _pretrained(rows, pretrained)
        gain = 100 * (1 - own[Column.PREDICTED] / own[Column.RIVAL].astype(float))
        place = own[Column.KIND].map(list(KINDS).index).astype(float) + (side - 0.5) * 0.36
        spread = (own[Column.SEED].astype(float) * 0.618 % 1 - 0.5) * 0.22
        style = {"markersize": 3.2, "markerfacecolor": "none", "markeredgewidth": 0.8, "marker": look.marker}
        draw_points(axis, (place + spread).to_numpy(), gain.to_numpy(), look, name, **style)
        for at, middle in gain.groupby(place).median().items():
            axis.plot([at - 0.15, at + 0.15], [middle, middle], color=look.color, linewidth=2.2)
    name_ticks(axis.xaxis, [_NAMES[kind] for kind in KINDS])
    axis.set_ylabel("gain of the best shares in the worst error, %")
    axis.set_title("over equal shares (costs: over equal spending)")
    axis.legend(loc="upper left")


def _draw_prices(axis: Axes, table: pd.DataFrame) -> None:
    """Error over that of the balanced mixture against the share of a scarce category, by stage and rows."""
    rows = table[(table[Column.PART] == STARVED) & (table[Column.LONG] == _LONG)]
    looks = iter(LOOKS)
    for stage, name in ((SFT, "SFT"), (OUTCOME, "outcome supervision")):
        for B in (ROWS[0], ROWS[-1]):
            own = rows[(rows[Column.STAGE] == stage) & (rows[Column.SIZE] == B)]
            wide = own.pivot(index=Column.SEED, columns=Column.SHARE, values=Column.PREDICTED).astype(float)
            draw_middle(axis, wide.div(wide[SCARCE[-1]], axis=0), next(looks), f"{name}, B = {B:g} d")
    log_y(axis)
    plain_log_ticks(axis, SCARCE)
    level(axis, 1.0)
    axis.set(xlabel="share of the category whose shift comes", ylabel="error / that of equal shares")
    axis.set_title(f"what a scarce category costs, n = {_LONG:g} d")
    axis.legend(loc="best")


def draw_shares(table: pd.DataFrame, config: Drawn) -> Figure:
    """Curves over the shares, gains by kind of setting, and the price of scarcity by stage and rows."""
    with new_grid(2, 2, width=10.5, height=7.8) as (figure, axes):
        for axis, kind in zip(axes[0], EXAMPLES, strict=True):
            _draw_curve(axis, table, kind)
        _draw_gains(axes[1][0], table)
        _draw_prices(axes[1][1], table)
        caption(
            figure,
            f"exact theory, d = {config.dimension}, best penalty in post-training; above: seed 0; below: "
            f"{config.seeds} random settings of each kind (right: medians, and the middle half as bands)",
        )
    return figure
