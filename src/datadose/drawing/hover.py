"""The data points of a figure, recorded as they are drawn, and where they lie in its picture.

What draws data (:mod:`datadose.drawing.style`) records it under its name on the figure. When the
figure is saved, every recorded point gets its place as a fraction of the picture's width and height (from the
top left corner), for the report to show its values on hover.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import PercentFormatter

from datadose.drawing.page import CAPTION

Value: TypeAlias = float | int | str | None

FORMAT = 1
"""The version of the record's layout."""
EDGE = 0.97
"""Height, as a share of its panel's, of a mark that has no value of y."""

_PLACES = 4  # decimals of a fraction: a tenth of a pixel on a picture 1,000 pixels wide
_SLACK = 1.5  # pixels (at 100 dpi) that a point may lie outside its panel and still be shown
_SEVERAL = "#3c4043"  # the colour of a series whose points have several


@dataclass(frozen=True)
class Cells:
    """A heat map: column ``i`` spans ``x_edges[i : i + 2]`` and is called ``x[i]``; rows likewise.

    ``values[j][i]`` belongs to row j and column i; ``label`` names the quantity.
    """

    x_edges: Sequence[float]
    y_edges: Sequence[float]
    x: Sequence[Value]
    y: Sequence[Value]
    values: Sequence[Sequence[Value]]
    label: str


class _Point(NamedTuple):
    x: float
    y: float | None
    x_bar: tuple[float, float] | None
    y_bar: tuple[float, float] | None
    length: float | None
    color: str


_POINTS: WeakKeyDictionary[Axes, dict[str, list[_Point]]] = WeakKeyDictionary()
_CELLS: WeakKeyDictionary[Axes, Cells] = WeakKeyDictionary()
_NAMES: WeakKeyDictionary[Axis, tuple[str, dict[float, str]]] = WeakKeyDictionary()


def record_points(
    axis: Axes, label: str, color: Any, x: Any, y: Any, bars: Any = (None, None), length: Any = None
) -> None:
    """Record points at ``x`` and ``y``, numbers or sequences; a ``y`` of None is a mark at EDGE.

    Points of one ``label`` on one panel are one series. ``bars`` are matplotlib's xerr and yerr: how far
    error bars reach. ``length`` is shown in place of ``y``, for a bar that stands on another one.
    """
    x = np.atleast_1d(np.asarray(x, dtype=float))
    y, length = (
        [None] * len(x) if v is None else np.atleast_1d(np.asarray(v, dtype=float)) for v in (y, length)
    )
    ends = (_bar_ends(values, bar) for values, bar in zip((x, y), bars, strict=True))
    points = [_Point._make((*row, to_hex(color))) for row in zip(x, y, *ends, length, strict=True)]
    series = _POINTS.setdefault(axis, {}).setdefault(_plain(label.lstrip("_")), [])
    series.extend(point for point in points if point.y is None or np.isfinite(point.y))


def record_cells(axis: Axes, cells: Cells) -> None:
    """Record the cells of the heat map on ``axis``."""
    _CELLS[axis] = cells


def record_names(side: Axis, places: Sequence[float], names: Sequence[str], label: str) -> None:
    """Record that values at ``places`` of an axis are categories, what each is called, and what all are."""
    _NAMES[side] = (label, dict(zip(map(float, places), map(_plain, names), strict=True)))


def hover_json(figure: Figure) -> str:
    """The record of a figure that was just drawn (the layout must be the picture's own).

    It is ``{"format", "caption", "panels": [{"title", "x", "y", "box", "series", "cells"}]}``: ``box`` is the
    panel's left, top, right and bottom; a series has ``label``, ``color``, ``at`` (left and top of each point
    in turn), ``x``, ``y`` and, where they were drawn, ``xbar`` and ``ybar`` (the ends of each error bar).
    """
    panels = (_panel(axis, figure) for axis in figure.axes if axis in _POINTS or axis in _CELLS)
    shown = [panel for panel in panels if panel["series"] or "cells" in panel]
    captions = [_plain(text.get_text()) for text in figure.findobj(Text) if text.get_gid() == CAPTION]
    record = {"format": FORMAT, "caption": " ".join(captions), "panels": shown}
    return json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"


def _bar_ends(values: Any, error: Any) -> list[tuple[float, float] | None]:
    """The ends of the error bar of each value, None where it has no length."""
    if error is None:
        return [None] * len(values)
    down, up = np.broadcast_to(np.asarray(error, dtype=float), (2, len(values)))
    return [(v - a, v + b) if a + b > 0 else None for v, a, b in zip(values, down, up, strict=True)]


