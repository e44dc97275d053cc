"""Deterministic equivalent of ridgeless regression from an arbitrary start on K sources of columns.

The general theorem behind every `exact` form (docs/derivations/exact_asymptotics.md). Source c contributes
B_c columns (w, phi) with E[phi phi^T] = C_c, E[w phi^T] = A_c, E[w w^T] = I. V* is the matrix nearest to V0
that best fits V phi = -eta w. In the proportional limit, with tr not divided by d:

- B < rank:  q_c = B_c / tr(C_c R),        R = (I + sum_c q_c C_c)^{-1},  Vbar = (V0 - eta sum_c q_c A_c) R
- B > rank:  q_c = B_c / (1 + tr(C_c R)),  R = (sum_c q_c C_c)^+,        Vbar = -eta sum_c q_c A_c R (+ V0 off
  the range)
- E[V* M V*^T] = Vbar M Vbar^T + sum_c kappa_c(M) Res_c for symmetric M, where Res_c is the covariance of the
  residual V phi + eta w of source c at Vbar, and the leverages solve the K x K system
  kappa_c = (q_c^2/B_c) [tr(C_c R M R) + sum_e kappa_e tr(C_c R C_e R)].

With spectra all of it is elementwise: O(K d) a Newton step. The fixed point is the minimum of a convex
function of x_c = log q_c, so Newton's method with backtracking finds it from any start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datadose.covariance import (
    RELATIVE_ZERO,
    Array,
    identity_like,
    inverse,
    is_spectrum,
    product,
    pseudo_inverse,
    range_projector,
    rank,
    trace,
    trace_product,
    transpose,
)
from datadose.errors import InputError


class PeakError(InputError):
    """The mean error is infinite here: the number of prompts equals the rank of the data."""


@dataclass(frozen=True)
class Columns:
    """One source of columns: their number B_c (real, >= 0) and second moments, all in one form."""

    count: float
    second_moment: Array
    """C_c = E[phi phi^T]."""
    cross: Array
    """A_c = E[w phi^T], symmetric."""


@dataclass(frozen=True)
class Equivalent:
    """Vbar, R, the weights q_c and the residual traces of the theorem above."""

    mean: Array
    resolvent: Array
    weights: Array
    residual_traces: Array
    """tr Res_c, not divided by d."""
    columns: tuple[Columns, ...]

    def leverages(self, M: Array) -> Array:
        """kappa_c(M) for a symmetric M, shape (K,); not divided by d."""
        if not self.columns:
            return np.zeros(0)
        R = self.resolvent
        CR = [product(c.second_moment, R) for c in self.columns]
        RMR = product(R, M, R)
        scale = self.weights**2 / np.array([c.count for c in self.columns])
        direct = np.array([trace_product(c.second_moment, RMR) for c in self.columns])
        overlap = np.array([[trace_product(X, Y) for Y in CR] for X in CR])
        return np.linalg.solve(np.eye(len(CR)) - scale[:, None] * overlap, scale * direct)

    def quadratic(self, M: Array) -> float:
        """(1/d) E tr(V* M V*^T) for a symmetric M."""
        direct = trace_product(product(self.mean, M), transpose(self.mean))
        return (direct + float(self.leverages(M) @ self.residual_traces)) / len(M)

    def error(self, target: Array, test_second_moment: Array) -> float:
        """(1/d) E ||I + V* S||_F^2 with E[S] = ``target``, E[S^2] = ``test_second_moment`` (Prop 5.1)."""
        return 1 + 2 * trace_product(self.mean, target) / len(target) + self.quadratic(test_second_moment)


def deterministic_equivalent(V0: Array, eta: float, sources: Sequence[Columns]) -> Equivalent:
    """The equivalent of V* started at ``V0`` on ``sources`` (zero-count sources are ignored).

    ``V0`` and all moments have one form (spectra or dense). Raises :class:`PeakError` where the total count
    equals the rank of sum_c C_c.
    """
    sources = tuple(source for source in sources if source.count > 0)
    if not sources:
        return Equivalent(V0, identity_like(V0), np.zeros(0), np.zeros(0), ())
    total = sum(source.count for source in sources)
    mixed = sum((source.count * source.second_moment for source in sources), np.zeros_like(V0))
    dimensions = rank(mixed)
    if abs(total - dimensions) < RELATIVE_ZERO * dimensions:
        raise PeakError(
            "prompts", f"{total:g}", f"any number but rank(A) = {dimensions}: the mean is infinite"
        )
    if total < dimensions:
        q, R = _fixed_point(sources, identity_like(V0), 0.0, dimensions)
        mean = product(V0 - eta * _weighted(q, [s.cross for s in sources]), R)
    else:
        q, R = _fixed_point(sources, None, 1.0, dimensions)
        off_range = identity_like(V0) - range_projector(mixed)
        mean = product(V0, off_range) - eta * product(_weighted(q, [s.cross for s in sources]), R)
    residuals = [_residual_trace(mean, eta, source) for source in sources]
    return Equivalent(mean, R, q, np.array(residuals), sources)


def _residual_trace(mean: Array, eta: float, source: Columns) -> float:
    """tr Res_c = tr(Vbar C Vbar^T) + 2 eta tr(A Vbar^T) + eta^2 d: what Vbar still gets wrong there."""
    fitted = trace_product(product(mean, source.second_moment), transpose(mean))
    return fitted + 2 * eta * trace_product(source.cross, mean) + eta**2 * len(mean)


def _weighted(q: Array, matrices: Sequence[Array]) -> Array:
    return sum((qc * M for qc, M in zip(q, matrices, strict=True)), np.zeros_like(matrices[0]))


def _fixed_point(
    sources: Sequence[Columns], ridge: Array | None, loose: float, dimensions: int
) -> tuple[Array, Array]:
    """Minimise loose * sum e^x + log det(ridge + sum e^x C) - sum B x over x = log q; returns q, R.

    ``ridge`` is the identity below the peak (``loose`` = 0) and absent above it (``loose`` = 1).
    """
    moments = [source.second_moment for source in sources]
    counts = np.array([source.count for source in sources])
    x = np.log(counts / np.array([trace(C) for C in moments]))
    value, R = _potential(x, moments, counts, ridge, loose)
    for _ in range(200):
        q = np.exp(x)
        CR = [qc * product(C, R) for qc, C in zip(q, moments, strict=True)]
        filled = np.array([trace(X) for X in CR])
        gradient = loose * q + filled - counts
        if ridge is not None and counts.sum() > dimensions / 2:
            # Near the peak sum_c q_c tr(C_c R) = rank - tr(R on the range) loses its digits to cancellation;
            # the right-hand side keeps them.
            unfilled = trace(R) - (len(R) - dimensions)
            exact_sum = (dimensions - counts.sum()) - unfilled
            gradient += filled / filled.sum() * (exact_sum - gradient.sum())
        overlap = np.array([[trace_product(X, Y) for Y in CR] for X in CR])
        step = -np.linalg.solve(np.diag(loose * q + filled) - overlap, gradient)
        largest = np.abs(step).max()
        step *= min(1.0, 8.0 / largest) if largest > 0 else 0.0
        slope, size = float(gradient @ step), 1.0
        while True:
            candidate, candidate_R = _potential(x + size * step, moments, counts, ridge, loose)
            # The last term lets full steps through once the decrease is below rounding.
            if candidate <= value + 1e-4 * size * slope + 1e-12 * abs(value) or size < 1e-9:
                break
            size /= 2
        x, value, R = x + size * step, candidate, candidate_R
        # Newton doubles the digits: a step of 1e-9 leaves an error at rounding.
        if largest <= 1e-9 or np.abs(gradient).max() <= np.finfo(np.float64).eps * counts.sum():
            # A direction that R lost as numerically zero would pass as converged with unequal counts.
            if np.abs(gradient).max() <= 1e-6 * counts.sum():
                return np.exp(x), R
            break
    raise InputError(
        "prompts",
        counts,
        "numbers that put every group of sources on one side of the peak: all groups with fewer prompts than "
        "the rank that they span, or all with more than the rank that the others leave",
    )


def _potential(
    x: Array, moments: Sequence[Array], counts: Array, ridge: Array | None, loose: float
) -> tuple[float, Array]:
    """The convex potential and R at x."""
    mixed = _weighted(np.exp(x), moments)
    if ridge is not None:
        mixed = mixed + ridge
    spectrum = mixed if is_spectrum(mixed) else np.linalg.eigvalsh(mixed)
    positive = spectrum[spectrum > RELATIVE_ZERO * spectrum.max()]
    R = inverse(mixed) if ridge is not None else pseudo_inverse(mixed)
    return float(loose * np.exp(x).sum() + np.log(positive).sum() - counts @ x), R
