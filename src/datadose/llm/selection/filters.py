"""A funnel: filters in order, each with a name, a reason, and how many rows it removed."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import Array
from datadose.llm.selection.arrays import Indices, Mask


class Filter(TypedDict):
    """What one filter did."""

    set: str
    name: str
    removed: int
    left: int
    why: str
    judgement: bool
    """Whether its threshold is a judgement, no fact about the row: a size that is asked for may cross it."""
    taken: int
    """Rows that were taken although they lie beyond it."""


class Funnel:
    """The rows of a pool that are still in, and the filter that removed each of the others."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.alive: Mask = np.ones(count, dtype=bool)
        self.removed_by: NDArray[np.int8] = np.full(count, -1, dtype=np.int8)
        """Place in ``filters`` of the filter that removed the row; -1 where it is still in."""
        self.filters: list[Filter] = []
        self._distance = np.zeros(count)
        """How far beyond the threshold of judgement that removed it a row lies."""

    def drop(self, name: str, rows: Mask, why: str, distance: Array | None = None) -> None:
        """Remove ``rows`` (those already out are not counted again).

        ``distance`` (one number a row, larger is farther) makes the filter one of judgement: its rows are
        only set apart, and :meth:`beyond` gives them in order.
        """
        out = self.alive & rows
        self.removed_by[out] = len(self.filters)
        self.alive &= ~rows
        if distance is not None:
            self._distance[out] = distance[out]
        counts = {"removed": int(out.sum()), "left": self.left, "taken": 0}
        judged = distance is not None
        self.filters.append({"set": self.name, "name": name, "why": why, "judgement": judged, **counts})  # type: ignore[typeddict-item]

    def beyond(self) -> Indices:
        """The rows that only a judgement removed, those to take first in front.

        Filters stand from the gravest to the mildest doubt, so the rows of the last one come first; within
        one, the nearest to its threshold.
        """
        judged = np.array([f["judgement"] for f in self.filters], dtype=bool)
        rows = np.flatnonzero(~self.alive & np.append(judged, False)[self.removed_by])
        return rows[np.lexsort((rows, self._distance[rows], -self.removed_by[rows].astype(np.int64)))]

    def take(self, rows: Indices) -> None:
        """Note that ``rows`` were taken in spite of what removed some of them."""
        places = self.removed_by[rows]
        for place, count in enumerate(np.bincount(places[places >= 0], minlength=len(self.filters))):
            self.filters[place]["taken"] = int(count)
        self.removed_by[rows] = -1

    @property
    def left(self) -> int:
        """How many rows are still in."""
        return int(self.alive.sum())

    @property
    def rows(self) -> Indices:
        """Which rows are still in, ascending."""
        return np.flatnonzero(self.alive)

    def story(self) -> str:
        """The counts in one line, for an error."""
        removed = ", ".join(f"{f['name']} -{f['removed']}" for f in self.filters if f["removed"])
        return f"{self.left} rows are left of {len(self.alive)} ({removed or 'no filter removed any'})"


def describe_beyond(filters: list[Filter], size: int) -> str:
    """What of a set of ``size`` rows lies beyond which threshold, in one line; "" if nothing does."""
    parts = [f"{f['taken']} lie beyond `{f['name']}`" for f in filters if f["taken"]]
    return f"{size} rows: {', '.join(parts)}" if parts else ""
