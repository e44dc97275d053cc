"""Outcome supervision: the model thinks k steps on its own and is trained on the error of its answer (3.4).

L_OS = 1/(2B) sum over prompts of ||what_k - w*||^2, differentiated through the whole chain. The paper's
stand-in for RL: no sampling, no advantages (:mod:`datadose.stages.rl` has both).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from datadose.errors import require_integer
from datadose.models import ChainModel, PromptBatch
from datadose.stages.engine import StageLoss, SteadyObjective


@dataclass(frozen=True)
class Outcome(SteadyObjective):
    """The objective of outcome supervision; ``chain_steps`` is the number k >= 1 of thinking steps."""

    chain_steps: int = 1

    def __post_init__(self) -> None:
        require_integer("chain_steps", self.chain_steps, 1)

    def loss(self, model: ChainModel, batch: PromptBatch, *drawn: Tensor) -> StageLoss:
        """The loss L_OS per run, not divided by d."""
        del drawn
        answer = model.rollout(batch, self.chain_steps)[..., -1, :]
        return StageLoss((answer - batch.weights).square().sum(dim=(-1, -2)) / (2 * batch.prompts))
