"""The one training loop that every stage shares.

A stage is an objective (:mod:`~datadose.stages.sft`, :mod:`~datadose.stages.outcome`,
:mod:`~datadose.stages.rl`); this loop feeds it batches, steps the optimiser, notices divergence, keeps
checkpoints and resumes from them. Runs (seeds) are leading dimensions of the parameters and train side by
side: losses are per run, their sum is differentiated, and every optimiser here acts entry by entry, so no run
touches another. Everything random is a function of (seed, step), so a resumed run meets the same batches.

The model's device decides where a stage runs; batches follow it. Within a process group
(:mod:`~datadose.stages.distributed`) each process takes its share of every batch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from datadose.deprecation import renamed
from datadose.errors import reject
from datadose.models import ChainModel, PromptBatch
from datadose.models.prompt_batch import PerRun
from datadose.stages.checkpoint import Divergence, Training, load_checkpoint, save_checkpoint
from datadose.stages.data import Data, keep_on, split
from datadose.stages.distributed import Processes, local_gradients
from datadose.stages.optimisation import Optimisation, Precision

_EXPLODED = 1e6
"""A run has diverged when its loss is not finite or exceeds this many times its first loss."""


@dataclass(frozen=True)
class StageLoss:
    """What an objective returns: a differentiable loss per run and numbers to record per run.

    Both are means over the batch's prompts: shares of a batch are put together on that ground.
    """

    loss: PerRun
    metrics: dict[str, PerRun] = field(default_factory=dict)


Objective: TypeAlias = Callable[[ChainModel, PromptBatch, int], StageLoss]
"""Called with the model, a batch and the step. If a batch is split in ``parts`` (processes, accumulation),
part i is called with ``step * parts + i``, so that an objective's noise, a function of (seed, step), is drawn
anew for every part. Sampled objectives are then equal to the whole batch's in law, the others in number."""


