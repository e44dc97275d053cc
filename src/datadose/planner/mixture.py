"""The mixture of a plan: rows, weight and share of a batch of each source, and the value of more rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datadose.planner.pool import Decided, Pool
from datadose.planner.rows_worth import values_of_rows


@dataclass(frozen=True)
class MixtureShare:
    """The part of one source in training."""

    name: str
    prompts: int
    """Rows to take; 0 where the weight is zero."""
    weight: float
    """w_c of a row of it in the loss; the largest is 1."""
    share: float
    """The share of the source in a batch: w_c B_c over the sum of all sources."""
    marginal_value: float | None
    """The decrease of the objective / d by one more row; None next to a peak."""
    gain_per_cost: float | None
    """The marginal value divided by the cost of a row; None without costs."""
    reason: str | None
    """Why the weight is zero; None where it is not."""


def mixture_of(pool: Pool, decided: Decided) -> tuple[MixtureShare, ...]:
    """The mixture that was ``decided`` for the sources of ``pool``, source by source."""
    values = [None if x is None else float(x) + 0.0 for x in values_of_rows(pool, decided)]
    rows = decided.weights * decided.counts
    shares = rows / rows.sum() if rows.any() else np.zeros(len(rows))
    found = []
    for at, (name, value, cost) in enumerate(zip(pool.names, values, pool.costs, strict=True)):
        weight = float(decided.weights[at])
        found.append(
            MixtureShare(
                name=name,
                prompts=int(decided.counts[at]),
                weight=weight,
                share=float(shares[at]),
                marginal_value=value,
                gain_per_cost=None if value is None or cost is None else value / cost,
                reason=None if weight > 0 else _reason(pool, decided, at, value),
            )
        )
    return tuple(found)


def _reason(pool: Pool, decided: Decided, at: int, value: float | None) -> str:
    if not decided.counts.any():
        return "nothing is trained"
    if decided.reasons is not None and decided.reasons[at]:
        return decided.reasons[at]
    if decided.reasons is not None:
        return "without a penalty it is fitted only after the sources of weight 1"
    if not pool.columns[at].second_moment.any():
        return "its covariance is zero"
    if value is not None and value > 0:
        return f"rows are worth more elsewhere: its first would lower the error by {value:.3g}"
    change = "" if value is None else f": its first would, by {-value:.3g}"
    return f"at equal weights its rows raise the error{change}"
