"""The O(1/d) correction to the exact asymptotic error of V* (docs/derivations/finite_size.md).

A one-loop expansion around :mod:`datadose.theory.equivalent`, at the rigour of statistical physics: checked
by identities and by simulation, with no error bound proved.

Notation, no trace divided by d. Source c gives B_c prompts of length n_c and covariance A_c, T_c = tr A_c
and C_c = (1 + 1/n_c) A_c^2 + (T_c/n_c) A_c. Sigma is the test covariance, M = E[S_test^2]. V, R and q_c are
the equivalent's mean, resolvent and weights, kappa_c = kappa_c(M) its leverages. For the residual
r = V phi + eta w of a prompt of source c, X_c = E[r phi^T] = V C_c + eta A_c and rho_c = E||r||^2;
Gamma_ce = (q_c^2/B_c) tr(C_c R C_e R). Err(V*) is the derivative of a generating function at s = 0 along

    q' = kappa,  R' = -R (M + sum_c kappa_c C_c) R,  V' = -(Sigma + V M + sum_c kappa_c X_c) R

(the same below and above the peak), and the two corrections are derivatives along the same path:

- Gaussian: the fluctuations of prompts with these second moments and (w, phi) jointly Gaussian;
- law: the fourth moments that the true (w, phi) has beyond the Gaussian's, since phi = S w is a product.

With spectra all of it is elementwise: O(K^2 d).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from datadose.covariance import dense, same_form, trace, validate_covariance, wishart_second_moment
from datadose.errors import reject, require_integer, require_number
from datadose.shapes import Array, Complex, Operator
from datadose.theory.complex_step import (
    STEP,
    Either,
    product,
    trace_product,
    transposed,
    weighted,
)
from datadose.theory.equivalent import Columns, Equivalent

_LOST = 1e-7
"""Relative error of tr(C_c R C_e R) from which the correction for matrices is refused."""


@dataclass(frozen=True)
class FiniteSize:
    """Err(V*) minus its asymptotic form, to first order in 1/d; both parts are divided by d, like Err."""

    gaussian: float
    """The part from the fluctuations that Gaussian prompts have too."""
    law: float
    """The part from the fourth moments of the prompts beyond the Gaussian's."""

    @property
    def total(self) -> float:
        """The sum of both parts, which is added to the asymptotic error / d."""
        return self.gaussian + self.law


def finite_size_correction(
    equivalent: Equivalent, eta: float, lengths: Sequence[int], target: Operator, test_length: int
) -> FiniteSize:
    """The O(1/d) term of Err(V*) / d: (1/d) [g_G'(0) + g_L'(0)], g_G in `_gaussian` and g_L in `_law`.

    Err(V*) = ``equivalent.error`` + ``total`` + O(1/d^2). An expansion in 1/|B - rank|, 1/n and
    tr(A^2)/(tr A)^2: trust it while ``total`` is below about a fifth of the error.

    Args:
        equivalent: of V* on noise-free prompts (C_c as in the module docstring).
        eta: chain-of-thought step, the one of ``equivalent``.
        lengths: n_c of each of ``equivalent.columns`` (sources with no prompts are not among them).
        target: test covariance Sigma, spectrum (d,) or PSD (d, d).
        test_length: length of the test prompts.

    Raises:
        PeakError: the mean error is infinite, where 1/|B - rank| is no longer below 1: the prompts of all or
            of some sources are within 1 of the rank that they span, or prompts of length 1 or 2 interpolated.
        InputError: a value out of range, not one length for each column, noisy prompts, sources on both
            sides of their peaks, or matrices whose sizes are so far apart that no digits are left.
    """
    require_number("eta", eta, 0, 2, open_ends=True)
    target = validate_covariance("target", target, len(equivalent.mean))
    test_length = require_integer("test_length", test_length, 1)
    lengths = [require_integer("length", n, 1) for n in lengths]
    if len(lengths) != len(equivalent.columns):
        reject("lengths", f"{len(lengths)} lengths", f"{len(equivalent.columns)}, one for each source in use")
    if not lengths:
        return FiniteSize(0.0, 0.0)
    equivalent.require_finite()
    if any(c.noise > 0 or c.pair is not None for c in equivalent.columns):
        reject("finite_size", "noisy prompts", "noise-free prompts: the correction is derived for them alone")
    if equivalent.is_mixed:
        reject("finite_size", "sources on both sides of their peaks", "counts on one side of the peak")
    target, equivalent = target / equivalent.unit, equivalent.measured
    M = wishart_second_moment(target, test_length)
    if max(target.ndim, equivalent.mean.ndim) > equivalent.resolvent.ndim:
        columns = tuple(c.dense() for c in equivalent.columns)
        mean, R = dense(equivalent.mean), dense(equivalent.resolvent)
        equivalent = replace(equivalent, mean=mean, columns=columns, resolvent=R)
    target, M, _ = same_form(target, M, equivalent.mean)
    point = _Point.ahead(equivalent, eta, target, M)
    _require_digits(equivalent, point)
    scale = STEP * len(target)
    return FiniteSize(_gaussian(point).imag / scale, _law(point, lengths).imag / scale)


