"""The outcome of a chosen way of training: errors, ceiling, the prices of scarcity and of overtraining."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy

from datadose.planner.pool import Decided, Pool

CLOSE = 0.1
"""How near to the ceiling rows are counted for."""
_MOST_ROWS = 1e12
_PRECISION, _SECANTS, _FARTHEST, _FLATTEST, _LEAST = 3e-3, 12, 6.0, -0.1, 1e-9
"""Of the logarithm of the excess; steps to it, the longest of them, the flattest slope that is taken, and the
least excess that counts."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Training to the best time, or under the best penalty. All errors are predicted and divided by d."""

    prompts: int
    """The number of rows in all, without those of sources with weight zero."""
    predicted_error: float
    """The error on the target, or on the weighted tests in its place."""
    predicted_pretraining: float
    """The error on Sigma0 after training, which measures forgetting."""
    pretraining_before: float
    """The error on Sigma0 of the model before training."""
    objective: float
    """The minimised number: (1 - keep) times the error on the target plus keep times that on Sigma0."""
    variance: float
    """The part of ``predicted_error`` that more rows at the same effective penalty or time would remove."""
    error_if_converged: float | None
    """The error on the target if the same rows and weights were trained to convergence; None at a peak."""
    pretraining_if_converged: float | None
    """The error on Sigma0 in that case."""
    all_rows: int
    """The number of all rows that there are, or as many as allowed, in the pool's proportions."""
    error_on_all_rows: float
    """The error on the target if ``all_rows`` were trained alike, to their own best time or under their own
    best penalty.
    """
    error_on_all_rows_if_converged: float | None
    """The error on the target if ``all_rows`` were trained to convergence; None at a peak."""
    pretraining_on_all_rows: float
    pretraining_on_all_rows_if_converged: float | None
    """This and the field before are the errors on Sigma0 in these two cases."""
    ceiling: float
    """The least objective that unlimited rows give: in the pool's proportions, or at tuned weights."""
    scarcity: float
    """The objective minus the ceiling: what further rows could still bring. Below zero where the plan leaves
    sources out that the ceiling, in the pool's proportions, counts in."""
    prompts_within_10_percent: int | None
    """The number of rows in the pool's proportions, alike or at tuned weights as for the ceiling, from which
    the objective is within 10 percent of the ceiling; None above 1e12.
    """
    reason: str | None
    """Why there is no end to training or no penalty, why nothing is trained, or why ``error_if_converged`` is
    None; else None."""

    def to_json(self) -> dict[str, Any]:
        """The section of the document that `datadose plan --json` prints."""
        return asdict(self)


def errors_of(pool: Pool, decided: Decided, on_all: Decided) -> dict[str, Any]:
    """The fields of :class:`Judged` that follow from the decision and from its alternatives.

    Args:
        pool: the sources, the model before training and the goal.
        decided: the decision on training.
        on_all: the decision on all rows, each with the same weight.
    """
    goal, counts, weights = pool.goal, decided.counts, decided.weights
    untouched = not (counts * weights).any()
    converged, why = (decided.model, None) if untouched else pool.converged(counts, weights)
    all_converged, _ = pool.converged(pool.all_alike)
    return {
        "prompts": int(counts[weights > 0].sum()),
        "predicted_error": goal.target.error(decided.model),
        "predicted_pretraining": goal.pretraining.error(decided.model),
        "pretraining_before": goal.pretraining.error(pool.untouched),
        "objective": decided.objective,
        "variance": goal.target.variance(decided.model),
        "error_if_converged": converged and goal.target.error(converged),
        "pretraining_if_converged": converged and goal.pretraining.error(converged),
        "all_rows": int(pool.all_alike.sum()),
        "error_on_all_rows": goal.target.error(on_all.model),
        "error_on_all_rows_if_converged": all_converged and goal.target.error(all_converged),
        "pretraining_on_all_rows": goal.pretraining.error(on_all.model),
        "pretraining_on_all_rows_if_converged": all_converged and goal.pretraining.error(all_converged),
        "reason": "; ".join(filter(None, [decided.reason, why])) or None,
    }


def recommendation_notes(document: dict[str, Any]) -> list[str]:
    """What the recommended stage rests on and does not count: tests, how training ends, and a budget.

    ``document`` is that of `datadose plan --json`. One sentence each; none for a plan to convergence without
    costs.
    """
    notes, found = [], document.get("stopping") or document.get("penalty")
    if document.get("stages", {}).get("judged_by") == "tests":
        notes.append(
            "errors are those on `tests`; RL takes its prompts, and pass rates hold, on sigma0 + delta"
        )
    if found is not None and "stages" in document:
        well = "stopped at its best time" if "stopping" in document else "under its best penalty"
        trained = f"{well} on {found['prompts']} rows it comes to error {found['predicted_error']:.3g}"
        if not found["prompts"]:
            trained = "the best end of training is not to train"
        notes.append(
            f"SFT runs there for all of `steps`, on the rows that are best at convergence; {trained}"
        )
        if "schedule" not in document:
            notes[-1] += "; give `costs` to compare stages that are each stopped at their best time"
    if "schedule" in document and "stages" in document:
        notes.append("it does not count `costs`; the schedule of the budget does")
    return notes


def whole(rows: float) -> int | None:
    """A number of rows rounded up; None if there is none."""
    return None if not np.isfinite(rows) else int(np.ceil(rows - 1e-9))


def enough_rows(pool: Pool, top: float, objective: Callable[[float], float]) -> int | None:
    """The rows, to .3 percent, from which ``objective`` is within 10 percent of its ceiling ``top``.

    The excess over the ceiling falls nearly as one over the rows, so that the secant method on logarithms
    takes few steps. The result is 0 where no row is needed, and None where even 1e12 rows are not enough.
    """
    if pool.goal.objective.error(pool.untouched) <= (1 + CLOSE) * top:
        return 0

    def missed(x: float) -> float:
        excess = objective(float(np.exp(x))) / top - 1
        return float(np.log(max(excess, _LEAST) / CLOSE))

    x, slope = float(np.log(pool.all_alike.sum())), -1.0
    value = missed(x)
    for _ in range(_SECANTS):
        if abs(value) <= _PRECISION:
            return whole(float(np.exp(x)))
        step = float(np.clip(-value / slope, -_FARTHEST, _FARTHEST))
        if not 0 < x + step < np.log(_MOST_ROWS):
            break
        before, x = value, x + step
        value = missed(x)
        slope = min((value - before) / step, _FLATTEST)
    low, high = 0.0, float(np.log(_MOST_ROWS))
    if missed(high) > 0:
        return None
    if missed(low) <= 0:
        return 1
    return whole(float(np.exp(scipy.optimize.brentq(missed, low, high, xtol=_PRECISION))))
