"""Supervised fine-tuning: teacher-forced ground-truth chains of thought (process supervision).

L_SFT = 1/(2B) sum over prompts and i = 0..k of ||f(Z_i)[:, -1] - (0, 0, w_{i+1}, 1)||^2 with
w_i = (1 - (1-eta)^i) w* (section 1). Departures from the paper: none; for linear attention the k+1 forced
steps share two products with S (:mod:`datadose.models.linear_attention`), which changes no number.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from datadose.errors import require_integer, require_number
from datadose.models import ChainModel, PromptBatch
from datadose.stages.engine import StageLoss, SteadyObjective


@dataclass(frozen=True)
class Sft(SteadyObjective):
    """The objective of supervised fine-tuning.

    Args:
        eta: step of the demonstrated chain, in (0, 2).
        chain_steps: k >= 0; the chain has k + 1 demonstrated steps.
    """

    eta: float
    chain_steps: int = 1

    def __post_init__(self) -> None:
        require_number("eta", self.eta, 0, 2, open_ends=True)
        require_integer("chain_steps", self.chain_steps, 0)

    def loss(self, model: ChainModel, batch: PromptBatch, *drawn: Tensor) -> StageLoss:
        """The loss L_SFT per run, not divided by d."""
        del drawn
        return StageLoss(model.teacher_forced_loss(batch, self.eta, self.chain_steps))