def _panel(axis: Axes, figure: Figure) -> dict[str, Any]:
    series = [_series(axis, label, points) for label, points in _POINTS.get(axis, {}).items()]
    (left, top), (right, bottom) = _fractions(axis, [(0, 1), (1, 0)], axis.transAxes)
    found: dict[str, Any] = _texts(axis, figure) | {"box": [left, top, right, bottom]}
    found["series"] = [one for one in series if one["x"]]
    return found | ({"cells": _cells(axis, _CELLS[axis])} if axis in _CELLS else {})


def _fractions(axis: Axes, places: Any, transform: Any) -> list[list[float]]:
    """Fractions of the picture from its top left corner, shape (points, 2)."""
    size: Any = axis.get_figure(root=True)
    pixels = transform.transform(places) / (size.bbox.width, size.bbox.height)
    pixels[:, 1] = 1 - pixels[:, 1]
    return [[float(x), float(y)] for x, y in np.round(pixels, _PLACES) + 0.0]


def _series(axis: Axes, label: str, points: list[_Point]) -> dict[str, Any]:
    """The points that are visible: a curve may leave its panel."""
    area, seen, at = axis.bbox.padded(_SLACK), [], []
    for point in points:
        place = (point.x, EDGE if point.y is None else point.y)
        transform = axis.get_xaxis_transform() if point.y is None else axis.transData
        if area.contains(*transform.transform(place)):
            seen.append(point)
            at += _fractions(axis, [place], transform)[0]
    colors = {point.color for point in points}
    found: dict[str, Any] = {
        "label": label,
        "color": colors.pop() if len(colors) == 1 else _SEVERAL,
        "at": at,
    }
    found["x"] = [_told(point.x, axis.xaxis) for point in seen]
    found["y"] = [_told(point.y if point.length is None else point.length, axis.yaxis) for point in seen]
    bars = {"xbar": [point.x_bar for point in seen], "ybar": [point.y_bar for point in seen]}
    for (name, ends), side in zip(bars.items(), (axis.xaxis, axis.yaxis), strict=True):
        if any(ends):
            found[name] = [bar and [_told(end, side) for end in bar] for bar in ends]
    return found


def _cells(axis: Axes, cells: Cells) -> dict[str, Any]:
    """Edges as fractions of the picture, cut at the panel's edge, with values row by row."""
    x, y = (
        np.clip(np.asarray(edges), min(limits), max(limits))
        for edges, limits in ((cells.x_edges, axis.get_xlim()), (cells.y_edges, axis.get_ylim()))
    )
    return {
        "label": cells.label,
        "columns": [left for left, _ in _fractions(axis, [(edge, y[0]) for edge in x], axis.transData)],
        "rows": [top for _, top in _fractions(axis, [(x[0], edge) for edge in y], axis.transData)],
        "x": [_told(value) for value in cells.x],
        "y": [_told(value) for value in cells.y],
        "values": [[_told(value) for value in row] for row in cells.values],
    }


def _texts(axis: Axes, figure: Figure) -> dict[str, str]:
    """Title and labels of a panel; one without takes those that its column or row of panels shares."""
    specs = {one: one.get_subplotspec() for one in figure.axes}
    places = {one: (spec.rowspan.start, spec.colspan.start) for one, spec in specs.items() if spec}
    row, column = places[axis]
    stacked = [one for one, (_, c) in places.items() if c == column]
    before = [one for one, (r, c) in places.items() if r == row and c < column]
    texts = {
        "title": [one.get_title(loc="left") or one.get_title() for one in (axis, *stacked)],
        "x": [one.get_xlabel() for one in (axis, *stacked[::-1])],
        "y": [one.get_ylabel() for one in (axis, *before[::-1])],
    }
    sides: dict[str, Axis] = {"x": axis.xaxis, "y": axis.yaxis}
    texts |= {name: [_NAMES[side][0]] for name, side in sides.items() if side in _NAMES}
    found = {name: _plain(next(filter(None, those), "")) for name, those in texts.items()}
    # The stretch of an axis adds nothing to a value.
    return {name: re.sub(r" \([\w-]+ scale\)$", "", text) for name, text in found.items()}


def _plain(text: str) -> str:
    """``text`` on one line."""
    return " ".join(text.split())


def _told(value: Value, side: Axis | None = None) -> Value:
    """A value as its axis reads it: a category by its name, a share in percent, else four significant digits.

    A mark may lie beside the place of its category. Whole numbers are written in full.
    """
    if value is None or isinstance(value, str) or not np.isfinite(value):
        return value if isinstance(value, str) else None
    if side is not None and side in _NAMES:
        names = _NAMES[side][1]
        return names.get(value) or names.get(round(value)) or _told(value)
    formatter = None if side is None else side.get_major_formatter()
    if isinstance(formatter, PercentFormatter):
        return f"{100 * value / formatter.xmax:.4g}%"
    return int(value) if value == round(value) and abs(value) < 1e9 else float(f"{value:.4g}")
