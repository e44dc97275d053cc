"""A funnel: filters in order, each with a name, a reason, and how many rows it removed."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from datadose.llm.selection.arrays import Indices, Mask


class Filter(TypedDict):
    """What one filter did."""

    set: str
    name: str
    removed: int
    left: int
    why: str


class Funnel:
    """The rows of a pool that are still in, and the filter that removed each of the others."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.alive: Mask = np.ones(count, dtype=bool)
        self.removed_by: NDArray[np.int8] = np.full(count, -1, dtype=np.int8)
        """Place in ``filters`` of the filter that removed the row; -1 where it is still in."""
        self.filters: list[Filter] = []

    def drop(self, name: str, rows: Mask, why: str) -> None:
        """Remove ``rows`` (those already out are not counted again)."""
        out = self.alive & rows
        self.removed_by[out] = len(self.filters)
        self.alive &= ~rows
        self.filters.append(
            {"set": self.name, "name": name, "removed": int(out.sum()), "left": self.left, "why": why}
        )

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
