"""Outcome supervision against independent twins: literal Z matrices, autograd, ODE solvers, Monte Carlo.

The torch twins are written from the definitions, here. Statistical tests have fixed seeds and allow 5
standard errors: under the hypothesis each comparison fails with probability below 6e-7.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from datadose.prompts import draw_prompts
from datadose.theory.outcome import (
    adaptation_radius,
    curvature_bound,
    curvature_range,
    error_factor_path,
    largest_curvature,
    largest_stable_step,
    outcome_gradient,
    outcome_hessian_vector,
    outcome_loss,
    population_curvature,
    regime,
    rollout_error,
    rollout_error_operator,
    rollout_radius,
    stable_step,
)
from datadose.theory.pretraining import gamma0, pretrained_operator
from helpers.literal import random_psd
from helpers.outcome_twins import population, setting, torch_loss, z_matrix_rollout


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
    """App. E at d = 1, where rho(M) = ||M||, is exceeded by (2 - 1/k) s."""
    for s, holds in ((0.5, True), (1.5, False)):
        for k in (2, 6):
            # u = 1e-3: next to the minimum, where the whole Hessian vanishes like u^{2k-2}.
            scalar = np.array([[(1e-3 - 1) / s]]), np.array([[1.0]]), np.array([[[s]]])
            ratio = largest_curvature(*scalar, k) / curvature_bound(*scalar, k, printed=True)
            assert ratio == pytest.approx((2 - 1 / k) * s, rel=1e-9)
            assert (ratio <= 1) == holds


def test_printed_curvature_bound_is_zero_at_a_minimum_of_zero_loss() -> None:
    """k = 2, M = a e2 e1^T, w = e1, S = s I: M^2 w = 0, rho(M) = 0, and the curvature is 2 a^2 s^2."""
    for a, s in ((1.0, 3.0), (0.8, 1.0)):
        V = (np.array([[0.0, 0.0], [a, 0.0]]) - np.eye(2)) / s
        arguments = V, np.array([[1.0], [0.0]]), s * np.eye(2)[None], 2
        assert outcome_loss(*arguments) == pytest.approx(0, abs=1e-25)
        top = largest_curvature(*arguments)
        assert top == pytest.approx(2 * a**2 * s**2, rel=1e-10)
        # rho(M) is zero up to the root of the rounding in V.
        assert curvature_bound(*arguments, printed=True) < 1e-12
        assert top <= 4 * a**2 * s**2  # k^2 ||M||^{2k-2} ||w||^2 ||S||^2


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
    u0 = 1 + V0 * s
    change = error_factor_path(u0, s, steps, times[:, None]) - u0
    paths = V0 + np.divide(change, s, out=np.zeros_like(change), where=s > 0)
    found = [rollout_error(V, sigma, 2).value for V in paths]
    assert_allclose(found, expected, rtol=1e-7)
    assert found[0] == pytest.approx(rollout_error(V0, sigma, 2).value)


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
