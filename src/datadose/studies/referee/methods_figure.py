"""Gains over random rows of every method, a panel for each sort of pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.style import GREY, LOOKS, caption, draw_points, name_ticks, new_grid
from datadose.errors import reject
from datadose.studies.referee.arms import Arm, at_best_stop, gains, methods_of, middle_budget, settings_of
from datadose.studies.referee.experiment import RANDOM
from datadose.studies.referee.figure import interval_percent, percent
from datadose.studies.referee.methods_experiment import BLIND
from datadose.studies.referee.runs import Column, Reference, Stop

_COLUMNS = 3


def draw_methods(table: pd.DataFrame, config: Any) -> Figure:
    """A panel a pool: mean gain and interval of each method at the middle budget, the best one on top.

    InputError if ``table`` has no run on random rows, or a loss without a logarithm.
    """
    table = at_best_stop(table)
    if RANDOM not in methods_of(table):
        reject(
            Column.METHOD, "no run on random rows", "a table with the runs that all others are held against"
        )
    pools, methods = settings_of(table), _in_order(table)
    seeds, columns = table[Column.SEED].nunique(), min(_COLUMNS, len(pools))
    size = {"width": 4.0 * columns, "height": 0.8 + 3.6 * -(-len(pools) // columns)}
    with new_grid(-(-len(pools) // columns), columns, **size, sharey=True) as (figure, axes):
        for place, (axis, pool) in enumerate(zip(axes.flat, pools, strict=False)):
            _draw_pool(axis, table, pool, methods)
            title = f"{'abcdefghijkl'[place]}   {pool[0]} pool, targets {pool[1]}"
            axis.set_title(title + _detects(table, pool, config), loc="left", fontsize=9.5)
            if place + columns >= len(pools):
                axis.set_xlabel("gain over random rows, percent of the loss")
        for axis in axes.flat[len(pools) :]:
            axis.set_visible(False)
        caption(
            figure,
            "Gain: 100 (1 - ratio of the test loss to that of random rows), at the best step on validation; "
            f"{middle_budget(table, RANDOM):.0%} of the pool each; geometric means over\n{seeds} seeds, bars "
            "95 percent intervals of paired differences. Detects: the gain over random rows that so many "
            "seeds detect with 80 percent power (pilot).\nDashed: right target rows alone, so many or all "
            "of them, and the whole pool, faults and all.",
        )
    return figure


def _detects(table: pd.DataFrame, pool: tuple[str, str], config: Any) -> str:
    """The end of a title: the gain that the pool's seeds detect; nothing for one seed, which detects none."""
    seeds = len(Arm(*pool, RANDOM, middle_budget(table, RANDOM)).rows(table))
    if seeds < 2:
        return ""
    return f"; detects {percent(config.pilot(pool[0], Stop.BEST).detectable(seeds)):.0f}%"


def _in_order(table: pd.DataFrame) -> list[str]:
    """The methods but for random, those that read the target first, then by the mean gain over the pools
    that have them; last those that no pool has beside random rows."""
    gain: dict[str, float] = {}
    for name in methods_of(table):
        found = [_gains(table, pool, name) for pool in settings_of(table)]
        gain[name] = float(np.mean([values.mean() for values in found if len(values)] or -np.inf))
    return sorted((name for name in gain if name != RANDOM), key=lambda name: (name in BLIND, -gain[name]))


def _gains(table: pd.DataFrame, pool: tuple[str, str], method: str, budget: float | None = None) -> Any:
    random = Arm(*pool, RANDOM, middle_budget(table, RANDOM))
    return gains(
        table, replace(random, method=method, budget=random.budget if budget is None else budget), random
    )


def _draw_pool(axis: Axes, table: pd.DataFrame, pool: tuple[str, str], methods: list[str]) -> None:
    reads = [name for name in methods if name not in BLIND]
    for group, look in ((reads, LOOKS[0]), ([name for name in methods if name in BLIND], LOOKS[1])):
        found = {methods.index(name): _gains(table, pool, name) for name in group}
        bars = {place: interval_percent(values) for place, values in found.items() if len(values) > 1}
        if bars:
            mean, low, high = np.array(list(bars.values())).T
            label = "reads the target" if group is reads else "does not"
            draw_points(axis, mean, list(bars), look, f"_{label}", xerr=[low, high], markersize=5, capsize=2)
    references = {"right rows": (Reference.ORACLE, None), "whole pool": (Reference.FULL, 1.0)}
    for look, (name, (method, budget)) in zip(LOOKS[2:], references.items(), strict=False):
        values = _gains(table, pool, method, budget)
        if len(values):
            at = percent(values.mean())
            axis.axvline(at, color=look.color, linestyle=(0, (2, 2)), linewidth=1.0)
            axis.annotate(
                name, (at, 0.02), xycoords=("data", "axes fraction"), fontsize=7.5, rotation=90, va="bottom",
                ha="right", color=look.color,
            )  # fmt: skip
    axis.axvline(0, color=GREY, linewidth=1.0)
    axis.axhline(len(reads) - 0.5, color=GREY, linewidth=0.6)
    name_ticks(axis.yaxis, methods)
    axis.set_ylim(len(methods) - 0.5, -0.5)