def _require_digits(equivalent: Equivalent, point: _Point) -> None:
    """InputError where products of whole matrices have lost the digits that the equivalent's roots keep."""
    kept = equivalent.overlap
    lost = np.abs(point.overlap.real - kept) / np.sqrt(np.outer(kept.diagonal(), kept.diagonal()))
    if lost.max() > _LOST:
        reject(
            "finite_size",
            f"matrices that lose digits (relative error {lost.max():.1g})",
            "covariances less far apart in size, or spectra, which keep all digits",
        )


@dataclass(frozen=True)
class _Point:
    """The equivalent at s = i * STEP, and how it answers to a second source term: eps ||r||^2 a prompt."""

    eta: float
    columns: tuple[Columns, ...]
    q: Complex
    R: Complex
    V: Complex
    X: list[Either]
    """X_c = V C_c + eta A_c."""
    CR: list[Either]
    """C_c R."""
    scale: Complex
    """q_c^2 / B_c, shape (K,)."""
    overlap: Complex
    """tr(C_c R C_e R), shape (K, K)."""
    dq: Complex
    """dq/deps = -(I - Gamma)^{-1} [(q^2/B) rho], shape (K,)."""
    moved: Complex
    """dR/deps = -R (sum_c dq_c C_c) R."""

    @classmethod
    def ahead(cls, equivalent: Equivalent, eta: float, target: Array, M: Array) -> _Point:
        """The point one complex step along the path of the module docstring."""
        columns, h = equivalent.columns, 1j * STEP
        C, A = [c.second_moment for c in columns], [c.cross for c in columns]
        V0, R0, kappa = equivalent.mean, equivalent.resolvent, equivalent.leverages(M)
        X0 = [product(V0, Cc) + eta * Ac for Cc, Ac in zip(C, A, strict=True)]
        q = equivalent.weights + h * kappa
        R = R0 - h * product(R0, M + weighted(kappa, C), R0)
        V = V0 - h * product(target + product(V0, M) + weighted(kappa, X0), R0)
        X = [product(V, Cc) + eta * Ac for Cc, Ac in zip(C, A, strict=True)]
        CR = [product(Cc, R) for Cc in C]
        scale = q**2 / np.array([c.count for c in columns])
        overlap = np.array([[trace_product(Y, Z) for Z in CR] for Y in CR])
        # rho = tr(V C V^T) + 2 eta tr(V A) + eta^2 d = tr(X V^T) + eta tr(V A) + eta^2 d.
        rho = np.array(
            [
                trace_product(Xc, transposed(V)) + eta * trace_product(V, Ac) + eta**2 * len(V)
                for Xc, Ac in zip(X, A, strict=True)
            ]
        )
        dq = -np.linalg.solve(np.eye(len(C)) - scale[:, None] * overlap, scale * rho)
        return cls(eta, columns, q, R, V, X, CR, scale, overlap, dq, -product(R, weighted(dq, C), R))


