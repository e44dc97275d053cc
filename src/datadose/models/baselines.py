"""Exact predictors of w*, called like the models: pretrained LSA, gradient descent, ridge, least squares.

Each uses a prompt's inputs X (n, d) and labels y = X w* alone. `rollout` gives thoughts like a model's:
the thoughts of an iterative predictor, or the same answer at every step of a closed form.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from datadose.errors import require_integer, require_number
from datadose.models.linear_attention import BlockLinearAttention, starting_operator
from datadose.models.prompt_batch import PromptBatch, Thoughts
from datadose.shapes import Operator
from datadose.theory.pretraining import pretrained_operator


class Predictor(Protocol):
    """The methods that the post-test requires of a model or a baseline."""

    def rollout(self, batch: PromptBatch, steps: int, noise: Thoughts | None = None) -> Thoughts:
        """The thoughts w_1 .. w_k, shape (*runs, B, k, d)."""


class Zero:
    """The predictor that always answers 0. Its error is 1 per dimension."""

    def rollout(self, batch: PromptBatch, steps: int, noise: Thoughts | None = None) -> Thoughts:
        """Thoughts that are all zero, shape (*runs, B, k, d)."""
        return _at_every_step(torch.zeros_like(batch.weights), steps)


class GradientDescent:
    """k steps of gradient descent on ||X w - y||^2 / 2n from 0: w <- w - step S (w - w*).

    ``step`` None is 1 / lambda_max(S) of each prompt, the largest that never overshoots.
    """

    def __init__(self, step: float | None = None) -> None:
        self.step = None if step is None else require_number("step", step, 0, float("inf"), open_ends=True)

    def rollout(self, batch: PromptBatch, steps: int, noise: Thoughts | None = None) -> Thoughts:
        """See :class:`Predictor`."""
        rate: Tensor | float | None = self.step
        if rate is None:
            X = batch.held_inputs()
            rate = batch.length / torch.linalg.matrix_norm(X, ord=2).square().unsqueeze(-1)
        w, thoughts = torch.zeros_like(batch.weights), []
        for _ in range(require_integer("steps", steps, 1)):
            w = w - rate * batch.apply(w - batch.weights)
            thoughts.append(w)
        return torch.stack(thoughts, dim=-2)


class Ridge:
    """Ridge regression: the answer (X^T X + lambda I)^{-1} X^T y, with lambda = ``penalty`` >= 0.

    A penalty of 0 is least squares (of minimum norm where n < d). Labels are noise-free and w* ~ N(0, I), so
    the Bayes estimate is the limit lambda -> 0.
    """

    def __init__(self, penalty: float = 0.0) -> None:
        self.penalty = require_number("penalty", penalty, 0, float("inf"))

    def rollout(self, batch: PromptBatch, steps: int, noise: Thoughts | None = None) -> Thoughts:
        """The answer, repeated at every step, shape (*runs, B, k, d)."""
        X = batch.held_inputs()
        labels = (X @ batch.weights.unsqueeze(-1)).double()
        X = X.double()
        if self.penalty == 0:
            w = torch.linalg.pinv(X) @ labels
        else:
            gram = X.transpose(-1, -2) @ X + self.penalty * torch.eye(
                X.shape[-1], dtype=X.dtype, device=X.device
            )
            w = torch.linalg.solve(gram, X.transpose(-1, -2) @ labels)
        return _at_every_step(w.squeeze(-1).to(batch.weights.dtype), steps)


def _at_every_step(answer: Tensor, steps: int) -> Tensor:
    return answer.unsqueeze(-2).expand(*answer.shape[:-1], require_integer("steps", steps, 1), -1)


def lsa(operator: Operator, runs: int | None = None) -> BlockLinearAttention:
    """The linear transformer with V~ = ``operator``, (d,) or (d, d), and W~ = I, in ``runs`` copies.

    Training changes V~ alone.
    """
    return BlockLinearAttention(starting_operator(operator, runs), train_attention=False)


def pretrained_lsa(sigma0: Operator, length: int, runs: int | None = None) -> BlockLinearAttention:
    """The linear transformer after pretraining on infinitely many prompts (V~ = -Gamma0^{-1}, eq. 3.6).

    ``sigma0`` is the covariance, (d,) or (d, d), ``length`` n >= 1, ``runs`` the number of copies.
    """
    return lsa(pretrained_operator(sigma0, length), runs)


def baselines(sigma0: Operator, length: int) -> dict[str, Predictor]:
    """The exact predictors that a learned model is compared with, by name.

    ``sigma0`` and ``length`` are those of pretraining, for :func:`pretrained_lsa`.
    """
    return {
        "zero": Zero(),
        "one gradient step": GradientDescent(),
        "ridge": Ridge(0.1 * length),
        "least squares": Ridge(),
        "pretrained LSA": pretrained_lsa(sigma0, length),
    }
