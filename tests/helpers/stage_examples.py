"""Small models, data and objectives that the stage tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from datadose.models import (
    BlockLinearAttention,
    ChainModel,
    GptConfig,
    GptModel,
    LinearAttention,
    PromptBatch,
)
from datadose.models.linear_attention import chain_decay
from datadose.stages import (
    FixedData,
    FreshData,
    Optimisation,
    Outcome,
    PolicyGradient,
    Sft,
)
from datadose.stages.data import Data
from datadose.stages.engine import Objective

D, N, B, RUNS = 4, 6, 10, 2


def dense_model(dtype: torch.dtype = torch.float32) -> LinearAttention:
    """RUNS equal runs of dense attention."""
    return LinearAttention(-0.3 * torch.eye(D, dtype=dtype).expand(RUNS, D, D))


def fixed(size: int | None = None, runs: int = RUNS) -> FixedData:
    return FixedData(PromptBatch.draw(np.ones(D), N, B, seeds=range(runs)), size, seed=5)


def fresh() -> FreshData:
    return FreshData(np.ones(D), N, 6, tuple(range(RUNS)))


def same(model: ChainModel, other: ChainModel) -> bool:
    """Equal bit for bit."""
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.equal(p, q) for p, q in pairs)


def interrupt_at(stop: int) -> Callable[[int, int], None]:
    def progress(step: int, total: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    return progress


CASES: dict[str, tuple[Objective, Data, Optimisation]] = {
    "gd": (Sft(0.3, 2), fixed(), Optimisation("gd", 0.01, steps=12)),
    "sgd": (Sft(0.3, 2), fixed(4), Optimisation("sgd", 0.01, epochs=4, batch=4)),
    "adam": (Outcome(3), fixed(4), Optimisation("adam", 0.01, epochs=4, batch=4, clip=0.5)),
    "fresh": (Outcome(2), fresh(), Optimisation("adam", 0.01, steps=12)),
    "rl": (
        PolicyGradient(2, (3, 4), advantage="rloo", noise=0.3),
        fresh(),
        Optimisation("adam", 0.01, steps=12),
    ),
    "rl chain": (
        PolicyGradient(2, (3, 4), every_step=True, group=4),
        fixed(4),
        Optimisation("sgd", 1e-3, steps=12),
    ),
}


def scaled_runs(scales: tuple[float, ...]) -> FixedData:
    """A run for each factor on its own prompts' S, float64."""
    batch = PromptBatch.draw(np.ones(D), N, B, seeds=range(len(scales)), dtype=torch.float64)
    factor = torch.tensor(scales, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return FixedData(PromptBatch(batch.weights, N, covariances=batch.covariances * factor))


def start(runs: int) -> BlockLinearAttention:
    return BlockLinearAttention(-0.3 * torch.eye(D, dtype=torch.float64).expand(runs, D, D))


class TinyChain(ChainModel):
    """A nonlinear model without runs or operator: w <- w + mlp(X^T y / n, w), on batches that hold X.

    ``scalar`` losses have shape () if the batch has one run, else (runs,).
    """

    def __init__(self, seed: int = 0, *, scalar: bool = True) -> None:
        super().__init__()
        self.scalar = scalar
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.mlp = nn.Sequential(nn.Linear(2 * D, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, D))

    def _step(self, batch: PromptBatch, w: Tensor) -> Tensor:
        assert batch.inputs is not None
        labels = (batch.inputs @ batch.weights.unsqueeze(-1)).squeeze(-1)
        seen = (batch.inputs * labels.unsqueeze(-1)).mean(-2)
        return w + self.mlp(torch.cat([seen, w], dim=-1))

    def teacher_forced_loss(self, batch: PromptBatch, eta: float, steps: int) -> Tensor:
        c, total = chain_decay(eta, steps), batch.weights.new_zeros(batch.weights.shape[:-2])
        for i in range(steps + 1):
            gap = self._step(batch, c[i] * batch.weights) - c[i + 1] * batch.weights
            total = total + gap.square().sum((-1, -2)) / (2 * batch.prompts)
        return total.squeeze(0) if self.scalar else total

    def rollout(self, batch: PromptBatch, steps: int, noise: Tensor | None = None) -> Tensor:
        w, thoughts = torch.zeros_like(batch.weights), []
        for i in range(steps):
            w = self._step(batch, w) + (0 if noise is None else noise[..., i, :])
            thoughts.append(w)
        return torch.stack(thoughts, dim=-2)

    def next_means(self, batch: PromptBatch, thoughts: Tensor) -> Tensor:
        earlier = [torch.zeros_like(batch.weights), *thoughts[..., :-1, :].unbind(-2)]
        return torch.stack([self._step(batch, w) for w in earlier], dim=-2)

    def effective_operator(self) -> None:
        """No linear model speaks for it."""


def tiny_gpt() -> GptModel:
    """For prompts of up to 9 inputs and 4 thoughts."""
    return GptModel(GptConfig(dimension=D, layers=2, heads=2, width=16, positions=2 * 9 + 4), seed=0)


def with_inputs(prompts: int = B, seed: int = 0) -> PromptBatch:
    """One run's prompts that hold X: weights (1, B, D)."""
    rng = np.random.default_rng(seed)
    X, w = rng.standard_normal((1, prompts, N, D)), rng.standard_normal((1, prompts, D))
    return PromptBatch.from_inputs(*(torch.from_numpy(x).float() for x in (X, w)), use_covariances=False)
