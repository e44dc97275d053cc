"""Err(V*) after SFT on one source at many numbers of prompts at once, in the eigenbasis of its data.

What :mod:`datadose.theory.equivalent` states for K = 1 where prompts impose no second condition, with C and A
spectra: a whole curve then costs as much as a few points of it. Directions with one eigenvalue are counted
together, so two blocks cost what two directions cost. With f_j = q C_j / (1 + q C_j), r = rank(C):

- B < r: q solves sum_j f_j = B, R = (I + q C)^{-1}; B > r: q = B - r, R = (q C)^+
- Vbar = V0 K + F with spectra K, F: F = -eta q A R everywhere; K = R below the peak, and above it K = 1 off
  the range of C, 0 on it
- E[V* M V*^T] = Vbar M Vbar^T + kappa Res, kappa = (q^2/B) tr(C R M R) / (1 - sum_j f_j^2 / B), with
  Res = tr(Vbar C Vbar^T) + 2 eta tr(A Vbar) + (eta^2 + noise) d.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datadose.covariance import dense as as_matrix
from datadose.covariance import diagonal, is_spectrum
from datadose.errors import InputError
from datadose.shapes import Array, Float, Operator
from datadose.theory.columns import ALL_SMALL, FINITE_MEAN, SHORT, Columns, unit_of

_STEPS = 200
_LAST_STEP = 1e-7
"""In log q. Newton doubles the digits: what is left is rounding."""


@dataclass(frozen=True)
class Levels:
    """Sums over the directions that share one pair of eigenvalues (C, A); shapes (L,), or (L, L)."""

    C: Array
    A: Array
    sizes: Array
    norms: Array
    """The sums of the squared norms of V0's columns."""
    own: Array
    """The sums of V0's diagonal."""
    target: Array
    M: Array
    linear: Array
    """The sums of diag(V0^T Sigma)."""
    gram: Array
    """The sums of (V0^T V0) * M, entry by entry: (L,) if V0 or M is a spectrum."""
    start: Array
    """The sums of V0 * M, in the shape of ``gram``."""


@dataclass(frozen=True, eq=False)
class OneSource:
    """The exact error / d as a function of the number of prompts alone.

    Args:
        V0: operator before SFT, spectrum (d,) or (d, d).
        eta: chain-of-thought step.
        columns: second moments C and A as spectra (d,), no pair; their count is ignored.
        target: test covariance Sigma, spectrum (d,) or (d, d).
        test_second_moment: E[S^2] of the test prompts, in the form of ``target``.
        start_second_moment: E[V0^T V0] where V0 is the mean of a random start; V0^T V0 if not given.

    Raises InputError if ``columns`` are matrices or hold a pair.
    """

    V0: Operator
    eta: float
    columns: Columns
    target: Operator
    test_second_moment: Operator
    start_second_moment: Operator | None = None

    def __post_init__(self) -> None:
        if self.columns.pair is not None or not is_spectrum(self.columns.second_moment):
            raise InputError("columns", "a pair or matrices", "spectra without label noise")

    @cached_property
    def unit(self) -> float:
        """A power of two near the size of the covariances; 1 unless they are far from 1."""
        return unit_of([self.columns])

    @cached_property
    def levels(self) -> Levels:
        """The sums that errors are made of, in the unit of :attr:`unit`."""
        unit = self.unit
        C, A = self.columns.second_moment / unit**2 * self.columns.span, self.columns.cross / unit
        V0, target, M = self.V0 * unit, self.target / unit, self.test_second_moment / unit**2
        own, S0 = (
            diagonal(V0),
            None if self.start_second_moment is None else self.start_second_moment * unit**2,
        )
        starts_dense = not (is_spectrum(V0) and (S0 is None or is_spectrum(S0)))
        squared = V0**2 if is_spectrum(V0) else (V0**2).sum(axis=0)
        norms = squared if S0 is None else diagonal(S0)
        # Equal levels stand together once A is sorted; one that C splits is counted in parts.
        order = np.argsort(A)
        C, A = C[order], A[order]
        new = np.ones(len(A) + 1, dtype=bool)
        new[1:-1] = (A[1:] != A[:-1]) | (C[1:] != C[:-1])
        ends = np.flatnonzero(new)
        starts, sizes = ends[:-1], (ends[1:] - ends[:-1]).astype(np.float64)

        def summed_twice(values: Array) -> Array:
            return np.add.reduceat(np.add.reduceat(values[order][:, order], starts, axis=0), starts, axis=1)

        linear = (
            own * diagonal(target) if is_spectrum(V0) or is_spectrum(target) else (V0 * target).sum(axis=0)
        )
        spectra = [norms, own, diagonal(target), diagonal(M), linear, norms * diagonal(M), own * diagonal(M)]
        sums = np.add.reduceat(np.stack(spectra)[:, order], starts, axis=1)
        norms, own, sigma, second, linear, gram, start = sums
        if starts_dense and not is_spectrum(M):
            V0 = as_matrix(V0)
            gram, start = summed_twice((V0.T @ V0 if S0 is None else as_matrix(S0)) * M), summed_twice(V0 * M)
        return Levels(C[starts], A[starts], sizes, norms, own, sigma, second, linear, gram, start)

    @cached_property
    def rank(self) -> int:
        """The number of directions that the data span."""
        return int(self.columns.span.sum())

    def errors(self, counts: ArrayLike) -> Float[Array, " P"]:
        """(1/d) E ||I + V* S||_F^2 for each B >= 0 of ``counts`` (P,), which may be fractional; shape (P,).

        Infinite where the mean over finite prompts is (:func:`infinite_mean`). Without prompts, and without
        data, it is the error at V0.
        """
        B, L = np.asarray(counts, dtype=np.float64), self.levels
        infinite = infinite_mean(B, self.rank, self.columns.length)
        B = np.where(infinite, 0.0, B)
        q, R, kept, loop = self._solved(B)
        fitted = -self.eta * q[:, None] * L.A * R
        bias, residual = self.parts(kept, fitted)
        leverage = np.divide(q**2 * (R**2 @ (L.C * L.M)), loop, out=np.zeros_like(q), where=B > 0)
        total = bias + leverage * residual
        return np.asarray(np.where(infinite, np.inf, 1 + total / len(self.columns.cross)), dtype=np.float64)

    def parts(self, kept: Float[Array, "P L"], fitted: Float[Array, "P L"]) -> tuple[Array, Array]:
        """Of Vbar = V0 K + F: 2 tr(Vbar Sigma) + tr(Vbar M Vbar^T) (P,) and tr Res (P,), both times d.

        ``kept`` K and ``fitted`` F are spectra by level, (P, L), in the unit of the levels.
        """
        L, d = self.levels, len(self.columns.cross)
        direct = fitted**2 @ L.M
        if L.gram.ndim == 1:
            direct += kept**2 @ L.gram + 2 * (kept * fitted) @ L.start
        else:
            direct += ((kept @ L.gram) * kept).sum(axis=1) + 2 * ((kept @ L.start.T) * fitted).sum(axis=1)
        residual = (
            kept**2 @ (L.C * L.norms) + 2 * (kept * fitted) @ (L.C * L.own) + fitted**2 @ (L.C * L.sizes)
        )
        residual += 2 * self.eta * (kept @ (L.A * L.own) + fitted @ (L.A * L.sizes))
        residual += (self.eta**2 + self.columns.noise) * d
        return 2 * (kept @ L.linear + fitted @ L.target) + direct, residual

    def _solved(self, B: Array) -> tuple[Array, Array, Array, Array]:
        """q (P,), R (P, L), K (P, L), and B - sum_j f_j^2 (P,) without cancellation near the peak."""
        C, sizes, r = self.levels.C, self.levels.sizes, self.rank
        inside = C > 0
        above = r < B
        q = np.where(above, B - r, 0.0)
        below = ~above & (B > 0)
        if below.any():
            q[below] = weights_below_peak(C[inside], sizes[inside], B[below])
        scaled = q[:, None] * C
        R = np.where(
            above[:, None],
            np.divide(1.0, scaled, out=np.zeros_like(scaled), where=above[:, None] & inside),
            1 / (1 + scaled),
        )
        kept = np.where(above[:, None], ~inside, R)
        # f (1 - f) = q C R^2 below the peak.
        loop = np.where(above, B - r, (scaled * R**2) @ sizes)
        return q, R, kept, loop


