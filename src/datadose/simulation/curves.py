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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.linalg import lapack, solve_triangular

from datadose.covariance import dense, product, range_basis, wishart_second_moment
from datadose.deprecation import renamed
from datadose.equality import ByValue
from datadose.error_curve import ErrorCurve
from datadose.errors import listed, reject, require_integer
from datadose.prompts import Moments, draw_moments
from datadose.shapes import Array, Float, Matrix, Operator
from datadose.shift import Shift
from datadose.showing import Tabular
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
) -> ErrorCurve:
    """Simulate the post-test error / d of V* at every number of prompts up to ``max_prompts``, with one seed.

    V* is the minimiser of the SFT loss (Thm 4.1); its error on the target is that of Prop 5.1. The prompts
    are nested: B + 1 adds one prompt to B. The same seed gives the same curve, and a shorter curve is the
    beginning of a longer one up to rounding.

    Args:
        shift: Sigma0, Delta, A and eta.
        max_prompts: the largest B >= 0.
        length: length n >= 1 of the prompts of SFT.
        seed: an integer >= 0 that the prompts are drawn from.
        pretrain_length: length of the pretraining prompts, >= 1; ``length`` unless given.
        test_length: length of the test prompts, >= 1; ``length`` unless given.

    Returns:
        The errors divided by d, a float64 array of shape (max_prompts + 1,).

    Raises:
        InputError: a value out of range.

    Example:
        >>> from datadose import Shift, sft_error_curve
        >>> curve = sft_error_curve(Shift.two_block(40, 20, 0.1, 0.2, 0.1), 120, length=40, seed=0)
        >>> curve.shape
        (121,)
        >>> curve.plot().get_xlabel()
        'prompts B of SFT'
    """
    B = require_integer("max_prompts", max_prompts, 0)
    n = require_integer("length", length, 1)
    V0 = pretrained_operator(shift.sigma0, n if pretrain_length is None else pretrain_length)
    n_test = n if test_length is None else require_integer("test_length", test_length, 1)
    if B == 0:
        errors = np.array([quadratic_error(V0, shift.target, wishart_second_moment(shift.target, n_test))])
    else:
        moments = draw_moments(shift.data, n, B, seed=seed)
        stages: dict[str, Any] = {"V0": V0, "target": shift.target, "test_length": n_test}
        errors = error_curve(moments, eta=shift.eta, data=shift.data, **stages)
    return ErrorCurve(np.arange(B + 1), errors, "simulated")


@dataclass(frozen=True, eq=False, repr=False)
class SimulatedCurve(ByValue, Tabular):
    """Errors / d of several simulations at the same numbers of prompts.

    :func:`simulate_error` returns it. ``to_frame`` has the columns ``prompts``, ``mean`` and ``sem``;
    ``plot`` draws the means with their standard errors. Two of them are equal if all their values are.

    Args:
        prompts: numbers of prompts B >= 0, shape (P,).
        values: the error / d of each seed at each of them, shape (seeds, P).

    Example:
        >>> from datadose import Shift, simulate_error
        >>> simulated = simulate_error(Shift.two_block(40, 20, 0.1, 0.2, 0.1), [0, 10], 40, seeds=20)
        >>> simulated.mean.round(2).tolist(), simulated.sem.round(3).tolist()
        ([1.91, 1.78], [0.0, 0.012])
        >>> simulated == simulate_error(Shift.two_block(40, 20, 0.1, 0.2, 0.1), [0, 10], 40, seeds=20)
        True
    """

    prompts: Float[Array, " P"]
    values: Float[Array, "seeds P"]
    _picture: ClassVar[str] = "datadose.drawing.results.draw_simulated"

    @property
    def mean(self) -> Float[Array, " P"]:
        """The mean over seeds, shape (P,)."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def sem(self) -> Float[Array, " P"]:
        """The standard error of the mean over seeds, shape (P,); NaN for one seed."""
        if len(self.values) < 2:
            return np.full(self.values.shape[1], np.nan)
        return np.asarray(self.values.std(axis=0, ddof=1) / np.sqrt(len(self.values)))

    def _facts(self) -> dict[str, object]:
        return {"prompts": self.prompts, "mean": self.mean, "seeds": len(self.values)}

    def _columns(self) -> dict[str, Any]:
        return {"prompts": self.prompts, "mean": self.mean, "sem": self.sem}


def simulate_error(
    shift: Shift,
    prompts: Sequence[int] | int,
    length: int,
    *,
    seeds: int | Sequence[int],
    pretrain_length: int | None = None,
    test_length: int | None = None,
) -> SimulatedCurve:
    """Simulate the post-test error / d of V* at the given numbers of prompts, with several seeds.

    Each seed draws one nested stream of prompts, as :func:`sft_error_curve` does. Where the mean error is
    infinite (:func:`~datadose.predict_error` raises PeakError there) the mean of few seeds says nothing.

    Args:
        shift: Sigma0, Delta, A and eta.
        prompts: numbers of prompts B >= 0, or one of them.
        length: length n >= 1 of the prompts of SFT.
        seeds: a number of seeds >= 1, which are 0, 1, .., or a list of them.
        pretrain_length: length of the pretraining prompts, >= 1; ``length`` unless given.
        test_length: length of the test prompts, >= 1; ``length`` unless given.

    Returns:
        The errors divided by d of every seed, with ``mean`` and ``sem``.

    Raises:
        InputError: counts that are not integers in range, or none.

    Example:
        >>> from datadose import Shift, simulate_error
        >>> simulate_error(Shift.two_block(40, 20, 0.1, 0.2, 0.1), [0, 10], 40, seeds=20)
        SimulatedCurve(prompts=[0, 10], mean=[1.91, 1.783], seeds=20)
    """
    counts = [require_integer("prompts", B, 0) for B in listed(prompts)]
    if not counts:
        reject("prompts", prompts, "at least one number of prompts")
    several = isinstance(seeds, (Sequence, np.ndarray))
    chosen = list(seeds) if several else list(range(require_integer("seeds", seeds, 1)))  # type: ignore[arg-type]
    if not chosen:
        reject("seeds", seeds, "at least one seed")
    lengths = {"pretrain_length": pretrain_length, "test_length": test_length}
    curves = [sft_error_curve(shift, max(counts), length, seed=seed, **lengths)[counts] for seed in chosen]
    return SimulatedCurve(np.array(counts, dtype=np.float64), np.array(curves))


if not TYPE_CHECKING:  # A type checker takes a module that has __getattr__ to have every name.
    __getattr__ = renamed(__name__, {"SimulatedError": f"{__name__}.SimulatedCurve"})
