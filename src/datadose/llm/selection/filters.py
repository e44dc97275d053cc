"""A funnel: filters in order, each with a name, a reason, and how many rows it removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import Array
from datadose.llm.selection.arrays import Indices, Mask

UNSCORED, IN_EVALUATION = "unscored", "in an evaluation file"
DUPLICATE, NEAR_COPY = "duplicate question", "near duplicate"
WRONG, CONFLICT, KNOWN = "label fails the verifier", "suspected conflict", "already solved"
TOO_HARD, NOT_ALIGNED = "too hard", "not aligned"
INTERFERING, TOO_EASY = "interfering", "outside the hard stratum"
NO_RATE, IN_SFT = "no pass rate", "in the SFT set"
SOLVED, HOPELESS = "mostly all pass", "mostly all fail"
"""The filters: funnel, pictures and the reasons of single rows call them alike."""


class Filter(TypedDict):
    """The record of one filter."""

    set: str
    name: str
    removed: int
    left: int
    why: str
    judgement: bool
    """Whether its threshold is a judgement, no fact about the row: a requested size may cross it."""
    taken: int
    """Rows that were taken although they lie beyond it."""
    cuts: list[float | None]
    """The threshold in units of what the filter measures: one number, or one a length stratum, None where it
    removed nothing. Empty for a fact.
    """


def find_filter(filters: Sequence[Filter], name: str) -> Filter | None:
    """The filter called ``name`` among ``filters``; None if there is none."""
    return next((one for one in filters if one["name"] == name), None)


def cuts_of(filters: Sequence[Filter], name: str) -> list[float | None]:
    """The thresholds of the filter called ``name`` among ``filters``; [] where it was not applied."""
    found = find_filter(filters, name)
    return [] if found is None else found["cuts"]


class Funnel:
    """The rows of a pool that are still in, and the filter that removed each of the others."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.alive: Mask = np.ones(count, dtype=bool)
        self.removed_by: NDArray[np.int8] = np.full(count, -1, dtype=np.int8)
        """Place in ``filters`` of the filter that removed the row; -1 where it is still in."""
        self.filters: list[Filter] = []
        self.crossed: NDArray[np.int8] = np.full(count, -1, dtype=np.int8)
        """Place in ``filters`` of the filter that a row was taken in spite of; -1 for none."""
        self._distance = np.zeros(count)
        """How far beyond the threshold of judgement that removed it a row lies."""

    def drop(
        self,
        name: str,
        rows: Mask,
        why: str,
        distance: Array | None = None,
        cuts: Sequence[float | None] = (),
    ) -> None:
        """Remove ``rows`` (those already out are not counted again).

        ``distance`` (one number a row, larger is farther) makes the filter one of judgement: its rows are
        only set apart, and :meth:`beyond` gives them in order. ``cuts`` are those of :class:`Filter`.
        """
        out = self.alive & rows
        self.removed_by[out] = len(self.filters)
        self.alive &= ~rows
        if distance is not None:
            self._distance[out] = distance[out]
        self.filters.append(
            {
                "set": self.name,
                "name": name,
                "removed": int(out.sum()),
                "left": self.left,
                "why": why,
                "judgement": distance is not None,
                "taken": 0,
                # Sums in another order differ in the last digits.
                "cuts": [None if cut is None else round(cut, 9) for cut in cuts],
            }
        )

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
        self.crossed[rows] = places
        self.removed_by[rows] = -1

    @property
    def left(self) -> int:
        """The number of rows that no filter removed."""
        return int(self.alive.sum())

    @property
    def rows(self) -> Indices:
        """The positions of the rows that no filter removed, ascending."""
        return np.flatnonzero(self.alive)

    def story(self) -> str:
        """The counts of all filters in one line, for an error message."""
        removed = ", ".join(f"{f['name']} -{f['removed']}" for f in self.filters if f["removed"])
        return f"{self.left} rows are left of {len(self.alive)} ({removed or 'no filter removed any'})"


def describe_beyond(filters: list[Filter], size: int) -> str:
    """What of a set of ``size`` rows lies beyond which threshold, in one line; "" if nothing does."""
    parts = [f"{f['taken']} lie beyond `{f['name']}`" for f in filters if f["taken"]]
    return f"{size} rows: {', '.join(parts)}" if parts else ""
