"""Exact predictors against numpy, and called like the models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datadose.errors import InputError
from datadose.models import PromptBatch
from datadose.models.baselines import GradientDescent, Ridge, Zero, baselines, pretrained_lsa
from datadose.theory.post_test import post_test_error
from datadose.theory.pretraining import pretrained_operator

SIGMA0 = np.array([0.1, 1.0, 1.0, 2.0])


def prompts(n: int, count: int = 6) -> PromptBatch:
    return PromptBatch.draw(SIGMA0, n, count, seeds=[0, 1], dtype=torch.float64, hold_inputs=True)


@pytest.mark.parametrize("n", [2, 4, 9])
@pytest.mark.parametrize("penalty", [0.0, 0.7])
def test_ridge_and_least_squares(n: int, penalty: float) -> None:
    batch = prompts(n)
    assert batch.inputs is not None
    answers = Ridge(penalty).rollout(batch, 3)
    assert answers.shape == (2, 6, 3, 4)
    X, w = batch.inputs[1, 2].numpy(), batch.weights[1, 2].numpy()
    expected = (
        np.linalg.lstsq(X, X @ w, rcond=None)[0]
        if penalty == 0
        else np.linalg.solve(X.T @ X + penalty * np.eye(4), X.T @ X @ w)
    )
    np.testing.assert_allclose(answers[1, 2, 0].numpy(), expected, rtol=1e-8, atol=1e-10)
    assert torch.equal(answers[..., 0, :], answers[..., 2, :])


def test_gradient_descent_is_the_literal_recursion_and_its_own_step_never_overshoots() -> None:
    batch = prompts(9)
    assert batch.inputs is not None
    X, w = batch.inputs[0, 3].numpy(), batch.weights[0, 3].numpy()
    found, thought = GradientDescent(0.3).rollout(batch, 4)[0, 3].numpy(), np.zeros(4)
    for i in range(4):
        thought = thought - 0.3 * X.T @ (X @ thought - X @ w) / 9
        np.testing.assert_allclose(found[i], thought, rtol=1e-10)
    gap = (GradientDescent().rollout(batch, 6) - batch.weights.unsqueeze(-2)).square().sum(-1)
    assert (gap.diff(dim=-1) <= 1e-12).all()


def test_all_are_called_alike_and_the_pretrained_lsa_has_its_theoretical_error() -> None:
    batch = PromptBatch.draw(SIGMA0, 12, 4000, seeds=[3], hold_inputs=True)
    for name, predictor in baselines(SIGMA0, 12).items():
        assert predictor.rollout(batch, 2).shape == (1, 4000, 2, 4), name
    with torch.no_grad():
        answers = pretrained_lsa(SIGMA0, 12).rollout(batch, 1)[..., 0, :]
    error = float((answers - batch.weights).square().mean())
    # 4,000 prompts: the relative standard error is about 2 percent, five of them are allowed.
    assert error == pytest.approx(post_test_error(pretrained_operator(SIGMA0, 12), SIGMA0, 12), rel=0.1)
    assert float((Zero().rollout(batch, 1)[..., 0, :]).abs().max()) == 0


def test_bad_requests_are_refused() -> None:
    covariances_only = PromptBatch.draw(SIGMA0, 12, 3, seeds=[0])
    with pytest.raises(InputError, match="inputs"):
        Ridge().rollout(covariances_only, 1)
    with pytest.raises(InputError, match="penalty"):
        Ridge(-1.0)
    with pytest.raises(InputError, match="steps"):
        Zero().rollout(covariances_only, 0)
