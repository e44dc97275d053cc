"""What the report's pictures share: the colours of the sets, histograms, thresholds, inline images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.covariance import Array
from datadose.drawing.style import GREY, LOOKS, new_axes
from datadose.llm.selection.arrays import Floats, Indices
from datadose.llm.selection.chosen import Selection

POOL, SFT, RL, TARGET = "#b4bac1", LOOKS[1].color, LOOKS[0].color, LOOKS[2].color
DASHED: dict[str, Any] = {"color": GREY, "linewidth": 1, "linestyle": (0, (2, 2))}
THRESHOLD: dict[str, Any] = {"color": "#202124", "linewidth": 1.1, "linestyle": (0, (4, 2))}
"""A line that decided: darker than every other one."""
_DASHES = {look.color: look.dash for look in LOOKS}

Set: TypeAlias = tuple[Array, str, str]
"""Values of some rows, their colour and their name."""


@dataclass(frozen=True)
class Picture:
    """An inline image and its caption."""

    title: str
    text: str
    image: str
    """A data URI."""
    sentences: list[str] = field(default_factory=list)
    """What the numbers in it are, a sentence each."""
    header: tuple[str, ...] = ()
    table: list[tuple[str, ...]] = field(default_factory=list)
    """The numbers of the picture, where they are few: rows of as many cells as ``header`` has."""


def draw_funnel(selection: Selection, ax: Axes | None = None) -> Axes:
    """How many rows each filter left, for the SFT set and then the RL set, and how many were taken."""
    axis, bars = new_axes() if ax is None else ax, [("rows of the pool", len(selection.pool.table), POOL)]
    for name, color in (("sft", SFT), ("rl", RL)):
        if filters := selection.filters_of(name):
            bars += [
                (f'{name}, without "{one["name"]}"', one["left"], color) for one in filters if one["removed"]
            ]
            bars.append((f"{name}, taken", len(getattr(selection, name)), color))
    names, left, colors = zip(*bars, strict=True)
    axis.barh(range(len(bars)), left, color=colors)
    axis.set_yticks(range(len(bars)), names)
    axis.invert_yaxis()
    axis.set_xlabel("rows left")
    return axis


def sets_of(values: Array, selection: Selection, eligible: Indices) -> list[Set]:
    """The values of pool, SFT set and RL set, if there is one."""
    sets = ((eligible, POOL, "pool"), (selection.sft, SFT, "SFT set"), (selection.rl, RL, "RL set"))
    return [(values[rows], color, name) for rows, color, name in sets if len(rows)]


def draw_histograms(axis: Axes, edges: Floats, sets: list[Set], *, share: bool = True) -> None:
    """The first set filled, the others as steps; as shares of each set, or as counts."""
    for place, (values, color, name) in enumerate(sets):
        counts = np.histogram(values, edges)[0] / (max(1, len(values)) if share else 1)
        look: dict[str, Any] = {"linewidth": 1.8, "linestyle": _DASHES[color]} if place else {"fill": True}
        axis.stairs(counts, edges, color=color, label=name, **look)
    axis.set_ylabel("share of rows" if share else "rows")
    axis.legend()


def draw_thresholds(axis: Axes, cuts: Sequence[float | None], what: str) -> None:
    """The thresholds of a filter on its axis: a line, or the span of those that differ by length."""
    known = [cut for cut in cuts if cut is not None]
    if not known:
        return
    low, high = min(known), max(known)
    if high - low <= 1e-9:
        axis.axvline(low, label=f"{what} {low:.2f}", **THRESHOLD)
        return
    axis.axvspan(low, high, color="#202124", alpha=0.1, linewidth=0)
    for end, label in ((low, f"{what} {low:.2f} to {high:.2f}, by length"), (high, None)):
        axis.axvline(end, label=label, **THRESHOLD)


def inline(figure: Figure) -> str:
    """The figure as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
