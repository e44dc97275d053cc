"""The best penalty towards the model before training, with the rows and the weights that it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from datadose.errors import reject
from datadose.planner.equal_rows import choose_rows
from datadose.planner.judged import CLOSE, Judged, enough_rows, errors_of, whole
from datadose.planner.pool import Decided, Pool
from datadose.planner.tuned_rows import choose_weights
from datadose.shapes import Array
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.equal_weights import best_equal_weights
from datadose.theory.least import least_beside
from datadose.theory.stopping import Stopping
from datadose.theory.time_search import UNSEEN
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.tuned_weights import ceiling, tuned_weights, unlimited

UNTOUCHED = "any training raises the error: the best is to leave the model as it is"
INTERPOLATES = "the best is no penalty: to train to convergence"
_REACH, _PER_DECADE = 1e9, 4
"""Of effective penalties around tr C / d, at which the ceiling of equal weights is sought."""


@dataclass(frozen=True, kw_only=True)
class Penalised(Judged):
    """Training under the best penalty ||V - V0||_F^2 beside the plain weighted sum over the rows."""

    value: float | None
    """lambda >= 0 of that penalty; 0 is convergence, and None, with a reason, a penalty without bound."""


def choose_penalty(pool: Pool, *, tuned: bool) -> tuple[Penalised, Decided]:
    """The best penalty of a pool, with the rows of each source and, if ``tuned``, their weights.

    Args:
        pool: the sources, the model before training and the goal.
        tuned: whether the weight of each source's rows in the loss is chosen as well; else all are 1.

    Raises InputError for label noise with chains of several steps, and PeakError where the best is no penalty
    and the mean error over finite prompts is infinite.
    """
    if pool.has_pairs:
        reject("label_noise", "some beside training: penalty", "0 there; training: best takes noisy labels")
    if pool.is_unseen:
        decided = pool.left_untouched(UNSEEN)
        same, top = errors_of(pool, decided, decided), decided.objective
        return Penalised(**same, value=None, ceiling=top, scarcity=0.0, prompts_within_10_percent=0), decided
    if len(pool.sources) == 1:
        return _of_one_kind(pool)
    if tuned:
        counts, found = choose_weights(pool)
        decided = replace(
            under_penalty(pool, counts, found.weights, found.ridge, found.model.trained),
            objective=found.error,
            known_values=found.values,
            reasons=found.reasons,
        )
        top, needed = _tuned_ceiling(pool)
    else:
        rows = choose_rows(pool)[0]
        decided = under_penalty(pool, rows.counts, (rows.counts > 0).astype(np.float64), rows.ridge)
        top, needed = _equal_ceiling(pool)
    alike = best_equal_weights(pool.effective(pool.all_alike), pool.goal.objective).ridge
    on_all = under_penalty(pool, pool.all_alike, np.ones(len(pool.sources)), alike)
    return Penalised(
        **errors_of(pool, decided, on_all),
        value=decided.stopping.ridge,
        ceiling=top,
        scarcity=decided.objective - top,
        prompts_within_10_percent=needed,
    ), decided


def _of_one_kind(pool: Pool) -> tuple[Penalised, Decided]:
    """All rows: with a tuned penalty more rows of one kind never raise the error."""
    curve = EffectivePenalty.of(
        pool.start, pool.eta, pool.sources[0], pool.goal.objective, chain_steps=pool.chain_steps
    )
    decided = under_penalty(pool, pool.sizes, np.ones(1), curve.best(pool.sizes[0]).ridge)
    return Penalised(
        **errors_of(pool, decided, decided),
        value=decided.stopping.ridge,
        ceiling=curve.ceiling.error,
        scarcity=decided.objective - curve.ceiling.error,
        prompts_within_10_percent=whole(curve.prompts_within(CLOSE)),
    ), decided


def under_penalty(
    pool: Pool, counts: Array, weights: Array, ridge: float, known: TrainedOperator | None = None
) -> Decided:
    """The decision for one penalty. An infinite one leaves the model untouched, on no rows.

    Args:
        pool: the sources, the model before training and the goal.
        counts: rows of each source, (K,).
        weights: w_c of a row of each source, (K,).
        ridge: penalty lambda >= 0, or infinite.
        known: the trained model, if it has been computed already.
    """
    if np.isinf(ridge):
        return pool.left_untouched(UNTOUCHED)
    model = pool.trained(counts, Stopping(ridge=ridge), weights) if known is None else known
    error, reason = pool.goal.objective.error(model), INTERPOLATES if ridge == 0 else None
    return Decided(np.where(weights > 0, counts, 0.0), weights, Stopping(ridge=ridge), model, error, reason)


def _equal_ceiling(pool: Pool) -> tuple[float, int | None]:
    """The least objective of unlimited rows in the pool's proportions, and the rows that come near it."""
    limit, test, shares = unlimited(pool.effective(pool.all_alike)), pool.goal.objective, pool.shares
    if not limit.sizes.any():
        return test.error(pool.untouched), 0
    middle = np.log(float(shares @ limit.sizes) / limit.dimension * limit.unit**2)

    def error(x: float) -> float:
        return limit.at(shares / np.exp(middle + x)).error(test)

    reach = np.log(_REACH)
    grid = np.linspace(-reach, reach, int(2 * np.log10(_REACH) * _PER_DECADE) + 1)
    values = np.array([error(x) for x in grid])
    at = int(values.argmin())
    top = min(least_beside(error, grid, at, 1e-6)[1], float(values[at]), test.error(pool.untouched))

    def best(rows: Array) -> float:
        return best_equal_weights(pool.effective(rows), test).error

    return top, _near(pool, top, best)


def _tuned_ceiling(pool: Pool) -> tuple[float, int | None]:
    """The same at tuned weights."""
    top, near = ceiling(pool.effective(pool.all_alike), pool.goal.objective).error, None

    def best(rows: Array) -> float:
        nonlocal near
        found = tuned_weights(pool.effective(rows), pool.goal.objective, near)
        near = found.effective_weights
        return found.error

    return top, _near(pool, top, best)


def _near(pool: Pool, top: float, best: Callable[[Array], float]) -> int | None:
    return enough_rows(pool, top, lambda total: best(total * pool.shares))
