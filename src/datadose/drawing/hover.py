"""Where the data points of a figure lie in its picture and what they are, for the report to show on hover.

The pictures are drawn once, by matplotlib. After that :func:`hover_record` walks the panels and writes down,
for every point, its place as a fraction of the picture's width and height (from the top left
corner) and its values. Grid lines, reference lines and legends are no data and are left out.

A series is called what the legend calls it; one without an entry gets the name of the legend's entry that has
its colour (and, if several have, its marker and dashes). A label that starts with an underscore, which
matplotlib leaves out of legends, names a series for this record alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from datadose.drawing.hover_names import Value, label_nearby, number_shown, panel_title, plain, short, show

FORMAT = 1
"""The version of the record's layout."""

_PLACES = 4
"""Decimals of a fraction of the picture: a tenth of a pixel on a picture 1,000 pixels wide."""
_SLACK = 1.5
"""Pixels (at 100 dpi) that a point may lie outside its panel and still be seen."""


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


_CELLS: WeakKeyDictionary[Axes, Cells] = WeakKeyDictionary()


def record_cells(axis: Axes, cells: Cells) -> None:
    """Say what the cells of the heat map on ``axis`` are: a drawn mesh has lost their centres and names."""
    _CELLS[axis] = cells


@dataclass
class _Series:
    """Points of one curve: their places in display pixels and their values."""

    label: str | None
    color: str
    style: tuple[str, str]
    """Marker and dashes, by which entries of a legend are told apart."""
    at: list[tuple[float, float]] = field(default_factory=list)
    x: list[Value] = field(default_factory=list)
    y: list[Value] = field(default_factory=list)
    x_bars: list[list[Value] | None] = field(default_factory=list)
    y_bars: list[list[Value] | None] = field(default_factory=list)
    given: bool = False
    """Whether the label is its own."""

    def __post_init__(self) -> None:
        self.given = self.label is not None

    @property
    def has_bars(self) -> bool:
        return any(bar is not None for bar in (*self.x_bars, *self.y_bars))


def hover_record(figure: Figure) -> dict[str, Any]:
    """The record of a figure that was just drawn (the layout must be the picture's own).

    Returns ``{"format", "panels": [{"title", "x", "y", "box", "series" | "cells"}]}``: ``box`` is the panel's
    left, top, right and bottom; a series has ``label``, ``color``, ``at`` (left and top of each point in
    turn), ``x``, ``y`` and, where they were drawn, ``xbar`` and ``ybar`` (the ends of each error bar).
    """
    axes = [axis for axis in figure.axes if axis.get_visible() and axis.axison]
    axes = [axis for axis in axes if axis.get_label() != "<colorbar>"]
    legend = [entry for axis in axes for entry in _legend_entries(axis)]
    legend += [entry for box in figure.legends for entry in _entries(box)]
    size = (figure.bbox.width, figure.bbox.height)
    panels = [_panel(axis, axes, legend, size) for axis in axes]
    return {"format": FORMAT, "panels": [panel for panel in panels if panel["series"] or "cells" in panel]}


def hover_json(figure: Figure) -> str:
    """:func:`hover_record` as JSON without spaces; the same figure gives the same text."""
    return json.dumps(hover_record(figure), separators=(",", ":"), allow_nan=False) + "\n"


def _panel(axis: Axes, axes: list[Axes], legend: list[_Series], size: tuple[float, float]) -> dict[str, Any]:
    own = _legend_entries(axis)
    series = list(_walk(axis))
    named = [one for one in series if one.label]
    for one in series:
        if one.label is None:
            one.label = next(filter(None, (_best_match(one, e) for e in (own, named, legend))), "")
    left, bottom, right, top = axis.bbox.extents
    (x0, y0), (x1, y1) = _fractions([(left, top), (right, bottom)], size)
    panel: dict[str, Any] = {
        "title": panel_title(axis, axes),
        "x": label_nearby(axis, axes, "x"),
        "y": label_nearby(axis, axes, "y"),
        "box": [x0, y0, x1, y1],
        "series": [_dumped(one, size) for one in _tidy(series)],
    }
    if axis in _CELLS:
        panel["cells"] = _cells(axis, _CELLS[axis], size)
    return panel


