"""Outcome supervision: errors of roll-outs, overthinking, pass rates, rewards, bad input."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import chi2, norm

from datadose.covariance import range_basis
from datadose.errors import InputError
from datadose.theory.outcome import (
    adaptation_radius,
    outcome_gradient,
    outcome_loss,
    pass_probability,
    pass_rate,
    population_curvature,
    rollout_error,
    rollout_error_operator,
)
from datadose.theory.post_test import post_test_error
from datadose.theory.pretraining import gamma0, pretrained_operator
from helpers.literal import random_psd
from helpers.outcome_twins import LEVEL, rollout_error_expansion, setting


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
    expected = -(2 * outcome_loss(V, w_star.T, S, k) + 3 * sigma**2)
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


@pytest.mark.usefixtures("any_shape")
def test_bad_input_is_named() -> None:
    V, prompts = setting(3, 4, seed=1)
    with pytest.raises(InputError, match="steps"):
        outcome_loss(V, prompts.weights.T, prompts.covariances, 0)
    with pytest.raises(InputError, match="covariances"):
        outcome_gradient(V, prompts.weights.T, prompts.covariances[:2], 1)
    with pytest.raises(InputError, match="spectra"):
        population_curvature(V, np.ones(3), 1)
    with pytest.raises(InputError, match="delta"):
        adaptation_radius(np.ones(3), np.ones(4), 5)
    with pytest.raises(InputError, match="noise"):
        pass_rate(-np.ones(3), np.ones(3), 1, float("nan"), 1.0)


def test_a_noise_too_small_for_the_chi_square_is_refused() -> None:
    """At a non-centrality of 1e12 scipy's series does not converge and its value is not a number."""
    with pytest.raises(InputError, match="noise"):
        pass_probability(1e6, 1.0, 1e6, 1000)
