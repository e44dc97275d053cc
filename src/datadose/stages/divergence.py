"""When a run is lost, and how unstable its chain of thought was then."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from datadose.models import ChainModel, PromptBatch
from datadose.models.prompt_batch import PerRun
from datadose.stages.checkpoint import Divergence, Training

_EXPLODED = 1e6
"""A run has diverged when its loss is not finite or exceeds this many times its first loss."""


def note_divergence(
    model: ChainModel, batch: PromptBatch | None, losses: PerRun, step: int, state: Training
) -> None:
    """Add to ``state`` the runs that ``step`` shows to be lost, from its losses per run, on the CPU.

    ``batch`` is the step's, or None for a model without an operator.
    """
    limit = _EXPLODED * (1 + torch.tensor(state.first_loss).abs())
    lost = ~torch.isfinite(losses) | (losses.abs() > limit)
    known = {d.run for d in state.diverged}
    for run in torch.nonzero(lost).reshape(-1).tolist():
        if run not in known:
            state.diverged.append(Divergence(run, step, _radius(model, batch, run)))


def _radius(model: ChainModel, batch: PromptBatch | None, run: int) -> float | None:
    """rho(I + V S) of a run, S the batch's mean empirical covariance; None if not finite or without V."""
    operator = model.effective_operator()
    if operator is None or batch is None:
        return None
    V, S = operator.detach(), batch.mean_covariance()
    d = V.shape[-1]
    V, S = (x.reshape(-1, d, d)[run].cpu().double() for x in _broadcast(V, S))
    M = torch.eye(d, dtype=torch.float64) + V @ S
    return float(torch.linalg.eigvals(M).abs().max()) if bool(torch.isfinite(M).all()) else None


def _broadcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """One of the two may have no run dimension: prompts, or weights, that all runs share."""
    shapes: Any = torch.broadcast_shapes
    return tuple(x.expand(shapes(*(y.shape for y in tensors))) for x in tensors)
