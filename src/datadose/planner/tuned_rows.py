"""The weights of the rows in the loss, the penalty, and which rows to take where not all may be taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, minimize

from datadose.errors import RunError
from datadose.planner.counts import rounded
from datadose.planner.equal_rows import choose_rows
from datadose.planner.pool import Pool
from datadose.planner.search import Best, run_search
from datadose.shapes import Array, Float
from datadose.theory.tuned_weights import TunedWeights, tuned_weights

_ROUNDS = 12
_FEW = 1e-3
"""Rows that represent none in a search: the value of a row cannot be computed at none."""


def choose_weights(pool: Pool) -> tuple[Float[Array, " K"], TunedWeights]:
    """Rows of each source (K,), whole numbers, and the weights and penalty with the least objective.

    With tuned weights no row does harm, so all are taken. Where there are more than ``max_prompts`` the
    numbers of rows move along the value of a row of each source, and the rows that are best at equal weights
    are tried as well. Raises InputError for label noise with chains of several steps, PeakError and RunError
    as :func:`datadose.theory.tuned_weights.tuned_weights`.
    """
    test = pool.goal.objective
    if not pool.is_limited:
        return pool.sizes, tuned_weights(pool.effective(pool.sizes), test)
    counts, found = _within_the_limit(pool)
    none = counts == 0
    if none.any():
        # The value of a first row shows where there is a little of one.
        little = tuned_weights(pool.effective(np.maximum(counts, _FEW)), test, found.effective_weights)
        values = np.where(none, little.values, found.values)
        reasons = tuple(
            _reason(value) if at else reason
            for at, value, reason in zip(none, values, found.reasons, strict=True)
        )
        found = replace(found, values=values, reasons=reasons)
    return counts, found


def _reason(value: float) -> str:
    if value > 0:
        return f"rows are worth more elsewhere: its first would lower the error by {value:.3g}"
    return "any weight on it raises the error, or changes nothing"


def _within_the_limit(pool: Pool) -> tuple[Float[Array, " K"], TunedWeights]:
    sizes, best, test = pool.sizes, Best(), pool.goal.objective
    near: Array | None = None

    def objective(x: Array) -> tuple[float, Array]:
        nonlocal near
        counts = np.maximum(np.clip(x, 0, 1) * sizes, _FEW)
        try:
            found = tuned_weights(pool.effective(counts), test, near)
        except RunError as error:
            raise np.linalg.LinAlgError from error
        near = found.effective_weights
        if counts.sum() <= pool.max_prompts * (1 + 1e-9) + _FEW * len(sizes):
            best.see(found.error, counts)
        return found.error, -found.values * sizes

    room = LinearConstraint(sizes / pool.max_prompts, 0, 1)
    run_search(
        lambda: minimize(
            objective,
            pool.all_alike / sizes,
            jac=True,
            method="SLSQP",
            bounds=Bounds(np.zeros(len(sizes)), np.ones(len(sizes))),
            constraints=[room],
            options={"maxiter": _ROUNDS, "ftol": 1e-6},
        )
    )
    moved = np.asarray(np.minimum(rounded(best.place), sizes), dtype=np.float64)
    tried = [
        (counts, tuned_weights(pool.effective(counts), test))
        for counts in (moved, choose_rows(pool)[0].counts)
    ]
    return min(tried, key=lambda pair: pair[1].error if pair[0].any() else np.inf)
