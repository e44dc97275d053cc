"""Outcome supervision against independent twins: literal Z matrices, autograd, ODE solvers, Monte Carlo.

The torch twins are written from the definitions, here. Statistical tests have fixed seeds and allow 5
standard errors: under the hypothesis each comparison fails with probability below 6e-7.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.integrate import quad, solve_ivp
from scipy.optimize import minimize
from scipy.stats import chi2, norm

from datadose.covariance import range_basis
from datadose.errors import InputError
from datadose.prompts import Prompts, draw_prompts
from datadose.theory.outcome import (
    adaptation_radius,
    curvature_bound,
    curvature_range,
    error_factor_path,
    expected_dense_reward,
    largest_curvature,
    largest_stable_step,
    outcome_error_path,
    outcome_gradient,
    outcome_hessian_vector,
    outcome_loss,
    pass_probability,
    pass_rate,
    population_curvature,
    regime,
    rollout_error,
    rollout_error_expansion,
    rollout_error_operator,
    rollout_radius,
    stable_step,
)
from datadose.theory.post_test import post_test_error
from datadose.theory.pretraining import gamma0, pretrained_operator
from literal import random_psd

LEVEL = 5.0
"""Standard errors allowed: a two-sided failure probability of 5.7e-7."""


def setting(d: int, B: int, seed: int, scale: float = 0.5) -> tuple[np.ndarray, Prompts]:
    """An operator near -scale I, not symmetric, and prompts."""
    V = scale * (0.4 * np.random.default_rng(seed).standard_normal((d, d)) - np.eye(d))
    return V, draw_prompts(random_psd(d, seed=seed), 2 * d + 1, B, seed=seed)


def torch_loss(V: torch.Tensor, W: torch.Tensor, prompts: Prompts, steps: int) -> torch.Tensor:
    """L_OS from w <- w + V S (W w - w*) alone."""
    S, w_star = torch.from_numpy(prompts.covariances), torch.from_numpy(prompts.weights)
    w = torch.zeros_like(w_star)
    for _ in range(steps):
        w = w + torch.einsum("ij,bjk,bk->bi", V, S, w @ W.T - w_star)
    return ((w - w_star) ** 2).sum() / (2 * len(w))


def z_matrix_rollout(V: np.ndarray, W: np.ndarray, prompts: Prompts, steps: int) -> np.ndarray:
    """what_k of the literal model f(Z) = Z + V Z (Z^T W Z)/n (3.1)-(3.3), (3.8), one prompt at a time."""
    d, answers = len(V), []
    full_V, full_W = np.zeros((2, 2 * d + 2, 2 * d + 2))
    full_V[d + 1 : -1, :d], full_W[:d, d + 1 : -1], full_W[d, -1] = V, W, -1
    for x, y in zip(prompts.inputs, prompts.labels, strict=True):
        n = len(x)
        Z = np.zeros((2 * d + 2, n + 1))
        Z[:d, :n], Z[d, :n], Z[-1, n] = x.T, y, 1
        for _ in range(steps):
            thought = (Z + full_V @ Z @ (Z.T @ full_W @ Z) / n)[:, -1:]
            thought[: d + 1] = 0
            Z = np.hstack([Z, thought])
        answers.append(Z[d + 1 : -1, -1])
    return np.array(answers)


def population(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d prompts that stand for infinitely many: S = diag(s) and (1/B) sum w w^T = I."""
    d = len(s)
    return np.sqrt(d) * np.eye(d), np.broadcast_to(np.diag(s), (d, d, d))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_proposition_6_1_is_the_roll_out_of_the_literal_model(steps: int) -> None:
    V, prompts = setting(3, 4, seed=1)
    W = np.eye(3) + 0.3 * np.random.default_rng(2).standard_normal((3, 3))
    gap = prompts.weights - z_matrix_rollout(V, W, prompts, steps)
    E = rollout_error_operator(V, W, prompts.covariances, steps)
    assert_allclose(np.einsum("bij,bj->bi", E, prompts.weights), gap, atol=1e-12)
    loss = outcome_loss(V, prompts.weights.T, prompts.covariances, steps, W)
    assert loss == pytest.approx((gap**2).sum() / 8, rel=1e-12)
    assert loss == pytest.approx(float(torch_loss(*map(torch.from_numpy, (V, W)), prompts, steps)), rel=1e-12)


