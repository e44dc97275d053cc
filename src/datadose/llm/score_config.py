"""How a pool is scored."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from datadose.errors import reject, require_integer
from datadose.llm.chat import TEMPLATE_DATE, check_chat
from datadose.llm.generation import Sampling
from datadose.llm.language_model import AUTO, BATCH_TOKENS
from datadose.llm.sketch import SKETCH_SIZE
from datadose.llm.verifiers import TIMEOUT, require_timeout


@dataclass(frozen=True)
class ScoreConfig(Sampling):
    """How to score.

    Args:
        samples: completions drawn of each prompt; 0 for none, and then no greedy one either.
        adaptive: whether a prompt gets its K samples only while they can decide on its place in the RL set
            (:mod:`datadose.llm.adaptive`): 4 first, then 4 more in each round.
        alone: whether each completion is also scored without its prompt, in a forward pass of its own: the
            column ``nll_alone``, which the selection method ``ifd`` compares ``nll`` with.
        temperature: of the samples; 0 is greedy.
        max_tokens: tokens of a sample at most.
        seed: of the samples.
        batch_tokens: padded tokens of a batch. Nothing depends on it beyond rounding.
        sketch_size: numbers D of a gradient's sketch.
        dtype: of the weights; ``auto``: the checkpoint's own on a GPU, float32 on a CPU. A loaded model
            keeps its own.
        device_map: ``auto`` spreads a model that is larger than a device; None: one device holds it.
        loss: ``last``: a row's completion is scored; ``all``: all assistant turns of its conversation.
        template_date: what the clock of a chat template shows, YYYY-MM-DD.
        verifier_timeout: seconds that the verifier may take for one completion, above 0.
        verifier_processes: processes that the verifier runs in. Verdicts do not depend on it.

    Raises InputError for a value out of range.
    """

    batch_tokens: int = BATCH_TOKENS
    sketch_size: int = SKETCH_SIZE
    dtype: str = AUTO
    device_map: str | None = None
    loss: str = "last"
    template_date: str = TEMPLATE_DATE
    verifier_timeout: float = TIMEOUT
    verifier_processes: int = 1
    adaptive: bool = False
    alone: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("batch-tokens", self.batch_tokens, 1)
        require_integer("sketch-size", self.sketch_size, 2)
        check_chat(self.loss, self.template_date)
        require_timeout(self.verifier_timeout)
        if self.adaptive and not self.samples:
            reject("samples", self.samples, "at least 1 with adaptive")
        if self.alone and self.loss != "last":
            reject("alone", self.alone, "false with loss all: a conversation has no one completion")
        require_integer("verifier-processes", self.verifier_processes, 1, 1024)
        if self.device_map not in (None, AUTO):
            reject("device-map", self.device_map, AUTO)

    def sampling(self) -> dict[str, Any]:
        """The settings on which samples depend."""
        return {field.name: getattr(self, field.name) for field in fields(Sampling)}
