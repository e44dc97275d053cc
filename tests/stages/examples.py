"""Small models, data and objectives that the stage tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from datadose.models import BlockLinearAttention, ChainModel, LinearAttention, PromptBatch
from datadose.stages import (
    FixedData,
    FreshData,
    Optimisation,
    Outcome,
    Rl,
    Sft,
)
from datadose.stages.engine import Data, Objective

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
    "rl": (Rl(2, (3, 4), advantage="rloo", noise=0.3), fresh(), Optimisation("adam", 0.01, steps=12)),
    "rl chain": (Rl(2, (3, 4), every_step=True, group=4), fixed(4), Optimisation("sgd", 1e-3, steps=12)),
}


def scaled_runs(scales: tuple[float, ...]) -> FixedData:
    """A run for each factor on its own prompts' S, float64."""
    batch = PromptBatch.draw(np.ones(D), N, B, seeds=range(len(scales)), dtype=torch.float64)
    factor = torch.tensor(scales, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return FixedData(PromptBatch(batch.weights, N, covariances=batch.covariances * factor))


def start(runs: int) -> BlockLinearAttention:
    return BlockLinearAttention(-0.3 * torch.eye(D, dtype=torch.float64).expand(runs, D, D))
