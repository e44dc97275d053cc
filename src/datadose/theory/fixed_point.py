"""The fixed point of the deterministic equivalent: q_a of every feature, by Newton's method on log q.

Features are independent columns phi of one source, or the two of a prompt with noisy labels (a pair). With
x = log q the fixed points of :mod:`datadose.theory.equivalent` are the stationary points of

    psi(x) = sum of loose terms + log det(ridge I + sum_a e^{x_a} C_a) - sum_a B_a x_a,

where a lone feature's loose term is e^x and a pair's, with P = O^{-1} and
s = sqrt(1 + 4 P_01^2 q_1 q_2 / B^2), is P_00 q_1 + P_11 q_2 + B [log((1 + s)/2) - (1 + s) + 2]; interpolation
(below the peak) has none of them and ridge = 1. psi is convex but for a pair's last part, which is dropped
from the Hessian where it would spoil it.
Derivation: docs/derivations/exact_asymptotics.md, sections 6 and 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from datadose.covariance import RELATIVE_ZERO, Array, is_spectrum, product, trace
from datadose.errors import InputError


class NoFixedPointError(InputError):
    """The counts belong to another regime."""


@dataclass(frozen=True)
class Regime:
    """Which equations hold: ``ridge`` on the diagonal, loose terms or not, and the rank of all data."""

    ridge: float
    loose: bool
    rank: int


@dataclass(frozen=True)
class Coupling:
    """The features ``first`` and ``first + 1`` come from the same prompts; P = O^{-1}."""

    first: int
    inverse: NDArray[np.float64]

    def root(self, q: Any, counts: Any) -> Any:
        """S = sqrt(1 + 4 P_01^2 q_1 q_2 / B^2); q may be complex."""
        i = self.first
        return np.sqrt(1 + 4 * self.inverse[0, 1] ** 2 * q[i] * q[i + 1] / counts[i] ** 2)

    def off_diagonal(self, q: Any, counts: Any) -> Any:
        """G_01 of the pair."""
        i = self.first
        shared = q[i] * q[i + 1] / counts[i] ** 2
        return -2 * self.inverse[0, 1] * shared / (1 + self.root(q, counts))


@dataclass(frozen=True)
class Features:
    """All features of all sources, in order."""

    counts: Array
    moments: tuple[Array, ...]
    first: NDArray[np.int64]
    """The place of each source's phi."""
    couplings: tuple[Coupling, ...]

    @classmethod
    def of(cls, sources: Sequence[tuple[float, Array, tuple[Array, NDArray[np.float64]] | None]]) -> Features:
        """From (count, C, pair) a source, where pair is (C_h, O) or None."""
        counts: list[float] = []
        moments: list[Array] = []
        first: list[int] = []
        couplings: list[Coupling] = []
        for count, second_moment, pair in sources:
            first.append(len(counts))
            counts.append(count)
            moments.append(second_moment)
            if pair is not None:
                couplings.append(
                    Coupling(len(counts) - 1, np.asarray(np.linalg.inv(pair[1]), dtype=np.float64))
                )
                counts.append(count)
                moments.append(pair[0])
        places = np.array(first, dtype=np.int64)
        return cls(np.array(counts, dtype=np.float64), tuple(moments), places, tuple(couplings))

    def subset(self, chosen: NDArray[np.bool_], basis: Array | None = None) -> Features:
        """The chosen features seen through ``basis``, a 0/1 spectrum or a matrix (d, r); pairs stay whole."""
        place = np.cumsum(chosen) - 1
        moments = tuple(_seen(C, basis) for C, keep in zip(self.moments, chosen, strict=True) if keep)
        first = place[self.first[chosen[self.first]]]
        couplings = tuple(replace(c, first=int(place[c.first])) for c in self.couplings if chosen[c.first])
        return Features(self.counts[chosen], moments, first, couplings)

    def mixed(self, weights: Array | None = None) -> Array:
        """sum_a weight_a C_a (weights: the counts)."""
        weights = self.counts if weights is None else weights
        start = np.zeros_like(self.moments[0])
        return sum((w * C for w, C in zip(weights, self.moments, strict=True)), start)

    def gain(self, q: Array, loose: NDArray[np.bool_]) -> Array:
        """G, block diagonal (F, F), G_aa = q_a / B_a; ``loose`` marks the over-determined features."""
        found = np.diag(q / self.counts)
        for pair in self.couplings:
            i = pair.first
            if not loose[i]:
                continue
            found[i, i + 1] = found[i + 1, i] = pair.off_diagonal(q, self.counts)
        return found

    def loose_linear(self, loose: bool) -> Array:
        """The coefficients of q in the loose terms: 1, P_00 or P_11; 0 without loose terms."""
        found = np.full(len(self.counts), float(loose))
        for pair in self.couplings if loose else ():
            found[pair.first : pair.first + 2] = pair.inverse.diagonal()
        return found


def _seen(C: Array, basis: Array | None) -> Array:
    if basis is None:
        return C
    return product(basis, C) if is_spectrum(basis) else basis.T @ C @ basis


