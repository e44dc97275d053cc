"""The one training loop that every stage shares.

A stage is an objective (:mod:`~datadose.stages.sft`, :mod:`~datadose.stages.outcome`,
:mod:`~datadose.stages.rl`); this loop feeds it batches, steps the optimiser, notices divergence, keeps
checkpoints and resumes from them. Runs (seeds) are leading dimensions of the parameters and train side by
side: losses are per run, their sum is differentiated, and optimisers act entry by entry (but for Muon, which
refuses runs), so no run touches another. Everything random is a function of (seed, step), so a resumed run
gets the same batches.

The model's device decides where a stage runs; batches follow it. On a GPU, steps of a model without an
operator are recorded and replayed (:mod:`~datadose.stages.repeated`), and their losses are read back a few at
a time: what is noted of them, and of which step, stays the same. Within a process group
(:mod:`~datadose.stages.distributed`) each process takes its share of every batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from datadose.deprecation import renamed
from datadose.errors import reject
from datadose.models import ChainModel, PromptBatch
from datadose.models.prompt_batch import PerRun
from datadose.stages.checkpoint import Training, load_checkpoint, save_checkpoint
from datadose.stages.config import Precision
from datadose.stages.data import Data, keep_on, split
from datadose.stages.distributed import Processes, local_gradients
from datadose.stages.divergence import note_divergence
from datadose.stages.optimisation import Optimisation, autocast
from datadose.stages.repeated import Given, Repeated, ahead, side_stream

_READ_EVERY = 32
"""Repeated steps whose losses are read back together: reading waits for the device."""


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


class SteadyObjective(ABC):
    """An :data:`Objective` that does the same at every step, but for numbers that it draws beforehand.

    Its steps can be recorded and replayed (:mod:`~datadose.stages.repeated`): ``loss`` neither reads numbers
    back from the batch's device nor sends any to it.
    """

    def draws(self, shape: torch.Size, step: int) -> tuple[Tensor, ...]:
        """Draws for a batch whose weights have ``shape``, on the CPU: a function of the step alone."""
        del shape, step
        return ()

    @abstractmethod
    def loss(self, model: ChainModel, batch: PromptBatch, *drawn: Tensor) -> StageLoss:
        """The loss per run with these draws."""

    def __call__(self, model: ChainModel, batch: PromptBatch, step: int) -> StageLoss:
        """The loss per run at a step."""
        return self.loss(model, batch, *self.draws(batch.weights.shape, step))


class _Losses(nn.Module):
    """Objective and model as one module, whose forward pass DistributedDataParallel can follow."""

    def __init__(self, model: ChainModel, objective: Objective, precision: Precision) -> None:
        super().__init__()
        self.model, self.objective, self.precision = model, objective, precision

    def forward(self, batch: PromptBatch, step: int) -> StageLoss:
        with autocast(self.precision, batch.weights.device):
            return self.objective(self.model, batch, step)


@dataclass(frozen=True)
class _Stage:
    """What stays the same from step to step, and the losses of repeated steps that are still to be read."""

    model: ChainModel
    losses: nn.Module
    data: Data
    optimiser: torch.optim.Optimizer
    optimisation: Optimisation
    total: int
    record_every: int
    device: torch.device
    processes: Processes
    repeated: Repeated | None
    unread: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)

    def records(self, step: int) -> bool:
        """Whether ``step`` is a row of the history."""
        return step in (0, self.total - 1) or bool(self.record_every and step % self.record_every == 0)

    def batches(self, first: int, objective: Objective) -> Generator[Given, None, None]:
        """The batches from a step on, and what the objective of repeated steps draws beside them."""
        steps = range(first, self.total)
        if self.repeated is None:
            data = keep_on(self.data, self.device)
            return ((data.batch(step).to(self.device), ()) for step in steps)
        steady = cast("SteadyObjective", objective)

        def make(step: int) -> Given:
            batch = self.data.batch(step)
            return batch, steady.draws(batch.weights.shape, step)

        return ahead(make, steps)


@dataclass(frozen=True)
class _Keeping:
    """Where and how often checkpoints are kept, for which plan."""

    path: Path | None
    every: int
    plan: dict[str, Any]

    def save(self, stage: _Stage, state: Training) -> None:
        """Keep one, after all losses are noted."""
        if self.path is not None:
            _read(stage, state)
            save_checkpoint(self.path, stage.model, stage.optimiser, self.plan, state)


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
    repeat: bool | None = None,
) -> Training:
    """Train ``model`` in place, on the device where it is, and return what happened.

    Args:
        model: the leading dimensions of its parameters are runs.
        objective: loss per run on a batch at a step.
        data: fixed or fresh batches.
        optimisation: how to minimise.
        record_every: steps between rows of the history (0: first and last only).
        checkpoint: file to resume from, if it exists, and to keep every ``checkpoint_every`` steps and at an
            interrupt; it is not removed. Several processes read the same file; the first one writes it.
        progress: called with (step, total) after each step, in the first process.
        repeat: whether steps go through :class:`~datadose.stages.repeated.Repeated`, which records them on a
            GPU; None: on a GPU, where they can be. If all runs are lost, a few more steps are then made.

    Raises:
        InputError: a checkpoint of another shape or stage length, or a damaged one; a batch with fewer
            prompts than processes; bf16 for linear attention; ``repeat`` where steps cannot be.
        RunError: processes that found different checkpoints.
    """
    total = _total_steps(data, optimisation)
    if optimisation.precision == "bf16" and model.effective_operator() is not None:
        # Its product with S has a hand-written gradient, which autocast does not cover; it is cheap anyway.
        reject("precision", "bf16", "fp32 with linear attention")
    processes, device = Processes.current(), next(model.parameters()).device
    repeats = _repeats(repeat, model, objective, optimisation, processes.world, device)
    optimiser = optimisation.build(model, recorded=repeats and device.type == "cuda")
    state, plan = Training(), {**asdict(optimisation), "total_steps": total}
    if checkpoint is not None and checkpoint.is_file():
        state = load_checkpoint(checkpoint, model, optimiser, plan)
    # Wrapping waits for all processes: none can write a checkpoint that another has still to look for.
    losses = processes.wrap(_Losses(model, objective, optimisation.precision))
    processes.agree("the step to start from", state.steps, device)
    act = partial(_whole_step, model, cast("SteadyObjective", objective), optimiser, optimisation)
    repeated = Repeated(act, device) if repeats else None
    keeping = _Keeping(checkpoint if processes.first else None, checkpoint_every, plan)
    stage = _Stage(
        model, losses, data, optimiser, optimisation, total, record_every, device, processes, repeated
    )
    _run(stage, state, stage.batches(state.steps, objective), keeping, progress if processes.first else None)
    return state


def _run(
    stage: _Stage,
    state: Training,
    batches: Generator[Given, None, None],
    keeping: _Keeping,
    progress: Callable[[int, int], None] | None,
) -> None:
    # False while a step is under way: an interrupt there may leave half of the parameters moved.
    consistent = True
    with side_stream(stage.device):
        try:
            while state.steps < stage.total and not _all_lost(state):
                consistent = False
                _one_step(stage, state, next(batches))
                consistent = True
                if progress is not None:
                    progress(state.steps, stage.total)
                if keeping.every and state.steps % keeping.every == 0:
                    keeping.save(stage, state)
            _read(stage, state)
        finally:
            batches.close()
            # An interrupt between steps loses nothing, one inside a step at most checkpoint_every of them.
            if consistent:
                keeping.save(stage, state)


def _repeats(
    asked: bool | None,
    model: ChainModel,
    objective: Objective,
    optimisation: Optimisation,
    world: int,
    device: torch.device,
) -> bool:
    """Whether steps go through ``Repeated``; InputError if they are requested and impossible."""
    able = (
        isinstance(objective, SteadyObjective)
        # What is noted of a lost run's operator is noted before the step that follows.
        and model.effective_operator() is None
        and optimisation.optimiser in ("adam", "adamw", "muon")
        and optimisation.accumulate == 1
        and world == 1
    )
    if asked and not able:
        allowed = (
            "False but for a GPT on SFT, OS or RL with adam, adamw or muon, in one piece and one process"
        )
        reject("repeat", asked, allowed)
    return able and (device.type == "cuda" if asked is None else asked)


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


def _one_step(stage: _Stage, state: Training, given: Given) -> None:
    step = state.steps
    for group in stage.optimiser.param_groups:
        _set_rate(group, stage.optimisation.rate(step, stage.total))
    stage.optimiser.zero_grad(set_to_none=True)
    if stage.repeated is None:
        batch, _ = given
        recorded = _differentiate(stage, batch, step)
        _note(stage, state, step, recorded, batch)
        _update(stage.model, stage.optimiser, stage.optimisation)
    else:
        stage.unread.append((step, stage.repeated(given)))
    state.steps = step + 1
    if len(stage.unread) >= _READ_EVERY:
        _read(stage, state)


def _set_rate(group: dict[str, Any], rate: float) -> None:
    """A recorded step reads its rate from a tensor, which must stay the same one."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _whole_step(
    model: ChainModel,
    objective: SteadyObjective,
    optimiser: torch.optim.Optimizer,
    optimisation: Optimisation,
    batch: PromptBatch,
    drawn: tuple[Tensor, ...],
) -> dict[str, Tensor]:
    """A repeated step: loss, gradients, update. Returns the loss and the metrics per run, of one axis."""
    # A cast of the parameters that is kept from another pass would be recorded as the parameters themselves.
    with autocast(
        optimisation.precision, batch.weights.device, keep_casts=batch.weights.device.type == "cpu"
    ):
        found = objective.loss(model, batch, *drawn)
    torch.autograd.backward(found.loss.sum())
    _update(model, optimiser, optimisation)
    return {name: x.detach().reshape(-1) for name, x in {"loss": found.loss, **found.metrics}.items()}