def infinite_mean(B: ArrayLike, rank: int, length: float) -> NDArray[np.bool_]:
    """Whether the mean error over finite prompts of one noise-free source is infinite, in the shape of ``B``.

    That is so within 1 of the peak at ``rank``; from 1 to ``rank`` prompts of one or two examples
    (``length`` n); and with up to four examples in all on one direction.
    """
    B = np.asarray(B)
    found = np.abs(B - rank) <= FINITE_MEAN
    if length <= SHORT:
        found |= (B >= 1) & (rank >= B)
    if rank == 1:
        found |= length * B <= ALL_SMALL
    return np.asarray(found & (B > 0) & (rank > 0))


def weights_below_peak(
    C: Float[Array, " L"], sizes: Float[Array, " L"], B: Float[Array, " P"]
) -> Float[Array, " P"]:
    """q with sum_l m_l q C_l / (1 + q C_l) = B, shape (P,), for 0 < B < r = sum_l m_l, sizes m and C > 0.

    Newton on log q for the log odds of B in r, which are nearly linear in it (for equal C exactly), kept
    inside a bracket that shrinks.
    """
    r = sizes.sum()
    odds = np.log(B / (r - B))
    low, high = np.log(B / (C @ sizes)), odds - np.log(C.min())
    x = np.clip(odds - np.log(C @ sizes / r), low, high)
    for _ in range(_STEPS):
        scaled = np.exp(x)[:, None] * C
        free = 1 / (1 + scaled)
        filled = scaled * free
        F, U = filled @ sizes, free @ sizes
        miss = np.log(F / U) - odds
        low, high = np.where(miss < 0, x, low), np.where(miss < 0, high, x)
        step = -miss * F * U / (r * ((filled * free) @ sizes))
        moved = x + step
        x = np.where((moved > low) & (moved < high), moved, (low + high) / 2)
        if (np.abs(step) <= _LAST_STEP).all():
            return np.asarray(np.exp(moved), dtype=np.float64)
    raise InputError("prompts", B, f"numbers below the rank {r:g} that one source's fixed point is found for")