def _dumped(series: _Series, size: tuple[float, float]) -> dict[str, Any]:
    found: dict[str, Any] = {"label": series.label, "color": series.color}
    found["at"] = [number for place in _fractions(series.at, size) for number in place]
    found["x"], found["y"] = series.x, series.y
    bars = {"xbar": series.x_bars, "ybar": series.y_bars}
    return found | {name: ends for name, ends in bars.items() if any(end is not None for end in ends)}


def _fractions(places: Any, size: tuple[float, float]) -> list[list[float]]:
    """Fractions of the picture from its top left corner, shape (points, 2)."""
    pixels = np.asarray(places, dtype=float).reshape(-1, 2) / size
    pixels[:, 1] = 1 - pixels[:, 1]
    return [[float(x), float(y)] for x, y in np.round(pixels, _PLACES) + 0.0]


# --- what is drawn on a panel ---


def _walk(axis: Axes) -> Iterator[_Series]:
    """The data of a panel in the order in which it was drawn."""
    errorbars = {id(box.lines[0]): box for box in axis.containers if isinstance(box, ErrorbarContainer)}
    caps = {id(cap) for box in errorbars.values() for cap in box.lines[1]}
    for line in axis.lines:
        if id(line) in caps or not line.get_visible() or _is_reference(axis, line):
            continue
        series = _of_line(axis, line, errorbars.get(id(line)))
        if series.at:
            yield series
    for box in axis.containers:
        if isinstance(box, BarContainer):
            yield from _of_bars(axis, box)
    for collection in axis.collections:
        if isinstance(collection, PathCollection):
            yield _of_scatter(axis, collection)


def _is_reference(axis: Axes, line: Line2D) -> bool:
    """Lines across the panel and unlabelled straight lines guide the eye; marks along an edge are data."""
    bare = line.get_marker() in ("None", "none", "", " ", None)
    if line.get_transform() != axis.transData:
        return bare
    return bare and _named(line.get_label()) is None and len(np.atleast_1d(line.get_xdata())) <= 2


def _of_line(axis: Axes, line: Line2D, errorbar: ErrorbarContainer | None) -> _Series:
    label = _named(line.get_label() if errorbar is None else errorbar.get_label())
    series = _Series(label, _line_color(line), _line_style(line))
    values: Any = np.ma.filled(np.ma.asarray(line.get_xydata(), dtype=float), np.nan)
    x_bars, y_bars = _bar_ends(errorbar, len(values))
    places = line.get_transform().transform(values)
    # A mark that is placed along the panel's edge has no value in that direction.
    in_data = line.get_transform().contains_branch_seperately(axis.transData)
    in_data = (True, True) if line.get_transform() == axis.transData else in_data
    keep = _seen(axis, places, clip=line.get_clip_on()) & np.isfinite(values).all(axis=1)
    for index in np.flatnonzero(keep):
        series.at.append((places[index, 0], places[index, 1]))
        x, y = values[index]
        series.x.append(show(axis.xaxis, x) if in_data[0] else None)
        series.y.append(show(axis.yaxis, y) if in_data[1] else None)
        for kept, bars, side in ((series.x_bars, x_bars, axis.xaxis), (series.y_bars, y_bars, axis.yaxis)):
            bar = bars[index]
            kept.append(None if bar is None else [number_shown(side, end) for end in bar])
    return series