def _gaussian(point: _Point) -> complex:
    """g_G = -tr[(I - Gamma)^{-1} (diag(q^2/B) omega + (1/2) dGamma/deps)], omega_ce = tr(R X_e^T X_c).

    The derivative in eps of the one-loop term (1/2) log det(I - Gamma): omega is the direct part, dGamma the
    part through the fixed point. Not divided by d.
    """
    counts = np.array([c.count for c in point.columns])
    XR = [product(X, point.R) for X in point.X]
    omega = np.array([[trace_product(Y, transposed(Z)) for Z in point.X] for Y in XR])
    CdR = [product(c.second_moment, point.moved) for c in point.columns]
    # tr(C_c dR C_e R) = tr(C_c R C_e dR): the matrices are symmetric.
    shifted = 2 * np.array([[trace_product(Y, Z) for Z in point.CR] for Y in CdR])
    dGamma = (2 * point.q * point.dq / counts)[:, None] * point.overlap + point.scale[:, None] * shifted
    loop = np.eye(len(counts)) - point.scale[:, None] * point.overlap
    return -complex(np.trace(np.linalg.solve(loop, point.scale[:, None] * omega + dGamma / 2)))


@dataclass(frozen=True)
class _Form:
    """What the excess covariance of a quadratic form in one prompt's (phi, w) needs of it: three traces."""

    g: complex
    h: complex
    m: complex


def _law(point: _Point, lengths: Sequence[int]) -> complex:
    """g_L = -sum_c [(q^2/B) D(a, b) + dq (q/B) D(a, a) + (q^2/B) D(a, da)], the derivative in eps of
    -sum_c (q_c^2 / 2 B_c) D_c(a, a).

    D_c(f, f') is the covariance of two forms in one prompt of source c beyond its Gaussian value; a stands
    for phi^T R phi, b for ||V phi + eta w||^2 and da for phi^T (dR/deps) phi. Not divided by d.
    """
    total = 0j
    V, Vt = point.V, transposed(point.V)
    for c, n, q, dq in zip(point.columns, lengths, point.q, point.dq, strict=True):
        A, B, eta = c.cross, c.count, point.eta
        A2 = product(A, A)
        A3 = product(A2, A)
        VA, VA2 = product(V, A), product(V, A2)
        a = _phi_form(point.R, A, A2, A3, n)
        da = _phi_form(point.moved, A, A2, A3, n)
        # With Z = V A + eta I: g = tr(Z A V^T), h = tr(V A V^T) / n, m = tr(Z A Z^T).
        b = _Form(
            trace_product(VA2, Vt) + eta * trace_product(V, A),
            trace_product(VA, Vt) / n,
            trace_product(VA2, transposed(VA)) + 2 * eta * trace_product(V, A2) + eta**2 * trace(A),
        )
        excess = [_excess(a, other, trace(A), trace_product(A, A).real, n) for other in (a, b, da)]
        total -= complex(q**2 / B * (excess[1] + excess[2]) + dq * q / B * excess[0])
    return total


def _phi_form(K: Complex, A: Array, A2: Array, A3: Array, n: int) -> _Form:
    """The triple of phi^T K phi: (tr(A^2 K), tr(A K) / n, tr(A^3 K))."""
    return _Form(trace_product(A2, K), trace_product(A, K) / n, trace_product(A3, K))


def _excess(a: _Form, b: _Form, T: float, trace_A2: float, n: int) -> complex:
    """D(a, b): the prompt is S w with S = Wishart / n, of which only T = tr A, tr(A^2) and n remain.

    (2/n)[2 g g' + 2 T (g h' + g' h) + T^2 h h'] is the spread of the chi-square length along u = A^{1/2} w
    and the noise's missing component along u; 2 tr(A^2) h h' + 2 (h m' + h' m) is the spread of ||u||^2.
    """
    along = 2 * a.g * b.g + 2 * T * (a.g * b.h + b.g * a.h) + T**2 * a.h * b.h
    return 2 / n * along + 2 * trace_A2 * a.h * b.h + 2 * (a.h * b.m + b.h * a.m)
