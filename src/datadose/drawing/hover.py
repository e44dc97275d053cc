"""The data points of a figure, recorded as they are drawn, and where they lie in its picture.

The helpers that draw data (:mod:`datadose.drawing.style`) record what they draw under the name that a reader
knows it by. When the figure is saved, :func:`hover_record` gives every recorded point its place as a fraction
of the picture's width and height (from the top left corner), for the report to show its values on hover.
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
from matplotlib.ticker import PercentFormatter

Value: TypeAlias = float | int | str | None

FORMAT = 1
"""The version of the record's layout."""
EDGE = 0.97
"""Height, as a share of its panel's, of a mark that has no value of y."""

_PLACES = 4
"""Decimals of a fraction of the picture: a tenth of a pixel on a picture 1,000 pixels wide."""
_SLACK = 1.5
"""Pixels (at 100 dpi) that a point may lie outside its panel and still be seen."""
_SEVERAL = "#3c4043"
"""The colour of a series whose points have several."""


class _Point(NamedTuple):
    x: float
    y: float | None
    """None: a mark at EDGE."""
    x_bar: tuple[float, float] | None
    y_bar: tuple[float, float] | None
    length: float | None
    """What is said of y where it is not the place: the length of a bar that stands on another one."""
    color: str


@dataclass(frozen=True)
class Cells:
    """A heat map: column ``i`` spans ``x_edges[i : i + 2]`` and is called ``x[i]``; rows likewise.

    ``values[j][i]`` belongs to row j and column i; ``label`` says what it is.
    """

    x_edges: Sequence[float]
    y_edges: Sequence[float]
    x: Sequence[Value]
    y: Sequence[Value]
    values: Sequence[Sequence[Value]]
    label: str


_POINTS: WeakKeyDictionary[Axes, dict[str, list[_Point]]] = WeakKeyDictionary()
_CELLS: WeakKeyDictionary[Axes, Cells] = WeakKeyDictionary()
_NAMES: WeakKeyDictionary[Axis, tuple[str, dict[float, str]]] = WeakKeyDictionary()


def record_points(
    axis: Axes, label: str, color: Any, x: Any, y: Any = None, *, xerr: Any = None, yerr: Any = None,
    lengths: Any = None,
) -> None:  # fmt: skip
    """Record points that were drawn on ``axis`` at ``x`` and ``y`` (None: at EDGE), numbers or sequences.

    Points of one ``label`` are one series. ``xerr`` and ``yerr`` are matplotlib's: how far the bars reach, or
    how far down and up. ``lengths`` are told in place of ``y``.
    """
    x = np.atleast_1d(np.asarray(x, dtype=float))
    columns = [
        [None] * len(x) if v is None else np.atleast_1d(np.asarray(v, dtype=float)) for v in (y, lengths)
    ]
    bars = _bar_ends(x, xerr), _bar_ends(columns[0], yerr)
    points = map(_Point, x, columns[0], *bars, columns[1], [to_hex(color)] * len(x))
    series = _POINTS.setdefault(axis, {}).setdefault(_plain(label.lstrip("_")), [])
    series.extend(p for p in points if np.isfinite(p.x) and (p.y is None or np.isfinite(p.y)))


def record_cells(axis: Axes, cells: Cells) -> None:
    """Record the cells of the heat map on ``axis``."""
    _CELLS[axis] = cells


def record_names(side: Axis, places: Sequence[float], names: Sequence[str], label: str = "") -> None:
    """Record that values at ``places`` of an axis are categories called ``names``; ``label``: of what."""
    _NAMES[side] = (label, dict(zip(map(float, places), map(_plain, names), strict=True)))


def hover_record(figure: Figure) -> dict[str, Any]:
    """The record of a figure that was just drawn (the layout must be the picture's own).

    Returns ``{"format", "panels": [{"title", "x", "y", "box", "series" | "cells"}]}``: ``box`` is the panel's
    left, top, right and bottom; a series has ``label``, ``color``, ``at`` (left and top of each point in
    turn), ``x``, ``y`` and, where they were drawn, ``xbar`` and ``ybar`` (the ends of each error bar).
    """
    panels = [_panel(axis, figure) for axis in figure.axes if axis in _POINTS or axis in _CELLS]
    return {"format": FORMAT, "panels": [panel for panel in panels if panel["series"] or "cells" in panel]}


