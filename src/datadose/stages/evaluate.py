"""The post-test: how far the model's answer is on prompts of the shifted distribution."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from datadose.errors import require_integer
from datadose.models import ChainModel, PromptBatch
from datadose.models.baselines import Predictor
from datadose.models.prompt_batch import Vectors
from datadose.shapes import Float, Operator

TEST_SEED = 1_000_003
"""Seed of the test prompts: the same for every run and stage, so that comparisons share their noise."""


def held_out_prompts(
    target: Operator,
    length: int,
    prompts: int = 512,
    *,
    runs: int = 1,
    dtype: torch.dtype = torch.float32,
    hold_inputs: bool = False,
) -> PromptBatch:
    """Test prompts of covariance Sigma that all runs share. They are the same in every call.

    Args:
        target: Sigma, a spectrum (d,) or a PSD matrix (d, d).
        length: prompt length n >= 1.
        prompts: their number.
        runs: number of runs that share them.
        dtype: of the tensors.
        hold_inputs: whether the batch holds the inputs X, which a transformer requires.
    """
    one = PromptBatch.draw(target, length, prompts, seeds=[TEST_SEED], dtype=dtype, hold_inputs=hold_inputs)
    return one.expand(runs)


@torch.no_grad()
def squared_gaps(model: Predictor, batch: PromptBatch, thinking_steps: int) -> Vectors:
    """The squared gaps (what_k - w*)^2 after k = ``thinking_steps`` steps, (*runs, B, d), in float64."""
    return (model.rollout(batch, thinking_steps)[..., -1, :] - batch.weights).double().square()


@torch.no_grad()
def post_test(
    model: ChainModel,
    batch: PromptBatch,
    thinking_steps: int | Sequence[int] = (),
    *,
    steps: int | Sequence[int] = (),
) -> Float[Tensor, "*runs ks"]:
    """The post-test error E||what_k - w*||^2 / d per run, for each k of ``thinking_steps``.

    Args:
        model: the model or predictor.
        batch: test prompts, such as :func:`held_out_prompts`.
        thinking_steps: one k >= 1, or several.
        steps: the old name of ``thinking_steps``.

    Returns:
        Errors, shape (*runs, number of k).
    """
    if steps != ():
        warnings.warn("post_test's steps are called thinking_steps now", DeprecationWarning, stacklevel=3)
        thinking_steps = steps
    ks = [thinking_steps] if isinstance(thinking_steps, int) else thinking_steps
    wanted = [require_integer("thinking_steps", k, 1) for k in ks]
    thoughts = model.rollout(batch, max(wanted))
    gap = (thoughts - batch.weights.unsqueeze(-2)).square().mean(dim=(-1, -3))
    return gap[..., [k - 1 for k in wanted]]