def _bar_ends(errorbar: ErrorbarContainer | None, count: int) -> tuple[list[Any], list[Any]]:
    """The two ends of every horizontal and every vertical error bar, None where there is none."""
    nothing: list[Any] = [None] * count
    if errorbar is None:
        return nothing, nothing
    collections = list(errorbar.lines[2])
    found = []
    for has, column in ((errorbar.has_xerr, 0), (errorbar.has_yerr, 1)):  # matplotlib's order
        segments = collections.pop(0).get_segments() if has and collections else []
        ends = [
            sorted(float(v) for v in np.asarray(s)[:, column]) if np.shape(s) == (2, 2) else None
            for s in segments
        ]
        ends = [end if end is not None and end[0] < end[1] else None for end in ends]
        found.append(ends if len(ends) == count else nothing)
    return found[0], found[1]


def _of_bars(axis: Axes, box: BarContainer) -> Iterator[_Series]:
    """A series for every bar; bars of one name are joined later."""
    upright = box.orientation == "vertical"
    label = _named(box.get_label())
    for bar in box.patches:
        ends = (bar.get_x() + bar.get_width(), bar.get_y() + bar.get_height())
        tip = (
            (bar.get_x() + bar.get_width() / 2, ends[1])
            if upright
            else (ends[0], bar.get_y() + bar.get_height() / 2)
        )
        place = axis.transData.transform(tip)
        if not _seen(axis, place[None], clip=bool(bar.get_clip_on()))[0]:
            continue
        # A bar that stands on another one shows its length, not where it ends.
        value = (tip[0], bar.get_height()) if upright else (bar.get_width(), tip[1])
        series = _Series(label, to_hex(bar.get_facecolor()), ("bar", ""))
        series.at.append((place[0], place[1]))
        series.x.append(show(axis.xaxis, value[0]))
        series.y.append(show(axis.yaxis, value[1]))
        series.x_bars.append(None)
        series.y_bars.append(None)
        yield series


def _of_scatter(axis: Axes, collection: PathCollection) -> _Series:
    colors: Any = collection.get_facecolor() if np.size(collection.get_facecolor()) else ["#000000"]
    color = to_hex(colors[0])
    series = _Series(_named(collection.get_label()), color, ("scatter", ""))
    values: Any = np.ma.filled(np.ma.asarray(collection.get_offsets(), dtype=float), np.nan)
    places = axis.transData.transform(values)
    for index in np.flatnonzero(_seen(axis, places, clip=bool(collection.get_clip_on()))):
        series.at.append((places[index, 0], places[index, 1]))
        series.x.append(show(axis.xaxis, values[index, 0]))
        series.y.append(show(axis.yaxis, values[index, 1]))
        series.x_bars.append(None)
        series.y_bars.append(None)
    return series


def _seen(axis: Axes, places: Any, *, clip: bool) -> Any:
    """Which display places, shape (points, 2), are finite and, if the artist is clipped, in the panel."""
    seen = np.isfinite(places).all(axis=1)
    if clip:
        left, bottom, right, top = axis.bbox.extents
        with np.errstate(invalid="ignore"):
            seen &= (places[:, 0] >= left - _SLACK) & (places[:, 0] <= right + _SLACK)
            seen &= (places[:, 1] >= bottom - _SLACK) & (places[:, 1] <= top + _SLACK)
    return seen


def _cells(axis: Axes, cells: Cells, size: tuple[float, float]) -> dict[str, Any]:
    """Edges as fractions of the picture, cut at the panel's edge, with values row by row."""
    left, bottom, right, top = axis.bbox.extents
    x = np.clip(axis.transData.transform([(e, axis.get_ylim()[0]) for e in cells.x_edges])[:, 0], left, right)
    y = np.clip(axis.transData.transform([(axis.get_xlim()[0], e) for e in cells.y_edges])[:, 1], bottom, top)
    return {
        "label": cells.label,
        "columns": [round(float(v), _PLACES) for v in x / size[0]],
        "rows": [round(float(v), _PLACES) for v in 1 - y / size[1]],
        "x": [short(v) for v in cells.x],
        "y": [short(v) for v in cells.y],
        "values": [[short(v) for v in row] for row in cells.values],
    }


