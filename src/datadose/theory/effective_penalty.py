"""One penalised source in its effective penalty mu: few examples are a penalty, each source has a ceiling.

The model minimises ||V Phi + eta Omega||_F^2 + lambda ||V - V0||_F^2: lambda stands beside the plain sum over
the prompts, not beside their mean. With mu = lambda / q (:mod:`datadose.theory.equivalent`),
df1(mu) = tr C (C + mu)^{-1} and df2(mu) = tr [C (C + mu)^{-1}]^2:

- lambda = mu (B - df1(mu)), Vbar = (mu V0 - eta A)(C + mu)^{-1}
- error / d = F(mu) + G(mu) / (B - df2(mu)): F is the error of unlimited prompts at lambda = mu B, and
  G = tr Res tr(C (C + mu)^{-1} M (C + mu)^{-1}) / d with M the test's second moment
- F and G do not depend on B, and mu is reached by a penalty >= 0 where df1(mu) <= B. So the least error over
  penalties never rises with B, and it falls to the ceiling F* = min F.

mu is 0 where the model is trained to convergence on more prompts than directions, and infinite where it is
left untouched. All is a limit in d, and the best penalty is an oracle's. A dense covariance is rotated into
its eigenbasis, where start and test may be dense; directions of equal eigenvalues are counted together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp
from typing import Literal, TypeAlias

import numpy as np
import scipy
from numpy.typing import ArrayLike

from datadose.covariance import rotated
from datadose.errors import reject, require_number
from datadose.shapes import Array, Float, Operator
from datadose.theory.columns import Columns
from datadose.theory.equivalent import PeakError
from datadose.theory.explicit_columns import as_start, explicit_columns
from datadose.theory.one_source import OneSource, infinite_mean, weights_below_peak
from datadose.theory.source import Source
from datadose.theory.stopping import LEAST_PENALTY
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.weighted_test import WeightedTest, require_same_size

_PER_DECADE = 8
"""Penalties a decade at which a minimum is first sought."""
_BEYOND = 1e8
"""The model is converged, or untouched, to rounding at a penalty so much smaller, or larger, than all C."""
_EQUAL = 1e-12
_NEARBY = np.concatenate([[0.0], np.geomspace(1e-6, 1.0, 49)])
"""Distances in log mu from the ceiling's, for shares of it that are small."""
_FEW = 30
"""For so many points a table of df1 costs more than it saves."""
_LARGEST_TABLE = 4_000_000
"""Numbers in one table of penalties by levels; more are worked off in parts."""

Kind: TypeAlias = Literal["converged", "penalised", "untouched"]


@dataclass(frozen=True)
class PenalisedError:
    """The error / d at one number of prompts and one penalty, in its two parts."""

    error: float
    limit: float
    """F(mu): the error of unlimited prompts at the same effective penalty."""
    variance: float
    """G(mu) / (B - df2(mu))."""
    penalty: float
    """mu; 0 for convergence above the rank, infinite for the untouched model."""
    ridge: float
    """lambda >= 0 beside the plain sum; infinite for the untouched model."""

    @property
    def kind(self) -> Kind:
        """Whether the model is trained to convergence, penalised or left untouched."""
        return "untouched" if np.isinf(self.ridge) else "penalised" if self.ridge > 0 else "converged"


@dataclass(frozen=True)
class Ceiling:
    """The least error / d that any penalty reaches with unlimited prompts of the source."""

    error: float
    penalty: float
    """mu at which F* = min F is reached; 0 for convergence, infinite for the untouched model."""


