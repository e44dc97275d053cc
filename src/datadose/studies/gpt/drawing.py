"""Figure 3 and the GPT beside the linear theory, drawn from their saved tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from datadose.drawing.style import (
    GREY,
    LOOKS,
    Look,
    caption,
    draw_points,
    draw_theory,
    name_ticks,
    new_grid,
)
from datadose.studies.gpt.data import GptData
from datadose.studies.gpt.figure3 import Figure3
from datadose.studies.trends import COLUMN_NAMES, ROW_NAMES, draw_panels, draw_runs

_CONTROLS = {
    "prompts": "equal epochs",
    "length": "n in post-training only",
}


def draw_figure3(table: pd.DataFrame, config: Figure3) -> Figure:
    """Rows SFT, OS, RL; columns B, n, k; a colour a pretraining length, dashed: control, thin: untouched."""
    pretrained = sorted(table["pretrain_steps"].unique())
    looks = dict(zip(pretrained, LOOKS, strict=False))
    sharing = {"sharex": "col", "sharey": "col"}
    with new_grid(len(ROW_NAMES), len(COLUMN_NAMES), width=10.5, height=9.2, **sharing) as (figure, axes):

        def draw(axis: Axes, rows: pd.DataFrame, moved: str) -> None:
            for T, look in looks.items():
                own = rows[rows["pretrain_steps"] == T]
                _draw_untouched(axis, table[table["pretrain_steps"] == T], moved, look, config)
                dashed, solid = Look(look.color, (0, (4, 2)), "x"), Look(look.color, "-", look.marker)
                name = f"pretrained {int(T):,} steps"
                control = f"{name}, {_CONTROLS.get(moved, 'control')}"
                draw_runs(axis, own[own["variant"] != "main"], moved, dashed, 0.93, control)
                draw_runs(axis, own[own["variant"] == "main"], moved, solid, 0.98, name)

        draw_panels(table, axes, draw)
        for axis, moved in zip(axes[0], COLUMN_NAMES, strict=True):
            axis.legend(handles=_handles(looks, moved), fontsize=7)
        caption(figure, _setting(config))
    return figure


def _draw_untouched(axis: Axes, table: pd.DataFrame, moved: str, look: Look, config: Figure3) -> None:
    base = table[table["variant"] == "base"].set_index("length")["error"].sort_index()
    style: dict[str, Any] = {"linestyle": ":", "linewidth": 0.8, "alpha": 0.7, "zorder": 1}
    if moved == "length":
        steps = int(table["pretrain_steps"].iloc[0])
        name = f"_untouched model, pretrained {steps:,} steps"
        draw_theory(axis, base.index.to_numpy(dtype=float), base, look, name, **style)
    else:
        axis.axhline(float(base.loc[config.task.length]), color=look.color, **style)


def _handles(looks: dict[Any, Look], moved: str) -> list[Line2D]:
    handles = [
        Line2D(
            [], [], color=look.color, marker=look.marker, markersize=3.4, label=f"pretrained {int(T):,} steps"
        )
        for T, look in looks.items()
    ]
    if moved in _CONTROLS:
        handles.append(Line2D([], [], color=GREY, linestyle=(0, (4, 2)), label=_CONTROLS[moved]))
    return [*handles, Line2D([], [], color=GREY, linestyle=":", linewidth=0.8, label="untouched model")]


def _setting(config: Figure3) -> str:
    task, first = config.task, config.pretrainings[0]
    steps = "/".join(f"{s:,}" for s in config.stage_steps)
    return (
        f"GPT-2 '{first.preset}', d = {task.dimension}, eta = {task.eta:g}, pretrained with chains "
        f"of {task.chain_steps}; {steps} steps of SFT/OS/RL, batch {config.batch}, Adam "
        f"{config.learning_rate:g}, on prompts of Delta; test on Sigma0 + Delta, k = {task.test_steps}."
        "\n"
        f"Where they do not move: B = {config.base_prompts}, n = {task.length}, "
        f"k = {config.base_chain}. "
        f"Means of {config.seeds} seeds with standard errors; one pretrained model a pretraining length."
    )


_STAGES = {"sft": "SFT", "outcome": "OS", "rl": "RL"}
_DATA = {"delta": "Delta", "target": "Sigma0 + Delta", "replay": "Delta + replay"}
_ERRORS = (
    ("target_rare_error", "target, rare"),
    ("target_common_error", "target, common"),
    ("pretraining_error", "Sigma0"),
)


def draw_gpt_data(table: pd.DataFrame, config: GptData) -> Figure:
    """Top: errors by stage and data; bottom: slopes of the first thought on S w*, GPT against LSA."""
    gpt = table[table["model"] == "gpt"]
    pretrained = sorted(gpt["pretrain_steps"].dropna().unique())
    with new_grid(2, len(pretrained) + 1, width=4.0 * (len(pretrained) + 1), height=7.6) as (figure, axes):
        for axis, T in zip(axes[0], pretrained, strict=False):
            _draw_errors(axis, gpt[gpt["pretrain_steps"] == T], f"GPT pretrained {int(T):,} steps")
        _draw_errors(axes[0][-1], table[table["model"] == "lsa"], "LSA, infinitely many prompts")
        axes[0][0].set_ylabel("error / d after post-training")
        for axis, T in zip(axes[1], pretrained, strict=False):
            _draw_slopes(axis, gpt[gpt["pretrain_steps"] == T])
        _draw_slopes(axes[1][-1], table[table["model"] == "lsa"])
        axes[1][0].set_ylabel("slope of the first thought on S w*")
        # The slopes' rare and common directions have the colours of the errors'.
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), fontsize=8)
        names = table[table["model"] == "baseline"]
        exact = ", ".join(f"{row['kind']} {row['error']:.3g}" for _, row in names.iterrows())
        caption(
            figure,
            f"Exact predictors on the target: {exact}. Numbers under the slopes: R2 on S w* (R2 on w*), rare "
            f"directions.\nMeans of {config.seeds} seeds; d = {config.task.dimension}, "
            f"B = {config.prompts}, k = {config.chain_steps}.",
        )
    return figure


def _groups(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The untouched model, then stage by stage the three kinds of data."""
    found = [("untouched", rows[rows["kind"] == "untouched"])]
    for stage, name in _STAGES.items():
        for variant, label in _DATA.items():
            found.append((f"{name}: {label}", rows[(rows["kind"] == stage) & (rows["variant"] == variant)]))
    return found


