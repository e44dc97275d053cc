"""The planner's choice of stage against measured outcomes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import FIFTH
from datadose.drawing.hover import record_points
from datadose.drawing.style import GREY, LOOKS, Look, caption, draw_points, name_ticks, new_grid
from datadose.studies.planner.rules import (
    ARMS,
    OFF,
    RULES,
    compare_forecasts,
    compare_rules,
    forecast_panels,
)
from datadose.studies.planner.stages import PlannerStages


def draw_planner_stages(table: pd.DataFrame, config: PlannerStages) -> Figure:
    """Every case's four arms with the recommended one ringed, what fixed rules lose, and the forecasts."""
    with new_grid(1, 4, width=15.0, height=4.4, width_ratios=(1.25, 1.25, 1.0, 1.0)) as (figure, axes):
        chosen = table[~forecast_panels(table)]
        dense, verifiable = (chosen[chosen["reward"] == reward] for reward in ("dense", "verifiable"))
        _draw_cases(axes[0][0], dense, "error", "dense reward: post-test error / d")
        axes[0][0].set_yscale("log")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
        _draw_cases(axes[0][1], verifiable, "pass_rate", "verifiable reward: pass rate")
        _draw_rules(axes[0][2], compare_rules(table))
        _draw_forecasts(axes[0][3], compare_forecasts(table))
        caption(
            figure,
            f"{config.cases} random shifts (d = {config.dimension}) that the rule was not built on, "
            f"{config.seeds} seeds; ring: the planner's choice. Cases sorted by rho(Gamma0^-1 Delta). "
            f"Right: {config.forecasts} other shifts, error after descent (GRPO if verifiable).",
        )
    return figure


def _draw_cases(axis: Axes, table: pd.DataFrame, column: str, title: str) -> None:
    cases = table.groupby("panel")["spectral_radius"].first().sort_values()
    means = table.groupby(["panel", "kind"])[column].mean()
    chosen = table.groupby("panel")["recommended"].first()
    for arm, look in zip(ARMS, LOOKS, strict=True):
        values = [means.get((panel, arm), np.nan) for panel in cases.index]
        label = "no stage" if arm == "none" else arm
        draw_points(axis, range(len(values)), values, look, label, markersize=4.5)
    best = [means[(panel, chosen[panel])] for panel in cases.index]
    ring = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.1}
    draw_points(axis, range(len(best)), best, Look("#202124", "none", "o"), "recommended", **ring)
    radii = [f"{radius:.1f}" for radius in cases]
    name_ticks(axis.xaxis, radii, label="case, by its radius", rotation=90, fontsize=7)
    axis.set_title(title, loc="left")


def _draw_rules(axis: Axes, rules: pd.DataFrame) -> None:
    share = rules.groupby("rule")["good"].mean()[list(RULES)]
    place = np.arange(len(share))
    colors = [LOOKS[1].color, *[LOOKS[0].color] * (len(share) - 1)]
    axis.barh(place, share, color=colors, height=0.6)
    record_points(axis, "rule", FIFTH.color, share, place)
    for i, value in enumerate(share):
        axis.text(value, i, f" {value:.0%}", va="center", fontsize=8.5)
    name_ticks(axis.yaxis, list(share.index))
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15)
    axis.axvline(1, color=GREY, linewidth=0.8)
    axis.set_title("As good as the best arm", loc="left")
    axis.set_xlabel("share of cases within 5 percent (0.05)")


def _draw_forecasts(axis: Axes, found: pd.DataFrame) -> None:
    """Forecast error over measured, one point a case and stage; what the plan withholds is hollow."""
    found = found[(found["measure"] == "error") & (found["optimiser"] == "gd") & (found["stage"] != "none")]
    reinforced, dense = found["stage"] != "sft", found["reward"] == "dense"
    groups = {
        "SFT": ~reinforced,
        "RL, dense,\none step": reinforced & dense & (found["thinking_steps"] == 1),
        "RL, dense,\n2 to 4": reinforced & dense & (found["thinking_steps"] > 1),
        "RL,\nverifiable": reinforced & ~dense,
    }
    rng = np.random.default_rng(0)
    for place, chosen in enumerate(groups.values()):
        for withheld, face in ((False, LOOKS[0].color), (True, "none")):
            ratio = found.loc[chosen & (found["withheld"] == withheld), "ratio"]
            look = Look(GREY if withheld else LOOKS[0].color, "none", "o")
            x, name = place + rng.uniform(-0.25, 0.25, len(ratio)), "_withheld" if withheld else "_told"
            draw_points(axis, x, ratio, look, name, markersize=4, markerfacecolor=face)
    axis.axhspan(1 - OFF, 1 + OFF, color=LOOKS[2].color, alpha=0.15, lw=0)
    axis.set_yscale("log")
    name_ticks(axis.xaxis, list(groups), fontsize=8)
    axis.set_title("Forecast / measured error", loc="left")
    axis.set_xlabel("full: told; hollow: withheld")
