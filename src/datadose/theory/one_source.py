"""Err(V*) after SFT on one source at many numbers of prompts at once, in the eigenbasis of its data.

What :mod:`datadose.theory.equivalent` says for K = 1 where prompts impose no second condition, with C and A
spectra: a whole curve then costs as much as a few points of it. With f_j = q C_j / (1 + q C_j), r = rank(C):

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

from datadose.covariance import RELATIVE_ZERO, Array, diagonal, is_spectrum
from datadose.errors import InputError
from datadose.theory.equivalent import Columns

_STEPS = 200
_LAST_STEP = 1e-9
"""In log q. Newton doubles the digits: what is left is rounding."""


@dataclass(frozen=True, eq=False)
class OneSource:
    """The exact error / d as a function of the number of prompts alone.

    Args:
        V0: operator before SFT, spectrum (d,) or (d, d).
        eta: chain-of-thought step.
        columns: second moments C and A as spectra (d,), no pair; their count is not looked at.
        target: test covariance Sigma, spectrum (d,) or (d, d).
        test_second_moment: E[S^2] of the test prompts, in the form of ``target``.
    """

    V0: Array
    eta: float
    columns: Columns
    target: Array
    test_second_moment: Array

    def __post_init__(self) -> None:
        if self.columns.pair is not None or not is_spectrum(self.columns.second_moment):
            raise InputError("columns", "a pair or matrices", "spectra without label noise")

    @cached_property
    def _range(self) -> NDArray[np.bool_]:
        C = self.columns.second_moment
        return np.asarray(C > RELATIVE_ZERO * C.max())

    @cached_property
    def _start_products(self) -> tuple[Array, Array, Array]:
        """(V0^T V0) * M and V0 * M entry by entry, spectra where one of the two is; diag(V0^T Sigma)."""
        V0, M, own = self.V0, self.test_second_moment, diagonal(self.V0)
        if is_spectrum(V0) or is_spectrum(M):
            return self._norms * diagonal(M), own * diagonal(M), own * diagonal(self.target)
        return (V0.T @ V0) * M, V0 * M, (V0 * self.target).sum(axis=0)

    @cached_property
    def _norms(self) -> Array:
        """Squared norms of V0's columns."""
        return np.asarray(self.V0**2 if is_spectrum(self.V0) else (self.V0**2).sum(axis=0))

    def errors(self, counts: ArrayLike, *, margin: float = 0.0) -> Array:
        """(1/d) E ||I + V* S||_F^2 for each B >= 0 of ``counts`` (P,), which may be fractional; shape (P,).

        Infinite at the peak and within ``margin`` of it; means over finite prompts do not exist within 1.
        """
        B = np.asarray(counts, dtype=np.float64)
        r = int(self._range.sum())
        at_peak = (np.abs(B - r) <= max(margin, RELATIVE_ZERO * r)) & (B > 0) & (r > 0)
        B = np.where(at_peak, 0.0, B)
        q, R, kept, loop = self._solved(B, r)
        C, A, M = self.columns.second_moment, self.columns.cross, diagonal(self.test_second_moment)
        gram, start, linear = self._start_products
        fitted = -self.eta * q[:, None] * A * R
        own = diagonal(self.V0)
        if gram.ndim == 1:
            direct = kept**2 @ gram + 2 * (kept * fitted) @ start
        else:
            direct = ((kept @ gram) * kept).sum(axis=1) + 2 * ((kept @ start.T) * fitted).sum(axis=1)
        direct += fitted**2 @ M
        residual = kept**2 @ (C * self._norms) + 2 * (kept * fitted) @ (C * own) + fitted**2 @ C
        residual += 2 * self.eta * (kept @ (A * own) + fitted @ A)
        residual += (self.eta**2 + self.columns.noise) * len(C)
        leverage = np.divide(q**2 * (R**2 @ (C * M)), loop, out=np.zeros_like(q), where=B > 0)
        total = 2 * (kept @ linear + fitted @ diagonal(self.target)) + direct + leverage * residual
        return np.asarray(np.where(at_peak, np.inf, 1 + total / len(C)), dtype=np.float64)

    def _solved(self, B: Array, r: int) -> tuple[Array, Array, Array, Array]:
        """q (P,), R (P, d), K (P, d), and B - sum_j f_j^2 (P,) without cancellation near the peak."""
        C, inside = self.columns.second_moment, self._range
        above = r < B
        q = np.where(above, B - r, 0.0)
        below = ~above & (B > 0)
        if below.any():
            q[below] = _weights_below_peak(C[inside], B[below])
        scaled = q[:, None] * C
        R = np.where(
            above[:, None],
            np.divide(1.0, scaled, out=np.zeros_like(scaled), where=above[:, None] & inside),
            1 / (1 + scaled),
        )
        kept = np.where(above[:, None], ~inside, R)
        # f (1 - f) = q C R^2 below the peak.
        loop = np.where(above, B - r, (scaled * R**2).sum(axis=1))
        return q, R, kept, loop


def _weights_below_peak(C: Array, B: Array) -> Array:
    """q with sum_j q C_j / (1 + q C_j) = B, shape (P,), for 0 < B < r = len(C) and C > 0.

    Newton on log q for the log odds of B in r, which are nearly linear in it (for equal C exactly), kept
    inside a bracket that shrinks.
    """
    r = len(C)
    odds = np.log(B / (r - B))
    low, high = np.log(B / C.sum()), odds - np.log(C.min())
    x = np.clip(odds - np.log(C.mean()), low, high)
    for _ in range(_STEPS):
        scaled = np.exp(x)[:, None] * C
        free = 1 / (1 + scaled)
        filled = scaled * free
        F, U = filled.sum(axis=1), free.sum(axis=1)
        miss = np.log(F / U) - odds
        low, high = np.where(miss < 0, x, low), np.where(miss < 0, high, x)
        step = -miss * F * U / (r * (filled * free).sum(axis=1))
        moved = x + step
        x = np.where((moved > low) & (moved < high), moved, (low + high) / 2)
        if (np.abs(step) <= _LAST_STEP).all():
            return np.asarray(np.exp(moved), dtype=np.float64)
    raise InputError("prompts", B, f"numbers below the rank {r} that one source's fixed point is found for")
