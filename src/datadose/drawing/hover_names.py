"""What a panel, an axis and a value are called in the record of :mod:`datadose.drawing.hover`."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, PercentFormatter

Value: TypeAlias = float | int | str | None


def plain(text: str) -> str:
    """``text`` on one line."""
    return re.sub(r"\s+", " ", text).strip()


def panel_title(axis: Axes, axes: list[Axes]) -> str:
    """The panel's title, or that of the top panel of its column."""
    for one in [axis, *_beside(axis, axes, "x")[::-1]]:
        title = plain(" ".join(one.get_title(loc=loc) for loc in ("left", "center", "right")))
        if title:
            return title
    return ""


def label_nearby(axis: Axes, axes: list[Axes], side: str) -> str:
    """The label of x or y, or that of the nearest panel of the column (x) or row (y), which a grid shares."""
    categories = _tick_names(axis.xaxis if side == "x" else axis.yaxis)
    near = [] if categories else _beside(axis, axes, side)
    texts = [plain(one.get_xlabel() if side == "x" else one.get_ylabel()) for one in (axis, *near)]
    if categories and ":" in texts[0]:
        return ""  # a remark on how to read the panel, not what the categories are
    # How the axis is stretched says nothing about a value.
    return re.sub(r" \([\w-]+ scale\)$", "", next((text for text in texts if text), ""))


def _beside(axis: Axes, axes: list[Axes], side: str) -> list[Axes]:
    """Panels of the same column from the bottom up (x), or to the left in the same row (y)."""
    spec = axis.get_subplotspec()
    if spec is None:
        return []
    found = []
    for other in axes:
        its = other.get_subplotspec()
        if its is None or other is axis or its.get_gridspec() is not spec.get_gridspec():
            continue
        if side == "x" and its.colspan.start == spec.colspan.start:
            found.append((-its.rowspan.start, other))
        if side == "y" and its.rowspan.start == spec.rowspan.start and its.colspan.start < spec.colspan.start:
            found.append((-its.colspan.start, other))
    return [other for _, other in sorted(found, key=lambda pair: pair[0])]


def _tick_names(side: Any) -> list[tuple[float, str]]:
    """Fixed ticks whose text says something else than their place (categories), with the text."""
    locator, formatter = side.get_major_locator(), side.get_major_formatter()
    if not (isinstance(locator, FixedLocator) and isinstance(formatter, FuncFormatter | FixedFormatter)):
        return []
    places: Any = locator()
    names = [(float(place), plain(formatter(place, index))) for index, place in enumerate(places)]
    return [] if all(_says(text, place) for place, text in names) else names


def _says(text: str, place: float) -> bool:
    try:
        number = float(text.rstrip("%"))
    except ValueError:
        return False
    return bool(np.isclose(number / 100 if text.endswith("%") else number, place))


def show(side: Any, value: float) -> Value:
    """A value as the axis reads it: a category by its name, a share as a percentage, else a number."""
    names = _tick_names(side)
    places = [place for place, _ in names]
    if names:
        nearest = int(np.argmin(np.abs(np.array(places) - value)))
        steps = [b - a for a, b in pairwise(places)]
        apart = 0.5 if side.get_scale() == "linear" and np.allclose(steps, 1.0) else 1e-9 * abs(value)
        if abs(places[nearest] - value) <= apart:
            return names[nearest][1]
    return number_shown(side, value)


def number_shown(side: Any, value: float) -> Value:
    formatter = side.get_major_formatter()
    if isinstance(formatter, PercentFormatter):
        return f"{100 * value / formatter.xmax:.4g}%"
    return short(value)


def short(value: Any) -> Value:
    """Four significant digits, whole numbers in full; None for what is not finite."""
    if value is None or isinstance(value, str):
        return value
    number = float(value)
    if not np.isfinite(number):
        return None
    if number == round(number) and abs(number) < 1e9:
        return int(number)
    return float(f"{number:.4g}")
