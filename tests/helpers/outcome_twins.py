"""Independent twins of outcome supervision: torch roll-outs, Z matrices, infinite data."""

from __future__ import annotations

import numpy as np
import torch

from datadose.prompts import Prompts, draw_prompts
from helpers.literal import random_psd

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
