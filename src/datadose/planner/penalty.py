"""The best penalty towards the model before training, together with the rows that it is for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datadose.planner.judged import CLOSE, Judged, errors_of, whole
from datadose.planner.pool import Decided, Pool
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.stopping import Stopping

UNTOUCHED = "any training raises the error: the best is to leave the model as it is"
INTERPOLATES = "the best is no penalty: to train to convergence"


@dataclass(frozen=True, kw_only=True)
class Penalised(Judged):
    """Training under the best penalty ||V - V0||_F^2 beside the plain sum over the rows."""

    value: float | None
    """lambda >= 0 of that penalty; 0 is convergence, and None, with a reason, a penalty without bound."""


def penalise_one_kind(pool: Pool) -> Penalised:
    """The best penalty on all rows of one kind: with a tuned penalty more rows never raise the error.

    Raises PeakError where the best is no penalty and the mean error over finite prompts is infinite.
    """
    curve = EffectivePenalty.of(
        pool.start, pool.eta, pool.sources[0], pool.goal.objective, chain_steps=pool.chain_steps
    )
    best = curve.best(pool.sizes[0])
    decided = under_penalty(pool, pool.sizes, np.ones(1), best.ridge)
    return Penalised(
        **errors_of(pool, decided),
        value=None if np.isinf(best.ridge) else best.ridge,
        ceiling=curve.ceiling.error,
        scarcity=best.error - curve.ceiling.error,
        prompts_within_10_percent=whole(curve.prompts_within(CLOSE)),
    )


def under_penalty(pool: Pool, counts: np.ndarray, weights: np.ndarray, ridge: float) -> Decided:
    """The decision for the penalty ``ridge``; an infinite one leaves the model untouched on no rows."""
    if np.isinf(ridge):
        return pool.left_untouched(UNTOUCHED)
    stopping = Stopping(ridge=ridge)
    model = pool.trained(counts, stopping, weights)
    reason = INTERPOLATES if ridge == 0 else None
    return Decided(counts, weights, stopping, model, pool.goal.objective.error(model), reason)
