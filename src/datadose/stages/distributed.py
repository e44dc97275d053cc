"""Several processes on one stage: each takes its share of every batch, and gradients are averaged.

Every process draws the whole batch (a function of the step) and differentiates its share of the prompts;
torch's DistributedDataParallel averages the gradients. Losses are summed over processes too, so that all
agree on what diverged. The result is that of one process up to rounding. Process 0 alone writes files.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from datadose.errors import RunError


@dataclass(frozen=True)
class Processes:
    """This process's place among ``world`` of them."""

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Processes:
        """The process group of torch.distributed, or one process alone if none was joined."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports progress."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """``module`` with gradients averaged over processes; every process gets process 0's parameters."""
        return module if self.world == 1 else DistributedDataParallel(module)

    def total(self, x: Tensor) -> Tensor:
        """The sum of ``x`` over processes."""
        if self.world == 1:
            return x
        x = x.clone()
        distributed.all_reduce(x)
        return x

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.world > 1:
            distributed.barrier()

    def agree(self, what: str, value: int, device: torch.device) -> None:
        """Raise RunError, which names ``what``, unless ``value`` is the same in all processes.

        Otherwise they would wait for one another. ``device`` is that of this process's model.
        """
        if self.world == 1:
            return
        ends = torch.tensor([value, -value], device=device)
        distributed.all_reduce(ends, distributed.ReduceOp.MAX)
        high, low = int(ends[0]), -int(ends[1])
        if low != high:
            msg = f"processes differ in {what}, {low} to {high}: a checkpoint must lie where all can read it"
            raise RunError(msg)


def local_gradients(module: nn.Module) -> AbstractContextManager[None]:
    """Inside it, backward passes of a wrapped ``module`` add up gradients without averaging them yet."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


@contextmanager
def joined(device: torch.device | str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started (RANK, WORLD_SIZE, ...); one process alone without it.

    nccl for CUDA, gloo otherwise. ``device`` is the one of this process's model.
    """
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield Processes.current()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Optimisers import this, and an import within a group keeps that group alive after its destruction (torch
    # 2.13): its threads then outlive the interpreter, and one that still holds a tensor aborts the process.
    importlib.import_module("torch._dynamo")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes.current()
    finally:
        distributed.destroy_process_group()