def _update(model: ChainModel, optimiser: torch.optim.Optimizer, optimisation: Optimisation) -> None:
    if optimisation.clip is not None:
        _clip(model, optimisation.clip)
    optimiser.step()


def _read(stage: _Stage, state: Training) -> None:
    """Note what repeated steps have left; of steps after the one that lost the last run, nothing."""
    unread = [*stage.unread]
    stage.unread.clear()
    for step, recorded in unread:
        kept = recorded if stage.records(step) else {"loss": recorded["loss"]}
        _note(stage, state, step, {name: x.cpu() for name, x in kept.items()}, None)
        if _all_lost(state):
            state.steps = step + 1
            return


def _note(
    stage: _Stage, state: Training, step: int, recorded: dict[str, PerRun], batch: PromptBatch | None
) -> None:
    """First losses, lost runs and a row of the history, from numbers of a step on the CPU."""
    if not state.first_loss:
        state.first_loss = [float(x) for x in recorded["loss"]]
    note_divergence(stage.model, batch, recorded["loss"], step, state)
    if stage.records(step):
        state.history.append({"step": step, **{name: _finite(x) for name, x in recorded.items()}})


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


def _finite(values: PerRun) -> list[float | None]:
    return [float(v) if bool(torch.isfinite(v)) else None for v in values]


def _clip(model: ChainModel, largest: float) -> None:
    """Scale each run's gradient to norm at most ``largest``."""
    run_dims = model.run_dimensions
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if run_dims == 0 and gradients[0].is_cuda:
        # The same in a few kernels instead of four for each parameter.
        norm = nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (largest / norm.clamp_min(1e-30)).clamp_max(1.0))
        return
    norm = torch.stack([g.square().flatten(run_dims).sum(-1) for g in gradients]).sum(0).sqrt()
    scale = (largest / norm.clamp_min(1e-30)).clamp_max(1.0)
    for g in gradients:
        g.mul_(scale.reshape(*scale.shape, *([1] * (g.ndim - run_dims))))


if not TYPE_CHECKING:  # A type checker takes a module that has __getattr__ to have every name.
    _MOVED = {name: f"datadose.stages.data.{name}" for name in ("FixedData", "FreshData")}
    __getattr__ = renamed(__name__, _MOVED | {"Optimiser": "datadose.stages.optimisation.Optimiser"})
