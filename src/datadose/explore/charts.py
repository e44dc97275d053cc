"""The explorer's charts as Plotly figures in plain dictionaries, from numbers that are already there.

Plain dictionaries, because validating thousands of numbers at every move of a slider would take longer than
the theory. Colours are those of templates/look.css in either scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from datadose.covariance import Array
from datadose.planner import Dose

Chart = dict[str, Any]


@dataclass(frozen=True)
class Palette:
    """The colours of one scheme."""

    ink: str
    soft: str
    line: str
    paper: str
    blue: str
    orange: str
    green: str
    purple: str
    band: str


PALETTES = {
    "light": Palette(
        "#1f2328", "#59636e", "#d8dde3", "#ffffff", "#0072B2", "#D55E00", "#009E73", "#7A3E8E",
        "rgba(0,158,115,.16)",
    ),
    "dark": Palette(
        "#e6edf3", "#9aa4af", "#353c44", "#14181d", "#58a6e0", "#f08a3c", "#3fc79a", "#c08ad0",
        "rgba(63,199,154,.20)",
    ),
}  # fmt: skip
_COUNTS = (0, *(int(m * 10**p) for p in range(7) for m in (1, 3)))


def palette(scheme: str | None) -> Palette:
    """The colours of ``scheme`` ("light" or "dark"; light where the browser has not said yet)."""
    return PALETTES.get(scheme or "light", PALETTES["light"])


def layout(colors: Palette, x: str, y: str, **more: Any) -> dict[str, Any]:
    """What all charts share; ``more`` overrides."""
    axis = {
        "gridcolor": colors.line,
        "linecolor": colors.soft,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": colors.soft,
        "automargin": True,
        "fixedrange": True,
    }
    base: dict[str, Any] = {
        "font": {
            "color": colors.ink,
            "size": 13,
            "family": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
        },
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "xaxis": {**axis, "title": {"text": x}, **more.pop("xaxis", {})},
        "yaxis": {**axis, "title": {"text": y}, **more.pop("yaxis", {})},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"bgcolor": colors.paper, "bordercolor": colors.soft, "font": {"color": colors.ink}},
        "hovermode": "closest",
        "dragmode": False,
    }
    return {**base, **more}


def place(prompts: Any) -> Any:
    """Where a number of prompts stands on the axis: log10(1 + B), so that B = 0 has a place."""
    return np.log10(1 + np.asarray(prompts, dtype=np.float64))


def counts_axis(largest: int) -> dict[str, Any]:
    """The axis of numbers of prompts up to ``largest``."""
    shown = [B for B in _COUNTS if B <= largest]
    return {
        "tickvals": [float(place(B)) for B in shown],
        "ticktext": [f"{B:,}" for B in shown],
        "range": [-0.06, float(place(largest)) + 0.06],
    }


def _curve(dose: Dose, name: str, color: str, dash: str = "solid") -> dict[str, Any]:
    B = [B for B, _ in dose.curve]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": place(B).tolist(),
        "y": [error for _, error in dose.curve],
        "customdata": B,
        "line": {"color": color, "width": 2.4, "dash": dash, "shape": "spline", "smoothing": 0.6},
        "hovertemplate": "B = %{customdata:,}<br>error %{y:.3g}<extra>%{fullData.name}</extra>",
    }


def _star(dose: Dose, name: str, color: str, edge: str, *, legend: bool = True) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "showlegend": legend,
        "x": [float(place(dose.prompts))],
        "y": [dose.error],
        "customdata": [dose.prompts],
        "marker": {"symbol": "star", "size": 15, "color": color, "line": {"color": edge, "width": 1}},
        "cliponaxis": False,
        "hovertemplate": "B* = %{customdata:,}<br>error %{y:.3g}<extra>%{fullData.name}</extra>",
    }


def _error_range(doses: Sequence[Dose]) -> list[float]:
    """A range that shows the curves but for their peak, in log10; the last point may be beside the peak."""
    lowest = min(dose.error for dose in doses)
    before = min(dose.error_before for dose in doses)
    highest = max(dose.error_at_max or 0.0 for dose in doses)
    return [float(np.log10(0.8 * lowest)), float(np.log10(1.5 * max(3 * before, min(highest, 10 * before))))]


def dose_chart(
    dose: Dose,
    peak: int,
    max_prompts: int,
    colors: Palette,
    simulated: dict[str, Any] | None = None,
    *,
    band: bool = True,
) -> Chart:
    """Error against the number of prompts: exact theory, B = 0, optimum and band, peak, simulated points."""
    traces = [
        _curve(dose, "exact theory", colors.blue),
        _star(dose, "the best", colors.orange, colors.paper),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "no SFT",
            "x": [0.0, float(place(max_prompts))],
            "y": [dose.error_before] * 2,
            "line": {"color": colors.soft, "width": 1.6, "dash": "dot"},
            "hovertemplate": "no SFT: error %{y:.3g}<extra></extra>",
        },
    ]
    if simulated:
        traces.append(_simulated(simulated, colors))
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    if band:
        traces.append(_band_in_legend(colors))
        shapes.append(_band([float(place(B)) for B in dose.near_optimal], colors))
    if peak <= max_prompts:
        at = float(place(peak))
        shapes.append(
            {
                "type": "line", "xref": "x", "yref": "paper", "x0": at, "x1": at, "y0": 0, "y1": 1,
                "line": {"color": colors.soft, "width": 1.4, "dash": "dash"}, "layer": "below",
            }
        )  # fmt: skip
        notes.append(
            {
                "x": at, "y": 1, "xref": "x", "yref": "paper", "text": f"peak: B = {peak:,}",
                "showarrow": False, "xanchor": "center", "yanchor": "top", "bgcolor": colors.paper,
                "font": {"color": colors.soft, "size": 12},
            }
        )  # fmt: skip
    return {
        "data": traces,
        "layout": layout(
            colors,
            "prompts of SFT, B",
            "post-test error / d",
            xaxis=counts_axis(max_prompts),
            yaxis={"type": "log", "range": _error_range([dose]), "dtick": "D2"},
            shapes=shapes,
            annotations=notes,
        ),
    }


def _band_in_legend(colors: Palette) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "within 5%",
        "x": [None],
        "y": [None],
        "marker": {"symbol": "square", "size": 12, "color": colors.band},
    }


def _band(near: Sequence[float], colors: Palette) -> dict[str, Any]:
    # A band of one number would be invisible.
    return {
        "type": "rect", "xref": "x", "yref": "paper", "x0": near[0] - 0.008, "x1": near[1] + 0.008, "y0": 0,
        "y1": 1, "fillcolor": colors.band, "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def _simulated(found: dict[str, Any], colors: Palette) -> dict[str, Any]:
    quantile = float(stdtrit(max(found["seeds"] - 1, 1), 0.975))
    bars = [None if sem is None else quantile * sem for sem in found["sem"]]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"simulated, {found['seeds']} seeds",
        "x": place(found["prompts"]).tolist(),
        "y": found["mean"],
        "customdata": [[B, bar or 0] for B, bar in zip(found["prompts"], bars, strict=True)],
        "error_y": {"array": [bar or 0 for bar in bars], "color": colors.ink, "thickness": 1.2, "width": 3},
        "marker": {"size": 7, "color": colors.paper, "line": {"color": colors.ink, "width": 1.5}},
        "hovertemplate": "B = %{customdata[0]:,}<br>simulated %{y:.3g} ± %{customdata[1]:.2g}<extra></extra>",
    }


def curves_chart(entries: Sequence[tuple[str, Dose, str, str]], max_prompts: int, colors: Palette) -> Chart:
    """Error against prompts for several allocations: (name, dose, colour, dash) each, with its optimum."""
    traces = []
    for name, dose, color, dash in entries:
        traces += [
            _curve(dose, name, color, dash),
            _star(dose, name, color, colors.paper, legend=False),
        ]
    return {
        "data": traces,
        "layout": layout(
            colors,
            "prompts of SFT, B",
            "post-test error / d",
            xaxis=counts_axis(max_prompts),
            yaxis={"type": "log", "range": _error_range([e[1] for e in entries]), "dtick": "D2"},
        ),
    }


def steps_chart(
    edges: Sequence[int],
    entries: Sequence[tuple[str, Array, str, str]],
    y: str,
    colors: Palette,
    **more: Any,
) -> Chart:
    """Values that are constant over levels of directions; ``edges`` (levels + 1,) are where levels begin."""
    x = [float(edge) + 0.5 for edge in edges]
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": x,
            "y": [*values.tolist(), float(values[-1])],
            "line": {"color": color, "width": 2.4, "dash": dash, "shape": "hv"},
            "hovertemplate": "%{y:.3g}<extra>%{fullData.name}</extra>",
        }
        for name, values, color, dash in entries
    ]
    return {"data": traces, "layout": layout(colors, "direction", y, hovermode="closest", **more)}
