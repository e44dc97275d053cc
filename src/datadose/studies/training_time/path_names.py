"""What the study of equal times and its picture share: clocks, columns and tables by kind."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from datadose.studies import tables

EPOCHS, BATCH = 130, 32
"""The paper's epochs over the SFT set, and its batch."""
ALLOWED = 0.05
"""The relative rise of the error on Sigma0 that counts as keeping what was known."""
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Times over the best one of B = 30 d."""
PACES = (0.01, 0.1, 1.0)
"""Learning rates times the largest eigenvalue of the data's second moment."""
SHOWN = 12
"""Shifts of each kind whose paths are kept for the picture."""
ROWS = (0.1, 0.2, 0.35, 0.6, 0.9, 2.0, 6.0, 30.0)
"""B / d."""
STEPS, AT_EPOCHS, BEFORE, BEST, HELD, PATH = "steps", "epochs", "before", "best", "held", "path"
"""Values of ``clock``: equal steps or epochs; B = 30 d untrained, at its best time, at the best time without
forgetting, and along its path (``factor`` is the time)."""


class Column(tables.Column):
    """Columns of errors at equal times: on the target, and on Sigma0 where that is measured."""

    KIND = "kind"
    CLOCK = "clock"
    FACTOR = "factor"
    SIZE = "size"
    ON_TARGET = "on_target"
    ON_KNOWN = "on_known"


def wide_errors(
    table: pd.DataFrame, clock: str, *, at: float | None = None, up_to: float | None = None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each kind with errors by (shift, factor) and B / d, at one factor or at those up to one."""
    rows = table[table[Column.CLOCK] == clock]
    if at is not None:
        rows = rows[rows[Column.FACTOR] == at]
    if up_to is not None:
        rows = rows[rows[Column.FACTOR] <= up_to]
    for kind, part in rows.groupby(Column.KIND, sort=False):
        index = [Column.SEED, Column.FACTOR]
        wide = part.pivot(index=index, columns=Column.SIZE, values=Column.ON_TARGET)
        yield str(kind), wide.astype(float)
