"""Derivatives of the exact error in everything that a planner may change: counts, covariances, lengths, eta.

Err is the derivative at s = 0 of a generating function, so its gradient is the derivative in s of the
function's partial derivatives, by the envelope theorem (docs/derivations/sensitivity.md). With the notation
of :mod:`datadose.theory.equivalent` (features a, traces not divided by d, M = E[S_test^2]) and
L = sum_a q_a rho_a(V) + ||V - V0||^2 [below the peak] + s (2 tr(V Sigma) + tr(V M V^T)) at its stationary
point (pairs with noisy answers add their G_01), d Err = d + L'(0), where q(s) is the fixed point with s M
added to R^{-1}:

    q' = kappa(M),  R' = -R (M + sum_a kappa_a C_a) R,  V' = -(Sigma + V M + sum_a kappa_a X_a) R.

With y = H^{-1} dL/dx, x = log q and H the Hessian of the fixed point's potential, one has
dL/dB_c = sum of y over the source's features (pairs: times (1 + S)/(2S), and a direct term),
dL/dA_c = eta q_c (V + V^T), dL/dC_a = q_a [V^T V - y_a R + R (sum_e y_e q_e C_e) R]. One complex step in s
differentiates them all: a gradient costs a few evaluations of the error, whatever the number of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datadose.covariance import RELATIVE_ZERO, identity_like, trace, validate_operator
from datadose.errors import reject
from datadose.shapes import Array, Complex, Float, Operator
from datadose.theory.complex_step import (
    STEP,
    plus,
    product,
    trace_product,
    transposed,
    weighted,
)
from datadose.theory.equivalent import Equivalent
from datadose.theory.peaks import joint_basis
from datadose.theory.regimes import crossed


@dataclass(frozen=True)
class Sensitivity:
    """Partial derivatives of Err (divided by d, like Err), the other arguments held fixed."""

    counts: Float[Array, " K"]
    """dErr/dB_c, shape (K,): the effect of one more prompt of source c (negative: it helps)."""
    second_moments: tuple[Operator, ...]
    """dErr/dC_a of every feature, symmetric; the diagonal alone where the moments are spectra."""
    crosses: tuple[Operator, ...]
    """dErr/dA_c at fixed C_c, symmetric; the same form."""
    eta: float
    """dErr/d eta at fixed V0 and moments."""


def sensitivity(equivalent: Equivalent, target: Operator, test_second_moment: Operator) -> Sensitivity:
    """All derivatives of ``equivalent.error(target, test_second_moment)``.

    Directions in which no source has data have derivative 0 above the peak (rank changes are not smooth).
    Raises InputError where some sources are above their peak and others below (differentiate there by
    differences), and for a target or a second moment of another dimension.
    """
    for name, matrix in (("target", target), ("test_second_moment", test_second_moment)):
        validate_operator(name, matrix, len(equivalent.mean))
    if equivalent.is_mixed:
        reject("prompts", "sources on both sides of their peaks", "counts on one side of the peak")
    if any(c.weight != 1 for c in equivalent.columns):
        reject("weights", [c.weight for c in equivalent.columns], "1 for every source")
    if not equivalent.columns:
        return Sensitivity(np.zeros(0), (), (), 0.0)
    unit, equivalent = equivalent.unit, equivalent.measured
    M = test_second_moment / unit**2
    V, R, q = _ahead(equivalent, target / unit, M)
    features, loose = equivalent.features, bool(equivalent.above.any())
    moments, columns = features.moments, equivalent.columns
    y, root, cross = _multipliers(equivalent, V, _seen_by_roots(equivalent, M), q)
    scale = STEP * len(target)
    seen = _range_of_data(equivalent)

    inner = weighted(y * q, moments)
    if inner.ndim == 1 and V.ndim == 2:
        # Moments that stay spectra require diagonals only: O(d^2).
        R_whole = np.diag(R) if R.ndim == 1 else R
        VV, pulled, R = seen * (V * V).sum(axis=0), (R_whole * R_whole.T) @ inner, R_whole.diagonal()
        V_both = 2 * V.diagonal()
    else:
        VV, pulled = product(seen, transposed(V), V, seen), product(R, inner, R)
        V_both = plus(V, transposed(V))

    by_count, by_cross, eta = [], [], 0j
    noise = {place: pair.inverse[0, 1] for place, pair in features.pairs.items()}
    for place, c in zip(features.first, columns, strict=True):
        if place in noise:
            s = root[place]
            # The pair's residuals share answer noise: its trace enters L through G_01 alone.
            direct = -2 * c.noise * len(V) * noise[place] * cross[place] / s if loose else 0.0
            by_count.append((y[place] + y[place + 1]) * (1 + s) / (2 * s) + direct)
        else:
            by_count.append(y[place])
        by_cross.append(equivalent.eta * q[place] * product(seen, V_both, seen))
        eta += 2 * q[place] * (trace_product(c.cross, V) + equivalent.eta * len(V))
    by_moment = [qa * plus(VV, pulled, -ya * R) for qa, ya in zip(q, y, strict=True)]
    return Sensitivity(
        np.array([g.imag for g in by_count]) / scale,
        tuple(G.imag / (scale * unit**2) for G in by_moment),
        tuple(G.imag / (scale * unit) for G in by_cross),
        eta.imag / scale,
    )


def _range_of_data(equivalent: Equivalent) -> Array:
    """What second moments may change smoothly: everything, or the range of the data where R ends there."""
    P, R = joint_basis([c.span for c in equivalent.columns])[0], equivalent.resolvent
    if P.ndim > 1:
        P = P @ P.T
    beside = trace(R) - trace_product(R, P).real
    return identity_like(P) if beside > RELATIVE_ZERO * trace(R) else P


def _ahead(equivalent: Equivalent, target: Array, M: Array) -> tuple[Complex, Complex, Complex]:
    """V, R and q one complex step along s."""
    h, V0, R0 = 1j * STEP, equivalent.mean, equivalent.resolvent
    kappa = equivalent.leverages(M)
    features, reach = equivalent.features, equivalent.reach
    # X_a R through the roots, as below.
    through = [product(V0, F, transposed(Y)) for F, Y in zip(features.roots, reach, strict=True)]
    for place, c in zip(features.first, equivalent.columns, strict=True):
        through[place] = plus(through[place], equivalent.eta * crossed(c, R0, reach[place]))
    loop = [product(Y, transposed(Y)) for Y in reach]
    V = plus(V0, -h * plus(product(plus(target, product(V0, M)), R0), weighted(kappa, through)))
    R = plus(R0, -h * plus(product(R0, M, R0), weighted(kappa, loop)))
    return V, R, equivalent.weights + h * kappa


def _seen_by_roots(equivalent: Equivalent, M: Array) -> list[list[Complex]]:
    """F_a^T R F_b one complex step along s, F_a F_a^T = C_a.

    Products of whole matrices C_a R would lose the digits of small sources beside large ones.
    """
    roots, reach, kappa = equivalent.features.roots, equivalent.reach, equivalent.leverages(M)
    still = [[product(transposed(F), Y) for Y in reach] for F in roots]
    places = range(len(roots))

    def moved(a: int, b: int) -> Complex:
        through = weighted(kappa, [product(transposed(row[a]), row[b]) for row in still])
        return plus(still[a][b], -1j * STEP * plus(product(transposed(reach[a]), M, reach[b]), through))

    return [[moved(a, b) for b in places] for a in places]


def _multipliers(
    equivalent: Equivalent, V: Complex, seen: list[list[Complex]], q: Complex
) -> tuple[Complex, dict[int, complex], dict[int, complex]]:
    """y = H^{-1} dL/dx; S and G_01 of every pair by the place of its first feature."""
    features, d, loose = equivalent.features, len(V), bool(equivalent.above.any())
    counts = features.counts
    diagonal = [row[a] for a, row in enumerate(seen)]
    filled = q * np.array([X.sum() if X.ndim == 1 else X.trace() for X in diagonal])
    overlap = np.outer(q, q) * np.array([[(X**2).sum() for X in row] for row in seen])
    linear = np.full(len(q), float(loose))
    for place, pair in features.pairs.items() if loose else ():
        linear[place : place + 2] = pair.inverse.diagonal()
    H = np.diag(filled + linear * q) - overlap
    rho = np.array([trace_product(product(V, C), transposed(V)) for C in features.moments])
    root, cross = dict.fromkeys(features.pairs, 1.0 + 0j), dict.fromkeys(features.pairs, 0j)
    for place, c in zip(features.first, equivalent.columns, strict=True):
        inverse = np.ones((1, 1)) if c.pair is None else c.pair.inverse
        rho[place] += 2 * equivalent.eta * trace_product(c.cross, V) + equivalent.eta**2 * d
        rho[place] += c.noise * inverse[0, 0] * d
        if c.pair is not None:
            rho[place + 1] += c.noise * inverse[1, 1] * d
    pull = q * rho
    for place, c in zip(features.first, equivalent.columns, strict=True) if loose else ():
        if c.pair is None:
            continue
        own, B, P01 = slice(place, place + 2), counts[place], c.pair.inverse[0, 1]
        shared = q[place] * q[place + 1] / B**2
        # S and G_01 of eq. (28).
        s = np.sqrt(1 + 4 * P01**2 * shared)
        root[place], cross[place] = s, -2 * P01 * shared / (1 + s)
        H[own, own] -= B * (s * s - 1) / (4 * s)
        pull[own] += 2 * B * c.noise * d * P01 * cross[place] * (s + 1) / (2 * s)
    return np.linalg.solve(H, pull), root, cross
