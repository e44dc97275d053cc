"""Literal twins: the paper's definitions with no shortcut, slow, used only to check the fast code."""

from __future__ import annotations

import numpy as np
import torch

from datadose.models import LinearAttention, embed_prompts
from datadose.prompts import Prompts


def chain_of_thought(weights: np.ndarray, eta: float, steps: int) -> np.ndarray:
    """w_i = (1 - (1-eta)^i) w* for i = 0 .. steps + 1, shape (steps + 2, B, d)."""
    decay = (1 - eta) ** np.arange(steps + 2)
    return (1 - decay)[:, None, None] * weights


def literal_sft_loss(model: LinearAttention, prompts: Prompts, eta: float, steps: int) -> torch.Tensor:
    """L_SFT = 1/(2B) sum over prompts and i = 0..k of ||f(Z_i)[:, -1] - (0, 0, w_{i+1}, 1)||^2."""
    chain = torch.from_numpy(chain_of_thought(prompts.weights, eta, steps))
    Z = embed_prompts(torch.from_numpy(prompts.inputs), torch.from_numpy(prompts.labels))
    B, d = prompts.weights.shape
    examples = Z.shape[2] - 1
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(steps + 1):
        target = torch.cat([torch.zeros(B, d + 1), chain[i + 1], torch.ones(B, 1)], dim=1)
        loss = loss + ((model.literal(Z, examples)[:, :, -1] - target) ** 2).sum()
        Z = model.append(Z, target)
    return loss / (2 * B)


def literal_sft_minimiser(prompts: Prompts, eta: float, V0: np.ndarray) -> np.ndarray:
    """Thm 4.1 word for word with an SVD pseudo-inverse."""
    phi = np.stack([X.T @ y / len(y) for X, y in zip(prompts.inputs, prompts.labels, strict=True)], axis=1)
    pinv = np.linalg.pinv(phi)
    return -eta * prompts.weights.T @ pinv + V0 @ (np.eye(len(phi)) - phi @ pinv)


def random_psd(dimension: int, seed: int, rank: int | None = None) -> np.ndarray:
    """A Wishart matrix of the given rank, trace about d."""
    rng = np.random.default_rng(seed)
    G = rng.standard_normal((dimension, rank or 2 * dimension))
    return G @ G.T / G.shape[1]
