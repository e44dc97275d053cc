"""RL on the sea: what each selector gains at equal steps and at equal samples, and what each stage makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.style import GREY, LOOKS, caption, draw_points, new_figure
from datadose.power import mean_interval
from datadose.studies.referee.rl import Panel, Role
from datadose.studies.referee.rl_arms import RlArm, arms_of, gains
from datadose.studies.referee.rl_prompts import Selector
from datadose.studies.referee.rl_runs import Column
from datadose.studies.referee.stage_rules import Outcomes, find_rule
from datadose.studies.referee.stage_runs import NONE, STAGES

_NAMES = {"sft": "SFT", "rl": "RL", "both": "half of each"}


def draw_sea_rl(table: pd.DataFrame, config: Any) -> Figure:
    """Gains on the rare families and on all, then pass probabilities after each stage."""
    random = RlArm(Selector.RANDOM, 0, config.prompts)
    with new_figure(3, width=14.0, height=4.9) as (figure, axes):
        _draw_gains(axes[0], table, random, Column.RARE, "a   rare families")
        _draw_gains(axes[1], table, random, Column.ALL, "b   all families, as in the pool")
        axes[1].set_yticklabels([])
        axes[0].legend(loc="best")
        _draw_stages(axes[2], table)
        seeds = config.seeds
        caption(
            figure,
            f"Gain over {config.prompts} random prompts, {100:.0f} x exact pass probability on held-out "
            f"prompts; means over {seeds} seeds, bars 95 percent intervals of paired differences.\nSo many "
            f"seeds detect {100 * config.rare_pilot.detectable(seeds):.1f} points on rare families and "
            f"{100 * config.pilot.detectable(seeds):.1f} on all with 80 percent power (from a pilot). K: "
            "samples a prompt of the pool that the selector reads.",
        )
    return figure


def _draw_gains(axis: Axes, table: pd.DataFrame, random: RlArm, measure: str, title: str) -> None:
    arms = [arm for arm in arms_of(table) if arm != random]
    shown = ((False, LOOKS[0], "equal steps"), (True, LOOKS[1], "equal samples, scoring included"))
    for place, (samples, look, label) in enumerate(shown):
        y, bars = [], []
        for row, arm in enumerate(arms):
            values = 100 * gains(table, arm, random, measure, samples=samples)
            if len(values) > 1:
                y.append(row + 0.24 * (place - 0.5))
                bars.append(mean_interval(values))
        if bars:
            mean, low, high = np.array(bars).T
            draw_points(axis, mean, y, look, label, xerr=[mean - low, high - mean], markersize=5, capsize=2)
    axis.axvline(0, color=GREY, linewidth=1.0)
    axis.set_yticks(range(len(arms)), [arm.name for arm in arms])
    axis.invert_yaxis()
    axis.set_xlabel("gain over random prompts, points")
    axis.set_title(title, loc="left")


def _draw_stages(axis: Axes, table: pd.DataFrame) -> None:
    """After each stage over before, by target; the development targets are hollow."""
    rows = table[table[Column.PANEL] == Panel.STAGES]
    before = rows[rows[Column.ARM] == NONE].groupby(Column.TARGET)[Column.ON_TARGET].mean()
    for stage, look in zip(STAGES, LOOKS, strict=False):
        for role, fill in ((Role.HELD_OUT, look.color), (Role.DEVELOPMENT, "white")):
            part = rows[(rows[Column.ARM] == stage) & (rows[Column.ROLE] == role)]
            after = part.groupby(Column.TARGET)[Column.ON_TARGET].mean()
            label = _NAMES[stage] if role == Role.HELD_OUT else f"_{stage}, {role}"
            x = before.reindex(after.index)
            draw_points(axis, x, after, look, label, markerfacecolor=fill, linestyle="", markersize=5)
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle=(0, (2, 2)))
    development = Outcomes.of(table, Role.DEVELOPMENT)
    if len(development.passed) > 1:
        axis.annotate(
            f"rule from development (hollow):\n{find_rule(development).name}", (0.98, 0.03),
            xycoords="axes fraction", ha="right", va="bottom", fontsize=8,
        )  # fmt: skip
    axis.set_xlabel("pass probability before")
    axis.set_ylabel("after")
    axis.set_title("c   single families: which stage", loc="left")
    axis.legend(loc="best")
