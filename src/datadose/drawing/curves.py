"""Curves, levels and logarithmic axes that the figures of several studies share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from datadose.drawing.style import GREY, Look, draw_simulation

FIFTH = Look("#3c4043", (0, (3, 2, 1, 2, 1, 2)), "v")
"""A fifth curve, dark grey."""


def draw_curve(
    axis: Axes, rows: pd.DataFrame, x: str, y: str, look: Look, label: str, linewidth: float = 1.3
) -> None:
    """Means over seeds with standard errors, joined by the look's line; lost runs are left out."""
    known = rows[rows[y].notna()]
    if known.empty:
        return
    mean = known.groupby(x)[y].mean()
    line: dict[str, Any] = {"color": look.color, "linestyle": look.dash}
    axis.plot(mean.index.to_numpy(dtype=float), mean.to_numpy(), linewidth=linewidth, **line)
    draw_simulation(axis, known, x, look, f"_{label}", y)
    if not label.startswith("_"):
        axis.plot([], [], marker=look.marker, markersize=4, markerfacecolor="white", label=label, **line)


def level(axis: Axes, value: float, label: str | None = None) -> None:
    """A thin grey line across: the untouched model, or a boundary."""
    axis.axhline(value, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=0, label=label)


def plain_log_ticks(axis: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis with these ticks and no others."""
    axis.set_xscale("log")
    axis.set_xticks(list(values), labels=[f"{v:g}" for v in values])
    axis.set_xticks([], minor=True)


def cell_edges(centres: Any) -> Any:
    """The edges of cells with these centres (K,), midway between neighbours, shape (K + 1,)."""
    first, last = 1.5 * centres[0] - 0.5 * centres[1], 1.5 * centres[-1] - 0.5 * centres[-2]
    return np.array([first, *(centres[1:] + centres[:-1]) / 2, last])


def log_y(axis: Axes) -> None:
    """A logarithmic y axis with plain numbers at 1, 2 and 5 of each decade."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
