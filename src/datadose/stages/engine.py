"""The one training loop that every stage shares.

A stage is an objective (:mod:`~datadose.stages.sft`, :mod:`~datadose.stages.outcome`,
:mod:`~datadose.stages.rl`); this loop feeds it batches, steps the optimiser, notices divergence, keeps
checkpoints and resumes from them. Runs (seeds) are leading dimensions of the parameters and train side by
side: losses are per run, their sum is differentiated, and every optimiser here acts entry by entry, so no run
touches another. Everything random is a function of (seed, step), so a resumed run meets the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from datadose.covariance import Array
from datadose.errors import reject, require_integer, require_number
from datadose.models import ChainModel, PromptBatch
from datadose.prompts import random_stream
from datadose.stages.checkpoint import load_checkpoint, save_checkpoint

Optimiser: TypeAlias = Literal["gd", "sgd", "adam"]
OPTIMISERS: tuple[Optimiser, ...] = ("gd", "sgd", "adam")

_EXPLODED = 1e6
"""A run has diverged when its loss is not finite or exceeds this many times its first loss."""


@dataclass(frozen=True)
class Optimisation:
    """How to minimise: optimiser, step size, length (epochs or steps), mini-batch, clipping.

    ``gd`` is plain gradient descent on the full batch, ``sgd`` the same on mini-batches, ``adam`` Adam with
    torch's defaults. ``batch`` None means the full batch.
    """

    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            reject("optimiser", self.optimiser, ", ".join(OPTIMISERS))
        require_number("learning_rate", self.learning_rate, 0, np.inf, open_ends=True)
        if (self.epochs is None) == (self.steps is None):
            reject("epochs, steps", f"{self.epochs}, {self.steps}", "exactly one of the two")
        for name in ("epochs", "steps"):
            if getattr(self, name) is not None:
                require_integer(name, getattr(self, name), 0)
        if self.batch is not None:
            require_integer("batch", self.batch, 1)
            if self.optimiser == "gd":
                reject("batch", self.batch, "no mini-batch with optimiser gd (use sgd)")
        if self.clip is not None:
            require_number("clip", self.clip, 0, np.inf, open_ends=True)

    def total_steps(self, prompts: int | None) -> int:
        """Optimiser steps on ``prompts`` fixed prompts (None: fresh data, where epochs have no meaning)."""
        if self.steps is not None:
            return self.steps
        if prompts is None or self.epochs is None:
            reject("epochs", self.epochs, "steps, when the data are fresh at every step")
        return self.epochs * -(-prompts // (self.batch or prompts))

    def build(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The torch optimiser on the trainable parameters of ``model``."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self.optimiser == "adam":
            return torch.optim.Adam(parameters, lr=self.learning_rate)
        return torch.optim.SGD(parameters, lr=self.learning_rate)


class Data(Protocol):
    """Where batches come from."""

    @property
    def size(self) -> int | None:
        """Prompts in a batch; None is all of them."""

    @property
    def prompts(self) -> int | None:
        """B of fixed data, None for fresh data."""

    def batch(self, step: int) -> PromptBatch:
        """The batch of an optimiser step: a function of the step alone."""


@dataclass(frozen=True)
class FixedData:
    """The same prompts in every epoch, in a new order; ``size`` None is the full batch."""

    whole: PromptBatch
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size is not None:
            require_integer("batch", self.size, 1)
        if self.size is not None and self.size > self.whole.prompts:
            reject("batch", self.size, f"at most the number of prompts, {self.whole.prompts}")

    @property
    def prompts(self) -> int:
        """B."""
        return self.whole.prompts

    def batch(self, step: int) -> PromptBatch:
        """See :class:`Data`; the last batch of an epoch may be smaller."""
        if self.size is None or self.size == self.prompts:
            return self.whole
        epoch, place = divmod(step, -(-self.prompts // self.size))
        order = random_stream([self.seed, epoch], "order").permutation(self.prompts)
        return self.whole.take(torch.from_numpy(order[place * self.size : (place + 1) * self.size]))


@dataclass(frozen=True)
class FreshData:
    """New prompts at every step: the population regime.

    ``covariance`` is one covariance, or a mixture of (weight, covariance) categories: each prompt then
    belongs to a category with probability proportional to its weight; a batch holds them by category.
    """

    covariance: Array | tuple[tuple[float, Array], ...]
    length: int
    size: int
    seeds: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @property
    def prompts(self) -> None:
        """No fixed number: epochs have no meaning."""
        return

    def batch(self, step: int) -> PromptBatch:
        """See :class:`Data`."""
        if not isinstance(self.covariance, tuple):
            return self._draw(self.covariance, self.size, [(seed, step) for seed in self.seeds])
        runs = [self._mixed(self.covariance, seed, step) for seed in self.seeds]
        return PromptBatch.join(runs, dim=0)

    def _draw(self, covariance: Array, size: int, seeds: Sequence[tuple[int, ...]]) -> PromptBatch:
        return PromptBatch.draw(covariance, self.length, size, seeds=seeds, dtype=self.dtype)

    def _mixed(self, categories: tuple[tuple[float, Array], ...], seed: int, step: int) -> PromptBatch:
        """One run's batch: category sizes by a multinomial draw, then each category's prompts."""
        weights = np.array([weight for weight, _ in categories])
        sizes = random_stream([seed, step], "order").multinomial(self.size, weights / weights.sum())
        parts = [
            self._draw(covariance, int(size), [(seed, step, place)])
            for place, (size, (_, covariance)) in enumerate(zip(sizes, categories, strict=True))
            if size > 0
        ]
        return PromptBatch.join(parts, dim=1)


@dataclass(frozen=True)
class StageLoss:
    """What an objective returns: a differentiable loss per run and numbers to record per run."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