def _draw_errors(axis: Axes, rows: pd.DataFrame, title: str) -> None:
    groups = _groups(rows)
    for (column, label), look in zip(_ERRORS, LOOKS, strict=False):
        values = [group[column].astype(float).mean() for _, group in groups]
        draw_points(axis, range(len(groups)), values, look, label, markersize=5)
    axis.set_yscale("log")
    name_ticks(axis.xaxis, [name for name, _ in groups], rotation=60, ha="right", fontsize=7)
    axis.set_title(title, loc="left")


def _draw_slopes(axis: Axes, rows: pd.DataFrame) -> None:
    groups = _groups(rows)
    for group, look in zip(("rare", "common"), LOOKS, strict=False):
        values = [found[f"target_slope_{group}_phi"].astype(float).mean() for _, found in groups]
        draw_points(axis, range(len(groups)), values, look, f"{group} directions", markersize=5)
    fits = [
        (found["target_fit_rare_phi"].astype(float).mean(), found["target_fit_rare_w"].astype(float).mean())
        for _, found in groups
    ]
    labels = [f"{name}\n{phi:.2f} ({w:.2f})" for (name, _), (phi, w) in zip(groups, fits, strict=True)]
    name_ticks(axis.xaxis, labels, rotation=60, ha="right", fontsize=7)
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.set_ylim(min(0, axis.get_ylim()[0]), max(1.1 * float(np.nanmax(axis.get_ylim())), 0.1))
