"""The picture of ``fig3path``: columns are arms and kinds of data, rows what changes along training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import log_y
from datadose.drawing.style import LOOKS, Look, caption, draw_points, draw_theory, name_ticks, new_grid
from datadose.studies.gpt.first_thought import OWN, RIDGE
from datadose.studies.gpt.mechanism import Mechanism
from datadose.studies.gpt.mechanism_verdicts import SLOPES, StagePath, arm_name, clocks, paths
from datadose.studies.gpt.runs import COMMON, PHI, PRETRAINING, RARE, TARGET, VARIANT_NAMES, W, of

_ERRORS = {of(TARGET, RARE): "target, rare", of(TARGET, COMMON): "target, common", PRETRAINING: "Sigma0"}
_FITS = {OWN: "a map for each X", RIDGE: "ridge", W: "w* alone", PHI: "S w* (one V)"}
_ROWS = ("error / before", "error / before", "slope on S w*", "R2 of the first thought")


def draw(table: pd.DataFrame, config: Mechanism) -> Figure:
    """Errors with few and with many prompts, slopes on S w* and shares explained, of the last pretraining."""
    last = config.pretrainings[-1].steps
    kept = [path for path in paths(table, config) if path.pretrain_steps == last]
    clock = clocks(table, config)
    few, many = min(config.prompts), max(config.prompts)
    columns = list(dict.fromkeys((path.arm, path.variant) for path in kept))
    with new_grid(4, len(columns), width=2.7 * len(columns), height=9.4, sharex=True, sharey="row") as (
        figure,
        axes,
    ):
        for place, (arm, variant) in enumerate(columns):
            by_prompts = {path.prompts: path for path in kept if (path.arm, path.variant) == (arm, variant)}
            a, own = clock[last, arm], axes[:, place]
            _draw_errors(own[0], by_prompts[few], a)
            _draw_errors(own[1], by_prompts[many], a)
            _draw_slopes(own[2], by_prompts[many], a)
            _draw_fits(own[3], by_prompts[many])
            own[0].set_title(f"{arm_name(arm)}\non {VARIANT_NAMES[variant]}", loc="left")
            own[3].set_xlabel("optimiser steps")
            _name_steps(own[3], by_prompts[many])
        for row, (name, B) in enumerate(zip(_ROWS, (few, many, many, many), strict=True)):
            axes[row][0].set_ylabel(f"{name}\n(B = {B:,})")
        for row in (0, 2, 3):
            axes[row][-1].legend(fontsize=7, loc="best")
        log_y(axes[0][0])
        log_y(axes[1][0])
        caption(figure, _caption(config, last))
    return figure


def _place(path: StagePath) -> Any:
    """Looks at equal distances: the first is 0."""
    return np.arange(len(path.looks))


def _name_steps(axis: Axes, path: StagePath) -> None:
    name_ticks(axis.xaxis, [f"{T:g}" for T in path.looks], fontsize=7)


def _draw_errors(axis: Axes, path: StagePath, clock: float) -> None:
    for look, (column, name) in zip(LOOKS, _ERRORS.items(), strict=False):
        values = path.of_gpt(column)
        _draw_runs(axis, path, values / values[:, :1], look, name)
        linear = path.matched(column, clock)
        _draw_linear(axis, path, linear / linear[0], look, name)


def _draw_slopes(axis: Axes, path: StagePath, clock: float) -> None:
    for look, (group, column) in zip(LOOKS, SLOPES.items(), strict=False):
        _draw_runs(axis, path, path.of_gpt(column), look, f"{group} directions")
        _draw_linear(axis, path, path.matched(column, clock), look, f"{group} directions")
    axis.set_ylim(bottom=0)


def _draw_fits(axis: Axes, path: StagePath) -> None:
    for look, (regressor, name) in zip(LOOKS, _FITS.items(), strict=True):
        _draw_runs(axis, path, path.of_gpt(of(TARGET, "", "fit", regressor)), look, name)
    axis.set_ylim(0, 1.02)


def _draw_runs(axis: Axes, path: StagePath, values: Any, look: Look, name: str) -> None:
    """Means over seeds, with the range of the seeds."""
    mean = np.nanmean(values, axis=0)
    bars = np.stack([mean - np.nanmin(values, axis=0), np.nanmax(values, axis=0) - mean])
    style = {"markersize": 3.6, "markerfacecolor": "white", "elinewidth": 0.8, "linestyle": "none"}
    draw_points(axis, _place(path), mean, look, name, yerr=bars, **style)


def _draw_linear(axis: Axes, path: StagePath, values: Any, look: Look, name: str) -> None:
    draw_theory(axis, _place(path), values, look, f"_{name}, linear model", linewidth=1.3)


def _caption(config: Mechanism, pretrained: int) -> str:
    return (
        f"Marks: tiny GPT (pretrained {pretrained:,} steps; mean and range of {config.seeds} seeds), Adam "
        f"{config.learning_rate:g}, batches of {config.batch}. Lines: the linear model at times that are "
        "fitted once for each stage and k, to the\nrare error on the target after many prompts of Sigma0 + "
        "Delta: exact theory, for OS (k = 3) gradient descent. First thought on held-out prompts of the "
        f"target, d = {config.task.dimension}, n = {config.length}.\nErrors: SFT of the first thought beside "
        "eta w*, OS of the last beside w*, over the untouched model's."
    )
