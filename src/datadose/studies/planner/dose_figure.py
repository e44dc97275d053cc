"""The planner's validation on random shifts: drawn from the saved table and configuration only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator, NullFormatter, PercentFormatter

from datadose.drawing.style import GREY, LOOKS, caption, draw_points, draw_theory, new_grid
from datadose.studies.planner.dose import PlannerRegret

_LINEAR = 1e-3
"""Regrets below this are drawn on a linear scale: many are zero."""


def draw_planner(table: pd.DataFrame, config: PlannerRegret) -> Figure:
    """Sorted regret; predicted against simulated error and chosen against best B; the allocation's gain."""
    with new_grid(1, 4, width=14.0, height=3.9) as (figure, grid):
        axes = grid[0]
        doses, allocations = table[table["regret"].notna()], table[table["gain"].notna()]
        _draw_regret(axes[0], doses)
        _draw_errors(axes[1], doses)
        _draw_doses(axes[2], doses)
        _draw_gain(axes[3], allocations)
        low, high = config.dimensions
        caption(
            figure,
            f"{config.shifts} random shifts (right: as many others), d from {low} to {high}, every "
            f"fourth dense; B from 0 to 4d; V* simulated, {config.seeds} seeds; bars: two standard errors",
        )
    return figure


def _draw_regret(axis: Axes, table: pd.DataFrame) -> None:
    place = np.arange(1, len(table) + 1) / len(table)
    curves = (("regret", "over the smallest mean"), ("held_out_regret", "over the best B of other seeds"))
    for look, (column, label) in zip(LOOKS, curves, strict=False):
        values = np.sort(table[column].to_numpy(dtype=float))
        draw_theory(axis, place, values, look, label)
    for level in (0.01, 0.05):
        axis.axhline(level, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=0)
    axis.set_yscale("symlog", linthresh=_LINEAR)
    largest = max(table["regret"].max(), table["held_out_regret"].max())
    smallest = min(table["held_out_regret"].min(), -_LINEAR)
    axis.set_ylim(1.5 * smallest, max(0.1, 1.5 * largest))
    ticks = [-0.01, -0.001, 0, 0.001, 0.01, 0.05, 0.2, 1]
    shown = [tick for tick in ticks if 1.5 * smallest <= tick <= max(0.1, 1.5 * largest)]
    axis.set_yticks(shown, labels=[f"{100 * tick:g}%" for tick in shown])
    axis.set_yticks([], minor=True)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.set_xlabel("shifts, best first")
    axis.set_ylabel("regret of the planned dose")
    axis.set_title("How much is lost?", loc="left")
    axis.legend(loc="lower right")


def _by_kind(table: pd.DataFrame) -> list[tuple[Any, str, pd.DataFrame]]:
    kinds = ((0, "spectra"), (1, "dense"))
    return [
        (look, name, table[table["dense"] == kind]) for look, (kind, name) in zip(LOOKS, kinds, strict=False)
    ]


def _points(axis: Axes, table: pd.DataFrame, x: str, y: str, sem: str) -> None:
    """Spectra and dense shifts as points with bars of two standard errors."""
    for look, name, rows in _by_kind(table):
        style = {"markersize": 3.6, "markerfacecolor": "white", "elinewidth": 0.9}
        draw_points(axis, rows[x], rows[y], look, name, yerr=2 * rows[sem], **style)


def _draw_errors(axis: Axes, table: pd.DataFrame) -> None:
    _points(axis, table, "predicted", "error", "sem")
    ends = np.array([0.9 * table["predicted"].min(), 1.1 * table["error"].max()])
    axis.plot(ends, ends, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=0)
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if ends[0] <= tick <= ends[1]]
    for side in (axis.xaxis, axis.yaxis):
        side.set_ticks(ticks)
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        side.set_minor_formatter(NullFormatter())
    axis.set_xlabel("predicted error / d at B*")
    axis.set_ylabel("simulated error / d at B*")
    axis.set_title("Is the prediction right?", loc="left")
    axis.legend(loc="upper left")


def _draw_doses(axis: Axes, table: pd.DataFrame) -> None:
    for look, name, rows in _by_kind(table):
        style = {"markersize": 4, "markerfacecolor": "none"}
        draw_points(axis, rows["best_prompts"], rows["prompts"], look, name, **style)
    largest = float(max(table["prompts"].max(), table["best_prompts"].max(), 1))
    axis.plot([0, largest], [0, largest], color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=0)
    for scale in (axis.set_xscale, axis.set_yscale):
        scale("symlog", linthresh=1)
    ticks = [tick for tick in (0, 1, 3, 10, 30, 100, 300) if tick <= largest]
    for side in (axis.xaxis, axis.yaxis):
        side.set_ticks(ticks, labels=[str(tick) for tick in ticks])
        side.set_ticks([], minor=True)
    axis.set_xlim(-0.3, 1.4 * largest)
    axis.set_ylim(-0.3, 1.4 * largest)
    axis.set_xlabel("best B in simulation")
    axis.set_ylabel("planned B*")
    axis.set_title("Is the dose the same?", loc="left")


def _draw_gain(axis: Axes, table: pd.DataFrame) -> None:
    moved = table[table["predicted_gain"] > 0]
    _points(axis, moved, "predicted_gain", "gain", "gain_sem")
    largest = float(max(moved["predicted_gain"].max(), 0.01)) if len(moved) else 0.01
    axis.plot([0, largest], [0, largest], color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=0)
    axis.axhline(0, color=GREY, linewidth=0.8)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MultipleLocator(0.05 if largest > 0.05 else 0.01))
        side.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_xlabel("predicted gain of the planner's allocation")
    axis.set_ylabel("measured gain, equal tr A")
    axis.set_title(f"A better allocation? (none in {len(table) - len(moved)} shifts)", loc="left")