# --- joining and naming series ---


def _tidy(series: list[_Series]) -> list[_Series]:
    """Series of one name joined, and lines through points that are recorded anyway left out."""
    joined: dict[tuple[str, str], _Series] = {}
    for one in series:
        # A curve stays itself; markers of one name that were drawn in several calls are one series.
        # A borrowed name says less than the marker: two kinds of marker of one colour stay apart.
        kind = "" if one.given else one.style[0]
        key = (one.label or "", kind if one.style[1] in ("", "none") else f"curve {len(joined)}")
        into = joined.setdefault(key, _Series(one.label, one.color, one.style))
        if into.color != one.color:
            into.color = "#3c4043"
        for name in ("at", "x", "y", "x_bars", "y_bars"):
            getattr(into, name).extend(getattr(one, name))
    found = list(joined.values())
    return _told_apart(
        [
            one
            for index, one in enumerate(found)
            if not any(_covers(other, one, k > index) for k, other in enumerate(found) if k != index)
        ]
    )


def _covers(other: _Series, one: _Series, later: bool) -> bool:
    """Whether ``other`` says at least as much as ``one`` about the same points under the same name."""
    if one.has_bars or (one.label and one.label != other.label):
        return False
    mine = {(round(x, 2), round(y, 2)) for x, y in one.at}
    theirs = {(round(x, 2), round(y, 2)) for x, y in other.at}
    return mine <= theirs and (other.has_bars or mine < theirs or later)


def _told_apart(series: list[_Series]) -> list[_Series]:
    """A line and markers of the same name get it said which is which."""
    names = [one.label for one in series]
    for one in series:
        if one.label and names.count(one.label) > 1 and one.style[0] not in ("bar", "scatter"):
            one.label += ", line" if one.style[0] == "none" else ", markers"
    return series


def _best_match(series: _Series, entries: list[_Series]) -> str | None:
    """The name of the entry that looks most like ``series``; None if none has its colour or two tie."""
    scores: dict[str, int] = {}
    for entry in entries:
        same_kind = (entry.style[0] == "bar") == (series.style[0] == "bar")
        if entry.color == series.color and same_kind and entry.label:
            alike = 2 * (entry.style[0] == series.style[0]) + (entry.style[1] == series.style[1])
            scores[entry.label] = max(alike, scores.get(entry.label, 0))
    best = [label for label, score in scores.items() if score == max(scores.values())]
    return best[0] if len(best) == 1 else None


def _legend_entries(axis: Axes) -> list[_Series]:
    box = axis.get_legend()
    return [] if box is None else _entries(box)


def _entries(box: Any) -> list[_Series]:
    found = []
    for handle, text in zip(box.legend_handles, box.get_texts(), strict=False):
        if isinstance(handle, Line2D):
            found.append(_Series(plain(text.get_text()), _line_color(handle), _line_style(handle)))
        elif isinstance(handle, Rectangle):
            found.append(_Series(plain(text.get_text()), to_hex(handle.get_facecolor()), ("bar", "")))
    return found


def _line_color(line: Line2D) -> str:
    """The colour that a reader sees: a marker without a line shows its edge, or its face if that is white."""
    if line.get_linestyle() not in ("None", "none", "", " "):
        return to_hex(line.get_color())
    edge = to_hex(line.get_markeredgecolor())
    face = line.get_markerfacecolor()
    return to_hex(face) if edge == "#ffffff" and str(face) != "none" else edge


def _line_style(line: Line2D) -> tuple[str, str]:
    return str(line.get_marker()).lower() or "none", str(line.get_linestyle()).lower()


def _named(label: object) -> str | None:
    """A given label without its hiding underscore; None for the labels that matplotlib makes up."""
    text = str(label)
    if not text or re.fullmatch(r"_(child|container|nolegend)_?\d*", text):
        return None
    return plain(text.removeprefix("_"))
