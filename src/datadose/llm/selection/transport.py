"""Rows by optimal transport: the set whose uniform measure is nearest to the target's."""

from __future__ import annotations

import numpy as np

from datadose.covariance import Array
from datadose.errors import RunError, require_extra
from datadose.llm.selection.arrays import Indices

_ITERATIONS = 10_000_000
"""Pivots of the network simplex at most."""


def nearest_measure(costs: Array, size: int) -> Indices:
    """``size`` rows that carry the target's mass at the least cost, those that carry most first.

    Every target row has mass 1/T, and a row of the pool carries 1/size at most: the transport plan minimises
    the cost, and at its best is the Wasserstein distance between the target and a measure on about ``size``
    rows. Solved as a linear programme (network simplex of POT), where a further target row takes, at no cost,
    what the rows could carry in addition.

    Args:
        costs: of moving a unit of mass from each target row to each row of the pool, (n, T), n >= size.
        size: rows to take, at least 1.

    Returns their positions in ``costs``. Of rows that carry as much those with the lower cost come first, and
    then the earlier ones. Raises RunError if the solver stops before the optimum.
    """
    require_extra("llm", "ot")
    import ot  # noqa: PLC0415 - optional

    n, T = costs.shape
    # In units of 1/(size T), in which all masses are whole numbers: each row T, each target row size.
    supply = np.full(n, float(T))
    demand = np.append(np.full(T, float(size)), float((n - size) * T))
    plan, log = ot.emd(supply, demand, np.hstack([costs, np.zeros((n, 1))]), numItermax=_ITERATIONS, log=True)
    if log["warning"] is not None:
        msg = f"optimal transport of {n} x {T} rows: {log['warning']}"
        raise RunError(msg)
    moved = np.round(plan[:, :T], 6)
    mass, paid = moved.sum(axis=1), (moved * costs).sum(axis=1)
    return np.lexsort((np.arange(n), np.round(paid, 9), -mass))[:size]