@dataclass(frozen=True, eq=False)
class EffectivePenalty:
    """Training from a start on any number of prompts of one source, under any penalty, judged by one test."""

    curve: OneSource

    @classmethod
    def of(
        cls,
        start: TrainedOperator | Operator,
        eta: float,
        source: Source,
        test: WeightedTest,
        *,
        chain_steps: int = 0,
    ) -> EffectivePenalty:
        """Training from ``start`` on ``source``, whose number of prompts is ignored.

        Args:
            start: the model before training, or a known operator V0, (d,) or (d, d).
            eta: chain-of-thought step, in (0, 2).
            source: covariance, length and noise of the prompts.
            test: the test, or a weighted sum of tests.
            chain_steps: k >= 0 of the chains of thought; it matters where demonstrations are noisy.

        Raises InputError for values out of range, another dimension, and label noise where k >= 1.
        """
        (columns,) = explicit_columns([replace(source, prompts=1.0)], eta, chain_steps)
        model = as_start(start, len(columns.cross))
        return cls.of_columns(model.mean, model.second_moment, eta, columns, test)

    @classmethod
    def of_columns(
        cls, mean: Operator, second_moment: Operator, eta: float, columns: Columns, test: WeightedTest
    ) -> EffectivePenalty:
        """The same from a start's E[V0] and E[V0^T V0] and a source's columns, which hold no pair.

        Raises InputError for a test of another size.
        """
        require_same_size(test, len(columns.cross))
        columns, basis = columns.in_own_basis()
        matrices = [mean, test.target, test.second_moment, second_moment]
        if basis is not None:
            matrices = [rotated(X, basis) for X in matrices]
        mean, target, second, start_second = matrices
        return cls(OneSource(mean, eta, columns, target, second, start_second))

    # --- from mu -----------------------------------------------------------------------------------------

    def degrees(self, penalty: ArrayLike) -> tuple[Array, Array]:
        """df1 and df2 at effective penalties mu >= 0, each in the shape of ``penalty``.

        Raises InputError for a penalty that is negative or no number.
        """
        mu = _numbers("penalty", penalty, finite=False)
        _, _, df1, df2 = self._table(self._levelled(mu))
        return df1.reshape(mu.shape), df2.reshape(mu.shape)

    def limit_and_scatter(self, penalty: ArrayLike) -> tuple[Array, Array]:
        """F and G at effective penalties mu, each in the shape of ``penalty``; / d. Raises as above."""
        mu = _numbers("penalty", penalty, finite=False)
        F, G, _, _ = self._table(self._levelled(mu))
        return F.reshape(mu.shape), G.reshape(mu.shape)

    def at_penalty(self, prompts: float, penalty: float) -> PenalisedError:
        """The error on B = ``prompts`` >= 0 at the effective penalty mu = ``penalty`` >= 0, or infinite.

        Raises InputError where B <= df2(mu), for which there is no variance, and where B < df1(mu): no
        penalty >= 0 reaches that mu. Raises PeakError where the mean error is infinite.
        """
        B, mu = (
            require_number("prompts", prompts, 0, np.inf),
            float(_numbers("penalty", penalty, finite=False)),
        )
        F, G, df1, df2 = (float(x[0]) for x in self._table(self._levelled(np.array(mu))))
        if B > 0 and B <= df2:
            reject("prompts", f"{B:g} at penalty {mu:.6g}", f"more than df2 = {df2:.6g}")
        if df1 > B * (1 + 1e-9):
            reject("penalty", f"{mu:.6g}", f"one with df1 <= prompts: df1 = {df1:.6g}, prompts = {B:g}")
        touched = B > 0 and not np.isinf(mu)
        # Rounding at df1 = B is no penalty.
        ridge = mu * (B - df1 if B - df1 > 1e-12 * B else 0.0) if touched else np.inf
        if ridge == 0:
            self._require_finite(B)
        variance = G / (B - df2) if touched else 0.0
        return PenalisedError(F + variance, F, variance, mu if touched else np.inf, ridge)

    # --- from (B, lambda) --------------------------------------------------------------------------------

    def penalty(self, prompts: float, ridge: float) -> float:
        """The mu with lambda = mu (B - df1(mu)); at lambda = 0 df1(mu) = B, or 0 above the rank.

        Infinite without prompts or data. Raises InputError for numbers that are out of range.
        """
        B = require_number("prompts", prompts, 0, np.inf)
        lam = require_number("ridge", ridge, 0, np.inf) / self.curve.unit**2
        if B == 0 or self.curve.rank == 0:
            return float("inf")
        return self._solved(B, lam) * self.curve.unit**2

    def at(self, prompts: float, ridge: float) -> PenalisedError:
        """The error on B = ``prompts`` >= 0 at the penalty lambda = ``ridge`` >= 0.

        Raises InputError for numbers that are out of range, PeakError where the mean is infinite.
        """
        if ridge == 0:
            self._require_finite(require_number("prompts", prompts, 0, np.inf))
        mu = self.penalty(prompts, ridge)
        F, G, _, df2 = (float(x[0]) for x in self._table(self._levelled(np.array(mu))))
        variance = G / (prompts - df2) if not np.isinf(mu) else 0.0
        return PenalisedError(F + variance, F, variance, mu, float(ridge) if not np.isinf(mu) else np.inf)

    def errors(self, prompts: ArrayLike, ridge: ArrayLike) -> Array:
        """The error / d at many (B, lambda), in the shape that the two broadcast to.

        Infinite where the mean over finite prompts is (only without a penalty). Raises InputError for numbers
        that are negative or not finite, and for penalties above 0 too small to leave digits.
        """
        B, lam = np.broadcast_arrays(_numbers("prompts", prompts), _numbers("ridge", ridge))
        shape, B, lam = B.shape, B.ravel(), lam.ravel() / self.curve.unit**2
        infinite = (lam == 0) & infinite_mean(B, self.curve.rank, self.curve.columns.length)
        mu = np.full(B.shape, np.inf)
        trained = (B > 0) & ~infinite if self.curve.rank > 0 else np.zeros(B.shape, dtype=bool)
        if trained.any():
            mu[trained] = self._solved_many(B[trained], lam[trained])
        F, G, _, df2 = self._table(mu)
        over = np.where(trained, B - df2, 1.0)
        return np.where(infinite, np.inf, F + G / over).reshape(shape)

    # --- ceiling, scarcity, best penalty -----------------------------------------------------------------

    @cached_property
    def ceiling(self) -> Ceiling:
        """F* = min over mu in [0, infinity] of F(mu), and where."""
        mu, error = self._least(lambda mu: self._table(mu)[0], 0.0)
        return Ceiling(error, mu * self.curve.unit**2)

    def best(self, prompts: float) -> PenalisedError:
        """The least error on B = ``prompts`` >= 0 over all penalties lambda in [0, infinity].

        It never rises with B. Raises InputError for a number that is negative or not finite, PeakError
        where no penalty would be the best one and the mean error without one is infinite.
        """
        B = require_number("prompts", prompts, 0, np.inf)
        if B == 0 or self.curve.rank == 0:
            return self.at_penalty(B, np.inf)

        def errors(mu: Array) -> Array:
            F, G, _, df2 = self._table(mu)
            return F + np.divide(G, B - df2, out=np.full_like(G, np.inf), where=B > df2)

        converged = self._solved(B, 0.0)
        mu, _ = self._least(errors, converged)
        if mu == converged:
            return self.at(B, 0.0)
        return self.at_penalty(B, mu * self.curve.unit**2)

    def prompts_within(self, share: float) -> float:
        """The least B at which the best penalty's error is within ``share`` > 0 of the ceiling, (1 + x) F*.

        It is about df2 + G / (x F*) at the ceiling's mu. Raises InputError for a share that is not above 0.
        """
        x = require_number("share", share, 0, np.inf, open_ends=True)
        allowed = (1 + x) * self.ceiling.error
        if float(self._table(np.array([np.inf]))[0][0]) <= allowed:
            return 0.0

        def needed(mu: Array) -> Array:
            F, G, df1, df2 = self._table(mu)
            short = allowed > F
            with np.errstate(over="ignore"):
                rows = df2 + np.divide(G, allowed - F, out=np.full_like(F, np.inf), where=short)
            return np.maximum(rows, df1)

        # Only near the ceiling is F low enough if the share is small.
        top = self.ceiling.penalty / self.curve.unit**2
        near = top * np.exp(np.outer((-1, 1), _NEARBY)).ravel() if 0 < top < np.inf else np.zeros(0)
        return self._least(needed, 0.0, near)[1]

    # --- within ------------------------------------------------------------------------------------------

    def _levelled(self, mu: Array) -> Array:
        """mu in the unit of the levels, (P,)."""
        return mu.ravel() / self.curve.unit**2

    def _table(self, mu: Float[Array, " P"]) -> tuple[Array, Array, Array, Array]:
        """F, G, df1, df2 at mu (P,) in the unit of the levels, each (P,)."""
        L, d = self.curve.levels, len(self.curve.columns.cross)
        size = max(1, _LARGEST_TABLE // len(L.C))
        if len(mu) > size:
            parts = [self._table(mu[i : i + size]) for i in range(0, len(mu), size)]
            F, G, df1, df2 = (np.concatenate(x) for x in zip(*parts, strict=True))
            return F, G, df1, df2
        inverse = np.divide(1.0, mu[:, None] + L.C, out=np.zeros((len(mu), len(L.C))), where=L.C > 0)
        f = L.C * inverse
        # 1 - f without cancellation where mu is small.
        kept = np.where(np.isinf(mu), 0.0, mu)[:, None] * inverse
        kept[np.isinf(mu)] = 1.0
        kept[:, L.C == 0] = 1.0
        bias, residual = self.curve.parts(kept, -self.curve.eta * L.A * inverse)
        reach = inverse**2 @ (L.C * L.M)
        return 1 + bias / d, residual * reach / d, f @ L.sizes, f**2 @ L.sizes

    def _require_finite(self, B: float) -> None:
        rank, n = self.curve.rank, self.curve.columns.length
        if bool(infinite_mean(B, rank, n)):
            why = f"without a penalty the mean is infinite for {B:g} prompts of length {n:g} on rank {rank}"
            raise PeakError(
                "prompts", f"{B:g} with ridge 0", f"a ridge above 0, or other prompts: {why}", why
            )

    @cached_property
    def _grid(self) -> Array:
        """Effective penalties (P,), from where all is fitted to where nothing is, in the levels' unit."""
        C = self.curve.levels.C
        low, high = C[C > 0].min() / _BEYOND, C.max() * len(self.curve.columns.cross) * _BEYOND
        return np.geomspace(low, high, int(_PER_DECADE * np.log10(high / low)) + 1)

    @cached_property
    def _fitted_on_grid(self) -> Array:
        return self._table(self._grid)[2]

    def _solved(self, B: float, lam: float) -> float:
        """mu > 0 for B > 0 prompts and lambda >= 0, or 0, in the unit of the levels."""
        return float(self._solved_many(np.array([B]), np.array([lam]))[0])

    def _solved_many(self, B: Float[Array, " P"], lam: Float[Array, " P"]) -> Float[Array, " P"]:
        L, rank = self.curve.levels, self.curve.rank
        lost = lam[(lam > 0) & (lam < LEAST_PENALTY * B * (L.sizes @ L.C) / len(self.curve.columns.cross))]
        if len(lost):
            reject("ridge", lost[0] * self.curve.unit**2, "0 for convergence, or one that leaves digits")
        inside = L.C > 0
        C, sizes = L.C[inside], L.sizes[inside]
        mu = np.zeros(len(B))
        below = (lam == 0) & (B < rank)
        if below.any():
            mu[below] = 1 / weights_below_peak(C, sizes, B[below])
        # h(mu) = B - df1(mu) - lambda / mu rises; these bounds bracket its root, more narrowly the grid does.
        low, high = lam / B, (lam + C @ sizes) / B
        low = np.maximum(low, np.maximum(rank - B, 0) / B * C.min())
        table = (self._grid, self._fitted_on_grid) if len(B) > _FEW else None
        for at in np.flatnonzero(lam > 0):
            a, b = low[at], high[at]
            if table is not None:
                grid, fitted = table
                after = int(np.searchsorted(B[at] - fitted - lam[at] / grid, 0.0))
                a = max(a, grid[after - 1] if after > 0 else 0.0)
                b = min(b, grid[after] if after < len(grid) else np.inf)
            mu[at] = _root(C, sizes, float(B[at]), float(lam[at]), float(a), float(b))
        return mu

    def _least(
        self, value: Callable[[Array], Array], lowest: float, also: Array | None = None
    ) -> tuple[float, float]:
        """Where in [lowest, infinity] the value is least, and its least, mu in the unit of the levels.

        It is sought on a grid, with the points ``also`` added, and then between neighbours. Ends win
        ties: nothing is gained by a penalty between them then.
        """
        if self.curve.rank == 0:
            return float("inf"), float(value(np.array([np.inf]))[0])
        inner = self._grid if also is None else np.union1d(self._grid, also)
        inner = inner[inner > lowest]
        grid = np.concatenate([[lowest], inner, [np.inf]])
        found = value(grid)
        ends = min((0, len(grid) - 1), key=lambda i: found[i])
        best, least = float(grid[ends]), float(found[ends])
        for at in _dips(found[1:-1]):
            left, right = np.log(inner[max(at - 1, 0)]), np.log(inner[min(at + 1, len(inner) - 1)])
            if at == 0 and lowest > 0:
                left = np.log(lowest)
            result = scipy.optimize.minimize_scalar(
                lambda x: float(value(np.array([np.exp(x)]))[0]),
                bounds=(left, right),
                method="bounded",
                options={"xatol": 1e-9},
            )
            if result.fun < least * (1 - _EQUAL):
                best, least = float(np.exp(result.x)), float(result.fun)
        return best, least


def _dips(values: Array) -> list[int]:
    """Where values are no larger than their neighbours."""
    padded = np.concatenate([[np.inf], values, [np.inf]])
    low = (padded[1:-1] <= padded[:-2]) & (padded[1:-1] <= padded[2:]) & np.isfinite(values)
    return [int(i) for i in np.flatnonzero(low)]


def _root(C: Array, sizes: Array, B: float, lam: float, low: float, high: float) -> float:
    """mu in [low, high] with B - df1(mu) = lambda / mu."""

    def missed(x: float) -> float:
        mu = exp(x)
        return float(B - (C / (C + mu)) @ sizes - lam / mu)

    # The bounds are exact; a hair wider they hold after rounding too.
    a, b = np.log(low) - 1e-9, np.log(high) + 1e-9
    if missed(a) >= 0:
        return float(low)
    if missed(b) <= 0:
        return float(high)
    return float(np.exp(scipy.optimize.brentq(missed, a, b, xtol=1e-15, rtol=1e-15)))


def _numbers(field: str, value: ArrayLike, *, finite: bool = True) -> Array:
    """``value`` as numbers >= 0, else InputError."""
    allowed = "finite numbers >= 0" if finite else "numbers in [0, inf]"
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        reject(field, value, allowed)
    if not ((found >= 0) & (np.isfinite(found) | (not finite))).all():
        reject(field, value, allowed)
    return found
