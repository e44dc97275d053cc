"""The charts of "Which stage?": the stability map, the four choices, and the learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from datadose.explore.answers import LearningCurve, StabilityMap
from datadose.explore.charts import Chart, Palette, layout
from datadose.planner import StageChoice

_LIGHT_SCALE = [[0, "#7A3E8E"], [0.5, "#f3eef6"], [1, "#0b6b4f"]]
_DARK_SCALE = [[0, "#c08ad0"], [0.5, "#2b323a"], [1, "#3fc79a"]]
_LIMIT = 3.0
_NAMES = {"none": "no stage", "sft": "SFT", "rl": "RL", "sft then rl": "SFT then RL"}


def map_chart(found: StabilityMap, chain_steps: int, colors: Palette, *, dark: bool) -> Chart:
    """log10 of the stable step over the shift's radius and k; the line of radius 1; the current shift."""
    radius = float(np.log10(np.clip(found.radius, found.radii[0], found.radii[-1])))
    here = {
        "type": "scatter",
        "mode": "markers",
        "x": [radius],
        "y": [chain_steps],
        "marker": {
            "symbol": "star",
            "size": 17,
            "color": colors.orange,
            "line": {"color": colors.paper, "width": 1},
        },
        "customdata": [[found.radius, found.here]],
        "hovertemplate": "this shift: radius %{customdata[0]:.2f}, k = %{y}"
        "<br>stable step %{customdata[1]:.2g}<extra></extra>",
        "showlegend": False,
    }
    ticks = (0.1, 0.3, 1, 3, 10)
    return {
        "data": [_heat(found, dark=dark), here],
        "layout": layout(
            colors,
            "spectral radius of the shift",
            "thinking steps k",
            xaxis={"tickvals": [float(np.log10(R)) for R in ticks], "ticktext": [f"{R:g}" for R in ticks]},
            yaxis={"dtick": 1, "showgrid": False},
            shapes=[
                {
                    "type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1,
                    "line": {"color": colors.ink, "width": 1.4, "dash": "dash"},
                }
            ],
            annotations=[
                _note(-0.02, "incremental", "right", colors),
                _note(0.02, "novel", "left", colors),
            ],
            margin={"l": 8, "r": 8, "t": 26, "b": 8},
        ),
    }  # fmt: skip


def _heat(found: StabilityMap, *, dark: bool) -> dict[str, Any]:
    radii, growth = found.radii.tolist(), found.growth.tolist()
    return {
        "type": "heatmap",
        "x": np.log10(found.radii).tolist(),
        "y": found.chain_steps.tolist(),
        "z": np.clip(np.log10(found.stable_step), -_LIMIT, _LIMIT).tolist(),
        "zmin": -_LIMIT,
        "zmax": _LIMIT,
        "colorscale": _DARK_SCALE if dark else _LIGHT_SCALE,
        "customdata": [list(zip(radii, row, growth, strict=True)) for row in found.stable_step.tolist()],
        "hovertemplate": "radius %{customdata[0]:.2f}, k = %{y}<br>stable step %{customdata[1]:.2g}"
        "<br>a thought multiplies the error by up to %{customdata[2]:.2f}<extra></extra>",
        "colorbar": {
            "title": {"text": "largest stable step", "side": "right"},
            "tickvals": [-3, -2, -1, 0, 1, 2, 3],
            "ticktext": ["≤ 0.001", "0.01", "0.1", "1", "10", "100", "≥ 1000"],
            "thickness": 12,
            "outlinewidth": 0,
        },
    }


def _note(x: float, text: str, anchor: str, colors: Palette) -> dict[str, Any]:
    return {
        "x": x, "y": 1, "yref": "paper", "yanchor": "bottom", "xanchor": anchor, "text": text,
        "showarrow": False, "font": {"size": 12, "color": colors.soft},
    }  # fmt: skip


def outlook_chart(choice: StageChoice, measure: str, colors: Palette) -> Chart:
    """``measure`` ("error" or "pass_rate") of the four choices of stage; the recommended one stands out."""
    names = [_NAMES[outlook.stage] for outlook in choice.outlooks]
    values: list[float | None] = [getattr(outlook, measure) for outlook in choice.outlooks]
    known = [0.0 if value is None else value for value in values]
    label = "predicted pass rate" if measure == "pass_rate" else "predicted post-test error / d"
    fills = [colors.orange if o.stage == choice.stage else colors.blue for o in choice.outlooks]
    shown = [
        "not forecast" if v is None else f"{v:.0%}" if measure == "pass_rate" else f"{v:.3g}" for v in values
    ]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": known,
        "y": names,
        "text": shown,
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": fills},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }  # fmt: skip
    top = 1.0 if measure == "pass_rate" else max(known)
    return {
        "data": [bars],
        "layout": layout(
            colors,
            label,
            "",
            xaxis={"range": [0, 1.18 * top], "nticks": 5},
            yaxis={"autorange": "reversed", "showgrid": False},
            bargap=0.35,
        ),
    }


def learning_chart(curves: Sequence[LearningCurve], before: float, colors: Palette) -> Chart:
    """Predicted error after each number of optimiser steps, by stage."""
    looks = (
        (colors.blue, "solid"), (colors.orange, "dash"), (colors.green, "dot"), (colors.purple, "dashdot"),
    )  # fmt: skip
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": curve.label,
            "x": list(curve.steps),
            "y": list(curve.errors),
            "line": {"color": color, "dash": dash, "width": 2.4, "shape": "spline"},
            "hovertemplate": "%{x:,} steps: error %{y:.3g}<extra>%{fullData.name}</extra>",
        }
        for curve, (color, dash) in zip(curves, looks, strict=False)
    ]
    last = curves[0].steps[-1]
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "no stage",
            "x": [1, last],
            "y": [before, before],
            "line": {"color": colors.soft, "dash": "dot", "width": 1.6},
            "hovertemplate": "no stage: error %{y:.3g}<extra></extra>",
        }
    )
    shown = [10**p for p in range(6) if 10**p <= last]
    return {
        "data": traces,
        "layout": layout(
            colors,
            "optimiser steps",
            "predicted post-test error / d",
            xaxis={"type": "log", "tickvals": shown, "ticktext": [f"{T:,}" for T in shown]},
            yaxis={"type": "log", "dtick": "D2"},
        ),
    }
