"""Figure 4's picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from datadose.drawing.style import LOOKS, Look, caption, draw_theory, new_grid
from datadose.studies.figure4.experiment import Column, Figure4
from datadose.studies.trends import BASE_PANEL, COLUMN_NAMES, MAIN, ROW_NAMES, draw_panels, draw_runs

_MAIN, _CONTROL = LOOKS[0], LOOKS[1]
_BASE = Look("#8a8f94", "-", "")


def draw(table: pd.DataFrame, config: Figure4) -> Figure:
    """Rows SFT, OS, RL; columns B, n, k; solid: the paper's; dashed: the control; grey: untouched model."""
    base = table[table[Column.VARIANT] == BASE_PANEL].set_index(Column.LENGTH)[Column.ERROR].sort_index()
    sharing = {"sharex": "col", "sharey": "col"}
    with new_grid(len(ROW_NAMES), len(COLUMN_NAMES), width=10.5, height=9.2, **sharing) as (figure, axes):

        def draw_panel(axis: Axes, rows: pd.DataFrame, moved: str) -> None:
            _draw_base(axis, moved, base, config)
            main, control = _curve_names(moved, config)
            draw_runs(axis, rows[rows[Column.VARIANT] != MAIN], moved, _CONTROL, 0.93, control)
            draw_runs(axis, rows[rows[Column.VARIANT] == MAIN], moved, _MAIN, 0.98, main)

        draw_panels(table, axes, draw_panel)
        for axis, moved in zip(axes[0], COLUMN_NAMES, strict=True):
            _limit(axis, table, moved)
            place = "upper left" if moved == Column.LENGTH else "upper right"
            axis.legend(handles=_legend(moved, config), loc=place, fontsize=7.5)
        caption(figure, _setting(table, config))
    return figure


def _draw_base(axis: Axes, moved: str, base: pd.Series, config: Figure4) -> None:
    """The untouched model: at each n where n is tied, else at the n of the curve (dashed: of the control)."""
    style: dict[str, Any] = {"linewidth": 1.2, "zorder": 1}
    here = float(base.loc[config.base_length])
    if moved == Column.LENGTH:
        tied = base.loc[list(config.lengths)]
        draw_theory(axis, tied.index.to_numpy(dtype=float), tied, _BASE, "_untouched model", **style)
        axis.axhline(here, color=_BASE.color, linestyle=_CONTROL.dash, **style)
        return
    axis.axhline(here, color=_BASE.color, **style)
    if moved == Column.STEPS:
        short = float(base.loc[config.short_length])
        axis.axhline(short, color=_BASE.color, linestyle=_CONTROL.dash, **style)


def _curve_names(moved: str, config: Figure4) -> tuple[str, str]:
    """What the paper's curve and the control are called where ``moved`` moves."""
    n, short = config.base_length, config.short_length
    return {
        Column.PROMPTS: (f"{config.epochs} epochs", f"{config.equal_steps:,} steps at every B"),
        Column.LENGTH: ("n in all stages", f"post-training n only (others n = {n})"),
        Column.STEPS: (f"n = {n}", f"n = {short}: nearer shift"),
    }[moved]


def _legend(moved: str, config: Figure4) -> list[Line2D]:
    names = _curve_names(moved, config)
    handles = [
        Line2D(
            [],
            [],
            color=look.color,
            linestyle=look.dash,
            marker=look.marker,
            markersize=3.4,
            markerfacecolor="white",
            label=name,
        )
        for look, name in zip((_MAIN, _CONTROL), names, strict=True)
    ]
    return [*handles, Line2D([], [], color=_BASE.color, linewidth=1.2, label="untouched model")]


def _limit(axis: Axes, table: pd.DataFrame, moved: str) -> None:
    """Limits from what the column draws, with room for the legend above."""
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in axis.lines]
    rows = table[table[Column.AXIS] == moved]
    means = rows.groupby([Column.PANEL, moved])[Column.ERROR].mean().dropna().to_numpy()
    values = np.concatenate([means, *drawn])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    axis.set_ylim(low * (low / high) ** 0.06, high * (high / low) ** (0.3 if moved == Column.STEPS else 0.1))


def _setting(table: pd.DataFrame, config: Figure4) -> str:
    lost = int(table[Column.DIVERGED].sum())
    d = config.dimension
    scaled = "" if d == 100 else " (scaled down from the paper's 100)"
    return (
        f"LSA, all weights trained, d = {d}{scaled}; A = Delta, eta = {config.eta:g}, Adam "
        f"{config.learning_rate:g}, mini-batches of {config.batch}; test on Sigma0 + Delta with "
        f"k = 1.\nWhere they do not move: B = {config.base_prompts}, n = {config.base_length}, "
        f"k = {config.base_chain}. "
        f"Means of {config.seeds} seeds with standard errors; "
        + (
            f"{lost} diverged runs left out, \N{MULTIPLICATION SIGN} counts them"
            if lost
            else "no run diverged"
        )
        + ". Grey: before post-training, dashed for the control."
    )
