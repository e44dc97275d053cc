"""Outcome supervision (section 6, App. E): the loss of the model's own roll-out, and the RL it stands for.

Notation: V = V~, W = W~, S a prompt's empirical covariance, M = I + V S, k = ``steps`` of the chain. A step
is w <- w + V S (W w - w*) (A.1) from w_0 = 0, w* ~ N(0, I); at W = I, w* - what_k = M^k w*. L_OS = 1/(2B) sum
||w* - what_k||^2, not divided by d. In an eigenbasis that V and the data share, s are the data's eigenvalues
and u = 1 + v s those of M. Prompts come as weights (d, B) and S (B, d, d), see :mod:`datadose.theory.sft`.
Bad input raises :class:`~datadose.errors.InputError`. Derivations: docs/derivations/outcome.md.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from datadose.covariance import (
    dense,
    frobenius_squared,
    identity_like,
    is_spectrum,
    product,
    same_form,
    validate_covariance,
)
from datadose.errors import probabilities, reject, require_integer, require_number
from datadose.prompts import draw_wishart
from datadose.shapes import Array, Float, Matrix, Operator, PerPrompt, PerPromptMatrix, Spectrum
from datadose.theory.chi_square import weighted_chi_square
from datadose.theory.post_test import post_test_error
from datadose.theory.pretraining import pretrained_operator


def rollout_error_operator(
    V: Operator, W: Operator | None, S: Operator | PerPromptMatrix, steps: int
) -> Operator | PerPromptMatrix:
    """Prop 6.1: E with w* - what_k = E w*, E = I + sum_{i<k} (V S W + I)^i V S; W = None is the identity.

    V and W are (d,) or (d, d); S is (d,), (d, d) or a batch (B, d, d). The form of S if all are spectra,
    else dense. At W = I it is (I + V S)^k.
    """
    k = require_integer("steps", steps, 1)
    V, W, S = same_form(V, identity_like(V) if W is None else W, S)
    seen = total = product(V, S)
    step = identity_like(V) + product(seen, W)
    for _ in range(k - 1):
        total = seen + product(step, total)
    return np.asarray(identity_like(V) + total)


def outcome_loss(
    V: Operator, weights: PerPrompt, covariances: PerPromptMatrix, steps: int, W: Operator | None = None
) -> float:
    """L_OS = 1/(2B) sum_tau ||what_k - w*||^2 (3.4), by the k steps themselves; O(k d^2) a prompt.

    V and W (identity if None) are (d,) or (d, d), weights (d, B), covariances (B, d, d).
    """
    V, w, S, k = _checked(V, weights, covariances, steps)
    W = np.eye(len(V)) if W is None else dense(W)
    estimate = np.zeros_like(w)
    for _ in range(k):
        estimate = estimate + _each(S, estimate @ W.T - w) @ V.T
    return frobenius_squared(estimate - w) / (2 * len(w))


def outcome_gradient(V: Operator, weights: PerPrompt, covariances: PerPromptMatrix, steps: int) -> Matrix:
    """dL_OS/dV~ at W~ = I, (d, d): (1/B) sum_tau sum_{j<k} (M^T)^j M^k w w^T (M^T)^{k-1-j} S.

    Back-propagated through the roll-out's k vectors: O(k d^2) a prompt. S must be symmetric.
    """
    return _derivatives(V, np.zeros_like(V), weights, covariances, steps)[0]


def outcome_hessian_vector(
    V: Operator, direction: Operator, weights: PerPrompt, covariances: PerPromptMatrix, steps: int
) -> Matrix:
    """The Hessian of L_OS in V~ (W~ = I) times ``direction`` (d,) or (d, d): exact, O(k d^2) a prompt."""
    return _derivatives(V, direction, weights, covariances, steps)[1]


def _derivatives(V: Array, D: Array, weights: Array, S: Array, steps: int) -> tuple[Array, Array]:
    V, w, S, k = _checked(V, weights, S, steps)
    D = dense(D)
    error, tangent, seen = w, np.zeros_like(w), []
    for _ in range(k):
        a, a_tangent = _each(S, error), _each(S, tangent)
        seen.append((a, a_tangent))
        error, tangent = error + a @ V.T, tangent + a_tangent @ V.T + a @ D.T
    gradient, second = np.zeros_like(V), np.zeros_like(V)
    for a, a_tangent in reversed(seen):
        gradient += error.T @ a
        second += tangent.T @ a + error.T @ a_tangent
        error, tangent = error + _each(S, error @ V), tangent + _each(S, tangent @ V + error @ D)
    return gradient / len(w), second / len(w)


def curvature_range(
    V: Operator, weights: PerPrompt, covariances: PerPromptMatrix, steps: int
) -> tuple[float, float]:
    """The smallest and largest eigenvalue of the Hessian of L_OS in V~, by Lanczos; the first may be < 0."""
    d = len(V)
    from scipy.sparse.linalg import LinearOperator, eigsh  # noqa: PLC0415  (for matrices only)

    hessian = LinearOperator(
        (d * d, d * d),
        matvec=lambda x: outcome_hessian_vector(V, x.reshape(d, d), weights, covariances, steps).ravel(),
        dtype=np.float64,
    )
    if d < 4:  # Lanczos needs room.
        values = np.linalg.eigvalsh(hessian @ np.eye(d * d))
    else:
        start = np.random.default_rng(0).standard_normal(d * d)
        values = eigsh(hessian, k=2, which="BE", v0=start, tol=1e-10, return_eigenvectors=False)
    return float(values.min()), float(values.max())


def largest_curvature(V: Operator, weights: PerPrompt, covariances: PerPromptMatrix, steps: int) -> float:
    """The largest eigenvalue of the Hessian of L_OS in V~ at V."""
    return curvature_range(V, weights, covariances, steps)[1]


def largest_stable_step(V: Operator, weights: PerPrompt, covariances: PerPromptMatrix, steps: int) -> float:
    """2 / (largest positive curvature), or inf: above it gradient descent leaves a minimum at V."""
    top = largest_curvature(V, weights, covariances, steps)
    return 2 / top if top > 0 else np.inf


def curvature_bound(
    V: Operator, weights: PerPrompt, covariances: PerPromptMatrix, steps: int, *, printed: bool = False
) -> float:
    """k (2k-1) mean_tau ||M||^{2k-2} ||w||^2 ||S||^2 >= ||Hessian|| at every V; attained at d = 1.

    ``printed``: the last line of App. E, k^2 mean_tau rho(M)^{2k-2} ||w||^2 ||S||, claimed near a minimum. It
    has the spectral radius rho(M) in place of ||M||, which is smaller, and one power of ||S|| too few; near a
    degenerate minimum (d = 1, k > 1) the terms that it drops are as large as those it keeps.
    """
    V, w, S, k = _checked(V, weights, covariances, steps)
    M, size = np.eye(len(V)) + V @ S, np.linalg.norm(S, 2, axis=(1, 2))
    if printed:
        reach, scale = np.abs(np.linalg.eigvals(M)).max(axis=1), k * k * size
    else:
        reach, scale = np.linalg.norm(M, 2, axis=(1, 2)), k * (2 * k - 1) * size**2
    return float(np.mean(scale * reach ** (2 * k - 2) * (w**2).sum(axis=1)))


def population_curvature(V: Spectrum, data: Spectrum, steps: int) -> tuple[float, float]:
    """Smallest and largest curvature for B, n -> infinity, V and the data A spectra in one basis; O(k d^2).

    The Hessian of ||(I + V A)^k||_F^2 / 2 splits into k(2k-1) s^2 u^{2k-2} (direction aa) and, for a != b,
    2 x 2 blocks on (D_ab, D_ba): diagonal s_b^2 p^2, s_a^2 p^2, off-diagonal s_a s_b (q_ab + q_ba), where
    p = sum_{j<k} u_a^j u_b^{k-1-j} and q_ab = sum_{j<k-1} (k-1-j) u_a^{2k-2-j} u_b^j.
    """
    k = require_integer("steps", steps, 1)
    if np.shape(V) != (len(data),) or np.shape(data) != (len(data),):
        reject("V, data", [np.shape(V), np.shape(data)], "spectra (d,) in one basis")
    V, s = (np.asarray(value, dtype=np.float64) for value in (V, data))
    j, powers = np.arange(k - 1), (1 + V * s)[:, None] ** np.arange(2 * k - 1)
    p = powers[:, :k] @ powers[:, :k][:, ::-1].T
    q = (powers[:, 2 * k - 2 - j] * (k - 1 - j)) @ powers[:, j].T
    own, cross = (p * s) ** 2, np.outer(s, s) * (q + q.T)
    own += np.diag(cross.diagonal())
    middle, radius = (own + own.T) / 2, np.hypot((own - own.T) / 2, cross)
    np.fill_diagonal(radius, 0)
    return float((middle - radius).min()), float((middle + radius).max())


def adaptation_radius(sigma0: Operator, delta: Operator, length: int) -> float:
    """rho(Gamma0^{-1} Delta): how far the shift is from what pretraining on prompts of this length taught."""
    delta = validate_covariance("delta", delta, len(sigma0))
    return _radius(product(*same_form(-pretrained_operator(sigma0, length), delta)))


def regime(sigma0: Operator, delta: Operator, length: int) -> Literal["incremental", "novel"]:
    """Insight 4: "incremental" if rho(Gamma0^{-1} Delta) < 1 (then the roll-out is stable), or "novel"."""
    return "incremental" if adaptation_radius(sigma0, delta, length) < 1 else "novel"


def rollout_radius(V: Operator, target: Operator) -> float:
    """rho(I + V Sigma): long prompts' errors shrink along the chain if it is below 1 and grow if above."""
    return _radius(rollout_error_operator(V, None, target, 1))


def error_factor_path(u0: ArrayLike, s: ArrayLike, steps: int, time: ArrayLike) -> Array:
    """u(t) under gradient flow on L_OS for B, n -> infinity: du/dt = -k s^2 u^{2k-1}; arrays broadcast.

    u0 exp(-s^2 t) for k = 1; for k > 1 |u|^{-(2k-2)} = |u0|^{-(2k-2)} + k (2k-2) s^2 t, with the sign of u0.
    """
    k = require_integer("steps", steps, 1)
    u0, s, t = (np.asarray(x, dtype=np.float64) for x in (u0, s, time))
    if k == 1:
        return np.asarray(u0 * np.exp(-(s**2) * t))
    return np.asarray(u0 * (1 + k * (2 * k - 2) * s**2 * t * u0 ** (2 * k - 2)) ** (-1 / (2 * k - 2)))


def stable_step(u0: ArrayLike, s: ArrayLike, steps: int) -> Array:
    """2 / (k (2k-1) s^2 u0^{2k-2}), 2 over the curvature of one eigendirection (inf if flat).

    Sufficient for gradient descent u <- u - gamma k s^2 u^{2k-1}; the exact limit is 2k - 1 times larger.
    """
    k = require_integer("steps", steps, 1)
    u0, s = (np.asarray(x, dtype=np.float64) for x in (u0, s))
    curvature = np.asarray(k * (2 * k - 1) * s**2 * u0 ** (2 * k - 2))
    return np.divide(2.0, curvature, out=np.full_like(curvature, np.inf), where=curvature > 0)


class RolloutError(NamedTuple):
    """An error / d and the standard error of its estimate (0 for a closed form)."""

    value: float
    standard_error: float


def rollout_error(
    V: Operator, target: Operator, steps: int, length: int | None = None, *, draws: int = 1000, seed: int = 0
) -> RolloutError:
    """(1/d) E ||(I + V S)^k||_F^2: the error of a chain of k steps on a test prompt of this length (W~ = I).

    Exact for infinite prompts (``length`` None: S = Sigma) and for k = 1 (Prop 5.1); otherwise the mean over
    ``draws`` >= 2 Wishart prompts. It is a moment of order 2k: for large k and short prompts rare prompts
    carry it and the standard error is too small. V and target are (d,) or (d, d).
    """
    k, draws = require_integer("steps", steps, 1), require_integer("draws", draws, 2)
    d = len(target)
    if length is None:
        return RolloutError(frobenius_squared(rollout_error_operator(V, None, target, k)) / d, 0.0)
    if k == 1:
        return RolloutError(post_test_error(V, target, length), 0.0)
    batch, values = max(1, 2**22 // d**2), np.empty(0)
    for own_seed in np.random.SeedSequence(seed).generate_state(-(-draws // batch), np.uint64):
        S = draw_wishart(target, length, min(batch, draws - len(values)), seed=int(own_seed))
        M = np.eye(d) + dense(V) @ S
        values = np.append(values, (np.linalg.matrix_power(M, k) ** 2).sum(axis=(1, 2)) / d)
    return RolloutError(float(values.mean()), float(values.std(ddof=1) / np.sqrt(draws)))


def pass_probability(distance: ArrayLike, noise: ArrayLike, tolerance: ArrayLike, dimension: int) -> Array:
    """P(||what - w* + sigma xi|| <= eps), xi ~ N(0, I_d), ``distance`` = ||what - w*||; arrays broadcast.

    A non-central chi-square with d degrees of freedom and non-centrality (distance / sigma)^2 at
    (eps / sigma)^2; without noise 1 where distance <= eps, else 0. Below about 1e-60 scipy returns 0.
    """
    # Imported here: scipy.stats takes longer to import than most answers take, and few need it.
    from scipy.stats import ncx2  # noqa: PLC0415

    d = require_integer("dimension", dimension, 1)
    for name, value in (("distance", distance), ("noise", noise), ("tolerance", tolerance)):
        if not (np.isfinite(value) & (np.asarray(value) >= 0)).all():
            reject(name, value, "finite numbers >= 0")
    distance, noise, tolerance = np.broadcast_arrays(distance, noise, tolerance)
    scale = np.where(noise > 0, noise, 1.0)
    limit, shift = (tolerance / scale) ** 2, (distance / scale) ** 2
    passed = np.where(noise > 0, ncx2.cdf(limit, d, shift), (distance <= tolerance).astype(np.float64))
    if not np.isfinite(passed).all():
        allowed = (
            "noise above about 1e-5 of the distance: below, the non-central chi-square does not converge"
        )
        reject("noise", noise[~np.isfinite(passed)].flat[0], allowed)
    return probabilities("a pass probability", passed)


def pass_rate(
    V: Operator,
    data: Operator,
    steps: int,
    noise: float,
    tolerance: float,
    *,
    basis: Float[Array, "d r"] | None = None,
) -> float:
    """Mean over w* of :func:`pass_probability` on infinitely long prompts of covariance ``data``: exact.

    a - w* ~ N(0, M^k (M^k)^T + sigma^2 I), so ||a - w*||^2 is a weighted sum of chi-squares. With ``basis``
    (d, r), orthonormal, e.g. ``range_basis(data)``, the reward sees these directions only.
    """
    require_number("noise", noise, 0, np.inf)
    require_number("tolerance", tolerance, 0, np.inf)
    error = rollout_error_operator(V, None, data, steps)
    if basis is not None:
        error = basis.T @ dense(error)
    values = error if is_spectrum(error) else np.linalg.svd(error, compute_uv=False)
    return weighted_chi_square(np.asarray(values**2 + noise**2), tolerance**2)


def _each(S: Array, rows: Array) -> Array:
    return np.asarray((S @ rows[:, :, None])[:, :, 0])


def _radius(M: Array) -> float:
    return float(np.abs(M if is_spectrum(M) else np.linalg.eigvals(M)).max())


def _checked(V: Array, weights: Array, covariances: Array, steps: int) -> tuple[Array, Array, Array, int]:
    k, V = require_integer("steps", steps, 1), dense(V)
    d, B = weights.shape
    if V.shape != (d, d) or B == 0 or covariances.shape != (B, d, d):
        shapes = f"{V.shape}, {weights.shape}, {covariances.shape}"
        reject("V, weights, covariances", shapes, "(d, d), (d, B), (B, d, d), B >= 1")
    return V, weights.T, covariances, k
