"""Several GPTs side by side: parameters with a leading dimension of runs, one batched product for all.

A small GPT on a CPU spends much of a step on calls rather than on numbers; copies that train on data of their
own share the calls here. Attention, GELU and cached keys are those of :mod:`~datadose.models.gpt`, which take
the prompts of all runs as one batch; what has parameters (linear maps, norms, positions) is applied run by
run in one call.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from datadose.errors import reject, require_integer
from datadose.models.gpt import Block, GptModel
from datadose.models.prompt_batch import PromptBatch
from datadose.shapes import Float


def _copies(one: Tensor, runs: int) -> nn.Parameter:
    return nn.Parameter(one.detach().expand(runs, *one.shape).clone())


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (runs * B, T, inside) under weights (runs, outside, inside)."""
    flat = x.reshape(len(weight), -1, x.shape[-1])
    made = torch.baddbmm(bias.unsqueeze(1), flat, weight.transpose(1, 2))
    return made.view(*x.shape[:-1], weight.shape[1])


class RunsLinear(nn.Module):
    """``runs`` copies of a linear map; the rows of a run stand together in the first axis of the input."""

    def __init__(self, one: nn.Linear, runs: int) -> None:
        super().__init__()
        self.weight = _copies(one.weight, runs)
        self.bias = _copies(one.bias, runs)
        self.in_features = one.in_features

    def forward(self, x: Float[Tensor, "rows T inside"]) -> Float[Tensor, "rows T outside"]:
        """The map of each run on its rows."""
        return _linear(x, self.weight, self.bias)


class RunsNorm(nn.Module):
    """``runs`` copies of a LayerNorm."""

    def __init__(self, one: nn.LayerNorm, runs: int) -> None:
        super().__init__()
        self.weight = _copies(one.weight, runs)
        self.bias = _copies(one.bias, runs)
        self.eps = one.eps

    def forward(self, x: Float[Tensor, "rows T width"]) -> Float[Tensor, "rows T width"]:
        """The norm of each run on its rows."""
        C = x.shape[-1]
        flat = functional.layer_norm(x, (C,), eps=self.eps).view(len(self.weight), -1, C)
        return torch.addcmul(self.bias.unsqueeze(1), flat, self.weight.unsqueeze(1)).view(x.shape)


class RunsBlock(Block):
    """A GPT-2 block for each run, started at the parameters of ``one``."""

    def __init__(self, one: Block, runs: int) -> None:
        nn.Module.__init__(self)
        self.heads = one.heads
        parts: Any = self
        for name in ("qkv", "mix", "up", "down"):
            setattr(parts, name, RunsLinear(getattr(one, name), runs))
        for name in ("attention_norm", "mlp_norm"):
            setattr(parts, name, RunsNorm(getattr(one, name), runs))

    def _part_of_qkv(self, h: Tensor, outputs: slice) -> Tensor:
        return _linear(h, self.qkv.weight[:, outputs], self.qkv.bias[:, outputs])


class GptRuns(GptModel):
    """``runs`` copies of a GPT that train side by side, each on its own run of a batch.

    A batch has one leading dimension of that size; losses and thoughts keep it. The numbers of a run are
    those of the model alone up to rounding, whatever the other runs are.

    Args:
        start: the model at whose parameters all copies start; it is not changed.
        runs: the number of copies, 1 or more.

    Raises:
        InputError: ``runs`` below 1; from all methods, batches with other leading dimensions, and what
            :class:`~datadose.models.gpt.GptModel` rejects.
    """

    def __init__(self, start: GptModel, runs: int) -> None:
        super().__init__(start.config, seed=0)
        self.runs = require_integer("runs", runs, 1)
        self.positions = _copies(start.positions, runs)
        parts: Any = self
        parts.read_in, parts.read_out = RunsLinear(start.read_in, runs), RunsLinear(start.read_out, runs)
        parts.final_norm = RunsNorm(start.final_norm, runs)
        self.blocks = nn.ModuleList(RunsBlock(cast("Block", block), runs) for block in start.blocks)

    @property
    def run_dimensions(self) -> int:
        """The number 1: the dimension of the copies."""
        return 1

    def _forward(self, tokens: Tensor, first: int, keep: int, caches: Any) -> Tensor:
        """As the single model's; the rows of a run stand together."""
        T, last = tokens.shape[1], len(self.blocks) - 1
        places = self.positions[:, first : first + T]
        with torch.autocast(tokens.device.type, enabled=False):
            read = self.read_in(tokens)
            x = (read.view(self.runs, -1, *read.shape[1:]) + places.unsqueeze(1)).view(read.shape)
        for number, block in enumerate(self.blocks):
            x = block(x, keep if number == last else T, None if caches is None else caches[number])
        with torch.autocast(tokens.device.type, enabled=False):
            return cast("Tensor", self.read_out(self.final_norm(x)))

    def _prompt_tokens(self, batch: PromptBatch, thoughts: int) -> Tensor:
        if batch.weights.shape[:-2] != (self.runs,):
            shown = f"leading dimensions {tuple(batch.weights.shape[:-2])}"
            reject("batch", shown, f"one of {self.runs} runs")
        return super()._prompt_tokens(batch, thoughts)
