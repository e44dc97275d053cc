"""Each SFT theorem against an independent numerical twin: minimisation, autograd, Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datadose.models import LinearAttention
from datadose.prompts import draw_prompts
from datadose.studies.theorems.sft_checks import (
    check_allocation,
    check_chain_length,
    check_chain_length_at_large_step,
    check_gradient_descent,
    check_interpolation,
    check_overdetermined,
    check_population,
    check_post_test,
    random_shift,
)
from datadose.theory import GradientDescent, pretrained_operator, sft_loss, sft_minimiser
from datadose.theory.sft import attention_gradient_at_minimiser, chain_residuals, sft_gradient
from helpers.literal import literal_sft_loss


def instance(B: int, seed: int = 0) -> tuple:
    shift = random_shift(4, seed)
    prompts = draw_prompts(shift.data, 7, B, seed=seed)
    return shift, prompts, pretrained_operator(shift.sigma0, 7)


def literal_model(V: np.ndarray, W: np.ndarray | None = None) -> LinearAttention:
    return LinearAttention(torch.from_numpy(V.copy()), None if W is None else torch.from_numpy(W.copy()))


@pytest.mark.parametrize("k", [0, 3])
def test_loss_and_gradient_match_autograd_of_the_literal_model(k: int) -> None:
    shift, prompts, V0 = instance(6)
    model = literal_model(V0)
    loss = literal_sft_loss(model, prompts, shift.eta, k)
    loss.backward()
    assert sft_loss(V0, prompts.moments, shift.eta, k) == pytest.approx(loss.item(), rel=1e-12)
    d = 4
    gradient = model.V.grad[d + 1 : 2 * d + 1, :d].numpy()
    np.testing.assert_allclose(sft_gradient(V0, prompts.moments, shift.eta, k), gradient, atol=1e-12)


def test_chain_residuals_match_the_literal_model_for_any_attention() -> None:
    shift, prompts, V0 = instance(6)
    W = np.random.default_rng(1).standard_normal((4, 4))
    residuals = chain_residuals(V0, W, prompts.weights.T, prompts.covariances, shift.eta, 3)
    loss = literal_sft_loss(literal_model(V0, W), prompts, shift.eta, 3).item()
    assert (residuals**2).sum() / 12 == pytest.approx(loss, rel=1e-12)


def test_minimiser_is_the_limit_of_regularised_joint_minimisation() -> None:
    """Thm 4.1, B <= rank: the gap is proportional to the pull, and its extrapolation vanishes."""
    for seed in range(4):
        measured = check_interpolation(seed)
        assert measured["extrapolated_gap"] < 1e-6
        assert measured["gap_ratio"] == pytest.approx(0.1, rel=0.05)


def test_attention_gradient_matches_autograd_of_the_literal_model() -> None:
    """Thm 4.1, B > rank: (V*, I) is not stationary in W~, by exactly the stated gradient, unless eta = 1."""
    shift, prompts, V0 = instance(15)
    d = 4
    for eta, stationary in ((shift.eta, False), (1.0, True)):
        V = sft_minimiser(prompts.moments, eta, V0)
        model = literal_model(V)
        literal_sft_loss(model, prompts, eta, 3).backward()
        autograd = model.W.grad[:d, d + 1 : 2 * d + 1].numpy()
        formula = attention_gradient_at_minimiser(V, prompts.weights.T, prompts.covariances, eta, 3)
        np.testing.assert_allclose(formula, autograd, atol=1e-12)
        assert (np.abs(formula).max() < 1e-12) == stationary


def test_joint_minimisation_lowers_the_overdetermined_loss() -> None:
    for seed in range(3):
        measured = check_overdetermined(seed)
        assert 1e-3 < measured["loss_decrease"] < 0.5


def test_gradient_descent_of_the_literal_model_follows_theorem_4_2() -> None:
    """Full-batch autograd steps on V~ of the literal Z-matrix model against the closed-form iterates."""
    shift, prompts, V0 = instance(6)
    d, k = 4, 2
    descent = GradientDescent.of(prompts.moments, shift.eta, V0, k)
    step = 0.9 * descent.largest_step
    model = literal_model(V0)
    for t in range(1, 31):
        model.zero_grad()
        literal_sft_loss(model, prompts, shift.eta, k).backward()
        with torch.no_grad():
            model.V[d + 1 : 2 * d + 1, :d] -= step * model.V.grad[d + 1 : 2 * d + 1, :d]
        if t in (1, 7, 30):
            np.testing.assert_allclose(
                model.operator.detach().numpy(), descent.iterate(step, t), rtol=1e-9, atol=1e-9
            )


def test_gradient_descent_diverges_past_the_largest_step() -> None:
    """Thm 4.2: iterates, contraction within the rate below the largest step, growth above it."""
    for seed in range(4):
        measured = check_gradient_descent(seed)
        assert max(measured["iterate_gap_balanced"], measured["iterate_gap_large"]) < 1e-9
        assert max(measured["rate_excess_balanced"], measured["rate_excess_large"]) < 1e-9
        assert measured["simplified_rate_gap"] < 1e-12
        assert measured["growth_past_largest_step"] > 10


def test_chain_length_changes_the_speed_but_not_the_limit() -> None:
    """Remark 4.1: one limit for k = 0 and 8; iterations to a gap of 1e-6 in the ratio c_8 / c_0 (2 %)."""
    measured = check_chain_length(1)
    assert measured["limit_gap"] < 1e-4
    assert measured["speed_up"] == pytest.approx(measured["speed_up_predicted"], rel=0.02)


def test_a_longer_chain_is_slower_where_the_step_overshoots() -> None:
    """Remark 4.1's own bound lets c_8 gamma lambda_max / B come near 2: k = 8 needs many times the steps.

    The two counts of iterations are whole numbers of at least 4, so their ratio is that of the rates to 30 %.
    """
    for seed in range(4):
        measured = check_chain_length_at_large_step(seed)
        assert measured["slow_down"] > 5
        assert measured["slow_down"] == pytest.approx(measured["slow_down_predicted"], rel=0.3)


def test_population_minimiser_is_the_limit_of_many_prompts() -> None:
    """Prop 4.3: the distance falls like B^(-1/2). Over 100 seeds the slope has mean -0.496,
    standard deviation 0.042, so a mean of 12 outside -1/2 +- 0.06 has probability below 1e-5.
    """
    slopes = [check_population(seed)["slope"] for seed in range(12)]
    assert np.mean(slopes) == pytest.approx(-0.5, abs=0.06)


def test_post_test_error_matches_monte_carlo() -> None:
    """Prop 5.1: 200,000 test prompts; the relative standard error is below 0.1 percent, so 0.5 percent is
    beyond 5 of them. The last line of Lemma A.1's proof, which doubles tr(A Sigma A^T) tr(Sigma), is too
    large by what that adds, over 5 percent.
    """
    measured = check_post_test(3)
    assert measured["ratio"] == pytest.approx(1, abs=0.005)
    assert measured["ratio_last_line"] < 0.95


def test_paper_allocation_is_optimal_only_for_long_prompts() -> None:
    for seed in range(4):
        measured = check_allocation(seed)
        assert 0 <= measured["excess_long"] < 1e-3
        assert measured["excess_moderate"] > 5 * measured["excess_long"]
