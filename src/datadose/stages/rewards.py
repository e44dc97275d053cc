"""Rewards: plain functions of (answers, weights), callable without a trainer; G answers for each prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from datadose.errors import reject, require_number
from datadose.models.prompt_batch import Vectors
from datadose.shapes import Bool, Float

Answers: TypeAlias = Float[Tensor, "G *runs B d"]
"""A group of G answers for each prompt."""
PerAnswer: TypeAlias = Float[Tensor, "G *runs B"]
"""A number for each answer."""
Reward: TypeAlias = Callable[[Answers, Vectors], PerAnswer]
"""Called with answers and the prompts' weights w*."""


def negative_squared_error(answers: Answers, weights: Vectors) -> PerAnswer:
    """The dense reward -||a - w*||^2. Its mean over a Gaussian policy is -(2 L_OS + d sigma^2).

    Args:
        answers: a, shape (G, *runs, B, d).
        weights: tasks w*, shape (*runs, B, d).

    Returns:
        Rewards, shape (G, *runs, B).
    """
    return -(answers - weights).square().sum(-1)


def within_tolerance(
    tolerance: float, directions: Float[Tensor, " d"] | Bool[Tensor, " d"] | None = None
) -> Reward:
    """A verifiable 0/1 reward: 1 where ||a - w*|| <= ``tolerance`` on ``directions``.

    Args:
        tolerance: radius > 0, not divided by the number of directions.
        directions: a 0/1 mask, shape (d,); None judges all directions. An answer can only be judged on what
            its prompt can reveal (data of covariance Delta show the shift's directions alone).
    """
    require_number("tolerance", tolerance, 0, float("inf"), open_ends=True)

    def reward(answers: Answers, weights: Vectors) -> PerAnswer:
        gap = (answers - weights).square()
        if directions is not None:
            if directions.shape != weights.shape[-1:]:
                reject("directions", f"shape {tuple(directions.shape)}", f"shape {tuple(weights.shape[-1:])}")
            gap = gap * directions
        return (gap.sum(-1) <= tolerance**2).to(answers.dtype)

    return reward
