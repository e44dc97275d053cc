"""The picture of the paper's own model: each stage along B, n and k, and along training, in two settings."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from datadose.configs import Stage
from datadose.drawing.curves import level, plain_log_ticks
from datadose.drawing.style import GREY, LOOKS, Look, caption, draw_points, draw_theory, name_ticks, new_grid
from datadose.studies.gpt.map_settings import Column
from datadose.studies.gpt.map_verdicts import looks_along, relative_paths, rows_along, untouched_errors
from datadose.studies.gpt.paper_model import PaperModel
from datadose.studies.gpt.runs import VARIANT_NAMES
from datadose.studies.trends import AXES, COLUMN_NAMES, SHORT_NAMES, draw_runs


def draw(table: pd.DataFrame, config: PaperModel) -> Figure:
    """A row a stage; columns B, n, k (a colour a setting), then error along training, a panel a setting."""
    panels = sorted(table[Column.PANEL].unique())
    settings = {panel: table[table[Column.PANEL] == panel] for panel in panels}
    # Dashes mean something else here.
    looks = {panel: Look(look.color, "-", look.marker) for panel, look in zip(panels, LOOKS, strict=False)}
    columns = len(AXES) + len(panels)
    with new_grid(len(config.stages), columns, width=3.1 * columns, height=8.8) as (figure, axes):
        for row, stage in zip(axes, config.stages, strict=True):
            for axis, moved in zip(row, AXES, strict=False):
                if config.places(stage, moved):
                    _draw_places(axis, settings, looks, config, stage, moved)
                else:
                    axis.remove()
            row[0].set_ylabel("error / d on the target")
            for axis, panel in zip(row[len(AXES) :], panels, strict=True):
                _draw_time(axis, table, config, stage, panel)
        names = [VARIANT_NAMES[rows[Column.VARIANT].iloc[0]] for rows in settings.values()]
        _name_settings(figure, looks, names)
        caption(figure, _setting(config))
    return figure


def _draw_places(
    axis: Axes,
    settings: dict[str, pd.DataFrame],
    looks: dict[str, Look],
    config: PaperModel,
    stage: Stage,
    moved: str,
) -> None:
    """Error after the stage along B, n or k: solid, dashed with the test's n fixed, dotted untouched."""
    for (panel, rows), look in zip(settings.items(), looks.values(), strict=True):
        steps = _last(rows, config, stage, moved)
        if moved == Column.LENGTH:
            fixed = rows_along(rows, config, stage, moved, steps)
            draw_runs(axis, fixed, moved, Look(look.color, (0, (4, 2)), "x"), 0.93, f"{panel}, test n fixed")
            lengths = config.lengths
            before = [float(untouched_errors(rows, n).mean()) for n in lengths]
            style: dict[str, Any] = {"linestyle": ":", "linewidth": 1.0}
            draw_theory(axis, list(lengths), before, look, f"_{panel}, untouched", **style)
        else:
            before_here = float(untouched_errors(rows, config.base_length).mean())
            axis.axhline(before_here, color=look.color, linestyle=":", linewidth=1.0)
        after = rows_along(rows, config, stage, moved, steps, tied=True)
        draw_runs(axis, after, moved, look, 0.98, panel)
    plain_log_ticks(axis, config.places(stage, moved))
    axis.set_title(f"{SHORT_NAMES[stage]}, {steps:,} steps", loc="left")
    axis.set_xlabel(COLUMN_NAMES[moved])


def _last(rows: pd.DataFrame, config: PaperModel, stage: Stage, moved: str) -> int:
    """The last step at which a setting is known at all places of an axis."""
    return max(looks_along(rows, config, stage, moved))


def _draw_time(axis: Axes, table: pd.DataFrame, config: PaperModel, stage: Stage, panel: str) -> None:
    """The error over the untouched model's along training, a curve a B."""
    looks = dict(zip(config.prompts, (Look(GREY, "-", "o"), *LOOKS[2:]), strict=True))
    for B, (steps, errors) in relative_paths(table, config, stage, [panel]).items():
        look = looks[B]
        style = {"linestyle": look.dash, "markersize": 3.4}
        draw_points(axis, range(len(steps)), errors, look, f"B = {B:,}", **style)
    name_ticks(axis.xaxis, [f"{s:g}" for s in steps], fontsize=7)
    level(axis, 1.0)
    rows = table[table[Column.PANEL] == panel]
    axis.set_title(f"{SHORT_NAMES[stage]}, {VARIANT_NAMES[rows[Column.VARIANT].iloc[0]]}", loc="left")
    axis.set_xlabel("optimiser steps")
    axis.set_ylabel("error / untouched")
    axis.legend(fontsize=7)


def _name_settings(figure: Figure, looks: dict[str, Look], names: list[str]) -> None:
    handles = [
        Line2D([], [], color=look.color, marker=look.marker, markersize=4, label=f"post-trained on {name}")
        for look, name in zip(looks.values(), names, strict=True)
    ]
    handles.append(Line2D([], [], color=GREY, linestyle=(0, (4, 2)), label="n in post-training only"))
    handles.append(Line2D([], [], color=GREY, linestyle=":", label="untouched model"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), fontsize=8)


def _setting(config: PaperModel) -> str:
    [(size, first), *_] = config.settings()
    task = config.task(first.eta)
    return (
        f"GPT-2 '{size.preset}', d = {task.dimension}, eta = {task.eta:g}, pretrained "
        f"{first.pretrain_steps:,} steps with chains of {task.chain_steps}; post-training: Adam "
        f"{first.learning_rate:g}, batch {config.batch}; test on Sigma0 + Delta, k = {task.test_steps}. "
        "Where they do not move: "
        f"B = {config.base_prompts:,}, n = {config.base_length}, k = {config.base_chain}.\n"
        f"Means of {config.seeds} seeds with standard errors; one pretrained model. Along training: "
        "geometric means over seeds."
    )