def hover_json(figure: Figure) -> str:
    """:func:`hover_record` as JSON without spaces; the same figure gives the same text."""
    return json.dumps(hover_record(figure), separators=(",", ":"), allow_nan=False) + "\n"


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
    if axis in _CELLS:
        found["cells"] = _cells(axis, _CELLS[axis])
    return found


def _fractions(axis: Axes, places: Any, transform: Any) -> list[list[float]]:
    """Fractions of the picture from its top left corner, shape (points, 2)."""
    figure: Any = axis.figure
    pixels = transform.transform(places) / (figure.bbox.width, figure.bbox.height)
    pixels[:, 1] = 1 - pixels[:, 1]
    return [[float(x), float(y)] for x, y in np.round(pixels, _PLACES) + 0.0]


def _series(axis: Axes, label: str, points: list[_Point]) -> dict[str, Any]:
    """The points that can be seen: a curve may leave its panel."""
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
    found["x"] = [_named(axis.xaxis, point.x) for point in seen]
    found["y"] = [_named(axis.yaxis, point.y if point.length is None else point.length) for point in seen]
    for name, side, bars in (
        ("xbar", axis.xaxis, [point.x_bar for point in seen]),
        ("ybar", axis.yaxis, [point.y_bar for point in seen]),
    ):
        if any(bars):
            found[name] = [bar and [_number(side, end) for end in bar] for bar in bars]
    return found


def _cells(axis: Axes, cells: Cells) -> dict[str, Any]:
    """Edges as fractions of the picture, cut at the panel's edge, with values row by row."""
    limits = ((cells.x_edges, axis.get_xlim()), (cells.y_edges, axis.get_ylim()))
    x, y = (np.clip(np.asarray(edges), *sorted(ends)) for edges, ends in limits)
    return {
        "label": cells.label,
        "columns": [left for left, _ in _fractions(axis, [(edge, y[0]) for edge in x], axis.transData)],
        "rows": [top for _, top in _fractions(axis, [(x[0], edge) for edge in y], axis.transData)],
        "x": [_short(v) for v in cells.x],
        "y": [_short(v) for v in cells.y],
        "values": [[_short(v) for v in row] for row in cells.values],
    }


# --- texts ---


def _texts(axis: Axes, figure: Figure) -> dict[str, str]:
    """Title and labels of a panel; one without takes those that its column or row of panels shares."""
    spec: Any = axis.get_subplotspec()
    column, row = [], []
    for other in figure.axes:
        its: Any = other.get_subplotspec()
        if its is not None and its.colspan.start == spec.colspan.start:
            column.append(other)
        if (
            its is not None
            and its.rowspan.start == spec.rowspan.start
            and its.colspan.start < spec.colspan.start
        ):
            row.append(other)
    texts = {
        "title": [one.get_title(loc="left") or one.get_title() for one in (axis, *column)],
        "x": [one.get_xlabel() for one in (axis, *column[::-1])],
        "y": [one.get_ylabel() for one in (axis, *row[::-1])],
    }
    for side, name in ((axis.xaxis, "x"), (axis.yaxis, "y")):
        if side in _NAMES:
            texts[name] = [_NAMES[side][0]]
    # How an axis is stretched says nothing about a value.
    return {
        name: re.sub(r" \([\w-]+ scale\)$", "", _plain(next(filter(None, found), "")))
        for name, found in texts.items()
    }


def _plain(text: str) -> str:
    """``text`` on one line."""
    return " ".join(text.split())


def _named(side: Axis, value: float | None) -> Value:
    """A value as the axis reads it: a category by its name (a mark may be beside its place), else a number."""
    names: dict[float, str] = _NAMES.get(side, ("", {}))[1]
    if value is None or not names:
        return _number(side, value)
    return names.get(value) or names.get(round(value)) or _number(side, value)


def _number(side: Axis, value: float | None) -> Value:
    formatter = side.get_major_formatter()
    if value is not None and isinstance(formatter, PercentFormatter):
        return f"{100 * value / formatter.xmax:.4g}%"
    return _short(value)


def _short(value: Value) -> Value:
    """Four significant digits, whole numbers in full; None for what is not finite."""
    if value is None or isinstance(value, str):
        return value
    number = float(value)
    if not np.isfinite(number):
        return None
    if number == round(number) and abs(number) < 1e9:
        return int(number)
    return float(f"{number:.4g}")
