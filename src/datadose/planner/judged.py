"""What a chosen way of training comes to: errors, ceiling, the prices of scarcity and of overtraining."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from datadose.planner.pool import Decided, Pool

CLOSE = 0.1
"""How near to the ceiling rows are counted for."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Training to the best time, or under the best penalty; errors are predicted and divided by d."""

    prompts: int
    """Rows in all, those of sources with weight zero left out."""
    predicted_error: float
    """On the target, or the weighted tests in its place."""
    predicted_pretraining: float
    """On Sigma0: what is kept of what was known."""
    objective: float
    """(1 - keep) times the former plus keep times the latter, which is minimised."""
    variance: float
    """The part of ``predicted_error`` that more rows at the same effective penalty or time would remove."""
    error_if_converged: float | None
    """On the target, if the same rows, weighted alike, were trained to convergence; None at a peak."""
    error_on_all_rows: float | None
    """On the target, if all rows that there are, or as many as allowed, were trained to convergence with
    equal weights; None at a peak."""
    ceiling: float
    """The least objective that unlimited rows give: in the pool's proportions, or at tuned weights."""
    scarcity: float
    """The objective minus the ceiling: what further rows could still bring. Below zero where the plan leaves
    sources out that the ceiling, in the pool's proportions, counts in."""
    prompts_within_10_percent: int | None
    """From how many rows, of the kinds that the ceiling is for, the objective is within 10 percent of it."""
    reason: str | None
    """Why there is no end to training or no penalty, why nothing is trained, or why ``error_if_converged`` is
    None; else None."""

    def to_json(self) -> dict[str, Any]:
        """The section of the document that `datadose plan --json` prints."""
        return asdict(self)


def errors_of(pool: Pool, decided: Decided) -> dict[str, Any]:
    """The fields of :class:`Judged` that the model and its rivals at convergence determine."""
    goal, counts, weights = pool.goal, decided.counts, decided.weights
    untouched = not (counts * weights).any()
    error = goal.target.error(decided.model)
    converged, why = (error, None) if untouched else pool.converged(counts, weights)
    return {
        "prompts": int(counts[weights > 0].sum()),
        "predicted_error": error,
        "predicted_pretraining": goal.pretraining.error(decided.model),
        "objective": decided.objective,
        "variance": goal.target.variance(decided.model),
        "error_if_converged": converged,
        "error_on_all_rows": pool.converged(pool.all_alike)[0],
        "reason": "; ".join(filter(None, [decided.reason, why])) or None,
    }


def whole(rows: float) -> int | None:
    """A number of rows rounded up; None if there is none."""
    return None if not np.isfinite(rows) else int(np.ceil(rows - 1e-9))
