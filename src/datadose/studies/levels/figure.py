"""One picture of all levels: a row a level; columns by question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from datadose.drawing.style import GREY, LOOKS, Look, caption, draw_points, new_grid
from datadose.studies.levels.arms import (
    ADAM,
    DESCENT,
    GPT,
    LANGUAGE,
    SMOLLM,
    Arm,
    common_updates,
    epochs_of,
)
from datadose.studies.levels.schema import LOWER_WEIGHT, WEIGHTS, Column, Model, Pool

_TITLES = (
    "one kind of data",
    "with a misleading source",
    "forgetting",
    "forecast (dashed)",
    "repetition",
)
_NAMES = {1.0: "alike", LOWER_WEIGHT: f"weight {LOWER_WEIGHT:g}", 0.0: "removed"}
_MARKERS = "osD^vP*X"


def draw_levels(table: pd.DataFrame, config: Any) -> Figure:
    """A row a level that is in the table; curves are geometric means over seeds."""
    del config
    rows = [arm for arm in (ADAM, GPT, LANGUAGE, SMOLLM) if not arm.rows(table).empty]
    panels: Sequence[Callable[[Axes, pd.DataFrame, Arm], None]] = (
        _draw_rows,
        _draw_weights,
        _draw_kept,
        _draw_forecast,
        _draw_repetition,
    )
    with new_grid(len(rows), len(panels), width=14.0, height=0.5 + 2.75 * len(rows)) as (figure, axes):
        for arm, line in zip(rows, axes, strict=True):
            for axis, draw in zip(line, panels, strict=True):
                draw(axis, table, arm)
                _plain(axis)
            seeds = arm.rows(table)[Column.SEED].nunique()
            line[0].set_ylabel(f"{arm.title}\n{seeds} seeds; error on the target")
        for axis, title in zip(axes[0], _TITLES, strict=True):
            axis.set_title(title, loc="left")
        caption(
            figure,
            "Colours: rows B, light to dark. Circles: best look of each curve. Misleading: 3 rows in 10. "
            "Forgetting: error on what was known (across) along training. Forecast: the linearised model, in "
            "the first row exact\ntheory beside gradient descent. Repetition: error over B at equal updates; "
            "filled: no row met twice. Errors: squared error / d (linear, GPT), nats a token (language "
            "models); geometric means over seeds; dotted: untouched."
            + ("\nSmolLM2: the pool with misleading rows in every panel." if SMOLLM in rows else ""),
        )
    return figure


def _plain(axis: Axes) -> None:
    """Logarithmic axes with plain numbers."""
    for side in (axis.xaxis, axis.yaxis):
        if side.get_scale() == "log":
            low, high = sorted(side.get_view_interval())
            width = high / low
            subs = (
                (1.0,)
                if width > 40
                else (1.0, 2.0, 5.0)
                if width > 4
                else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
            )
            side.set_major_locator(LogLocator(subs=subs))
            side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            side.set_minor_formatter(NullFormatter())


def _looks(sizes: Sequence[int]) -> dict[int, Look]:
    """A look for each B, light to dark."""
    shades = colormaps["viridis_r"](np.linspace(0.12, 1.0, max(len(sizes), 2)))
    return {
        B: Look(to_hex(shades[place]), "-", _MARKERS[place % len(_MARKERS)])
        for place, B in enumerate(sorted(sizes))
    }


def _middle(curve: pd.DataFrame) -> pd.Series:
    """The geometric mean over seeds by updates, those above 0."""
    mean = np.exp(np.log(curve).mean())
    return mean[mean.index > 0]


def _untouched(axis: Axes, curves: dict[int, pd.DataFrame]) -> None:
    before = float(np.exp(np.log(next(iter(curves.values()))[0]).mean()))
    axis.axhline(before, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=0)


def _draw_line(axis: Axes, curve: pd.DataFrame, look: Look, label: str, *, mark: bool = True) -> None:
    mean = _middle(curve)
    x, y = mean.index.to_numpy(dtype=float), mean.to_numpy()
    draw_points(axis, x, y, look, label, marker="", linestyle=look.dash, linewidth=1.4)
    if mark:
        place = int(y.argmin())
        draw_points(axis, x[place], y[place], replace(look, marker="o"), f"_best, {label}", markersize=4.5)


def _log_log(axis: Axes, across: str) -> None:
    axis.set(xscale="log", yscale="log", xlabel=across)


def _draw_rows(axis: Axes, table: pd.DataFrame, arm: Arm) -> None:
    curves = arm.curves(table)
    _untouched(axis, curves)
    for B, look in _looks([*curves]).items():
        _draw_line(axis, curves[B], look, f"{B:,}")
    _log_log(axis, "updates")
    axis.legend(title="B", fontsize=6.5, title_fontsize=7, loc="best", handlelength=1.2, labelspacing=0.2)


def _draw_weights(axis: Axes, table: pd.DataFrame, arm: Arm) -> None:
    by_weight = {weight: arm.curves(table, pool=Pool.MISLEADING, weight=weight) for weight in WEIGHTS}
    sizes = sorted(set.intersection(*({*curves} for curves in by_weight.values())))
    if not sizes:
        return _nothing(axis)
    for B, width in {sizes[0]: 0.9, sizes[-1]: 1.8}.items():
        for look, (weight, curves) in zip(LOOKS, by_weight.items(), strict=False):
            mean = _middle(curves[B])
            label = _NAMES[weight] if B == sizes[-1] else f"_{_NAMES[weight]}, B = {B}"
            draw_points(
                axis,
                mean.index.to_numpy(dtype=float),
                mean.to_numpy(),
                look,
                label,
                marker="",
                linestyle=look.dash,
                linewidth=width,
            )
    _untouched(axis, by_weight[1.0])
    _log_log(axis, "updates")
    many = f"thin: B = {sizes[0]:,}; thick: {sizes[-1]:,}" if len(sizes) > 1 else f"B = {sizes[0]:,}"
    axis.legend(title=many, fontsize=6.5, title_fontsize=6.5, loc="best", labelspacing=0.2)
    return None


def _draw_kept(axis: Axes, table: pd.DataFrame, arm: Arm) -> None:
    errors, kept = arm.curves(table), arm.curves(table, column=Column.KEPT)
    for B, look in _looks([*errors]).items():
        y, x = (np.exp(np.log(curves[B]).mean()).to_numpy() for curves in (errors, kept))
        draw_points(axis, x, y, look, f"_{B:,}", marker=".", markersize=3.5, linestyle="-", linewidth=1.1)
    x, y = (float(np.exp(np.log(next(iter(c.values()))[0]).mean())) for c in (kept, errors))
    draw_points(axis, x, y, Look(GREY, "-", "s"), "untouched", markersize=5)
    _log_log(axis, "error on what was known")
    axis.legend(fontsize=6.5, loc="best")


def _draw_forecast(axis: Axes, table: pd.DataFrame, arm: Arm) -> None:
    own, model = (DESCENT, Model.THEORY) if arm is ADAM else (arm, Model.LINEARISED)
    real, told = own.curves(table), own.curves(table, model=model)
    looks = _looks([*real])
    if not told:
        return _nothing(axis)
    _untouched(axis, real)
    for B in sorted(real.keys() & told.keys()):
        shared = [u for u in told[B].columns if u in real[B].columns]
        _draw_line(axis, real[B][shared], looks[B], f"{B:,}", mark=False)
        _draw_line(
            axis, told[B][shared], replace(looks[B], dash=(0, (3, 1.5))), f"_forecast, {B:,}", mark=False
        )
    _log_log(axis, "updates")
    axis.legend(fontsize=6.5, title="B", title_fontsize=7, loc="best", handlelength=1.2, labelspacing=0.2)
    return None


def _draw_repetition(axis: Axes, table: pd.DataFrame, arm: Arm) -> None:
    curves = arm.curves(table)
    if len(curves) < 2:
        return _nothing(axis)
    sizes = sorted(curves)
    shown = [u for u in common_updates(curves) if u >= 10] or common_updates(curves)
    shown = [shown[i] for i in sorted({*np.linspace(0, len(shown) - 1, 4).round().astype(int)})]
    for look, updates in zip(LOOKS, shown, strict=False):
        y = np.array([float(np.exp(np.log(curves[B][updates]).mean())) for B in sizes])
        label = f"{updates:,} updates"
        draw_points(axis, sizes, y, look, label, markersize=3.5, markerfacecolor="white", linestyle=look.dash)
        once = [i for i, B in enumerate(sizes) if epochs_of(arm, table, B)[updates] <= 1]
        draw_points(axis, np.array(sizes)[once], y[once], look, f"_{label}, one pass", markersize=3.5)
    _log_log(axis, "rows B")
    axis.legend(fontsize=6.5, loc="best", labelspacing=0.2)
    return None


def _nothing(axis: Axes) -> None:
    axis.set_axis_off()
    axis.text(0.5, 0.5, "not run", ha="center", va="center", color=GREY, transform=axis.transAxes)
