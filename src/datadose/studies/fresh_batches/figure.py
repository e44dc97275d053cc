"""The picture of repetition: errors along two paths, and every setting's ratio in units of the best time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import FIFTH, draw_curve, level, log_y
from datadose.drawing.style import (
    GREY,
    LOOKS,
    Look,
    caption,
    draw_points,
    draw_simulation,
    draw_theory,
    new_grid,
)
from datadose.studies.fresh_batches.experiment import (
    EPOCHS,
    FRESH,
    POPULATION,
    Column,
    Comparison,
    FreshBatches,
    comparisons,
)
from datadose.studies.tables import LSA, THEORY


def _select(table: pd.DataFrame, training: str, **values: float) -> pd.DataFrame:
    """The rows of one training with these values in columns."""
    kept = table[table[Column.TRAINING] == training]
    for column, value in values.items():
        kept = kept[kept[column] == value]
    return kept


_CALM = Look(GREY, (0, (1, 1.5)), "")
_BY_ROWS = (LOOKS[1], FIFTH, LOOKS[2], LOOKS[3])
"""The looks of the numbers of rows; the first is that of one pass."""


def _draw_paths(axis: Axes, table: pd.DataFrame, setting: dict[str, float], counts: dict[int, Look]) -> None:
    """Errors against updates: one pass, the population, and epochs over few rows."""
    exact = table[table[Column.MODEL] == THEORY]
    for training, look in ((POPULATION, _CALM), (FRESH, LOOKS[0])):
        rows = _select(exact, training, **setting).sort_values(Column.UPDATES)
        name = (
            "no noise of steps (exact)" if training == POPULATION else "one pass (exact; circles simulated)"
        )
        draw_theory(axis, rows[Column.UPDATES], rows[Column.PREDICTED], look, name)
    simulated = _select(table[table[Column.MODEL] == LSA], FRESH, **setting)
    draw_simulation(axis, simulated, Column.UPDATES, LOOKS[0], "_one pass, simulated")
    for B, look in counts.items():
        rows = _select(table, EPOCHS, **setting, **{Column.PROMPTS: B})
        draw_curve(axis, rows, Column.UPDATES, Column.ERROR, look, f"epochs over {B} rows")
    axis.set_xscale("log")
    log_y(axis)
    axis.set(xlabel="updates", title=f"step {setting[Column.FRACTION]:g} of the largest stable one")


def draw_fresh(table: pd.DataFrame, config: FreshBatches) -> Figure:
    """Two steps with batches of one row, then every setting: ratio against time over one pass's best."""
    m, r = config.shifts[0]
    shown = [step for step in config.steps if step[0] == 1][:2] or list(config.steps[:1])
    looks = dict(zip(config.prompts, _BY_ROWS, strict=False))
    with new_grid(1, len(shown) + 1, width=4.1 * (len(shown) + 1), height=4.3) as (figure, axes):
        for axis, (b, fraction) in zip(axes[0], shown, strict=False):
            setting = {
                Column.SHIFTED: m,
                Column.INTERFERENCE: r,
                Column.BATCH: b,
                Column.FRACTION: fraction,
            }
            _draw_paths(axis, table, setting, looks)
        lows, highs = np.array([axis.get_ylim() for axis in axes[0][:-1]]).T
        for axis in axes[0][:-1]:
            # Room for the legend below the curves.
            axis.set_ylim(lows.min() * (lows.min() / highs.max()) ** 0.4, highs.max())
        axes[0][0].set_ylabel("error / d")
        axes[0][0].legend(loc="lower left")
        _draw_ratios(axes[0][-1], list(comparisons(table)), looks)
        caption(
            figure,
            f"d = {config.dimension}, n = {config.length}; left: m = {m}, r = {r:g}, one row a batch; dots: "
            f"means of {config.seeds} seeds with standard errors; right: all shifts, steps and batches",
        )
    return figure


def _draw_ratios(axis: Axes, every: list[Comparison], looks: dict[int, Look]) -> None:
    """Error of epochs over that of one pass at equal updates, rows used at least twice."""
    for B, look in looks.items():
        mine = [
            (T / one.best_time, one.ratios[T].mean())
            for one in every
            if one.prompts == B
            for T in one.repeated
        ]
        if mine:
            x, y = np.array(mine).T
            draw_points(axis, x, y, look, f"{B} rows", markersize=3.4, markerfacecolor="white")
    level(axis, 1.0)
    axis.axvline(1.0, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=0)
    axis.set_xscale("log")
    log_y(axis)
    axis.set(xlabel="updates / best time of one pass", ylabel="error of epochs / error of one pass")
    axis.set_title("below 1: repetition wins")
    axis.legend(loc="best")
