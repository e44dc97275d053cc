"""Nearest rows to each target row, drawn round robin: the algorithm of RDS+, for any representation.

Each row of the target ranks the pool by cosine similarity; in turn, target rows take the best row of their
list that is not taken yet, until enough are. A row's place therefore depends on the one target row that it
is most useful to, where a mean of the target would lie between its kinds and near none of them.

Source: Ivison, Zhang, Brahman, Koh and Dasigi, "Large-scale data selection for instruction tuning"
(arXiv 2503.01807, section 3). The pool is read once per pass, in blocks; the similarities are never all held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from datadose.llm.selection.arrays import Floats, Indices

_ROWS = 32_768
"""Rows of the pool whose similarities to all target rows are held at once."""
_DIGITS = 5
"""Sums in another order differ in the last digits of a float32; order must not."""
_FIRST_LISTS = 64
"""Rows at least that each target row lists at first."""


def unit_rows(array: Floats, rows: Indices) -> NDArray[np.float32]:
    """The ``rows`` of ``array`` (N, D) scaled to length 1, (n, D) float32; a row of zeros stays zero."""
    found = np.array(array[rows], dtype=np.float32)
    sizes = np.sqrt(np.einsum("ij,ij->i", found, found, dtype=np.float64))[:, None]
    unit: NDArray[np.float32] = np.divide(found, sizes, out=np.zeros_like(found), where=sizes > 0)
    return unit


def nearest_rows(array: Floats, rows: Indices, targets: NDArray[np.float32], count: int) -> list[Indices]:
    """For each target row the ``count`` rows with the largest cosine, largest first.

    Args:
        array: representations of the pool, (N, D), finite in ``rows``; may be a memory map.
        rows: the n positions that are ranked, ascending.
        targets: T rows of length 1, (T, D).
        count: rows to list, at least 1; n where it is larger.

    Returns T arrays of positions in ``array``. Similarities are rounded to five digits; of equal ones the
    earlier row comes first.
    """
    count = min(count, len(rows))
    best = [(np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64))] * len(targets)
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        similar = np.round(targets @ unit_rows(array, part).T, _DIGITS)
        for place, values in enumerate(similar):
            best[place] = _merge(best[place], values, part, count)
    return [found for _, found in best]


def _merge(
    best: tuple[NDArray[np.float32], Indices], values: NDArray[np.float32], rows: Indices, count: int
) -> tuple[NDArray[np.float32], Indices]:
    """The ``count`` best of those found so far and of a further block, in order."""
    known, places = best
    level = known[-1] if len(known) == count else np.float32(-np.inf)
    if len(values) > count:
        level = max(level, np.partition(values, len(values) - count)[len(values) - count])
    here = np.flatnonzero(values >= level)
    values, places = np.concatenate([known, values[here]]), np.concatenate([places, rows[here]])
    order = np.argsort(-values, kind="stable")[:count]
    return values[order], places[order]


def take_turns(lists: Iterable[Sequence[int] | Indices], size: int) -> Indices:
    """The first ``size`` distinct entries when the ``lists`` take turns, in the order of taking.

    In its turn a list gives its first entry that no list has given yet; a list without one leaves. Fewer than
    ``size`` are returned if all lists have left.
    """
    waiting = deque(map(iter, lists))
    taken: dict[int, None] = {}
    while waiting and len(taken) < size:
        own = waiting.popleft()
        found = next((int(row) for row in own if int(row) not in taken), None)
        if found is not None:
            taken[found] = None
            waiting.append(own)
    return np.fromiter(taken, dtype=np.int64, count=len(taken))


def draw_in_turns(array: Floats, rows: Indices, targets: NDArray[np.float32], size: int) -> Indices:
    """``size`` of the ``rows``, the target rows taking turns, in the order of taking.

    Args:
        array: representations of the pool, (N, D), finite in ``rows``; may be a memory map.
        rows: the n positions to draw from, ascending.
        targets: T >= 1 rows of length 1, (T, D).
        size: rows to draw, at most n.

    The first k rows are the draw of size k. Lists grow as far as the draw needs them.
    """
    count = max(_FIRST_LISTS, 2 * -(-size // len(targets)))
    while True:
        lists = nearest_rows(array, rows, targets, count)
        taken = take_turns(lists, size)
        # A list that is taken whole may lack the row that its target row would take next.
        complete = count >= len(rows) or not any(np.isin(found, taken).all() for found in lists)
        if complete:
            return taken
        count *= 4