Objective: TypeAlias = Callable[[ChainModel, PromptBatch, int], StageLoss]


@dataclass(frozen=True)
class Divergence:
    """Where a run was lost: its index, the step and rho(I + V Sigma_data) (None if no longer finite)."""

    run: int
    step: int
    spectral_radius: float | None


@dataclass
class Training:
    """The outcome of a stage: steps done, recorded history and the runs that diverged."""

    steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    diverged: list[Divergence] = field(default_factory=list)
    first_loss: list[float] = field(default_factory=list)


def train(
    model: ChainModel,
    objective: Objective,
    data: Data,
    optimisation: Optimisation,
    *,
    record_every: int = 0,
    checkpoint: Path | None = None,
    checkpoint_every: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Training:
    """Train ``model`` in place and return what happened.

    Args:
        model: parameters (..., ...); the leading dimensions are runs.
        objective: loss per run on a batch at a step.
        data: fixed or fresh batches.
        optimisation: how to minimise.
        record_every: steps between rows of the history (0: first and last only).
        checkpoint: file to resume from, if it exists, and to keep every ``checkpoint_every`` steps and at an
            interrupt; removed by nobody.
        progress: called with (step, total) after each step.

    Raises:
        InputError: a checkpoint of another shape or stage length, or a truncated one.
    """
    total = optimisation.total_steps(data.prompts)
    if optimisation.epochs is not None and (optimisation.batch or data.prompts) != (
        data.size or data.prompts
    ):
        reject(
            "batch", optimisation.batch, f"the size of the data's batches, {data.size}, to count epochs by"
        )
    optimiser = optimisation.build(model)
    state, plan = Training(), {**asdict(optimisation), "total_steps": total}
    if checkpoint is not None and checkpoint.is_file():
        state = load_checkpoint(checkpoint, model, optimiser, plan, Training, Divergence)
    # False while a step is under way: an interrupt there may leave half of the parameters moved.
    consistent = True
    try:
        while state.steps < total and not _all_lost(state):
            consistent = False
            _one_step(model, objective, data, optimiser, optimisation, state, total, record_every)
            consistent = True
            if progress is not None:
                progress(state.steps, total)
            if checkpoint is not None and checkpoint_every and state.steps % checkpoint_every == 0:
                save_checkpoint(checkpoint, model, optimiser, plan, state)
    finally:
        # An interrupt between steps loses nothing, one inside a step at most checkpoint_every of them.
        if checkpoint is not None and consistent:
            save_checkpoint(checkpoint, model, optimiser, plan, state)
    return state


def _all_lost(state: Training) -> bool:
    return bool(state.first_loss) and len(state.diverged) == len(state.first_loss)


def _one_step(
    model: ChainModel,
    objective: Objective,
    data: Data,
    optimiser: torch.optim.Optimizer,
    optimisation: Optimisation,
    state: Training,
    total: int,
    record_every: int,
) -> None:
    step = state.steps
    batch = data.batch(step)
    found = objective(model, batch, step)
    losses = found.loss.detach().reshape(-1)
    if not state.first_loss:
        state.first_loss = [float(x) for x in losses]
    _note_divergence(model, batch, losses, state)
    last = step == total - 1
    if step == 0 or last or (record_every and step % record_every == 0):
        recorded = {"loss": losses, **{name: x.detach().reshape(-1) for name, x in found.metrics.items()}}
        state.history.append({"step": step, **{name: _finite(x) for name, x in recorded.items()}})
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(found.loss.sum())
    if optimisation.clip is not None:
        _clip(model, optimisation.clip)
    optimiser.step()
    state.steps = step + 1


def _note_divergence(model: ChainModel, batch: PromptBatch, losses: Tensor, state: Training) -> None:
    limit = _EXPLODED * (1 + torch.tensor(state.first_loss).abs())
    lost = ~torch.isfinite(losses) | (losses.abs().cpu() > limit)
    known = {d.run for d in state.diverged}
    for run in torch.nonzero(lost).reshape(-1).tolist():
        if run not in known:
            state.diverged.append(Divergence(run, state.steps, _radius(model, batch, run)))


def _radius(model: ChainModel, batch: PromptBatch, run: int) -> float | None:
    """rho(I + V S) of a run, S the mean empirical covariance of the batch; None if not finite."""
    V, S = model.effective_operator().detach(), batch.mean_covariance()
    d = V.shape[-1]
    V, S = (x.reshape(-1, d, d)[run].double().cpu() for x in _broadcast(V, S))
    M = torch.eye(d, dtype=torch.float64) + V @ S
    return float(torch.linalg.eigvals(M).abs().max()) if bool(torch.isfinite(M).all()) else None


def _broadcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """One of the two may have no run dimension: prompts, or weights, that all runs share."""
    shapes: Any = torch.broadcast_shapes
    return tuple(x.expand(shapes(*(y.shape for y in tensors))) for x in tensors)


def _finite(values: Tensor) -> list[float | None]:
    return [float(v) if bool(torch.isfinite(v)) else None for v in values]


def _clip(model: ChainModel, largest: float) -> None:
    """Scale each run's gradient to norm at most ``largest``."""
    run_dims = model.run_dimensions
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.stack([g.square().flatten(run_dims).sum(-1) for g in gradients]).sum(0).sqrt()
    scale = (largest / norm.clamp_min(1e-30)).clamp_max(1.0)
    for g in gradients:
        g.mul_(scale.reshape(*scale.shape, *([1] * (g.ndim - run_dims))))
