"""Numerical checks of the statements on outcome supervision, one cell a check and seed.

As in :mod:`~datadose.studies.theorems.sft_checks`, the measuring method is independent of the formula under
test: the transformer itself, autograd, plain gradient descent.
"""

from __future__ import annotations

import numpy as np
import torch

from datadose.covariance import Array
from datadose.models import BlockLinearAttention, LinearAttention, PromptBatch
from datadose.prompts import draw_prompts
from datadose.stages.outcome import Outcome
from datadose.studies.theorems.sft_checks import Statistic, random_shift
from datadose.theory.outcome import (
    curvature_bound,
    curvature_range,
    error_factor_path,
    outcome_gradient,
    outcome_loss,
    rollout_error_operator,
)
from datadose.theory.pretraining import pretrained_operator


def _batch(weights: Array, S: Array, length: int) -> PromptBatch:
    """A float64 batch from weights (d, B) and covariances (B, d, d)."""
    w = torch.from_numpy(np.ascontiguousarray(weights.T))
    return PromptBatch(w, length, covariances=torch.from_numpy(np.ascontiguousarray(S)))


def check_rollout(seed: int) -> dict[Statistic, float]:
    """Prop 6.1 for random W~: the operator formula against the transformer's own chain, and the loss."""
    d, n, B, k = 6, 15, 8, 4
    shift = random_shift(d, seed)
    prompts = draw_prompts(shift.data, n, B, seed=seed)
    V = pretrained_operator(shift.sigma0, n)
    W = np.eye(d) + 0.2 * np.random.default_rng([seed, 61]).standard_normal((d, d))
    weights, S = prompts.weights.T, prompts.covariances
    model = LinearAttention(torch.from_numpy(V.copy()), torch.from_numpy(W))
    with torch.no_grad():
        answer = model.rollout(_batch(weights, S, n), k)[:, -1].numpy()
    predicted = np.einsum("bij,bj->bi", rollout_error_operator(V, W, S, k), prompts.weights)
    gap = np.linalg.norm(prompts.weights - answer - predicted) / np.linalg.norm(predicted)
    loss = ((answer - prompts.weights) ** 2).sum() / (2 * B)
    return {"operator_gap": float(gap), "loss_gap": abs(outcome_loss(V, weights, S, k, W) / loss - 1)}


def check_outcome_gradient(seed: int) -> dict[Statistic, float]:
    """The gradient formula of section 6.1 against autograd through the chain, k = 1..4."""
    d, n, B = 6, 15, 8
    shift = random_shift(d, seed)
    prompts = draw_prompts(shift.data, n, B, seed=seed)
    V = pretrained_operator(shift.sigma0, n)
    weights, S = prompts.weights.T, prompts.covariances
    batch, gaps = _batch(weights, S, n), []
    for k in range(1, 5):
        model = BlockLinearAttention(torch.from_numpy(V.copy()), train_attention=False)
        (found,) = torch.autograd.grad(Outcome(k)(model, batch, 0).loss, [model.V])
        formula = outcome_gradient(V, weights, S, k)
        gaps.append(np.linalg.norm(formula - found.numpy()) / np.linalg.norm(formula))
    return {"gradient_gap": float(max(gaps))}


def check_curvature(seed: int) -> dict[Statistic, float]:
    """App. E at two points: the printed bound over the curvature, and the curvature over the proven bound.

    ``scaled``: M = u I and S = s I, u in (0.3, 0.95), s in (0.5, 3), k = 2..4. ``zero_loss``: k = 2, S = s I,
    M = a y x^T with orthonormal x, y and w = |w| x, so that M^2 w = 0 exactly, a in (0.3, 0.95). One prompt,
    so that nothing is lost in the mean over prompts.
    """
    rng = np.random.default_rng([seed, 5])
    d, k = 4, int(rng.integers(2, 5))
    u, s = rng.uniform(0.3, 0.95), rng.uniform(0.5, 3.0)
    weights, S = rng.standard_normal((d, 1)), s * np.eye(d)[None]
    V = -(1 - u) / s * np.eye(d)
    largest, printed, proven = _curvature_and_bounds(V, weights, S, k)
    x, y = np.linalg.qr(rng.standard_normal((d, 2)))[0].T
    flat = (rng.uniform(0.3, 0.95) * np.outer(y, x) - np.eye(d)) / s
    at_zero, printed_at_zero, proven_at_zero = _curvature_and_bounds(
        flat, rng.uniform(1, 2) * x[:, None], S, 2
    )
    return {
        "scaled_printed_over_curvature": printed / largest,
        "scaled_printed_over_curvature_predicted": 1 / ((2 - 1 / k) * s),
        "scaled_curvature_over_proven": largest / proven,
        "zero_loss_printed_over_curvature": printed_at_zero / at_zero,
        "zero_loss_curvature_over_proven": at_zero / proven_at_zero,
        "zero_loss": outcome_loss(flat, x[:, None], S, 2),
    }


def _curvature_and_bounds(V: Array, weights: Array, S: Array, k: int) -> tuple[float, float, float]:
    """The largest |curvature| of L_OS at V, the bound that App. E prints and the proven one."""
    low, high = curvature_range(V, weights, S, k)
    printed, proven = (curvature_bound(V, weights, S, k, printed=printed) for printed in (True, False))
    return max(abs(low), abs(high)), printed, proven


def check_dynamics(seed: int) -> dict[Statistic, float]:
    """Large-n dynamics: small-step gradient descent on the population loss against the closed form.

    Population: S = Sigma for every prompt and E[w w^T] = I, exactly (B = d prompts with w = sqrt(d) e_i).
    """
    rng = np.random.default_rng([seed, 4])
    d, k = 5, 1 + seed % 4
    s, u0 = rng.uniform(0.3, 1.5, d), rng.uniform(0.2, 1.1, d)
    weights, S = np.sqrt(d) * np.eye(d), np.repeat(np.diag(s)[None], d, axis=0)
    V, step, time = np.diag((u0 - 1) / s), 2e-4, 2.0
    for _ in range(round(time / step)):
        V = V - step * outcome_gradient(V, weights, S, k)
    u = 1 + np.diag(V) * s
    exact = error_factor_path(u0, s, k, time)
    return {"factor_gap": float(np.abs(u / exact - 1).max()), "moved": float(np.abs(u / u0 - 1).max())}