def test_without_w_the_operator_is_a_power_in_every_form() -> None:
    V, prompts = setting(3, 4, seed=3)
    E = rollout_error_operator(V, None, prompts.covariances, 4)
    assert_allclose(E, np.linalg.matrix_power(np.eye(3) + V @ prompts.covariances, 4), atol=1e-12)
    v, s, w = np.array([[-0.5, 1.0, -2.0], [1.0, 0.3, 2.0], [1.0, 0.5, 2.0]])
    dense = rollout_error_operator(np.diag(v), np.diag(w), np.diag(s), 3)
    assert_allclose(np.diag(rollout_error_operator(v, w, s, 3)), dense, atol=1e-12)
    assert_allclose(rollout_error_operator(v, None, s, 3), (1 + v * s) ** 3, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_gradient_is_autograd_and_the_printed_sum(steps: int) -> None:
    V, prompts = setting(4, 6, seed=5)
    S, weights = prompts.covariances, prompts.weights.T
    V_torch = torch.from_numpy(V).requires_grad_()
    (expected,) = torch.autograd.grad(torch_loss(V_torch, torch.eye(4).double(), prompts, steps), V_torch)
    gradient = outcome_gradient(V, weights, S, steps)
    assert_allclose(gradient, expected, rtol=1e-10, atol=1e-12)
    printed, power = np.zeros((4, 4)), np.linalg.matrix_power
    for w, M, own in zip(prompts.weights, np.eye(4) + V @ S, S, strict=True):
        for j in range(steps):
            left = power(M.T, j) @ power(M, steps)
            printed += left @ np.outer(w, w) @ power(M.T, steps - 1 - j) @ own.T / 6
    assert_allclose(gradient, printed, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("d", "steps"), [(2, 1), (3, 2), (3, 4), (4, 3)])
def test_hessian_is_autograd_and_its_ends_are_found(d: int, steps: int) -> None:
    V, prompts = setting(d, 5, seed=7, scale=1.0)
    identity = torch.eye(d).double()
    hessian = torch.autograd.functional.hessian(
        lambda x: torch_loss(x, identity, prompts, steps), torch.from_numpy(V)
    ).numpy()
    D = np.random.default_rng(1).standard_normal((d, d))
    arguments = prompts.weights.T, prompts.covariances, steps
    product = outcome_hessian_vector(V, D, *arguments)
    assert_allclose(product, np.einsum("abcd,cd->ab", hessian, D), rtol=1e-9, atol=1e-10)
    values = np.linalg.eigvalsh(hessian.reshape(d * d, d * d))
    assert_allclose(curvature_range(V, *arguments), values[[0, -1]], rtol=1e-8, atol=1e-9)
    assert largest_stable_step(V, *arguments) == pytest.approx(2 / values[-1], rel=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_population_curvature_is_the_hessian_of_infinite_data(steps: int) -> None:
    rng = np.random.default_rng(steps)
    for _ in range(4):
        s, V = rng.uniform(0, 2, 5), -rng.uniform(0, 2, 5)
        expected = curvature_range(np.diag(V), *population(s), steps)
        assert_allclose(population_curvature(V, s, steps), expected, rtol=1e-8, atol=1e-9)


def test_the_hessian_is_indefinite_exactly_where_stated() -> None:
    """k = 1 never; k = 2 when error factors have opposite signs; k >= 3 also for positive, spread factors."""
    ones = np.ones(2)
    smallest = {
        (u, k): population_curvature(np.array(u) - 1, ones, k)[0]
        for u in [(0.9, 0.1), (0.9, 0.8), (0.9, -0.8)]
        for k in (1, 2, 3)
    }
    assert smallest[(0.9, -0.8), 1] > 0
    assert smallest[(0.9, 0.1), 2] > 0 > smallest[(0.9, -0.8), 2]
    assert smallest[(0.9, 0.8), 3] > 0 > smallest[(0.9, 0.1), 3]


def test_curvature_scales_like_k_squared_rho_only_up_to_a_factor() -> None:
    """(2 - 1/k) s^2 above k^2 rho^{2k-2} where the top direction leads; any factor above it otherwise."""
    u = np.array([-1.2, 0.3, 0.5])
    for k in (1, 2, 4, 8):
        largest = population_curvature(u - 1, np.ones(3), k)[1]
        assert largest / (k**2 * 1.2 ** (2 * k - 2)) == pytest.approx(2 - 1 / k, rel=1e-12)
    # The direction of rho is barely in the data: the curvature is carried by the off-diagonal of V.
    s, k = np.array([0.01, 1.0]), 3
    largest = population_curvature((np.array([-1.2, 0.0]) - 1) / s, s, k)[1]
    assert largest > 500 * k * (2 * k - 1) * s[0] ** 2 * 1.2 ** (2 * k - 2)
    # rho = 0: the population is flat, finite prompts are not.
    prompts = draw_prompts(np.ones(5), 20, 50, seed=1)
    assert population_curvature(-np.ones(5), np.ones(5), 3)[1] == 0
    assert largest_curvature(-np.eye(5), prompts.weights.T, prompts.covariances, 3) > 0.5


def test_curvature_bound_holds_everywhere_and_is_attained() -> None:
    for seed in range(6):
        for k in (1, 2, 4):
            V, prompts = setting(3, 4, seed=seed, scale=0.3 + 0.5 * seed)
            arguments = V, prompts.weights.T, prompts.covariances, k
            assert np.abs(curvature_range(*arguments)).max() <= curvature_bound(*arguments)
    scalar = np.array([[-0.7]]), np.array([[1.7]]), np.array([[[2.5]]])
    for k in (1, 2, 5):
        assert curvature_bound(*scalar, k) == pytest.approx(largest_curvature(*scalar, k), rel=1e-12)


def test_printed_curvature_bound_needs_small_covariances() -> None:
    """App. E at d = 1 is exceeded by (2 - 1/k) s; at a minimum of zero loss (M nilpotent, k = 2) if s > 2."""
    for s, holds in ((0.5, True), (1.5, False)):
        for k in (2, 6):
            # u = 1e-3: next to the minimum, where the whole Hessian vanishes like u^{2k-2}.
            scalar = np.array([[(1e-3 - 1) / s]]), np.array([[1.0]]), np.array([[[s]]])
            ratio = largest_curvature(*scalar, k) / curvature_bound(*scalar, k, printed=True)
            assert ratio == pytest.approx((2 - 1 / k) * s, rel=1e-9)
            assert (ratio <= 1) == holds
    for s, holds in ((1.0, True), (3.0, False)):
        V = (np.array([[0.0, 0.0], [0.8, 0.0]]) - np.eye(2)) / s
        arguments = V, np.array([[1.0], [0.0]]), s * np.eye(2)[None], 2
        assert outcome_loss(*arguments) == pytest.approx(0, abs=1e-25)
        top = largest_curvature(*arguments)
        assert top == pytest.approx(2 * 0.8**2 * s**2, rel=1e-10)
        assert (top <= curvature_bound(*arguments, printed=True)) == holds
        assert top <= 4 * 0.8**2 * s**2  # k^2 ||M||^{2k-2} ||w||^2 ||S||^2


def test_printed_bound_is_loose_for_many_prompts() -> None:
    """With E w w^T = I the factor ||w||^2 = d is never used: loose by about d."""
    d = 8
    V, (weights, S) = np.full(d, -0.6), population(np.ones(d))
    assert curvature_bound(V, weights, S, 3, printed=True) > 0.5 * d * largest_curvature(V, weights, S, 3)


def test_gradient_descent_at_a_minimum_obeys_the_largest_stable_step() -> None:
    _, prompts = setting(2, 60, seed=11)
    arguments = prompts.weights.T, prompts.covariances, 2
    found = minimize(
        lambda v: outcome_loss(v.reshape(2, 2), *arguments),
        -np.eye(2).ravel() * 0.5,
        jac=lambda v: outcome_gradient(v.reshape(2, 2), *arguments).ravel(),
        method="BFGS",
        options={"gtol": 1e-9},
    ).x.reshape(2, 2)
    assert curvature_range(found, *arguments)[0] > 0
    step, nudge = (
        largest_stable_step(found, *arguments),
        1e-5 * np.random.default_rng(0).standard_normal((2, 2)),
    )
    away = {}
    for factor in (0.95, 1.05):
        V = found + nudge
        for _ in range(60):
            V = V - factor * step * outcome_gradient(V, *arguments)
        away[factor] = np.linalg.norm(V - found) / np.linalg.norm(nudge)
    assert away[0.95] < 0.5
    assert away[1.05] > 5


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_error_factor_path_solves_its_equation(steps: int) -> None:
    u0, s, times = np.array([-1.8, -0.5, 0.0, 0.9]), np.array([0.4, 1.0, 2.0, 0.7]), np.linspace(0, 5, 6)
    flow = solve_ivp(
        lambda _, u: -steps * s**2 * u ** (2 * steps - 1), (0, 5), u0, t_eval=times, rtol=1e-10, atol=1e-12
    )
    assert_allclose(error_factor_path(u0[:, None], s[:, None], steps, times), flow.y, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 3])
def test_outcome_error_path_is_the_matrix_gradient_flow(steps: int) -> None:
    V0, s, sigma = np.array([-2.0, -0.8, -0.3]), np.array([1.1, 0.4, 0.0]), np.array([1.1, 1.0, 1.0])
    prompts, times = population(s), np.array([0.0, 0.3, 2.0])
    flow = solve_ivp(
        lambda _, v: -outcome_gradient(v.reshape(3, 3), *prompts, steps).ravel(),
        (0, 2),
        np.diag(V0).ravel(),
        t_eval=times,
        rtol=1e-10,
        atol=1e-12,
    )
    expected = [rollout_error(v.reshape(3, 3), np.diag(sigma), 2).value for v in flow.y.T]
    assert_allclose(outcome_error_path(V0, s, sigma, steps, times, 2), expected, rtol=1e-7)
    assert outcome_error_path(V0, s, sigma, steps, 0.0, 2) == pytest.approx(rollout_error(V0, sigma, 2).value)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_gradient_descent_in_one_direction(steps: int) -> None:
    """`stable_step`: neighbours approach; (2k-1) times it: the exact limit of convergence from u0."""
    u0, s, k = -1.6, 0.7, steps

    def descend(u: float, step: float, iterations: int) -> float:
        for _ in range(iterations):
            if abs(u) < 10:
                u -= step * k * s**2 * u ** (2 * k - 1)
        return u

    local, limit = float(stable_step(u0, s, k)), float((2 * k - 1) * stable_step(u0, s, k))
    for factor, contracts in ((0.99, True), (1.01, False)):
        gap = descend(u0 + 1e-7, factor * local, 1) - descend(u0, factor * local, 1)
        assert (abs(gap) < 1e-7) == contracts
    assert abs(descend(u0, 0.99 * limit, 3000)) < 0.3
    assert abs(descend(u0, 1.01 * limit, 3000)) >= 10
    assert np.isinf(stable_step(1.0, 0.0, k))


def test_longer_chains_need_exponentially_more_steps_at_their_own_stable_step() -> None:
    """After N steps at the fraction c of the stable step: (u/u0)^{-(2k-2)} = 1 + 2 c N (2k-2)/(2k-1)."""
    for u0, s in ((-2.5, 0.6), (0.4, 1.3)):
        for k in (2, 3, 5):
            c, N = 0.3, 200
            ratio = error_factor_path(u0, s, k, c * N * stable_step(u0, s, k)) / u0
            expected = 1 + 2 * c * N * (2 * k - 2) / (2 * k - 1)
            assert ratio ** -(2 * k - 2) == pytest.approx(expected, rel=1e-10)


def test_regimes_and_what_their_thresholds_mean() -> None:
    """rho(Gamma0^{-1} Delta) < 1 is sufficient, < 2 necessary for rho(M) < 1; between them n decides."""
    spectrum, delta = np.array([0.1, 1.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.0, 0.0])
    assert adaptation_radius(spectrum, delta, 50) == pytest.approx(1 / gamma0(spectrum, 50)[0], rel=1e-12)
    assert regime(spectrum, delta, 50) == "novel"
    assert regime(spectrum, 0.05 * delta, 50) == "incremental"
    # On prompts of covariance Delta the boundary is 2, for every length: |1 - delta/gamma| < 1.
    for n in (4, 10**6):
        for radius, stable in ((1.9, True), (2.1, False)):
            data = radius * gamma0(spectrum, n)[0] * delta
            u = rollout_error_operator(pretrained_operator(spectrum, n), None, data, 1)
            assert (abs(u[0]) < 1) == stable
    for seed in range(20):
        sigma0, shift = random_psd(4, seed), 2.0 * random_psd(4, seed + 100, rank=2)
        for n in (2, 20, 10**6):
            radius = adaptation_radius(sigma0, shift, n)
            stable = rollout_radius(pretrained_operator(sigma0, n), sigma0 + shift) < 1
            assert not (radius <= 1 and not stable)
            assert not (radius >= 2 and stable)
    # Radius 1.5 with short and with long pretraining prompts: stable, then unstable.
    for n, stable in ((4, True), (10**6, False)):
        shift = 1.5 * gamma0(spectrum, n)[0] * delta
        assert adaptation_radius(spectrum, shift, n) == pytest.approx(1.5)
        assert (rollout_radius(pretrained_operator(spectrum, n), spectrum + shift) < 1) == stable


def test_rollout_error_closed_forms_and_monte_carlo() -> None:
    V, prompts = setting(3, 20000, seed=21, scale=0.15)
    target, n, k = random_psd(3, seed=21), 7, 3
    assert rollout_error(V, target, 1, n).value == post_test_error(V, target, n)
    limit = np.linalg.norm(np.linalg.matrix_power(np.eye(3) + V @ target, k)) ** 2 / 3
    assert rollout_error(V, target, k) == pytest.approx((limit, 0.0), rel=1e-12)
    powers = np.linalg.matrix_power(np.eye(3) + V @ prompts.covariances, k)
    explicit = (powers**2).sum(axis=(1, 2)) / 3
    estimate = rollout_error(V, target, k, n, draws=20000, seed=1)
    error = np.hypot(estimate.standard_error, explicit.std() / np.sqrt(len(explicit)))
    assert abs(estimate.value - explicit.mean()) < LEVEL * error
    # The test can fail: the error of infinite prompts is far outside.
    assert abs(estimate.value - limit) > 2 * LEVEL * error


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_expansion_is_half_the_laplacian_of_the_error_in_s(steps: int) -> None:
    """Order 1/n = (1/2) sum d^2 f / dS_ab dS_cd Cov(S_ab, S_cd), f = ||(I + V S)^k||^2 / d, by autograd."""
    V, _ = setting(3, 1, seed=31)
    sigma, n = random_psd(3, seed=32), 13

    def error(S: torch.Tensor) -> torch.Tensor:
        M = torch.eye(3).double() + torch.from_numpy(V) @ S
        return (torch.linalg.matrix_power(M, steps) ** 2).sum() / 3

    hessian = torch.autograd.functional.hessian(error, torch.from_numpy(sigma)).numpy()
    covariance = np.einsum("ac,bd->abcd", sigma, sigma) + np.einsum("ad,bc->abcd", sigma, sigma)
    expected = float(error(torch.from_numpy(sigma))) + (hessian * covariance).sum() / (2 * n)
    assert rollout_error_expansion(V, sigma, steps, n) == pytest.approx(expected, rel=1e-10)
    v, s = np.array([-1.0, 0.3, -0.2]), np.array([0.9, 0.5, 2.0])
    spectra, dense = (rollout_error_expansion(f(v), f(s), steps, n) for f in (np.asarray, np.diag))
    assert spectra == pytest.approx(dense, rel=1e-12)


def scalar_error(v: float, s: float, steps: int, n: int) -> float:
    """E (1 + v s c/n)^{2k} for c ~ chi^2_n, by the binomial theorem and exact moments."""
    total, moment, binomial = 0.0, 1.0, 1.0
    for i in range(2 * steps + 1):
        total += binomial * (v * s / n) ** i * moment
        moment *= n + 2 * i
        binomial *= (2 * steps - i) / (i + 1)
    return total


def test_expansion_leaves_a_gap_of_order_one_over_n_squared() -> None:
    for steps in (2, 3):
        gaps = [
            scalar_error(-0.8, 1.5, steps, n)
            - rollout_error_expansion(np.array([-0.8]), np.array([1.5]), steps, n)
            for n in (800, 1600, 3200)
        ]
        ratios = [first / second for first, second in pairwise(gaps)]
        assert_allclose(ratios[-1], 4, rtol=0.03)
        assert abs(ratios[-1] - 4) < abs(ratios[0] - 4)
    assert scalar_error(-0.8, 1.5, 1, 9) == pytest.approx(
        post_test_error(-0.8 * np.eye(1), 1.5 * np.eye(1), 9)
    )


def test_expansion_beats_the_limit_on_wishart_prompts() -> None:
    V, sigma, k = np.array([-1.0, -0.9, -0.3]), np.array([1.1, 1.0, 1.0]), 2
    for n in (40, 80):
        measured = rollout_error(V, sigma, k, n, draws=40000, seed=n)
        expansion = rollout_error_expansion(V, sigma, k, n)
        assert abs(measured.value - expansion) < 20 / n**2 + LEVEL * measured.standard_error
        limit = rollout_error(V, sigma, k).value
        assert abs(measured.value - limit) > 2 * abs(measured.value - expansion)


def test_overthinking_comes_for_every_finite_prompt_even_at_the_best_operator() -> None:
    """V = -Sigma^{-1}, rho(I + V Sigma) = 0: longer chains help, then the mean error diverges with k."""
    n = 12
    errors = [scalar_error(-1.0, 1.0, k, n) for k in range(1, 13)]
    best = int(np.argmin(errors))
    assert 0 < best < 11
    assert errors[-1] > 100 * errors[0]
    density = chi2(n).pdf
    for k in (1, 5):
        integral, _ = quad(lambda c, k=k: density(c) * (1 - c / n) ** (2 * k), 0, 200, limit=200)
        assert errors[k - 1] == pytest.approx(integral, rel=1e-6)
    # A typical prompt does not overthink: its own error factor is below 1 in size.
    assert chi2(n).cdf(2 * n) > 0.975


def test_pass_probability_is_monte_carlo_and_known_cases() -> None:
    rng, d, N = np.random.default_rng(41), 4, 200_000
    for distance, noise, tolerance in ((0.0, 0.5, 1.0), (1.0, 0.5, 1.0), (2.0, 0.8, 1.5)):
        a = noise * rng.standard_normal((N, d))
        a[:, 0] += distance
        hits = (np.linalg.norm(a, axis=1) <= tolerance).mean()
        p = float(pass_probability(distance, noise, tolerance, d))
        assert abs(hits - p) < LEVEL * np.sqrt(p * (1 - p) / N)
        wrong = pass_probability(distance, noise, 1.1 * tolerance, d)
        assert abs(hits - wrong) > 2 * LEVEL * np.sqrt(p * (1 - p) / N)
    distances = np.array([0.0, 0.5, 2.0, 6.0])
    exact = norm.cdf((1 - distances) / 0.6) - norm.cdf((-1 - distances) / 0.6)
    assert_allclose(pass_probability(distances, 0.6, 1.0, 1), exact, rtol=1e-8)
    assert_allclose(pass_probability(distances, 0.0, 0.5, 3), [1, 1, 0, 0])
    table = pass_probability(distances[:, None], np.array([0.0, 0.3, 1.0]), 1.0, 3)
    assert table.shape == (4, 3)
    # Out of reach the signal dies like a Gaussian tail: P <= Phi(-(distance - eps) / sigma).
    assert (table[2:, 1:] <= norm.cdf(-(distances[2:, None] - 1) / np.array([0.3, 1.0]))).all()
    with pytest.raises(InputError, match="noise"):
        pass_probability(1.0, -0.1, 1.0, 3)


def test_pass_rate_is_the_mean_over_weights() -> None:
    rng, N = np.random.default_rng(43), 100_000
    V, data, k = np.array([-1.0, -0.6, -0.4, -1.9]), np.array([1.1, 1.0, 0.0, 1.0]), 2
    wrong = rollout_error_operator(V, None, data, k) * rng.standard_normal((N, 4))
    for noise, tolerance in ((0.3, 1.0), (0.3, 0.4), (0.0, 0.9)):
        hits = pass_probability(np.linalg.norm(wrong, axis=1), noise, tolerance, 4)
        rate = pass_rate(V, data, k, noise, tolerance)
        assert abs(hits.mean() - rate) < LEVEL * hits.std() / np.sqrt(N)
        assert rate == pytest.approx(pass_rate(np.diag(V), np.diag(data), k, noise, tolerance), rel=1e-10)
        seen = pass_probability(np.linalg.norm(wrong[:, data > 0], axis=1), noise, tolerance, 3)
        rate = pass_rate(V, data, k, noise, tolerance, basis=range_basis(data))
        assert abs(seen.mean() - rate) < LEVEL * seen.std() / np.sqrt(N)


@pytest.mark.parametrize("d", [1, 2, 7, 200])
def test_pass_rate_is_exact_for_equal_factors(d: int) -> None:
    V, data = np.full(d, -0.3), np.ones(d)
    scale = 0.7**4 + 0.01
    for tolerance in (0.01, 0.3, np.sqrt(d * scale), 2 * np.sqrt(d * scale)):
        exact = chi2.cdf(tolerance**2 / scale, d)
        assert pass_rate(V, data, 2, 0.1, tolerance) == pytest.approx(exact, rel=1e-9, abs=1e-300)
    assert pass_rate(-np.ones(d), data, 2, 0.0, 0.1) == 1.0
    assert pass_rate(V, data, 2, 0.1, 0.0) == 0.0


def test_pass_rate_vanishes_for_novel_tasks_and_chains_make_it_worse() -> None:
    """More steps raise the pass rate for rho(M) < 1 and lower it for rho(M) > 1; on Delta that means 2."""
    for u, helps in ((0.7, True), (-1.5, False)):
        rates = [pass_rate(np.full(10, u - 1), np.ones(10), k, 0.1, 1.0) for k in (1, 2, 4, 8)]
        assert (np.diff(rates) > 0).all() == helps
        assert (np.diff(rates) < 0).all() != helps
    spectrum, n = np.array([0.1, 0.2, 1.0, 1.0]), 30
    ceiling = chi2.cdf(0.5**2 / 0.2**2, 2)
    for radius, limit in ((1.9, ceiling), (2.1, 0.0)):
        delta = radius * gamma0(spectrum, n) * np.array([1.0, 0.9, 0.0, 0.0])
        assert adaptation_radius(spectrum, delta, n) == pytest.approx(radius)
        rate = pass_rate(pretrained_operator(spectrum, n), delta, 200, 0.2, 0.5, basis=range_basis(delta))
        assert rate == pytest.approx(limit, abs=1e-6)


def test_dense_reward_and_its_policy_gradient() -> None:
    """E r = -(2 L_OS + d sigma^2), and E[r grad log pi] = -2 grad L_OS: an unbiased, noisy OS gradient."""
    V, prompts = setting(3, 3, seed=51)
    S, w_star, k, sigma, N = prompts.covariances, prompts.weights, 3, 0.4, 400_000
    error = -np.einsum("bij,bj->bi", rollout_error_operator(V, None, S, k), w_star)
    xi = np.random.default_rng(52).standard_normal((N, 3, 3))
    rewards = -((error + sigma * xi) ** 2).sum(axis=2)
    mean = rewards.mean(axis=1)
    expected = expected_dense_reward(V, w_star.T, S, k, sigma)
    assert abs(mean.mean() - expected) < LEVEL * mean.std() / np.sqrt(N)
    # The score of a Gaussian policy in its mean is xi / sigma; a baseline leaves the mean alone.
    samples = (rewards - rewards.mean(axis=0))[:, :, None] * xi / sigma
    gap = np.abs(samples.mean(axis=0) - -2 * error) / (samples.std(axis=0) / np.sqrt(N))
    assert gap.max() < LEVEL
    V_torch = torch.from_numpy(V).requires_grad_()
    w = torch.zeros(3, 3).double()
    for _ in range(k):
        w = w + torch.einsum("ij,bjk,bk->bi", V_torch, torch.from_numpy(S), w - torch.from_numpy(w_star))
    (pulled,) = torch.autograd.grad(w, V_torch, torch.from_numpy(-2 * error / 3))
    assert_allclose(pulled, -2 * outcome_gradient(V, w_star.T, S, k), rtol=1e-9, atol=1e-11)


def test_bad_input_is_named() -> None:
    V, prompts = setting(3, 4, seed=1)
    with pytest.raises(InputError, match="steps"):
        outcome_loss(V, prompts.weights.T, prompts.covariances, 0)
    with pytest.raises(InputError, match="covariances"):
        outcome_gradient(V, prompts.weights.T, prompts.covariances[:2], 1)
    with pytest.raises(InputError, match="spectra"):
        outcome_error_path(V, np.ones(3), np.ones(3), 1, 1.0, 1)
    with pytest.raises(InputError, match="delta"):
        adaptation_radius(np.ones(3), np.ones(4), 5)
    with pytest.raises(InputError, match="noise"):
        pass_rate(-np.ones(3), np.ones(3), 1, float("nan"), 1.0)
