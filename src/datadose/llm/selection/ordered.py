"""The SFT set of a method that orders rows: the first, or all with sampling weights by their place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from datadose.covariance import Array
from datadose.llm.selection.arrays import Indices, Usable
from datadose.llm.selection.config import SelectionConfig
from datadose.llm.selection.methods import choose_rows
from datadose.llm.selection.size import Budget

REACH = 16
"""Places are told apart up to this many times the size; rows behind have one weight."""


def take_in_order(
    pool: Usable, targets: Sequence[Usable], budget: Budget, config: SelectionConfig
) -> tuple[Indices, dict[str, Any], Array | None]:
    """The rows of the SFT set by ``config.method``, ascending, a note on them, and their sampling weights.

    Args:
        pool: scores, and the rows to choose from.
        targets: examples of each target; several take turns.
        budget: what the set may hold; with ``config.weights``, the number of rows N of :func:`place_weights`,
            and the set is all rows of ``pool``.
        config: method and seed.

    The weights are None unless ``config.weights`` is set. Raises InputError where the first row alone has
    more tokens than ``budget`` holds.
    """
    usable, name, seed = len(pool.rows), config.method, config.seed
    if config.weights:
        size = budget.rows or 1
        order = choose_rows(name, pool, targets, min(REACH * size, usable), seed)
        weights = place_weights(size, len(order), usable)
        found = np.full(len(pool.scores.table), weights[-1])
        found[order] = weights[: len(order)]
        share = float(weights[:size].sum() / weights.sum())
        said = f"{100 * share:.0f} percent of the draws are of the first {size} by the method {name}"
        record = {"note": f"all usable ones, weighed; {said}", "scale": size, "share": share}
        return pool.rows, record, found[pool.rows]
    if budget.tokens is None:
        rows = choose_rows(name, pool, targets, budget.count(pool.numbers("tokens")[pool.rows]), seed)
    else:
        rows = _beginning(pool, targets, budget, config)
    return np.sort(rows), {"note": f"the first by the method {name}"}, None


def _beginning(pool: Usable, targets: Sequence[Usable], budget: Budget, config: SelectionConfig) -> Indices:
    """The longest beginning of the order that fits a ``budget`` of tokens."""
    tokens, usable = pool.numbers("tokens"), len(pool.rows)
    # Beginnings of an order are alike: the whole, whose lists may not fit the memory, is not needed.
    size = min(usable, 1 + int((budget.tokens or 0) / tokens[pool.rows].mean()))
    while True:
        order = choose_rows(config.method, pool, targets, size, config.seed)
        count = budget.count(tokens[order])
        if count < size or size == usable:
            break
        size = min(usable, 2 * size)
    if not count:
        budget.refuse(tokens[order[0]], f"by the method {config.method}")
    return order[:count]


def place_weights(size: int, ordered: int, usable: int) -> Array:
    """Sampling weights of rows by their place r = 0, 1, ... in an order: 1 / (1 + (r / N)^2).

    In a long order half of the draws are of the first N rows, which a cut would keep, and the other half
    fades with the square of the place: integral 0 to N = integral N to infinity = N pi / 4. Rows behind the
    ordered ones share equally what the curve has left behind them.

    Args:
        size: N, at least 1.
        ordered: rows with a place of their own, at least 1.
        usable: all rows, at least ``ordered``.

    Returns weights in (0, 1] of shape (usable,).
    """
    places = np.arange(ordered) / size
    rest = usable - ordered
    left = size * (math.pi / 2 - math.atan(ordered / size))
    behind = min(left / rest, 1 / (1 + places[-1] ** 2)) if rest else 0.0
    return np.concatenate([1 / (1 + places**2), np.full(rest, behind)])
