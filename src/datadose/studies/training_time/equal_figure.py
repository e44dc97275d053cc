"""The picture of equal steps and epochs, and of the frontier between target and Sigma0."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import level, log_y, plain_log_ticks
from datadose.drawing.style import GREY, LOOKS, caption, draw_points, new_grid
from datadose.studies.training_time.figures import draw_middle
from datadose.studies.training_time.names import LARGE, Drawn
from datadose.studies.training_time.path_names import (
    ALLOWED,
    AT_EPOCHS,
    BEFORE,
    BEST,
    FACTORS,
    PACES,
    PATH,
    SHOWN,
    STEPS,
    Column,
    wide_errors,
)


def _draw_clock(axis: Axes, table: pd.DataFrame, clock: str) -> None:
    """The best small set's error over that of B = 30 d at each factor."""
    for look, (kind, wide) in zip(LOOKS, wide_errors(table, clock), strict=False):
        ratio = wide[[size for size in wide.columns if size < 1]].min(axis=1) / wide[LARGE]
        draw_middle(axis, ratio.unstack(Column.FACTOR), look, kind)
    level(axis, 1.0)
    log_y(axis)


def _draw_frontier(axis: Axes, table: pd.DataFrame) -> None:
    """Error on the target against error on Sigma0 from before to the best time, both over before."""
    for look, (kind, rows) in zip(LOOKS, table.groupby(Column.KIND, sort=False), strict=False):
        before = rows[rows[Column.CLOCK] == BEFORE].set_index(Column.SEED)
        for seed, path in rows[rows[Column.CLOCK] == PATH].groupby(Column.SEED):
            x = path[Column.ON_KNOWN].to_numpy(float) / float(before.loc[seed, Column.ON_KNOWN])
            y = path[Column.ON_TARGET].to_numpy(float) / float(before.loc[seed, Column.ON_TARGET])
            axis.plot(x, y, color=look.color, linewidth=0.9, alpha=0.55)
        best = rows[rows[Column.CLOCK] == BEST].set_index(Column.SEED)[:SHOWN]
        x, y = (
            (best[c] / before.loc[best.index, c]).to_numpy(float) for c in (Column.ON_KNOWN, Column.ON_TARGET)
        )
        draw_points(axis, x, y, look, f"{kind}: best time", markersize=3.8, markerfacecolor="white")
    axis.axvline(1 + ALLOWED, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=0)
    plain_log_ticks(axis, (1, 1.2, 1.5, 2, 3))
    log_y(axis)
    axis.set(xlabel="error on Sigma0 / before", ylabel="error on the target / before")
    axis.set_title("from before to the best time, B = 30 d")
    axis.legend(loc="best")


def draw_equal_time(table: pd.DataFrame, config: Drawn) -> Figure:
    """Small sets against B = 30 d at equal steps and at equal epochs; target against Sigma0."""
    with new_grid(1, 3, width=12.6, height=4.1) as (figure, axes):
        steps, epochs, frontier = axes[0]
        _draw_clock(steps, table, STEPS)
        plain_log_ticks(steps, FACTORS)
        plain_log_ticks(epochs, PACES)
        steps.axvline(1.0, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=0)
        steps.set(
            xlabel="steps / best number for B = 30 d", ylabel="error of the best B < d / error of B = 30 d"
        )
        steps.set_title("equal steps; below 1 a small set wins")
        steps.legend(loc="best")
        _draw_clock(epochs, table, AT_EPOCHS)
        epochs.set(xlabel="learning rate x largest eigenvalue of C")
        epochs.set_title("130 epochs in batches of 32")
        _draw_frontier(frontier, table)
        caption(
            figure,
            f"{config.seeds} random shifts of each kind, d = {config.dimension}, exact theory of "
            "gradient flow; lines: medians, "
            f"bands: the middle half; right: {min(SHOWN, config.seeds)} shifts of each kind, dotted: "
            "5 percent forgotten",
        )
    return figure
