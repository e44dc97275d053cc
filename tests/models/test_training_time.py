"""The literal model (3.1) on matrices Z, trained by autograd in V~, is the filter: stopped, or held back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datadose.models import LinearAttention
from datadose.prompts import Prompts, draw_prompts
from datadose.simulation.spectral import Pool, Regression
from datadose.theory import Source, chain_weight
from datadose.theory.stopping import Stopping
from helpers.literal import literal_sft_loss, random_psd

D, ETA, LENGTH = 4, 0.3, 7
A = random_psd(D, 1)
V0 = 0.2 * np.random.default_rng(2).standard_normal((D, D)) - 0.5 * np.eye(D)


def trained_literally(
    prompts: Prompts, chain_steps: int, rate: float, updates: int, decay: float = 0.0
) -> tuple[np.ndarray, float]:
    """V~ after full-batch descent on L_SFT + decay/2 ||V~ - V0||^2, and how far its last update moved.

    Autograd of the loss over the matrices Z; all blocks but V~ keep their values, as Thm 4.2 has it.
    """
    model = LinearAttention(torch.from_numpy(V0.copy()))
    start, moved = torch.from_numpy(V0), np.inf
    for _ in range(updates):
        model.zero_grad()
        literal_sft_loss(model, prompts, ETA, chain_steps).backward()
        assert model.V.grad is not None
        slope = model.V.grad[D + 1 : 2 * D + 1, :D]
        with torch.no_grad():
            update = rate * (slope + decay * (model.operator - start))
            model.operator.sub_(update)
        moved = float(update.abs().max())
    return model.operator.detach().numpy().copy(), moved


def filtered(prompts: Prompts, chain_steps: int, stopping: Stopping) -> np.ndarray:
    """V~ of the spectral filter on the moments of the same prompts."""
    request = Regression.of(ETA, [Source(A, LENGTH, 0)], None, chain_steps)
    B = len(prompts.weights)
    rows = (prompts.moments.phi, -ETA * prompts.moments.weights)
    factors = Pool(request, *([X.reshape(D, 1, B)] for X in rows)).factors(np.array([B]), V0)
    return V0 + factors.change(factors.gains(stopping, request.speed))


def edge_of(prompts: Prompts, chain_steps: int) -> float:
    """The largest curvature c_k lmax / B of the loss."""
    return float(
        chain_weight(ETA, chain_steps) * np.linalg.norm(prompts.moments.phi, 2) ** 2 / len(prompts.weights)
    )


def test_the_literal_model_stopped_early_is_the_filter_of_its_steps() -> None:
    """B below and above d, chains of 1 and 3 steps, small and nearly unstable learning rates; 1e-8."""
    for B, k, share in ((3, 0, 0.3), (3, 2, 1.9), (9, 2, 0.3), (9, 0, 1.9)):
        prompts = draw_prompts(A, LENGTH, B, seed=B)
        rate = share / edge_of(prompts, k)
        V, _ = trained_literally(prompts, k, rate, 25)
        stopping = Stopping(steps=25, learning_rate=rate)
        np.testing.assert_allclose(V, filtered(prompts, k, stopping), rtol=0, atol=1e-8)
        assert np.abs(V - V0).max() > 1e-3


@pytest.mark.long
def test_weight_decay_towards_the_start_is_the_ridge() -> None:
    """A decay m of the mean loss over B prompts with its factor c_k is the penalty m B / c_k; 1e-8."""
    for B, k in ((3, 1), (9, 0)):
        prompts, decay = draw_prompts(A, LENGTH, B, seed=B), 0.4
        V, moved = trained_literally(prompts, k, 1.5 / (edge_of(prompts, k) + decay), 250, decay)
        assert moved < 1e-9
        ridge = decay * B / chain_weight(ETA, k)
        np.testing.assert_allclose(V, filtered(prompts, k, Stopping(ridge=ridge)), rtol=0, atol=1e-8)
        assert np.abs(V - filtered(prompts, k, Stopping())).max() > 1e-3
