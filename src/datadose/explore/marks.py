"""What the explorer's charts are made of: colours, axes, lines and points, as Plotly's plain dictionaries.

Colours are those of templates/look.css in either scheme.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Chart = dict[str, Any]

NAMED_ERROR = "error %{y:.3g}<extra>%{fullData.name}</extra>"
_COUNTS = (0, *(int(m * 10**p) for p in range(7) for m in (1, 3)))


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
    middling: str
    stable: str
    """The stability map's colours of a step of 1 and of a large one; purple is a small one's."""


PALETTES = {
    "light": Palette(
        "#1f2328", "#59636e", "#d8dde3", "#ffffff", "#0072B2", "#D55E00", "#009E73", "#7A3E8E",
        "rgba(0,158,115,.16)", "#f3eef6", "#0b6b4f",
    ),
    "dark": Palette(
        "#e6edf3", "#9aa4af", "#353c44", "#14181d", "#58a6e0", "#f08a3c", "#3fc79a", "#c08ad0",
        "rgba(63,199,154,.20)", "#2b323a", "#3fc79a",
    ),
}  # fmt: skip


def palette(scheme: str | None) -> Palette:
    """The colours of ``scheme`` ("light" or "dark"; light where the browser has not said yet)."""
    return PALETTES.get(scheme or "light", PALETTES["light"])


def chart(colors: Palette, traces: list[Any], x: str, y: str, **more: Any) -> Chart:
    """A chart of ``traces``; ``more`` overrides what the layouts of all charts share."""
    axis = {
        "gridcolor": colors.line,
        "linecolor": colors.soft,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": colors.soft,
        "automargin": True,
        "fixedrange": True,
    }
    shared: dict[str, Any] = {
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
    return {"data": traces, "layout": {**shared, **more}}


def line(name: str, x: Any, y: Any, hover: str, color: str, dash: str, **look: Any) -> dict[str, Any]:
    line = {"color": color, "width": 2.4, "dash": dash, **look}
    trace = {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line}
    return {**trace, "hovertemplate": hover}


def unchanged(name: str, x: list[float], error: float, colors: Palette) -> dict[str, Any]:
    """A horizontal line: the error of a model that is left as it is."""
    hover = f"{name}: error %{{y:.3g}}<extra></extra>"
    return line(name, x, [error, error], hover, colors.soft, "dot", width=1.6)


def points(name: str, x: Any, y: Any, marker: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker, **more}


def star(color: str, colors: Palette, size: int) -> dict[str, Any]:
    return {"symbol": "star", "size": size, "color": color, "line": {"color": colors.paper, "width": 1}}


def vertical(at: float, color: str, **more: Any) -> dict[str, Any]:
    line = {"color": color, "width": 1.4, "dash": "dash"}
    return {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line, **more}


def note(at: float, text: str, colors: Palette, **more: Any) -> dict[str, Any]:
    """Words at the upper edge of a chart."""
    font = {"color": colors.soft, "size": 12}
    return {"x": at, "y": 1, "yref": "paper", "text": text, "showarrow": False, "font": font, **more}


def place(prompts: Any) -> Any:
    """Where a number of prompts stands on the axis: log10(1 + B), so that B = 0 has a place."""
    return np.log10(1 + np.asarray(prompts, dtype=np.float64))


def counts_axis(largest: int) -> dict[str, Any]:
    """The axis of numbers of prompts up to ``largest``."""
    shown = [B for B in _COUNTS if B <= largest]
    return {
        "tickvals": place(shown).tolist(),
        "ticktext": [f"{B:,}" for B in shown],
        "range": [-0.06, float(place(largest)) + 0.06],
    }


_MANTISSAS = ("1", "13", "125", "12357", "123456789")
"""First digits of the ticks of a logarithmic axis, ever more of them."""
_TICKS = 7


def error_axis(low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis for errors from ``low`` to ``high``, both above 0, with up to seven ticks.

    Plotly's own ticks leave out the decimals of 0.2 and 0.5.
    """
    low, high = 0.85 * low, 1.25 * high
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    choices = [
        [tick for p in powers for m in digits if low <= (tick := float(f"{m}e{p}")) <= high]
        for digits in _MANTISSAS
    ]
    ticks = max((one for one in choices if len(one) <= _TICKS), key=len, default=choices[0])
    return {
        "type": "log",
        "range": np.log10((low, high)).tolist(),
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }
