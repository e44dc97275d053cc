"""Outcome supervision (section 6, App. E): the loss of the model's own roll-out, and its link to RL.

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
    """The operator E of the roll-out's error, w* - what_k = E w* (Prop 6.1).

    E = I + sum_{i<k} (V S W + I)^i V S, which is (I + V S)^k at W = I.

    Args:
        V: operator V~, a spectrum (d,) or a matrix (d, d).
        W: W~ in either form; None is the identity.
        S: empirical covariance, (d,), (d, d) or a batch (B, d, d).
        steps: number k >= 1 of thinking steps.

    Returns:
        E, a spectrum if all arguments are spectra, else dense in the shape of S.
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
    """The loss L_OS = 1/(2B) sum_tau ||what_k - w*||^2 of eq. (3.4), not divided by d.

    It runs the k steps themselves, at a cost of O(k d^2) a prompt.

    Args:
        V: operator V~, a spectrum (d,) or a matrix (d, d).
        weights: tasks w* of B >= 1 prompts, (d, B).
        covariances: empirical covariances S, (B, d, d).
        steps: number k >= 1 of thinking steps.
        W: W~ in the form of V; None is the identity.
    """
    V, w, S, k = _checked(V, weights, covariances, steps)
    W = np.eye(len(V)) if W is None else dense(W)
    estimate = np.zeros_like(w)
    for _ in range(k):
        estimate = estimate + _each(S, estimate @ W.T - w) @ V.T
    return frobenius_squared(estimate - w) / (2 * len(w))


def outcome_gradient(V: Operator, weights: PerPrompt, covariances: PerPromptMatrix, steps: int) -> Matrix:
    """Gradient of L_OS in V~ at W~ = I, (d, d): (1/B) sum_tau sum_{j<k} (M^T)^j M^k w w^T (M^T)^{k-1-j} S.

    It is back-propagated through the roll-out's k vectors, at a cost of O(k d^2) a prompt.

    Args:
        V: operator V~, a spectrum (d,) or a matrix (d, d).
        weights: tasks w* of B >= 1 prompts, (d, B).
        covariances: empirical covariances S, symmetric, (B, d, d).
        steps: number k >= 1 of thinking steps.
    """
    return _derivatives(V, np.zeros_like(V), weights, covariances, steps)[0]


def outcome_hessian_vector(
    V: Operator, direction: Operator, weights: PerPrompt, covariances: PerPromptMatrix, steps: int
) -> Matrix:
    """The Hessian of L_OS in V~ (at W~ = I) times ``direction``, (d,) or (d, d). The result is exact, (d, d).

    The other arguments are those of :func:`outcome_gradient`; the cost is O(k d^2) a prompt.
    """
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
    """The smallest and the largest eigenvalue of the Hessian of L_OS in V~, by Lanczos iterations.

    The smallest one may be negative. The arguments are those of :func:`outcome_gradient`.
    """
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
    """The largest eigenvalue of the Hessian of L_OS in V~ at V; arguments as in :func:`outcome_gradient`."""
    return curvature_range(V, weights, covariances, steps)[1]


def largest_stable_step(V: Operator, weights: PerPrompt, covariances: PerPromptMatrix, steps: int) -> float:
    """The step 2 / (largest positive curvature) above which gradient descent leaves a minimum at V.

    It is infinite where no curvature is positive. The arguments are those of :func:`outcome_gradient`.
    """
    top = largest_curvature(V, weights, covariances, steps)
    return 2 / top if top > 0 else np.inf


def curvature_bound(
    V: Operator, weights: PerPrompt, covariances: PerPromptMatrix, steps: int, *, printed: bool = False
) -> float:
    """The bound k (2k-1) mean_tau ||M||^{2k-2} ||w||^2 ||S||^2 on the Hessian's norm, valid at every V.

    It is attained at d = 1. With ``printed`` the result is the last line of App. E instead,
    k^2 mean_tau rho(M)^{2k-2} ||w||^2 ||S||, claimed near a minimum. That line has the spectral radius rho(M)
    in place of ||M||, which is smaller, and one power of ||S|| too few; near a degenerate minimum (d = 1,
    k > 1) the terms that it drops are as large as those it keeps. The other arguments are those of
    :func:`outcome_gradient`.
    """
    V, w, S, k = _checked(V, weights, covariances, steps)
    M, size = np.eye(len(V)) + V @ S, np.linalg.norm(S, 2, axis=(1, 2))
    if printed:
        reach, scale = np.abs(np.linalg.eigvals(M)).max(axis=1), k * k * size
    else:
        reach, scale = np.linalg.norm(M, 2, axis=(1, 2)), k * (2 * k - 1) * size**2
    return float(np.mean(scale * reach ** (2 * k - 2) * (w**2).sum(axis=1)))


