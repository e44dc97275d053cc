"""From penalties and weights to effective weights, and the best penalty where every prompt counts alike.

Effective weights rho (:mod:`datadose.theory.effective_weights`) are the explicit coordinates. A penalty
lambda and weights w_c of the loss have those with lambda / w_c = B_c / rho_c - tau_c(rho), a fixed point that
the deterministic equivalent solves. On the curve of equal weights the right side is one for all sources.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from datadose.errors import require_number
from datadose.shapes import Array, Float
from datadose.theory.effective_weights import EffectiveSources
from datadose.theory.equivalent import deterministic_equivalent
from datadose.theory.least import least_beside
from datadose.theory.regimes import ridge_weights
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.weighted_test import WeightedTest

_PENALTIES = np.geomspace(1e-9, 1e4, 27)
"""Where the best penalty is sought first, in units of sum_c B_c tr C_c / d."""


@dataclass(frozen=True)
class EqualWeights:
    """The best penalty where every prompt counts alike."""

    error: float
    """Error / d."""
    ridge: float
    """lambda beside the plain sum: 0 for convergence, infinite for the untouched model."""
    effective_weights: Float[Array, " K"]
    """rho_c (K,): infinite for convergence above the rank, 0 for the untouched model."""


def effective_weights(
    sources: EffectiveSources, ridge: float, weights: ArrayLike | None = None
) -> Float[Array, " K"]:
    """The effective weights rho, (K,), of a penalty and of weights in the loss.

    This is the one function of the module that solves a fixed point.

    Args:
        sources: the start and K sources.
        ridge: penalty lambda > 0 beside the plain weighted sum.
        weights: w_c >= 0 of a row of each source, (K,); 1 if None.

    Raises InputError for a penalty that is not above 0 and for weights that are negative, not finite or of
    another number.
    """
    lam = require_number("ridge", ridge, 0, np.inf, open_ends=True) / sources.unit**2
    w = sources.require_weights(np.ones(len(sources.columns)) if weights is None else weights)
    used = (w > 0) & (sources.counts > 0) & (sources.sizes > 0)
    rho = np.zeros(len(w))
    if used.any():
        features = replace(sources.features, heavy=w).subset(used)
        rho[used] = ridge_weights(features, lam)
    return rho / lam / sources.unit**2


def best_equal_weights(sources: EffectiveSources, test: WeightedTest) -> EqualWeights:
    """The penalty in [0, infinity] with the least error where every prompt has the same weight.

    Args:
        sources: the start and K sources with their numbers of prompts.
        test: the test, or a weighted sum of tests.

    Raises InputError for a test of another size, PeakError where convergence is best and has no finite mean.
    """
    K = len(sources.columns)
    rho = np.zeros(K)
    least, ridge = sources.at(rho).error(test), np.inf
    if not (sources.counts * sources.sizes).any():
        return EqualWeights(least, ridge, rho)
    scale = float(sources.counts @ sources.sizes) / sources.dimension * sources.unit**2

    def error(x: float) -> float:
        return sources.at(effective_weights(sources, float(np.exp(x)))).error(test)

    grid = np.log(scale * _PENALTIES)
    values = np.array([error(x) for x in grid])
    at = int(np.argmin(values))
    place, value = least_beside(error, grid, at, 1e-7)
    if value < least:
        least, ridge = value, float(np.exp(place))
        rho = effective_weights(sources, ridge)
    if at == 0:
        return _converged(sources, test, EqualWeights(least, ridge, rho))
    return EqualWeights(least, ridge, rho)


def _converged(sources: EffectiveSources, test: WeightedTest, rival: EqualWeights) -> EqualWeights:
    """Training to convergence if that is better than ``rival``, the smallest penalty that was tried."""
    model = deterministic_equivalent(sources.mean, sources.eta, sources.columns)
    start = TrainedOperator(sources.mean, sources.second_moment, np.zeros(sources.dimension))
    error = sources.judged_by(test).error(model.trained(start))
    if error >= rival.error:
        return rival
    model.require_finite()
    return EqualWeights(error, 0.0, np.full(len(sources.columns), np.inf))
