"""The look that all figures share: colour-blind safe, distinct in grey, no global matplotlib state."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from datadose.drawing.hover import EDGE, hover_json, record_names, record_points
from datadose.drawing.page import CAPTION
from datadose.files import write_atomic


@dataclass(frozen=True)
class Look:
    """Colour, dash pattern and marker of one curve; any one of the three distinguishes curves."""

    color: str
    dash: Any
    marker: str


LOOKS = (
    Look("#0072B2", "-", "o"),
    Look("#D55E00", (0, (5, 1.5)), "s"),
    Look("#009E73", (0, (1.2, 1.2)), "^"),
    Look("#7A3E8E", (0, (5, 1.5, 1.2, 1.5)), "D"),
)
"""Okabe-Ito hues (the last darkened) whose lightness differs, so that they survive a grey print."""

GREY = "#5f6368"

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e5e8",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "xtick.color": "#3c4043",
    "ytick.color": "#3c4043",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
    "svg.hashsalt": "datadose",
    "svg.fonttype": "path",
    "savefig.dpi": 200,
}


@contextmanager
def _style() -> Iterator[None]:
    """Ours on matplotlib's own defaults: a matplotlibrc of the user or of the folder changes no figure."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


@contextmanager
def new_grid(
    rows: int, columns: int, *, width: float, height: float, **options: Any
) -> Iterator[tuple[Figure, Any]]:
    """A figure with panels of shape (rows, columns) in the shared style; ``options`` go to ``subplots``."""
    with _style():
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, **options)


@contextmanager
def new_figure(panels: int, width: float = 11.0, height: float = 3.9) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with a row of panels in the shared style, y axes shared."""
    with new_grid(1, panels, width=width, height=height, sharey=True) as (figure, axes):
        yield figure, list(axes[0])


def new_axes(width: float = 5.5, height: float = 3.9) -> Axes:
    """The axes of a new pyplot figure in the shared style, which a notebook shows and a script can save."""
    from matplotlib import pyplot  # noqa: PLC0415  (it chooses a backend, which files do not need)

    with _style():
        axes: Axes = pyplot.subplots(figsize=(width, height), layout="constrained")[1]
        return axes


def caption(figure: Figure, text: str) -> None:
    """A line under the panels that says what was measured; the hover record has it as text too."""
    found = figure.supxlabel(text, fontsize=8, color=GREY, x=0.01, ha="left")
    found.set_gid(CAPTION)


def draw_points(
    axis: Axes, x: Any, y: Any, look: Look, label: str, *, xerr: Any = None, yerr: Any = None, **style: Any
) -> None:
    """Markers, with error bars where ``xerr`` or ``yerr`` give their lengths; recorded under ``label``.

    Here as elsewhere a label that starts with "_" is for the hover record and in no legend.
    """
    style = {"color": look.color, "marker": look.marker, "linestyle": "none", "label": label} | style
    if xerr is None and yerr is None:
        axis.plot(x, y, **style)
    else:
        axis.errorbar(x, y, xerr=xerr, yerr=yerr, **style)
    record_points(axis, label, look.color, x, y, (xerr, yerr))


def draw_theory(axis: Axes, x: Any, y: Any, look: Look, label: str, **style: Any) -> None:
    """A theory curve; gaps where the theory has no finite value."""
    draw_points(axis, x, y, look, label, **({"marker": "", "linestyle": look.dash} | style))


def draw_simulation(axis: Axes, rows: pd.DataFrame, x: str, look: Look, label: str, y: str = "error") -> None:
    """Means over seeds of the column ``y`` with standard errors at each value of the column ``x``."""
    grouped = rows.groupby(x)[y]
    mean, sem = grouped.mean(), grouped.sem().fillna(0.0)
    # On a log axis a bar that reaches zero would run off the page.
    bars = np.stack([sem.clip(upper=0.9 * mean), sem])
    style = {"markersize": 3.4, "markerfacecolor": "white", "elinewidth": 0.9, "markeredgewidth": 1.0}
    draw_points(axis, mean.index.to_numpy(dtype=float), mean.to_numpy(), look, label, yerr=bars, **style)


def draw_lost(axis: Axes, x: Any, look: Look, label: str) -> None:
    """Crosses along the top of the panel where runs were lost."""
    axis.plot(x, [EDGE] * len(x), "x", color=look.color, transform=axis.get_xaxis_transform())
    record_points(axis, label, look.color, x, None)


def name_ticks(side: Axis, names: Sequence[str], places: Any = None, label: str = "", **style: Any) -> None:
    """Ticks at ``places`` (0, 1, ... unless given) with ``names``, which label the values there.

    ``label`` is what the names name; a label that only explains how to read the panel is set apart.
    """
    places = range(len(names)) if places is None else list(places)
    side.set_ticks(places, labels=list(names), **style)
    if label:
        side.set_label_text(label)
    record_names(side, places, names, label)


def save(figure: Figure, folder: Path, name: str, kinds: Sequence[str] = ("png", "svg")) -> None:
    """``folder/name.png`` and ``.svg``, each written whole or not at all, without dates inside.

    Beside an SVG, ``name.hover.json`` holds the places of its data points (:mod:`datadose.drawing.hover`).
    """
    dates: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
    with _style():
        for kind in kinds:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=dates[kind])
            write_atomic(folder / f"{name}.{kind}", buffer.getvalue())
            if kind == "svg":
                # The layout is still that of the picture: drawing it again may move it by a pixel.
                write_atomic(folder / f"{name}.hover.json", hover_json(figure))
