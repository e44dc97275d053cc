"""The picture of Figure 3 within a budget: stages by axes, and the error along training."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.configs import STAGES, Stage
from datadose.drawing.curves import draw_curve, level, log_y, plain_log_ticks
from datadose.drawing.style import LOOKS, caption, new_grid
from datadose.studies.gpt.map import Column
from datadose.studies.gpt.map_verdicts import on_axis
from datadose.studies.gpt.timed_plan import TimedFigure3
from datadose.studies.trends import AXES, COLUMN_NAMES, ROW_NAMES

_DATA = {"delta": "Delta", "target": "Sigma0 + Delta", "replay": "Delta + replay"}


def draw(table: pd.DataFrame, config: TimedFigure3, pretrain_steps: int) -> Figure:
    """A row a stage: the error against B, n and k at the end, and against steps at the most prompts.

    The grey line is the untouched model at the base n. ``pretrain_steps`` is for the caption.
    """
    columns = [*AXES, Column.OPTIMISER_STEPS]
    with new_grid(len(STAGES), len(columns), width=14.0, height=9.0) as (figure, axes):
        for row, stage in zip(axes, STAGES, strict=True):
            for axis, moved in zip(row, columns, strict=True):
                _draw_panel(axis, table, config, stage, moved)
            row[0].set_ylabel(f"{ROW_NAMES[stage]}: error / d")
        for axis, moved in zip(axes[-1], columns, strict=True):
            axis.set_xlabel(COLUMN_NAMES.get(moved, "optimiser steps, at the most prompts"))
        axes[0][0].legend()
        grid = config.grid
        caption(
            figure,
            f"{config.pretraining.preset} GPT pretrained for {pretrain_steps:,} steps; d = {grid.dimension}, "
            f"B = {grid.base_prompts:,}, n = {grid.base_length}, k = {grid.base_chain} where they do not "
            f"move;\nbatches of {grid.batch}, learning rate {config.learning_rate:g}. Grey: untouched.",
        )
    return figure


def _draw_panel(axis: Axes, table: pd.DataFrame, config: TimedFigure3, stage: Stage, moved: str) -> None:
    grid = config.grid
    before = table[(table[Column.OPTIMISER_STEPS] == 0) & (table[Column.TEST_LENGTH] == grid.base_length)]
    level(axis, float(before[Column.ERROR].mean()))
    for variant, look in zip(config.variants, LOOKS, strict=False):
        rows = table[table[Column.VARIANT] == variant]
        if moved == Column.OPTIMISER_STEPS:
            rows = on_axis(rows, grid, stage, Column.PROMPTS)
            rows = rows[rows[Column.PROMPTS] == grid.prompts[-1]]
        else:
            rows = on_axis(rows, grid, stage, moved)
            # All places of an axis at one number of steps: the last that all of them have.
            last = rows.groupby(moved)[Column.OPTIMISER_STEPS].max()
            rows = rows[rows[Column.OPTIMISER_STEPS] == last.min()]
        test = rows[Column.LENGTH] if moved == Column.LENGTH else grid.base_length
        draw_curve(axis, rows[rows[Column.TEST_LENGTH] == test], moved, Column.ERROR, look, _DATA[variant])
    looks = config.sft_looks if stage == "sft" else config.looks
    known = {Column.PROMPTS: grid.prompts, Column.LENGTH: grid.lengths, Column.STEPS: grid.chains}
    plain_log_ticks(axis, known.get(moved, looks))
    log_y(axis)