def solve_fixed_point(
    features: Features,
    regime: Regime,
    identity: Array,
    *,
    start: Array | None = None,
    tolerance: float = 1e-9,
) -> tuple[Array, Array]:
    """q and R = (ridge I + sum_a q_a C_a)^{-1} (pseudo-inverse without a ridge).

    ``identity`` has the form and size of the moments, ``start`` is where q begins, ``tolerance`` the last
    step in log q. Raises NoFixedPointError if there is none: the counts are not of this regime.
    """
    counts = features.counts
    linear = features.loose_linear(regime.loose)
    x = np.log(counts / np.array([trace(C) for C in features.moments]) if start is None else start)
    value, R = _potential(x, features, regime, linear, identity)
    for _ in range(200):
        q = np.exp(x)
        CR = np.stack([qa * product(C, R) for qa, C in zip(q, features.moments, strict=True)])
        filled = CR.sum(axis=1) if is_spectrum(R) else CR.trace(axis1=1, axis2=2)
        gradient = linear * q + filled - counts
        curvature = np.diag(linear * q + filled) - _traces_of_products(CR)
        bent = np.zeros_like(curvature)
        for pair in features.couplings if regime.loose else ():
            own, s, B = slice(pair.first, pair.first + 2), pair.root(q, counts), counts[pair.first]
            gradient[own] -= B * (s - 1) / 2
            bent[own, own] = -B * (s * s - 1) / (4 * s)
        if not regime.loose and counts.sum() > regime.rank / 2:
            # Near the peak sum_c q_c tr(C_c R) = rank - tr(R on the range) loses its digits to cancellation;
            # the right-hand side keeps them.
            unfilled = trace(R) - (len(R) - regime.rank)
            exact_sum = (regime.rank - counts.sum()) - unfilled
            gradient += filled / filled.sum() * (exact_sum - gradient.sum())
        step = -_solve_positive(curvature, bent, gradient)
        largest = np.abs(step).max()
        step *= min(1.0, 8.0 / largest) if largest > 0 else 0.0
        slope, size = float(gradient @ step), 1.0
        while True:
            candidate, candidate_R = _potential(x + size * step, features, regime, linear, identity)
            # The last term lets full steps through once the decrease is below rounding; psi itself may be
            # near zero while its terms are of the size of the counts.
            rounding = 1e-12 * (abs(value) + counts.sum())
            if candidate <= value + 1e-4 * size * slope + rounding or size < 1e-9:
                break
            size /= 2
        x, value, R = x + size * step, candidate, candidate_R
        # Newton doubles the digits: a step of 1e-9 leaves an error at rounding.
        if largest <= tolerance or np.abs(gradient).max() <= np.finfo(np.float64).eps * counts.sum():
            # A direction that R lost as numerically zero would pass as converged with unequal counts.
            if np.abs(gradient).max() <= max(1e-6, tolerance) * counts.sum():
                return np.exp(x), R
            break
    raise NoFixedPointError("prompts", counts, "numbers of prompts away from the peaks of the sources")


def _traces_of_products(X: Array) -> Array:
    """tr(X_a X_b), shape (F, F), for spectra (F, d) or matrices (F, d, d)."""
    flat = X.reshape(len(X), -1)
    return flat @ (flat if X.ndim == 2 else X.transpose(0, 2, 1).reshape(len(X), -1)).T


def _solve_positive(curvature: Array, bent: Array, gradient: Array) -> Array:
    """(curvature + bent)^{-1} gradient where that is positive definite, else without ``bent``."""
    if bent.any():
        try:
            return np.asarray(cho_solve(cho_factor(curvature + bent), gradient))
        except np.linalg.LinAlgError:
            pass
    return np.asarray(np.linalg.solve(curvature, gradient), dtype=np.float64)


def _potential(
    x: Array, features: Features, regime: Regime, linear: Array, identity: Array
) -> tuple[float, Array]:
    """psi and R at x."""
    q, counts = np.exp(x), features.counts
    log_det, R = _log_det_inverse(features.mixed(q), regime.ridge, identity)
    value = float(linear @ q) + log_det - float(counts @ x)
    for pair in features.couplings if regime.loose else ():
        s = pair.root(q, counts)
        value += float(counts[pair.first] * (np.log((1 + s) / 2) - s + 1))
    return value, R


def _log_det_inverse(mixed: Array, ridge: float, identity: Array) -> tuple[float, Array]:
    """log det and inverse of ridge I + mixed; on the range of mixed alone without a ridge."""
    M = mixed + ridge * identity
    if is_spectrum(M):
        keep = M > (RELATIVE_ZERO * M.max() if ridge == 0 else 0.0)
        return float(np.log(M[keep]).sum()), np.divide(1.0, M, out=np.zeros_like(M), where=keep)
    if ridge == 0:
        values, vectors = np.linalg.eigh(M)
        keep = values > RELATIVE_ZERO * values[-1]
        R = (vectors[:, keep] / values[keep]) @ vectors[:, keep].T
        return float(np.log(values[keep]).sum()), np.asarray(R)
    factor = cho_factor(M, check_finite=False)
    R = cho_solve(factor, np.eye(len(M)), check_finite=False)
    return float(2 * np.log(factor[0].diagonal()).sum()), (R + R.T) / 2