def population_curvature(V: Spectrum, data: Spectrum, steps: int) -> tuple[float, float]:
    """The smallest and the largest curvature of L_OS for B, n -> infinity, at a cost of O(k d^2).

    The Hessian of ||(I + V A)^k||_F^2 / 2 splits into k(2k-1) s^2 u^{2k-2} (direction aa) and, for a != b,
    2 x 2 blocks on (D_ab, D_ba): diagonal s_b^2 p^2, s_a^2 p^2, off-diagonal s_a s_b (q_ab + q_ba), where
    p = sum_{j<k} u_a^j u_b^{k-1-j} and q_ab = sum_{j<k-1} (k-1-j) u_a^{2k-2-j} u_b^j.

    Args:
        V: operator V~, a spectrum (d,).
        data: covariance A of the prompts, a spectrum (d,) in the same basis.
        steps: number k >= 1 of thinking steps.
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
    """The spectral radius rho(Gamma0^{-1} Delta) of Insight 4: how large the shift is for the model.

    Args:
        sigma0: pretraining covariance Sigma0, a spectrum (d,) or a PSD matrix (d, d).
        delta: the shift Delta, in either form.
        length: length n >= 1 of the pretraining prompts.
    """
    delta = validate_covariance("delta", delta, len(sigma0))
    return _radius(product(*same_form(-pretrained_operator(sigma0, length), delta)))


def regime(sigma0: Operator, delta: Operator, length: int) -> Literal["incremental", "novel"]:
    """The regime of Insight 4: "incremental" if rho(Gamma0^{-1} Delta) < 1, otherwise "novel".

    In the incremental regime the roll-out is stable. The arguments are those of :func:`adaptation_radius`.
    """
    return "incremental" if adaptation_radius(sigma0, delta, length) < 1 else "novel"


def rollout_radius(V: Operator, target: Operator) -> float:
    """The spectral radius rho(I + V Sigma), for V and Sigma = ``target`` as (d,) or (d, d).

    On long prompts the error shrinks along the chain if it is below 1, and grows if it is above 1.
    """
    return _radius(rollout_error_operator(V, None, target, 1))


def error_factor_path(u0: ArrayLike, s: ArrayLike, steps: int, time: ArrayLike) -> Array:
    """The factor u(t) of one eigendirection under gradient flow on L_OS, for B, n -> infinity.

    It solves du/dt = -k s^2 u^{2k-1}: u0 exp(-s^2 t) for k = 1; for k > 1
    |u|^{-(2k-2)} = |u0|^{-(2k-2)} + k (2k-2) s^2 t, with the sign of u0.

    Args:
        u0: factor 1 + v s before training, any real numbers.
        s: eigenvalues of the data's covariance.
        steps: number k >= 1 of thinking steps.
        time: time t >= 0 of the flow.

    Returns:
        u(t), in the shape that the arrays broadcast to.
    """
    k = require_integer("steps", steps, 1)
    u0, s, t = (np.asarray(x, dtype=np.float64) for x in (u0, s, time))
    if k == 1:
        return np.asarray(u0 * np.exp(-(s**2) * t))
    return np.asarray(u0 * (1 + k * (2 * k - 2) * s**2 * t * u0 ** (2 * k - 2)) ** (-1 / (2 * k - 2)))


def stable_step(u0: ArrayLike, s: ArrayLike, steps: int) -> Array:
    """The step 2 / (k (2k-1) s^2 u0^{2k-2}), which is 2 over the curvature of one eigendirection.

    It is infinite in a flat direction. It suffices for gradient descent u <- u - gamma k s^2 u^{2k-1} to
    converge; the exact limit is 2k - 1 times larger. The arguments are those of :func:`error_factor_path`.
    """
    k = require_integer("steps", steps, 1)
    u0, s = (np.asarray(x, dtype=np.float64) for x in (u0, s))
    curvature = np.asarray(k * (2 * k - 1) * s**2 * u0 ** (2 * k - 2))
    return np.divide(2.0, curvature, out=np.full_like(curvature, np.inf), where=curvature > 0)


class RolloutError(NamedTuple):
    """An error / d, and the standard error of its estimate, which is 0 for a closed form."""

    value: float
    standard_error: float


def rollout_error(
    V: Operator, target: Operator, steps: int, length: int | None = None, *, draws: int = 1000, seed: int = 0
) -> RolloutError:
    """The error (1/d) E ||(I + V S)^k||_F^2 of a chain of k steps on test prompts, at W~ = I.

    It is exact for infinite prompts (S = Sigma) and for k = 1 (Prop 5.1), and otherwise the mean over drawn
    Wishart prompts. It is a moment of order 2k: for large k and short prompts it is dominated by rare
    prompts, and the standard error is then too small.

    Args:
        V: operator V~, a spectrum (d,) or a matrix (d, d).
        target: test covariance Sigma, in either form.
        steps: number k >= 1 of thinking steps.
        length: length n of the test prompts; None for infinite prompts.
        draws: number of Wishart prompts, at least 2.
        seed: of the drawn prompts.
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
    """The probability P(||what - w* + sigma xi|| <= eps) that a noisy answer passes, with xi ~ N(0, I_d).

    It is a non-central chi-square law with d degrees of freedom and non-centrality (distance / sigma)^2 at
    (eps / sigma)^2. Without noise it is 1 where distance <= eps, else 0. Below about 1e-60 scipy returns 0.

    Args:
        distance: ||what - w*|| >= 0, not divided by anything.
        noise: standard deviation sigma >= 0 per dimension.
        tolerance: radius eps >= 0 of the verifier.
        dimension: d >= 1.

    Returns:
        Probabilities, in the shape that the arrays broadcast to.

    Raises:
        InputError: a value out of range, or noise so small that the law cannot be computed.
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
    """The mean over w* of :func:`pass_probability` on infinitely long prompts. It is exact.

    The answer a has a - w* ~ N(0, M^k (M^k)^T + sigma^2 I), so ||a - w*||^2 is a weighted sum of chi-squares.

    Args:
        V: operator V~, a spectrum (d,) or a matrix (d, d).
        data: covariance of the prompts, in either form.
        steps: number k >= 1 of thinking steps.
        noise: standard deviation sigma >= 0 per dimension of the sampled answer.
        tolerance: radius eps >= 0 of the verifier.
        basis: orthonormal, (d, r), such as ``range_basis(data)``: the reward then depends on these
            directions only. All directions if None.
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
