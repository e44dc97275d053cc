"""Reinforcement learning by policy gradient, the part that the paper leaves out.

Policy: a Gaussian of scale sigma around the answer what_k, or (``every_step``) around every thought, which
then enters the context of the next. A group of G samples is drawn for each prompt, scored by a reward, and
turned into advantages: GRPO (group mean and standard deviation), RLOO (mean of the others) or REINFORCE (the
batch's mean reward as baseline). The loss is -mean(A log pi), on policy, one step per batch, plus
``kl`` times KL(policy || pretrained policy), which for two Gaussians of one scale is the squared distance of
their means over 2 sigma^2 (with ``every_step`` its gradient is taken at the sampled thoughts).

RLOO's gradient is unbiased for the gradient of the expected reward, that is, of -(2 L_OS + d sigma^2)
with the dense reward. The batch baseline contains the sample's own reward, which scales its gradient by
1 - 1/(G B); GRPO rescales every group by its standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor

from datadose.deprecation import renamed
from datadose.errors import reject, require_choice, require_integer, require_number
from datadose.models import ChainModel, PromptBatch
from datadose.models.prompt_batch import PerRun, Vectors
from datadose.prompts import random_stream
from datadose.shapes import Float
from datadose.stages.config import Advantage
from datadose.stages.engine import StageLoss, SteadyObjective
from datadose.stages.rewards import Answers, PerAnswer, Reward, negative_squared_error

ADVANTAGES: tuple[Advantage, ...] = get_args(Advantage)


def advantages(rewards: PerAnswer, kind: Advantage) -> PerAnswer:
    """The advantages of ``rewards``, by ``grpo``, ``rloo`` or ``reinforce`` (see the module's docstring).

    ``rewards`` have shape (G, *runs, B), G samples for each prompt, and so have the advantages. A group of
    equal rewards gets zeros from grpo and (up to rounding) rloo; reinforce uses the batch.
    """
    if kind == "reinforce":
        return rewards - rewards.mean(dim=(0, -1), keepdim=True)
    centred = rewards - rewards.mean(dim=0, keepdim=True)
    if kind == "rloo":
        return centred * (len(rewards) / (len(rewards) - 1))
    spread = rewards.std(dim=0, keepdim=True, correction=0)
    return torch.where(spread > 0, centred / spread.clamp_min(1e-12), torch.zeros_like(centred))


@dataclass(frozen=True)
class PolicyGradient(SteadyObjective):
    """The policy-gradient objective.

    Args:
        chain_steps: thinking steps k >= 1.
        seeds: one per run, for the policy's noise.
        reward: function of (answers, weights), see :mod:`datadose.stages.rewards`.
        group: samples per prompt G >= 2.
        noise: policy scale sigma > 0.
        advantage: ``grpo``, ``rloo`` or ``reinforce``.
        every_step: sample every thought, not the answer alone.
        kl: weight of the KL term; needs ``reference``.
        reference: the pretrained model.
    """

    chain_steps: int
    seeds: Sequence[int]
    reward: Reward = negative_squared_error
    group: int = 8
    noise: float = 0.1
    advantage: Advantage = "grpo"
    every_step: bool = False
    kl: float = 0.0
    reference: ChainModel | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_integer("chain_steps", self.chain_steps, 1)
        require_integer("group", self.group, 2)
        require_number("noise", self.noise, 0, np.inf, open_ends=True)
        require_number("kl", self.kl, 0, np.inf)
        require_choice("advantage", self.advantage, ADVANTAGES)
        if self.kl > 0 and self.reference is None:
            reject("kl", self.kl, "0 without a reference model")

    def loss(self, model: ChainModel, batch: PromptBatch, *drawn: Tensor) -> StageLoss:
        """The policy-gradient loss per run; mean reward, zero-signal share and KL are recorded."""
        noise = self.noise * drawn[0].to(batch.weights)
        sample = self._sample_thoughts if self.every_step else self._sample_answers
        log_density, answers, penalty = sample(model, batch, noise)
        with torch.no_grad():
            rewards = self.reward(answers, batch.weights)
            signal = advantages(rewards, self.advantage)
        loss = -(signal * log_density).mean(dim=(0, -1)) + self.kl * penalty
        flat = (rewards == rewards[:1]).all(dim=0).to(rewards.dtype)
        return StageLoss(
            loss, {"reward": rewards.mean(dim=(0, -1)), "zero_signal": flat.mean(dim=-1), "kl": penalty}
        )

    def draws(self, shape: torch.Size, step: int) -> tuple[Float[Tensor, "G *runs B steps d"]]:
        """The noise xi ~ N(0, I) of the answer, or of every thought, for tasks of ``shape`` (*runs, B, d).

        That of a run depends on its own seed and the step alone.
        """
        *runs, B, d = shape
        if len(self.seeds) != math.prod(runs):
            reject("seeds", tuple(self.seeds), f"one seed for each of the {math.prod(runs)} runs")
        sizes = self.group, B, self.chain_steps if self.every_step else 1, d
        drawn = [
            random_stream([seed, step], "policy").standard_normal(sizes, dtype=np.float32)
            for seed in self.seeds
        ]
        return (torch.from_numpy(np.stack(drawn, axis=1)).reshape(self.group, *runs, *sizes[1:]),)

    def _sample_answers(
        self, model: ChainModel, batch: PromptBatch, noise: Float[Tensor, "G *runs B steps d"]
    ) -> tuple[PerAnswer, Answers, PerRun]:
        """One rollout, G noisy answers around its end."""
        mean = model.rollout(batch, self.chain_steps)[..., -1, :]
        answers = mean.detach() + noise.squeeze(-2)
        log_density = -(answers - mean).square().sum(-1) / (2 * self.noise**2)
        penalty = self._penalty(mean, lambda anchor: anchor.rollout(batch, self.chain_steps)[..., -1, :])
        return log_density, answers, penalty

    def _sample_thoughts(
        self, model: ChainModel, batch: PromptBatch, noise: Float[Tensor, "G *runs B steps d"]
    ) -> tuple[PerAnswer, Answers, PerRun]:
        """G noisy chains per prompt; the density is that of all their thoughts."""
        G, B = self.group, batch.prompts
        wide = batch.repeat(G)
        with torch.no_grad():
            thoughts = model.rollout(wide, self.chain_steps, noise.movedim(0, -3).flatten(-4, -3))
        means = model.next_means(wide, thoughts)
        log_density = -(thoughts - means).square().sum(dim=(-1, -2)) / (2 * self.noise**2)
        penalty = self.chain_steps * self._penalty(
            means.flatten(-3, -2), lambda anchor: anchor.next_means(wide, thoughts).flatten(-3, -2)
        )

        def grouped(x: Tensor, axes: int) -> Tensor:
            place = x.ndim - axes
            return x.reshape(*x.shape[:place], B, G, *x.shape[place + 1 :]).movedim(place + 1, 0)

        return grouped(log_density, 1), grouped(thoughts[..., -1, :], 2), penalty

    def _penalty(self, mean: Vectors, mean_of: Callable[[ChainModel], Vectors]) -> PerRun:
        """KL from the reference's Gaussians of scale sigma, averaged over prompts, per run; 0 if unused."""
        if self.kl == 0 or self.reference is None:
            return torch.zeros_like(mean.detach().sum(dim=(-1, -2)))
        with torch.no_grad():
            anchor = mean_of(self.reference)
        return (mean - anchor).square().sum(-1).mean(-1) / (2 * self.noise**2)


if not TYPE_CHECKING:
    __getattr__ = renamed(__name__, {"Rl": "datadose.stages.rl.PolicyGradient"})