class _Losses(nn.Module):
    """Objective and model as one module, whose forward pass DistributedDataParallel can follow."""

    def __init__(self, model: ChainModel, objective: Objective, precision: Precision) -> None:
        super().__init__()
        self.model, self.objective, self.precision = model, objective, precision

    def forward(self, batch: PromptBatch, step: int) -> StageLoss:
        with self._cast(batch.weights.device):
            return self.objective(self.model, batch, step)

    def _cast(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


@dataclass(frozen=True)
class _Stage:
    """What stays the same from step to step."""

    model: ChainModel
    losses: nn.Module
    data: Data
    optimiser: torch.optim.Optimizer
    optimisation: Optimisation
    total: int
    record_every: int
    device: torch.device
    processes: Processes

    def records(self, step: int) -> bool:
        """Whether ``step`` is a row of the history."""
        return step in (0, self.total - 1) or bool(self.record_every and step % self.record_every == 0)


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
    """Train ``model`` in place, on the device where it is, and return what happened.

    Args:
        model: the leading dimensions of its parameters are runs.
        objective: loss per run on a batch at a step.
        data: fixed or fresh batches.
        optimisation: how to minimise.
        record_every: steps between rows of the history (0: first and last only).
        checkpoint: file to resume from, if it exists, and to keep every ``checkpoint_every`` steps and at an
            interrupt; removed by nobody. Several processes read the same file; the first one writes it.
        progress: called with (step, total) after each step, in the first process.

    Raises:
        InputError: a checkpoint of another shape or stage length, or a damaged one; a batch with fewer
            prompts than processes; bf16 for linear attention.
        RunError: processes that found different checkpoints.
    """
    total = _total_steps(data, optimisation)
    if optimisation.precision == "bf16" and model.effective_operator() is not None:
        # Its product with S has a hand-written gradient, which autocast does not see; it is cheap anyway.
        reject("precision", "bf16", "fp32 with linear attention")
    optimiser = optimisation.build(model)
    state, plan = Training(), {**asdict(optimisation), "total_steps": total}
    if checkpoint is not None and checkpoint.is_file():
        state = load_checkpoint(checkpoint, model, optimiser, plan)
    processes, device = Processes.current(), next(model.parameters()).device
    # Wrapping waits for all processes: none can write a checkpoint that another has still to look for.
    losses = processes.wrap(_Losses(model, objective, optimisation.precision))
    processes.agree("the step to start from", state.steps, device)
    stage = _Stage(
        model, losses, keep_on(data, device), optimiser, optimisation, total, record_every, device, processes
    )
    written = checkpoint if processes.first else None
    # False while a step is under way: an interrupt there may leave half of the parameters moved.
    consistent = True
    try:
        while state.steps < total and not _all_lost(state):
            consistent = False
            _one_step(stage, state)
            consistent = True
            if progress is not None and processes.first:
                progress(state.steps, total)
            if written is not None and checkpoint_every and state.steps % checkpoint_every == 0:
                save_checkpoint(written, model, optimiser, plan, state)
    finally:
        # An interrupt between steps loses nothing, one inside a step at most checkpoint_every of them.
        if written is not None and consistent:
            save_checkpoint(written, model, optimiser, plan, state)
    return state


def _total_steps(data: Data, optimisation: Optimisation) -> int:
    total = optimisation.total_steps(data.prompts)
    sizes = (optimisation.batch or data.prompts, data.size or data.prompts)
    if optimisation.epochs is not None and sizes[0] != sizes[1]:
        reject(
            "batch", optimisation.batch, f"the size of the data's batches, {data.size}, to count epochs by"
        )
    return total


def _all_lost(state: Training) -> bool:
    return bool(state.first_loss) and len(state.diverged) == len(state.first_loss)


def _one_step(stage: _Stage, state: Training) -> None:
    step = state.steps
    batch = stage.data.batch(step).to(stage.device)
    for group in stage.optimiser.param_groups:
        group["lr"] = stage.optimisation.rate(step, stage.total)
    stage.optimiser.zero_grad(set_to_none=True)
    recorded = _differentiate(stage, batch, step)
    if not state.first_loss:
        state.first_loss = [float(x) for x in recorded["loss"]]
    _note_divergence(stage.model, batch, recorded["loss"], state)
    if stage.records(step):
        state.history.append({"step": step, **{name: _finite(x) for name, x in recorded.items()}})
    if stage.optimisation.clip is not None:
        _clip(stage.model, stage.optimisation.clip)
    stage.optimiser.step()
    state.steps = step + 1


def _differentiate(stage: _Stage, batch: PromptBatch, step: int) -> dict[str, PerRun]:
    """Leave the gradient of the batch's mean loss in the parameters.

    Returns the loss per run and, at steps that are recorded, the metrics, on the CPU, of one axis.
    """
    world, rank, accumulate = stage.processes.world, stage.processes.rank, stage.optimisation.accumulate
    share, of_batch = split(batch, world)[rank]
    pieces = split(share, min(accumulate, share.prompts))
    sums: dict[str, Tensor] = {}
    for index, (piece, of_share) in enumerate(pieces):
        weight = of_batch * of_share
        last = index == len(pieces) - 1
        with nullcontext() if last else local_gradients(stage.losses):
            found = stage.losses(piece, (step * world + rank) * accumulate + index)
            # Gradients are averaged over processes, and each holds its share of the mean only.
            torch.autograd.backward(found.loss.sum() * (weight * world))
        kept = {"loss": found.loss, **(found.metrics if stage.records(step) else {})}
        for name, x in kept.items():
            part = x.detach().reshape(-1) * weight
            sums[name] = sums[name] + part if name in sums else part
    return {name: stage.processes.total(x).cpu() for name, x in sums.items()}


def _note_divergence(model: ChainModel, batch: PromptBatch, losses: PerRun, state: Training) -> None:
    limit = _EXPLODED * (1 + torch.tensor(state.first_loss).abs())
    lost = ~torch.isfinite(losses) | (losses.abs() > limit)
    known = {d.run for d in state.diverged}
    for run in torch.nonzero(lost).reshape(-1).tolist():
        if run not in known:
            state.diverged.append(Divergence(run, state.steps, _radius(model, batch, run)))


def _radius(model: ChainModel, batch: PromptBatch, run: int) -> float | None:
    """rho(I + V S) of a run, S the batch's mean empirical covariance; None if not finite or without V."""
    operator = model.effective_operator()
    if operator is None:
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


def _finite(values: PerRun) -> list[float | None]:
    return [float(v) if bool(torch.isfinite(v)) else None for v in values]


def _clip(model: ChainModel, largest: float) -> None:
    """Scale each run's gradient to norm at most ``largest``."""
    run_dims = model.run_dimensions
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.stack([g.square().flatten(run_dims).sum(-1) for g in gradients]).sum(0).sqrt()
    scale = (largest / norm.clamp_min(1e-30)).clamp_max(1.0)
    for g in gradients:
        g.mul_(scale.reshape(*scale.shape, *([1] * (g.ndim - run_dims))))


if not TYPE_CHECKING:  # A type checker takes a module that has __getattr__ to have every name.
    _MOVED = {name: f"datadose.stages.data.{name}" for name in ("FixedData", "FreshData")}
    __getattr__ = renamed(__name__, _MOVED | {"Optimiser": "datadose.stages.optimisation.Optimiser"})
