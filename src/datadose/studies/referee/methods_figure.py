"""Gains over random rows of every method, a panel for each sort of pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.style import GREY, LOOKS, caption, draw_points, name_ticks, new_grid
from datadose.studies.referee.arms import Arm, gains, methods_of, middle_budget, settings_of
from datadose.studies.referee.experiment import RANDOM
from datadose.studies.referee.figure import interval_percent, percent
from datadose.studies.referee.methods_experiment import BLIND
from datadose.studies.referee.runs import Column, Reference, Stop

_COLUMNS = 3


def draw_methods(table: pd.DataFrame, config: Any) -> Figure:
    """A panel a pool: mean gain and interval of each method at the middle budget, the best one on top."""
    pools, methods = settings_of(table), _in_order(table)
    seeds, columns = table[Column.SEED].nunique(), min(_COLUMNS, len(pools))
    size = {"width": 4.0 * columns, "height": 0.8 + 3.6 * -(-len(pools) // columns)}
    with new_grid(-(-len(pools) // columns), columns, **size, sharey=True) as (figure, axes):
        for place, (axis, pool) in enumerate(zip(axes.flat, pools, strict=False)):
            _draw_pool(axis, table, pool, methods)
            limit = percent(config.pilot(pool[0], Stop.BEST).detectable(seeds))
            title = f"{pool[0]} pool, targets {pool[1]}; detects {limit:.0f} percent"
            axis.set_title(f"{'abcdefghijkl'[place]}   {title}", loc="left", fontsize=9.5)
        for axis in axes.flat[len(pools) :]:
            axis.set_visible(False)
        for axis in axes[-1]:
            axis.set_xlabel("gain over random rows, percent of the loss")
        caption(
            figure,
            "Gain: 100 (1 - ratio of the test loss to that of random rows), at the best step on validation; "
            f"{middle_budget(table, RANDOM):.0%} of the pool each; means over\n{seeds} seeds, bars 95 "
            "percent intervals of paired differences. Detects: the gain that so many seeds detect with 80 "
            "percent power (pilot).\nDashed: right target rows alone, and the whole pool.",
        )
    return figure


def _in_order(table: pd.DataFrame) -> list[str]:
    """The methods but for random, those that read the target first, then by the mean gain over all pools."""
    gain = {
        name: np.mean([_gains(table, pool, name).mean() for pool in settings_of(table)])
        for name in methods_of(table)
    }
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
