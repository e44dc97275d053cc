"""The simulated error of V* at every number of prompts, from one nested stream, for about one QR's price.

V*_B changes by rank one when a prompt is added (docs/derivations/curves.md). With W = Omega, basis Q of
range(A) and psi = Q^T phi:

- Up to B = rank(A): psi = Q' R (one Householder QR) gives V*_B = V0 + sum_{j<=B} u_j p_j^T with p_j = Q q'_j
  and u_j = (-eta W R^{-1})_j - V0 p_j: no u_j or p_j depends on B.
- Beyond: blocks of prompts. With psi^T = Qt Rt so far, new psi_b, Z = Rt^{-T} psi_b and I + Z^T Z = L L^T,
  again V*_B = V_block + sum u_j p_j^T with P = Q Rt^{-1} Z L^{-T}, U = (-eta W_b - V psi_b) L^{-T}. Each
  block restarts from an orthogonal factorisation, and the first blocks past the peak are small, so the bad
  conditioning at B = rank(A) is neither squared nor kept.

The error is quadratic in V, so along V + sum u_j p_j^T all errors follow from Gram matrices: everything is
matrix-matrix work, O(d^2) a prompt and independent of n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack, solve_triangular

from datadose.covariance import dense, product, range_basis, wishart_second_moment
from datadose.errors import reject, require_integer
from datadose.prompts import Moments, draw_moments
from datadose.shapes import Array, Float, Matrix, Operator
from datadose.shift import Shift
from datadose.theory.post_test import quadratic_error
from datadose.theory.pretraining import pretrained_operator

_LARGEST_BLOCK = 128
_CANCELLED = 1e-2
"""Below this fraction of what it was, an error is evaluated afresh: the subtraction has lost its digits."""


@dataclass(frozen=True)
class _Quadratic:
    """err(V) = 1 + (2 tr(V Sigma) + tr(V M V^T)) / d."""

    target: Operator
    second_moment: Operator

    def at(self, V: Array) -> float:
        return quadratic_error(V, self.target, self.second_moment)

    def along(self, V: Matrix, U: Float[Array, "d b"], P: Float[Array, "d b"]) -> Float[Array, " b"]:
        """err(V + sum_{i<=j} u_i p_i^T) - err(V) for every j; U, P of shape (d, b)."""
        MP = product(P.T, self.second_moment).T
        linear = np.einsum("ij,ij->j", U, product(P.T, self.target).T + V @ MP)
        gram = (U.T @ U) * (P.T @ MP)
        pairs = 2 * np.triu(gram, 1).sum(axis=0) + gram.diagonal()
        return np.asarray(np.cumsum(2 * linear + pairs)) / len(V)


def error_curve(
    moments: Moments, *, eta: float, V0: Operator, data: Operator, target: Operator, test_length: int
) -> Float[Array, " P"]:
    """Err(V*_B) / d (Prop 5.1) for B = 0, 1, .., all prompts of ``moments``; shape (B + 1,), float64.

    Args:
        moments: (w*, S w*) of the prompts in the order in which they arrive, each (d, B).
        eta: chain-of-thought step, in (0, 2).
        V0: operator before SFT, spectrum (d,) or (d, d).
        data: covariance A of the prompts (its range decides where the peak is).
        target: test covariance Sigma, spectrum or dense.
        test_length: length n >= 1 of the test prompts.
    """
    n = require_integer("test_length", test_length, 1)
    error = _Quadratic(target, wishart_second_moment(target, n))
    V0 = dense(V0)
    spanned = range_basis(data)
    answers = -eta * moments.weights
    basis = None if spanned.shape[1] == spanned.shape[0] else spanned
    psi = moments.phi if basis is None else basis.T @ moments.phi
    rank, total = psi.shape
    head = min(rank, total)
    curve = np.empty(total + 1)
    curve[0] = error.at(V0)
    curve[1 : head + 1] = _interpolating(psi[:, :head], answers[:, :head], V0, basis, error)
    if total > rank:
        curve[rank + 1 :] = _overdetermined(psi, answers, V0, basis, error)
    return curve


def _embed(basis: Array | None, columns: Array) -> Array:
    """Columns on range(A) as columns in R^d; ``basis`` is None where A has full rank."""
    return columns if basis is None else basis @ columns


def _interpolating(psi: Array, answers: Array, V0: Array, basis: Array | None, error: _Quadratic) -> Array:
    """Errors for B = 1 .. rank(A)."""
    q, R = np.linalg.qr(psi)
    P = _embed(basis, q)
    # Y R = answers: V*_B p_j is the j-th column of Y for every B >= j.
    Y = solve_triangular(R, answers.T, trans="T", check_finite=False).T
    U = Y - V0 @ P
    start = error.at(V0)
    found = start + error.along(V0, U, P)
    highest = np.maximum.accumulate(np.append(start, found))[1:]
    for j in np.flatnonzero(found < _CANCELLED * highest) + 1:
        found[j - 1] = error.at(V0 + U[:, :j] @ P[:, :j].T)
    return found


def _overdetermined(psi: Array, answers: Array, V0: Array, basis: Array | None, error: _Quadratic) -> Array:
    """Errors for B = rank(A) + 1 .. all."""
    rank, total = psi.shape
    q, R = np.linalg.qr(psi[:, :rank].T)
    rhs = q.T @ answers[:, :rank].T
    errors = np.empty(total - rank)

    def solved() -> tuple[Array, Array, float]:
        V_on = solve_triangular(R, rhs, check_finite=False).T
        V = V_on if basis is None else V0 + (V_on - V0 @ basis) @ basis.T
        return V_on, V, error.at(V)

    start, size = rank, 1
    V_on, V, base = solved()
    while start < total:
        block = slice(start, min(start + size, total))
        new, wanted = psi[:, block], answers[:, block]
        Z = solve_triangular(R, new, trans="T", check_finite=False)
        L = np.linalg.cholesky(np.eye(new.shape[1]) + Z.T @ Z)
        P = _embed(basis, _whiten(L, solve_triangular(R, Z, check_finite=False)))
        U = _whiten(L, wanted - V_on @ new)
        found = base + error.along(V, U, P)
        # Such a fall ends the block.
        fallen = np.flatnonzero(found < _CANCELLED * base)
        used = int(fallen[0]) + 1 if len(fallen) else len(found)
        R, rhs = _append_rows(R, rhs, new[:, :used].T, wanted[:, :used].T)
        V_on, V, base = solved()
        stop = start + used
        errors[start - rank : stop - rank] = found[:used]
        errors[stop - rank - 1] = base
        start, size = stop, min(2 * size, _LARGEST_BLOCK)
    return errors


def _whiten(L: Array, X: Array) -> Array:
    """X L^{-T} for a lower triangular L."""
    return np.asarray(solve_triangular(L, X.T, lower=True, check_finite=False)).T


def _append_rows(R: Array, rhs: Array, rows: Array, values: Array) -> tuple[Array, Array]:
    """The triangular factor and right-hand side of a least-squares problem with ``rows`` added to it."""
    block = min(32, len(R))
    R, reflectors, T, info = lapack.dtpqrt(0, block, R, rows)
    if info == 0:
        rhs, _, info = lapack.dtpmqrt(0, reflectors, T, rhs, values, trans="T")
    if info != 0:
        msg = f"LAPACK refused argument {-info} of the QR update"
        raise ArithmeticError(msg)
    return R, rhs


def sft_error_curve(
    shift: Shift,
    max_prompts: int,
    length: int,
    *,
    seed: int,
    pretrain_length: int | None = None,
    test_length: int | None = None,
) -> Float[Array, " P"]:
    """Simulated post-test error / d of V* at every B = 0 .. ``max_prompts``, one seed; shape (B + 1,).

    The prompts are nested: B + 1 adds one prompt to B. Lengths of the other stages are ``length`` unless
    given. The same seed gives the same curve, and a shorter curve is a prefix of a longer one up to rounding.
    """
    B = require_integer("max_prompts", max_prompts, 0)
    n = require_integer("length", length, 1)
    V0 = pretrained_operator(shift.sigma0, n if pretrain_length is None else pretrain_length)
    n_test = n if test_length is None else require_integer("test_length", test_length, 1)
    if B == 0:
        return np.array([quadratic_error(V0, shift.target, wishart_second_moment(shift.target, n_test))])
    moments = draw_moments(shift.data, n, B, seed=seed)
    return error_curve(
        moments, eta=shift.eta, V0=V0, data=shift.data, target=shift.target, test_length=n_test
    )


@dataclass(frozen=True)
class SimulatedError:
    """Simulated errors / d: ``values`` of shape (seeds, len(prompts)), their mean and standard error."""

    prompts: Float[Array, " P"]
    values: Float[Array, "seeds P"]

    @property
    def mean(self) -> Float[Array, " P"]:
        """Mean over seeds, shape (len(prompts),)."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def sem(self) -> Float[Array, " P"]:
        """Standard error of the mean over seeds (NaN for one seed), shape (len(prompts),)."""
        if len(self.values) < 2:
            return np.full(self.values.shape[1], np.nan)
        return np.asarray(self.values.std(axis=0, ddof=1) / np.sqrt(len(self.values)))


def simulate_error(
    shift: Shift,
    prompts: list[int] | int,
    length: int,
    *,
    seeds: int | list[int],
    pretrain_length: int | None = None,
    test_length: int | None = None,
) -> SimulatedError:
    """Simulated post-test error / d of V* at the given numbers of prompts.

    ``seeds`` is a number of seeds (0, 1, ..) or the list of them. Raises InputError for counts that are not
    integers >= 0.
    """
    counts = [require_integer("prompts", B, 0) for B in ([prompts] if isinstance(prompts, int) else prompts)]
    if not counts:
        reject("prompts", prompts, "at least one number of prompts")
    chosen = list(range(require_integer("seeds", seeds, 1))) if isinstance(seeds, int) else list(seeds)
    curves = [
        sft_error_curve(
            shift,
            max(counts),
            length,
            seed=seed,
            pretrain_length=pretrain_length,
            test_length=test_length,
        )[counts]
        for seed in chosen
    ]
    return SimulatedError(np.array(counts, dtype=np.float64), np.array(curves))
