"""The value of one more row of each source, and what to buy next under costs.

Where training is at its best time or penalty, and its weights at their best, these need not move with the
rows (envelope theorem): the pull of a row t w_c / B, or the penalty and the weights, are held.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datadose.planner.equal_rows import row_values
from datadose.planner.pool import Decided, Pool
from datadose.shapes import Array, Float
from datadose.theory.equivalent import PeakError
from datadose.theory.stopping import Stopping

BUDGET = 0.1
"""The budget of the next purchase, as a share of the cost of the planned rows."""
_PARTS = 10
_STEP, _FIRST = 1e-3, 1e-2
"""Of differences, as a share of a source's rows; and the rows at which the first row's value is taken."""


@dataclass(frozen=True)
class Purchase:
    """Rows of one source to buy next."""

    name: str
    prompts: int
    cost: float
    """The cost of these rows."""


def objective_with(pool: Pool, decided: Decided, counts: Array) -> float:
    """The objective / d with other ``counts`` (K,) of rows, each with its pull or weight as ``decided``."""
    taken = decided.counts[decided.weights > 0].sum()
    weights = np.where(counts > 0, decided.row_weights, 0.0)
    if taken == 0 or not weights.any():
        return decided.objective
    stopping = decided.stopping
    if stopping.time is not None:
        stopping = Stopping(time=stopping.time * float(counts[weights > 0].sum() / taken))
    return pool.goal.objective.error(pool.trained(counts, stopping, weights))


def values_of_rows(pool: Pool, decided: Decided) -> list[float | None]:
    """The decrease of the objective / d by one more row of each source: K numbers, None next to a peak."""
    K, ridge = len(pool.sources), decided.stopping.ridge
    if not decided.counts.any():
        return [0.0] * K
    if decided.known_values is not None:
        return [float(x) for x in decided.known_values]
    if ridge is not None and ridge > 0:
        return [float(x) for x in row_values(pool, decided.counts, ridge)]
    return [_difference(pool, decided, at) for at in range(K)]


def _difference(pool: Pool, decided: Decided, at: int) -> float | None:
    """The same by differences: of a thousandth of the rows, or of a hundredth of a row from none."""
    if decided.row_weights[at] == 0:
        return 0.0
    B, one = decided.counts[at], np.eye(len(decided.counts))[at]
    h = _STEP * B if B > 0 else _FIRST
    try:
        more, less = (
            objective_with(pool, decided, decided.counts + move * one) for move in (h, -h if B > 0 else 0.0)
        )
    except PeakError:
        return None
    return (less - more) / (2 * h if B > 0 else h)


def next_purchase(pool: Pool, decided: Decided) -> tuple[float, tuple[Purchase, ...]] | None:
    """The budget and the rows to buy next, for a tenth of the cost of the planned rows.

    The budget is spent in tenths, each on the source that lowers the objective most. The purchase comes on
    top of ``max_prompts``. Nothing is bought where no row helps.

    Args:
        pool: the sources with their costs, the model before training and the goal.
        decided: the decision on training.

    Returns:
        (budget, purchases); None if the sources have no costs, or if no row is planned.
    """
    costs = np.array([np.nan if cost is None else cost for cost in pool.costs])
    if np.isnan(costs).any() or not decided.counts.any():
        return None
    budget = BUDGET * float(costs @ decided.counts)
    bought: Float[Array, " K"] = np.zeros(len(costs))
    current = decided.objective
    for _ in range(_PARTS):
        tries = []
        for at in range(len(costs)):
            more = bought + np.eye(len(costs))[at] * budget / _PARTS / costs[at]
            try:
                tries.append((objective_with(pool, decided, decided.counts + more), at, more))
            except PeakError:
                continue
        if not tries or min(tries)[0] >= current:
            break
        current, _, bought = min(tries, key=lambda tried: tried[:2])
    whole = np.floor(bought + 1e-9)
    return budget, tuple(
        Purchase(name, int(rows), float(rows * cost))
        for name, rows, cost in zip(pool.names, whole, costs, strict=True)
    )
