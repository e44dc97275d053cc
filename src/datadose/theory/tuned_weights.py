"""The best weights and penalty for K sources, and the value of a row of each.

In effective weights rho (:mod:`datadose.theory.effective_weights`) the error is explicit, and penalties and
weights reach the set {rho >= 0, rho_c tau_c(rho) <= B_c}. The least error over it never rises in any B_c: at
fixed rho every scatter falls, and the set only grows. It is sought by SLSQP from several starts; the
statement is one on the limit in d, with weights chosen by an oracle. The set is star-shaped about 0, as
t rho_c tau_c(t rho) grows with t, which is how a point a hair outside is brought back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from datadose.errors import RunError, reject, require_kind, require_number
from datadose.shapes import Array, Float
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.effective_weights import EffectiveModel, EffectiveSources
from datadose.theory.equal_weights import best_equal_weights
from datadose.theory.equivalent import PeakError, deterministic_equivalent
from datadose.theory.weighted_test import WeightedTest

_LARGEST = 40.0
"""log(1 + rho_c tr C_c / d) is at most so much: the model is converged to rounding long before."""
_ACTIVE = 1e-6
"""Relative slack below which a source counts as fitted to the last of its prompts."""
_NOTHING = 1e-9
"""A weight below this, in units of d / tr C_c, is tried as zero."""
_STATIONARY = 2e-5
"""How large the slope that is left may be, as a share of the error, by unit of log(1 + rho_c tr C_c / d)."""
_PRECISION = 1e-13
_ITERATIONS = 300


@dataclass(frozen=True)
class TunedWeights:
    """The weights and the penalty that minimise the error on a test, all by source (K,)."""

    error: float
    """Error / d."""
    limit: float
    """F: the part that more prompts at the same effective weights would leave."""
    variance: float
    effective_weights: Float[Array, " K"]
    """rho_c."""
    ridge: float
    """lambda >= 0 beside the weighted sum whose largest weight is 1; infinite if no source is used, and for
    unlimited prompts (:func:`ceiling`), where only lambda / B means something."""
    weights: Float[Array, " K"]
    """w_c in [0, 1], the largest is 1. Where ``ridge`` is 0 a source with weight 0 may still act: it is
    fitted after those with weight 1, which the effective weights show."""
    shares: Float[Array, " K"]
    """w_c B_c / sum: the share of each source in a batch."""
    values: Float[Array, " K"]
    """The decrease of the error by one more row of each source; >= 0, and 0 for sources that are not used."""
    reasons: tuple[str, ...]
    """Why a source has weight zero; empty for those that are used."""
    model: EffectiveModel = field(repr=False)
    """The trained model at these weights."""


def tuned_weights(
    sources: EffectiveSources, test: WeightedTest, near: Float[Array, " K"] | None = None
) -> TunedWeights:
    """The weights and the penalty with the least error on ``test``, from all feasible ones.

    The result is the best of several searches. It is a local minimum; nothing proves that it is the global
    one.

    Args:
        sources: the start and K sources with their numbers of prompts.
        test: the test, or a weighted sum of tests.
        near: the best effective weights (K,) of similar sources. One search from there then takes the place
            of the several, if it ends in a minimum.

    Raises InputError for a test of another size, PeakError where the best point fits sources to the last of
    their prompts and their mean error is infinite there, RunError where no search converges.
    """
    require_kind("sources", sources, EffectiveSources, "EffectiveSources.of(V0, eta, [Source(A, n, B)])")
    require_kind("test", test, WeightedTest, "WeightedTest.of(target, length)")
    search = _Search(sources, test)
    found = search.best(near)
    model = search.model(found)
    active = model.is_active(_ACTIVE)
    if active.any():
        _require_finite_at(model, active)
    return _described(search, model, found)


def ceiling(sources: EffectiveSources, test: WeightedTest) -> TunedWeights:
    """The result of :func:`tuned_weights` for unlimited prompts of every source. More rows then add nothing.

    The arguments and errors are those of :func:`tuned_weights`.
    """
    return tuned_weights(unlimited(sources), test)


def unlimited(sources: EffectiveSources) -> EffectiveSources:
    """The same sources with infinitely many prompts each."""
    return replace(sources, columns=tuple(replace(c, count=np.inf) for c in sources.columns))


def best_purchase(
    model: EffectiveModel, test: WeightedTest, costs: ArrayLike, budget: float
) -> Float[Array, " K"]:
    """The numbers of prompts B_c (K,) with the least error for ``budget``, to first order in 1/B.

    B_c is proportional to rho_c sqrt(tr Res_c s_c / p_c), Neyman's allocation, with s_c the test form of
    R C_c R. Where that is less than the weights need, B_c is what they need, rho_c tau_c, and the rest is
    shared by the others.

    Args:
        model: the trained model, whose effective weights rho_c stay as they are.
        test: the test, or a weighted sum of tests.
        costs: cost p_c > 0 of a row of each source, (K,).
        budget: the sum of p_c B_c.

    Raises InputError for costs that are not K numbers above 0, and for a budget below what is needed.
    """
    p = model.sources.require_weights(costs, "costs")
    if not (p > 0).all():
        reject("costs", costs, "finite numbers > 0")
    total = require_number("budget", budget, 0, np.inf)
    least = model.fitted
    if total < p @ least:
        reject("budget", f"{total:g}", f"at least {p @ least:.6g}, for the rows that the weights need")
    wanted = model.rho * np.sqrt(np.maximum(model.residuals, 0) * model.shares(test) / p)
    rows, free = least.copy(), wanted > 0
    while free.any():
        left = total - p[~free] @ least[~free]
        rows[free] = wanted[free] * left / (p[free] @ wanted[free])
        short = free & (rows < least)
        if not short.any():
            break
        rows[short], free = least[short], free & ~short
    return rows


# --- the search -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Search:
    """SLSQP over x_c = log(1 + rho_c s_c), s_c = tr C_c / d, of the sources that have prompts and data."""

    sources: EffectiveSources
    test: WeightedTest

    @cached_property
    def used(self) -> NDArray[np.bool_]:
        """Which sources have prompts and data."""
        return (self.sources.counts > 0) & (self.sources.sizes > 0)

    @cached_property
    def scale(self) -> Float[Array, " U"]:
        """s_c of the sources in use."""
        return self.sources.sizes[self.used] / self.sources.dimension

    @cached_property
    def untouched(self) -> float:
        """Error / d of the start."""
        return self.sources.at(np.zeros(len(self.used))).error(self.test)

    @cached_property
    def _seen(self) -> dict[bytes, EffectiveModel]:
        return {}

    def model(self, x: Array) -> EffectiveModel:
        """The model at x, feasible or not."""
        key = np.asarray(x).tobytes()
        if key not in self._seen:
            self._seen.clear()
            rho = np.zeros(len(self.used))
            rho[self.used] = np.expm1(np.maximum(x, 0)) / self.scale
            self._seen[key] = self.sources.model(rho)
        return self._seen[key]

    def place(self, rho: Array) -> Array:
        """x of effective weights in the unit of the sources."""
        with np.errstate(over="ignore"):
            return np.asarray(np.minimum(np.log1p(rho[self.used] * self.scale), _LARGEST))

    def value(self, x: Array) -> float:
        """The error as a share of that of the start."""
        return self.model(x).error(self.test) / self.untouched

    def slope(self, x: Array) -> Array:
        """Its derivative by x."""
        by_rho = self.model(x).gradient(self.test).weights[self.used] / self.sources.unit**2
        return by_rho * np.exp(x) / self.scale / self.untouched

    def slack(self, x: Array) -> Array:
        """1 - rho_c tau_c / B_c of the sources in use: >= 0 where x is feasible."""
        return 1 - self.model(x).fitted[self.used] / self.sources.counts[self.used]

    def slack_slope(self, x: Array) -> Array:
        """Its derivative by x, row c, column e."""
        slopes = self.model(x).fitted_slopes[np.ix_(self.used, self.used)] * np.exp(x) / self.scale
        return -slopes / self.sources.counts[self.used, None]

    def shrunk(self, x: Array) -> Array:
        """The largest feasible point on the way from 0 to the effective weights of x."""
        if (self.slack(x) >= 0).all():
            return x
        rho = np.expm1(x)

        def least(log_t: float) -> float:
            return float(self.slack(np.log1p(np.exp(log_t) * rho)).min())

        # The weights may be many orders too large, so the share of them is sought in its logarithm.
        log_t = scipy.optimize.brentq(least, -2 * _LARGEST, 0.0, xtol=1e-14, rtol=1e-14)
        # The root is known to rounding, whose size differs from point to point.
        margin = 1e-14
        while least(log_t - margin) < 0:
            margin *= 4
        return np.asarray(np.log1p(np.exp(log_t - margin) * rho))

    def starts(self) -> list[Array]:
        """Equal weights and each source alone, at their best penalties, all of these together, and little."""
        s, K = self.sources, len(self.used)
        alone = np.zeros(K)
        for place in np.flatnonzero(self.used):
            alone[place] = _alone(s, int(place), self.test)
        single = [np.where(np.arange(K) == place, alone, 0.0) for place in np.flatnonzero(self.used)]
        found = [
            *single,
            alone / max(1, K - 1),
            np.full(K, 0.1) / np.where(self.used, s.sizes, 1) * s.dimension,
        ]
        if np.isfinite(s.counts).all():
            found.append(best_equal_weights(s, self.test).effective_weights * s.unit**2)
        else:
            each = self.used / np.where(self.used, s.sizes, 1) * s.dimension
            found += [each * size for size in (1.0, 1e3, 1e6)]
        return [self.shrunk(self.place(rho)) for rho in found]

    def best(self, near: Array | None = None) -> Array:
        """The best point that any search ends in; no effective weight if nothing is to be used."""
        nothing = np.zeros(int(self.used.sum()))
        if not self.used.any():
            return nothing
        if near is not None:
            end = self.refined(self.shrunk(self.place(near * self.sources.unit**2)))
            if self.left_over(end) <= _STATIONARY and self.value(end) <= self.value(nothing):
                return end
        ends = [self.refined(start) for start in self.starts()]
        ends.append(nothing)
        for end in sorted(ends, key=self.value):
            again = end
            for _ in range(3):
                if self.left_over(again) <= _STATIONARY:
                    return again
                again = self.refined(again)
        raise RunError("the search for the best weights did not converge from any of its starts")

    def refined(self, x: Array) -> Array:
        """Where SLSQP ends from x; feasible, and no worse than x."""
        limited = np.isfinite(self.sources.counts).any()
        constraint = {"type": "ineq", "fun": self.slack, "jac": self.slack_slope}
        result = scipy.optimize.minimize(
            self.value,
            x,
            jac=self.slope,
            method="SLSQP",
            bounds=[(0.0, _LARGEST)] * len(x),
            constraints=[constraint] if limited else [],
            options={"ftol": _PRECISION, "maxiter": _ITERATIONS},
        )
        best = x
        if np.isfinite(result.x).all():
            end = self.shrunk(np.clip(result.x, 0.0, _LARGEST))
            for tried in (end, np.where(end < _NOTHING, 0.0, end)):
                if self.value(tried) <= self.value(best):
                    best = tried
        return best

    def multipliers(self, x: Array) -> tuple[Array, Array]:
        """Of the active constraints slack_c >= 0, (U,), and the slope that they leave."""
        slope, active = self.slope(x), self.slack(x) <= _ACTIVE
        found = np.zeros(len(x))
        moving = x > 0
        if active.any():
            rows = self.slack_slope(x)[active]
            found[active] = scipy.optimize.nnls(rows[:, moving].T, slope[moving])[0]
            slope = slope - found[active] @ rows
        return found, slope

    def left_over(self, x: Array) -> float:
        """By how much x misses the conditions of a minimum: the largest slope along which one may move."""
        _, slope = self.multipliers(x)
        free = np.where(x <= 0, np.minimum(slope, 0), np.where(x >= _LARGEST, np.maximum(slope, 0), slope))
        return float(np.abs(free).max(initial=0.0))


def _alone(sources: EffectiveSources, place: int, test: WeightedTest) -> float:
    """rho of one source alone at its best penalty, in the unit of the sources."""
    c = sources.columns[place]
    judged = sources.judged_by(test)
    curve = EffectivePenalty.of_columns(sources.mean, sources.second_moment, sources.eta, c, judged)
    try:
        mu = curve.ceiling.penalty if np.isinf(c.count) else curve.best(c.count).penalty
    except PeakError:
        mu = curve.penalty(c.count, 1e-6 * curve.curve.columns.second_moment.max())
    return 0.0 if np.isinf(mu) else 1 / max(mu, 1e-300)


def _require_finite_at(model: EffectiveModel, active: NDArray[np.bool_]) -> None:
    """PeakError where the sources that are fitted to the last prompt have an infinite mean error."""
    s = model.sources
    fitted = [c for c, on in zip(s.columns, active, strict=True) if on]
    deterministic_equivalent(s.mean, s.eta, fitted).require_finite()


def _described(search: _Search, model: EffectiveModel, x: Array) -> TunedWeights:
    s, test, K = search.sources, search.test, len(search.used)
    penalties = np.where(model.is_active(_ACTIVE), 0.0, model.penalties)
    ridge = float(penalties.min())
    weights, chosen = np.zeros(K), model.rho > 0
    if ridge == 0:
        weights[penalties == 0] = 1.0
    elif chosen.any():
        weights[chosen] = 1.0 if np.isinf(ridge) else ridge / penalties[chosen]
    rows = weights * np.where(np.isfinite(s.counts), s.counts, 1.0)
    gradient = model.gradient(test)
    values = -gradient.prompts
    if search.used.any():
        # Of slack_c = 1 - rho_c tau_c / B_c; a row more loosens rho_c tau_c <= B_c by one.
        found, _ = search.multipliers(x)
        values[search.used] += found * search.untouched / s.counts[search.used]
    reasons = tuple(_reason(s, model, at, float(gradient.weights[at])) for at in range(K))
    limit, variance = model.limit(test), model.variance(test)
    shares = rows / rows.sum() if rows.any() else rows
    rho = model.rho / s.unit**2
    return TunedWeights(
        limit + variance, limit, variance, rho, ridge, weights, shares, values + 0.0, reasons, model
    )


def _reason(s: EffectiveSources, model: EffectiveModel, at: int, slope: float) -> str:
    if model.rho[at] > 0:
        return ""
    if s.counts[at] == 0:
        return "it has no prompts"
    if s.sizes[at] == 0:
        return "its covariance is zero"
    if slope * s.dimension / s.sizes[at] * s.unit**2 > _NOTHING:
        return f"any weight on it raises the error: by {slope:.3g} times a small effective weight"
    return "the other sources already fit all that it shows: its weight changes nothing"
