"""Identities of the SFT theory in float64; the comparisons with training are in theory_vs_simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datadose import Shift
from datadose.errors import InputError
from datadose.prompts import draw_moments, draw_prompts
from datadose.theory import (
    GradientDescent,
    chain_weight,
    optimal_allocation,
    population_minimiser,
    pretrained_operator,
    sft_loss,
    sft_minimiser,
)
from datadose.theory.sft import chain_residuals, first_order_minimiser
from helpers.literal import literal_sft_minimiser, random_psd


@given(st.floats(0.01, 1.99), st.integers(0, 60))
def test_chain_weight_is_the_geometric_sum(eta: float, k: int) -> None:
    assert chain_weight(eta, k) == pytest.approx(sum((1 - eta) ** (2 * i) for i in range(k + 1)), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 10), st.integers(1, 25), st.integers(0, 1000))
def test_minimiser_is_the_pseudo_inverse_formula(d: int, B: int, seed: int) -> None:
    prompts = draw_prompts(random_psd(d, seed=seed), 8, B, seed=seed)
    V0 = np.random.default_rng(seed).standard_normal((d, d))
    V = sft_minimiser(prompts.moments, 0.3, V0)
    # Both are exact up to the conditioning of Phi.
    condition = np.linalg.cond(prompts.moments.phi)
    np.testing.assert_allclose(V, literal_sft_minimiser(prompts, 0.3, V0), atol=1e-13 * condition**2 + 1e-10)


def test_loss_is_the_sum_over_the_chain() -> None:
    """c_k/(2B) ||V Phi + eta Omega||^2 = the teacher-forced loss with W~ = I."""
    prompts = draw_prompts(random_psd(5, seed=1), 9, 7, seed=2)
    V = np.random.default_rng(3).standard_normal((5, 5))
    for k in (0, 1, 6):
        residuals = chain_residuals(V, np.eye(5), prompts.weights.T, prompts.covariances, 0.4, k)
        assert sft_loss(V, prompts.moments, 0.4, k) == pytest.approx((residuals**2).sum() / 14, rel=1e-12)


def test_gradient_descent_keeps_the_complement_of_the_data() -> None:
    moments = draw_moments(np.array([1.0, 0.5, 0.0, 0.0]), 6, 9, seed=0)
    V0 = np.random.default_rng(1).standard_normal((4, 4))
    descent = GradientDescent.of(moments, 0.3, V0, 2)
    V = descent.iterate(descent.balanced_step, 50)
    np.testing.assert_allclose(V[:, 2:], V0[:, 2:], atol=1e-12)
    np.testing.assert_allclose(descent.iterate(descent.balanced_step, 0), V0, atol=1e-12)
    assert descent.largest_step == pytest.approx(2 * descent.balanced_step)


def test_population_minimiser_by_hand_and_off_the_range() -> None:
    A, V0, n, eta = np.array([0.5, 0.0]), np.array([-3.0, -4.0]), 10, 0.2
    expected = [-eta / (11 / 10 * 0.5 + 0.5 / 10), -4.0]
    np.testing.assert_allclose(population_minimiser(A, n, eta, V0), expected, rtol=1e-12)
    np.testing.assert_allclose(
        population_minimiser(np.diag(A), n, eta, np.diag(V0)), np.diag(expected), atol=1e-12
    )


def test_optimal_allocation_solves_the_shift_for_long_prompts() -> None:
    shift = Shift.two_block(6, 3, 0.1, 0.2)
    A = optimal_allocation(shift)
    V = population_minimiser(A, 10**7, shift.eta, pretrained_operator(shift.sigma0, 10**7))
    np.testing.assert_allclose(V[:3], -1 / shift.target[:3], rtol=1e-5)
    assert optimal_allocation(shift, 0.05)[5] == pytest.approx(0.05)


def test_first_order_minimiser_is_equation_b_3() -> None:
    for data, B in ((random_psd(6, 1), 4), (random_psd(6, 1), 15), (random_psd(6, 2, rank=3), 8)):
        moments = draw_moments(data, 50, B, seed=3)
        V0 = np.random.default_rng(4).standard_normal((6, 6))
        M = data @ moments.weights
        pinv = np.linalg.pinv(M, rcond=1e-10)
        signal = -0.3 * moments.weights @ pinv + V0 @ (np.eye(6) - M @ pinv)
        noise = -signal @ (moments.phi - M) @ pinv
        np.testing.assert_allclose(first_order_minimiser(moments, data, 0.3, V0), signal + noise, atol=1e-8)


@pytest.mark.parametrize("step", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_steps_are_named(step: float) -> None:
    descent = GradientDescent.of(draw_moments(np.ones(3), 5, 4, seed=0), 0.3, -np.ones(3), 0)
    with pytest.raises(InputError, match="step"):
        descent.rate(step)
    with pytest.raises(InputError, match="eta"):
        chain_weight(0.0, 3)
    with pytest.raises(InputError, match="steps"):
        chain_weight(0.3, -1)
