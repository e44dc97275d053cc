"""The settings of a post-training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from datadose.errors import reject, require_choice, require_integer, require_number
from datadose.llm.chat import TEMPLATE_DATE, check_chat
from datadose.llm.verifiers import TIMEOUT, require_timeout

Stage: TypeAlias = Literal["sft", "rl"]


@dataclass(frozen=True)
class PosttrainConfig:
    """How to train.

    Args:
        stage: ``sft`` (cross entropy of the tokens that ``loss`` names) or ``rl`` (GRPO).
        steps: optimiser steps.
        batch: rows per step for SFT; completions per step for RL, a multiple of ``samples``.
        learning_rate: of AdamW, its peak; linear decay to 0. None: 2e-4 with LoRA, 2e-5 without.
        lora_rank: rank of the adapter on all linear layers (alpha is twice the rank); 0 trains all weights.
        seed: of the adapter, the order of rows and the sampled completions.
        samples: RL only: completions per prompt (G of GRPO).
        temperature: RL only: of the sampling.
        max_tokens: RL only: tokens of a completion at most.
        loss: SFT only: ``last``: the completion's tokens; ``all``: those of all assistant turns.
        template_date: what the clock of a chat template shows, YYYY-MM-DD.
        verifier_timeout: RL only: seconds that the verifier may take for one completion, above 0.
        checkpoint_every: steps between checkpoints; 0 for none. A run that is measured while it trains writes
            one at each evaluation instead.

    Raises InputError for a value out of range.
    """

    stage: Stage
    steps: int = 100
    batch: int = 8
    learning_rate: float | None = None
    lora_rank: int = 16
    seed: int = 0
    samples: int = 8
    temperature: float = 1.0
    max_tokens: int = 256
    checkpoint_every: int = 50
    loss: str = "last"
    template_date: str = TEMPLATE_DATE
    verifier_timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        require_choice("stage", self.stage, get_args(Stage))
        least = {"steps": 1, "batch": 1, "lora_rank": 0, "seed": 0, "samples": 2, "max_tokens": 1}
        for name, minimum in {**least, "checkpoint_every": 0}.items():
            require_integer(name, getattr(self, name), minimum)
        check_chat(self.loss, self.template_date)
        if self.stage == "rl" and self.loss != "last":
            reject("loss", self.loss, "last for stage rl, whose completions are sampled")
        if self.learning_rate is not None:
            require_number("learning_rate", self.learning_rate, 0, 1, open_ends=True)
        require_number("temperature", self.temperature, 0, 100, open_ends=True)
        require_timeout(self.verifier_timeout)
        if self.stage == "rl" and self.batch % self.samples:
            reject("batch", self.batch, f"a multiple of samples = {self.samples} for stage rl")

    @property
    def rate(self) -> float:
        """The learning rate, with the default resolved."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-4 if self.lora_rank else 2e-5

    @property
    def rows_per_step(self) -> int:
        """Rows that a step draws: all of a batch for SFT, one for each group of completions for RL."""
        return self.batch // self.samples if self.stage == "rl" else self.batch

    @property
    def weights(self) -> Literal["adapter", "model"]:
        """The kind of weights that a run writes, which is the name of their folder."""
        return "adapter" if self.lora_rank else "model"
