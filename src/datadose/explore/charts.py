"""The explorer's charts as Plotly figures in plain dictionaries, from numbers that are already there.

Plain dictionaries, because validating thousands of numbers at every move of a slider would take longer than
the theory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from datadose.covariance import Array
from datadose.explore.answers import LearningCurve, StabilityMap
from datadose.explore.marks import (
    NAMED_ERROR,
    Chart,
    Palette,
    chart,
    counts_axis,
    error_axis,
    line,
    note,
    place,
    points,
    star,
    unchanged,
    vertical,
)
from datadose.explore.setting import Setting
from datadose.planner import Dose, StageChoice

_CHOICES = {"none": "no stage", "sft": "SFT", "rl": "RL", "sft then rl": "SFT then RL"}


def _curve(dose: Dose, name: str, color: str, dash: str = "solid") -> dict[str, Any]:
    counts, errors = zip(*dose.curve, strict=True)
    hover = f"B = %{{customdata:,}}<br>{NAMED_ERROR}"
    curve = line(name, place(counts).tolist(), errors, hover, color, dash, shape="spline", smoothing=0.6)
    return {**curve, "customdata": counts}


def _best(dose: Dose, name: str, color: str, colors: Palette, *, legend: bool = True) -> dict[str, Any]:
    return points(
        name,
        [float(place(dose.prompts))],
        [dose.error],
        star(color, colors, 15),
        customdata=[dose.prompts],
        showlegend=legend,
        cliponaxis=False,
        hovertemplate=f"B* = %{{customdata:,}}<br>{NAMED_ERROR}",
    )


def _by_prompts(traces: list[Any], doses: Sequence[Dose], colors: Palette, **more: Any) -> Chart:
    """A chart of errors against prompts whose range shows the curves but for their peak.

    The last point may be beside the peak.
    """
    before = min(dose.error_before for dose in doses)
    highest = max(dose.error_at_max or 0.0 for dose in doses)
    errors = error_axis(min(dose.error for dose in doses), max(3 * before, min(highest, 10 * before)))
    axes = {"xaxis": counts_axis(doses[0].curve[-1][0]), "yaxis": errors}
    return chart(colors, traces, "prompts of SFT, B", "post-test error / d", **axes, **more)


def dose_chart(
    dose: Dose, peak: int, colors: Palette, simulated: dict[str, Any] | None = None, *, band: bool = True
) -> Chart:
    """Error against the number of prompts: exact theory, B = 0, optimum and band, peak, simulated points."""
    traces = [
        _curve(dose, "exact theory", colors.blue),
        _best(dose, "the best", colors.orange, colors),
        unchanged("no SFT", [0.0, float(place(dose.curve[-1][0]))], dose.error_before, colors),
    ]
    if simulated:
        traces.append(_simulated(simulated, colors))
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    if band:
        # Its entry in the legend.
        square = {"symbol": "square", "size": 12, "color": colors.band}
        traces.append(points("within 5%", [None], [None], square))
        # A band of one number would be invisible.
        low, high = np.add(place(dose.near_optimal), (-0.008, 0.008))
        shapes.append(
            {
                "type": "rect", "yref": "paper", "x0": float(low), "x1": float(high), "y0": 0, "y1": 1,
                "fillcolor": colors.band, "line": {"width": 0}, "layer": "below",
            }
        )  # fmt: skip
    if peak <= dose.curve[-1][0]:
        at, said = float(place(peak)), f"peak: B = {peak:,}"
        shapes.append(vertical(at, colors.soft, layer="below"))
        notes.append(note(at, said, colors, xanchor="center", yanchor="top", bgcolor=colors.paper))
    return _by_prompts(traces, [dose], colors, shapes=shapes, annotations=notes)


def _simulated(found: dict[str, Any], colors: Palette) -> dict[str, Any]:
    quantile = float(stdtrit(max(found["seeds"] - 1, 1), 0.975))
    bars = [quantile * (sem or 0) for sem in found["sem"]]
    return points(
        f"simulated, {found['seeds']} seeds",
        place(found["prompts"]).tolist(),
        found["mean"],
        {"size": 7, "color": colors.paper, "line": {"color": colors.ink, "width": 1.5}},
        customdata=list(zip(found["prompts"], bars, strict=True)),
        error_y={"array": bars, "color": colors.ink, "thickness": 1.2, "width": 3},
        hovertemplate="B = %{customdata[0]:,}<br>simulated %{y:.3g} ± %{customdata[1]:.2g}<extra></extra>",
    )


def curves_chart(entries: Sequence[tuple[str, Dose, str, str]], colors: Palette) -> Chart:
    """Error against prompts for several allocations: (name, dose, colour, dash) each, with its optimum."""
    traces = []
    for name, dose, color, dash in entries:
        traces += [_curve(dose, name, color, dash), _best(dose, name, color, colors, legend=False)]
    return _by_prompts(traces, [dose for _, dose, *_ in entries], colors)


def steps_chart(
    setting: Setting, entries: Sequence[tuple[str, Array, str, str]], y: str, colors: Palette, **more: Any
) -> Chart:
    """Values that are constant over the setting's levels of directions: (name, values, colour, dash) each."""
    x, hover = [edge + 0.5 for edge in setting.level_edges()], "%{y:.3g}<extra>%{fullData.name}</extra>"
    traces = [
        line(name, x, np.append(values, values[-1]).tolist(), hover, color, dash, shape="hv")
        for name, values, color, dash in entries
    ]
    return chart(colors, traces, "direction", y, **more)


