"""What the studies of training time share: columns, sizes and tables by kind of shift."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pandas as pd

from datadose.studies import tables

SIZES = (0.1, 0.2, 0.35, 0.6, 0.9, 2.0, 6.0, 30.0, 1e5)
"""B / d; the last represents rows without limit."""
LARGE, UNLIMITED = 30.0, 1e5
CONVERGED, PENALTY, STOPPED = "converged", "best_penalty", "best_time"
TIME, CEILING, UNTOUCHED = "time", "ceiling", "untouched"


class Column(tables.Column):
    """Columns of errors on the target over random shifts, B / d in ``size``; an empty time is no end."""

    KIND = "kind"
    SIZE = "size"
    CONVERGED = CONVERGED
    PENALTY = PENALTY
    STOPPED = STOPPED
    TIME = TIME
    CEILING = CEILING
    UNTOUCHED = UNTOUCHED


class Drawn(Protocol):
    """The configuration, in the words of a picture."""

    @property
    def dimension(self) -> int:
        """d."""

    @property
    def seeds(self) -> int:
        """Random shifts of each kind."""


def by_kind(table: pd.DataFrame, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each kind of shift with ``column`` by seed (rows) and B / d (columns)."""
    for kind, rows in table.groupby(Column.KIND, sort=False):
        yield str(kind), rows.pivot(index=Column.SEED, columns=Column.SIZE, values=column).astype(float)


def best_small(wide: pd.DataFrame) -> pd.Series:
    """The least value over B < d, by seed."""
    return wide[[size for size in wide.columns if size < 1]].min(axis=1)
