"""Independent twins of outcome supervision: torch roll-outs, Z matrices, infinite data."""

from __future__ import annotations

import numpy as np
import torch

from datadose.covariance import (
    frobenius_squared,
    identity_like,
    product,
    same_form,
    trace_product,
    transpose,
)
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


def rollout_error_expansion(V: np.ndarray, target: np.ndarray, steps: int, length: int) -> float:
    """``rollout_error`` to order 1/n at fixed d; exact for k = 1, else the rest is O(1/n^2).

    With M = I + V Sigma, X = S - Sigma and n E[X A X] = Sigma A^T Sigma + tr(A Sigma) Sigma, d times it is
    ||M^k||^2 + E ||sum_i M^i V X M^{k-1-i}||^2 + 2 sum_{i+j+l=k-2} E tr((M^k)^T M^i V X M^j V X M^l).
    """
    k, n = steps, length
    V, sigma = same_form(V, target)
    powers = [identity_like(V)]
    for _ in range(k):
        powers.append(powers[-1] + product(powers[-1], V, sigma))

    def second(A: np.ndarray) -> np.ndarray:
        return product(sigma, transpose(A), sigma) + trace_product(A, sigma) * sigma

    total = 0.0
    for i, j in np.ndindex(k, k):
        outer = product(transpose(product(powers[j], V)), powers[i], V)
        total += trace_product(outer, second(product(powers[k - 1 - i], transpose(powers[k - 1 - j]))))
    for i, j in np.ndindex(k - 1, k - 1):
        if i + j <= k - 2:
            around = product(powers[k - 2 - i - j], transpose(powers[k]), powers[i], V)
            total += 2 * trace_product(around, second(product(powers[j], V)))
    return (frobenius_squared(powers[k]) + total / n) / len(V)