def map_chart(found: StabilityMap, chain_steps: int, colors: Palette) -> Chart:
    """log10 of the stable step over the shift's radius and k; the line of radius 1; the current shift."""
    here = points(
        "this shift",
        [float(np.log10(np.clip(found.radius, found.radii[0], found.radii[-1])))],
        [chain_steps],
        star(colors.orange, colors, 17),
        customdata=[[found.radius, found.here]],
        hovertemplate="this shift: radius %{customdata[0]:.2f}, k = %{y}"
        "<br>stable learning rate %{customdata[1]:.2g}<extra></extra>",
        showlegend=False,
    )
    ticks = (0.1, 0.3, 1, 3, 10)
    return chart(
        colors,
        [_heat(found, colors), here],
        "spectral radius of the shift",
        "thinking steps k",
        xaxis={"tickvals": np.log10(ticks).tolist(), "ticktext": [f"{R:g}" for R in ticks]},
        yaxis={"dtick": 1, "showgrid": False},
        shapes=[vertical(0, colors.ink)],
        annotations=[
            note(-0.02, "incremental", colors, xanchor="right", yanchor="bottom"),
            note(0.02, "novel", colors, xanchor="left", yanchor="bottom"),
        ],
        margin={"l": 8, "r": 8, "t": 26, "b": 8},
    )


def _heat(found: StabilityMap, colors: Palette) -> dict[str, Any]:
    radii, growth = found.radii.tolist(), found.growth.tolist()
    powers = range(-3, 4)
    return {
        "type": "heatmap",
        "x": np.log10(found.radii).tolist(),
        "y": found.chain_steps.tolist(),
        "z": np.clip(np.log10(found.stable_step), powers[0], powers[-1]).tolist(),
        "zmin": powers[0],
        "zmax": powers[-1],
        "colorscale": [[0, colors.purple], [0.5, colors.middling], [1, colors.stable]],
        "customdata": [list(zip(radii, row, growth, strict=True)) for row in found.stable_step.tolist()],
        "hovertemplate": "radius %{customdata[0]:.2f}, k = %{y}<br>stable learning rate %{customdata[1]:.2g}"
        "<br>a thought multiplies the error by up to %{customdata[2]:.2f}<extra></extra>",
        "colorbar": {
            "title": {"text": "largest stable learning rate", "side": "right"},
            "tickvals": list(powers),
            "ticktext": ["≤ 0.001", "0.01", "0.1", "1", "10", "100", "≥ 1000"],
            "thickness": 12,
            "outlinewidth": 0,
        },
    }


def outlook_chart(choice: StageChoice, measure: str, colors: Palette) -> Chart:
    """``measure`` ("error" or "pass_rate") of the four choices of stage; the recommended one stands out."""
    rates = measure == "pass_rate"
    values: list[float | None] = [getattr(outlook, measure) for outlook in choice.outlooks]
    known = [value or 0.0 for value in values]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": known,
        "y": [_CHOICES[outlook.stage] for outlook in choice.outlooks],
        "text": ["not forecast" if v is None else _percent(v) if rates else f"{v:.3g}" for v in values],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {
            "color": [colors.orange if o.stage == choice.stage else colors.blue for o in choice.outlooks]
        },
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }
    return chart(
        colors,
        [bars],
        "predicted pass rate" if rates else "predicted post-test error / d",
        "",
        xaxis={"range": [0, 1.18 * (1.0 if rates else max(known))], "nticks": 5},
        yaxis={"autorange": "reversed", "showgrid": False},
        bargap=0.35,
    )


def _percent(rate: float) -> str:
    return "< 0.1%" if rate < 1e-3 else f"{rate:.0%}"


def learning_chart(curves: Sequence[LearningCurve], before: float, steps: int, colors: Palette) -> Chart:
    """Predicted error after each number of optimiser steps up to ``steps``, by stage."""
    looks = ((colors.blue, "solid"), (colors.orange, "dash"))
    hover = f"%{{x:,}} steps: {NAMED_ERROR}"
    traces = [
        line(curve.label, curve.steps, curve.errors, hover, *look, shape="spline")
        for curve, look in zip(curves, looks, strict=False)
    ]
    shown = [10**p for p in range(6) if 10**p <= steps]
    errors = [error for curve in curves for error in curve.errors if np.isfinite(error)]
    return chart(
        colors,
        [*traces, unchanged("no stage", [1, steps], before, colors)],
        "optimiser steps",
        "predicted post-test error / d",
        xaxis={"type": "log", "tickvals": shown, "ticktext": [f"{T:,}" for T in shown]},
        yaxis=error_axis(min(before, *errors), min(max(before, *errors), 10 * before)),
    )
