"""How a stage minimises: the optimiser, its rate at every step, mini-batches and precision.

The rate is a pure function of the step, so that a resumed run has the rates of an uninterrupted one.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from datadose.errors import reject, require_choice, require_integer, require_number
from datadose.models import ChainModel
from datadose.stages.config import Precision
from datadose.stages.muon import MuonWithAdamW

Optimiser: TypeAlias = Literal["gd", "sgd", "adam", "adamw", "muon"]
Schedule: TypeAlias = Literal["constant", "cosine"]
_CHOICES = {"optimiser": Optimiser, "schedule": Schedule, "precision": Precision}

_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Optimisation:
    """How to minimise: optimiser, step size, length (epochs or steps), mini-batch, clipping.

    ``gd`` is plain gradient descent on the full batch, ``sgd`` the same on mini-batches, ``adam`` and
    ``adamw`` torch's, ``muon`` torch's Muon on the matrices inside a GPT's blocks with AdamW on the rest.
    ``batch`` None means the full batch.

    Args:
        weight_decay: decoupled decay of all trainable parameters alike, with ``adamw`` and ``muon`` alone.
        betas: memory of the two moments of ``adam`` and ``adamw``.
        warmup: steps over which the rate rises linearly, ending at its full value.
        schedule: after the warm-up ``constant``, or ``cosine`` down to ``floor`` times the rate at the end.
        accumulate: micro-batches that a batch is split into, by prompts; their gradients are added up.
        precision: ``bf16`` runs the forward pass under torch.autocast; parameters, their gradients and the
            optimiser keep their own type, which ``fp32`` uses throughout.

    Raises:
        InputError: a value out of range, or one that the optimiser has no use for.
    """

    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    clip: float | None = None
    weight_decay: float = 0.0
    betas: tuple[float, float] = _BETAS
    warmup: int = 0
    schedule: Schedule = "constant"
    floor: float = 0.1
    accumulate: int = 1
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            require_choice(name, getattr(self, name), get_args(choices))
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
        self._check_adam()
        self._check_schedule()

    def _check_adam(self) -> None:
        require_number("weight_decay", self.weight_decay, 0, np.inf)
        if self.weight_decay > 0 and self.optimiser not in ("adamw", "muon"):
            reject(
                "weight_decay", self.weight_decay, f"0 with optimiser {self.optimiser} (use adamw or muon)"
            )
        if len(self.betas) != 2:
            reject("betas", self.betas, "two numbers in [0, 1)")
        for beta in self.betas:
            if require_number("betas", beta, 0, 1) == 1:
                reject("betas", self.betas, "two numbers in [0, 1)")
        if tuple(self.betas) != _BETAS and self.optimiser not in ("adam", "adamw"):
            reject("betas", self.betas, f"the default with optimiser {self.optimiser}")

    def _check_schedule(self) -> None:
        require_integer("warmup", self.warmup, 0)
        require_number("floor", self.floor, 0, 1)
        require_integer("accumulate", self.accumulate, 1)

    def total_steps(self, prompts: int | None) -> int:
        """Optimiser steps on ``prompts`` fixed prompts (None: fresh data, where epochs have no meaning)."""
        if self.steps is not None:
            return self.steps
        if prompts is None or self.epochs is None:
            reject("epochs", self.epochs, "steps, when the data are fresh at every step")
        return self.epochs * -(-prompts // (self.batch or prompts))

    def rate(self, step: int, total: int) -> float:
        """The learning rate of ``step`` (from 0) of ``total``.

        It is full at step ``warmup`` - 1 and, with ``cosine``, ends at ``floor`` times the full rate.
        """
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        progress = min(1.0, (step - self.warmup) / max(1, total - 1 - self.warmup))
        return self.learning_rate * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2)

    def build(self, model: torch.nn.Module, *, recorded: bool = False) -> torch.optim.Optimizer:
        """The torch optimiser on the trainable parameters of ``model``.

        ``recorded`` is for steps in a CUDA graph, not of ``gd`` and ``sgd``: the rate and the number of steps
        are then tensors on the device, and parameters move together. Raises InputError for muon and
        a model that has no matrices of two dimensions inside.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        rate: float | Tensor = self.learning_rate
        if recorded:
            rate = torch.tensor(rate, dtype=torch.float32, device=parameters[0].device)
        if self.optimiser == "muon":
            hidden = model.hidden_matrices() if isinstance(model, ChainModel) else []
            matrices = [p for p in hidden if p.requires_grad]
            inside = {id(p) for p in matrices}
            others = [p for p in parameters if id(p) not in inside]
            return MuonWithAdamW(matrices, others, rate, self.weight_decay)
        if self.optimiser in ("gd", "sgd"):
            return torch.optim.SGD(parameters, lr=rate)
        kind = torch.optim.Adam if self.optimiser == "adam" else torch.optim.AdamW
        options = {"fused": True, "capturable": recorded}
        return kind(parameters, rate, self.betas, weight_decay=self.weight_decay, **options)


def autocast(
    precision: Precision, device: torch.device, *, keep_casts: bool = True
) -> AbstractContextManager[Any]:
    """A context in which forward passes run in ``precision``.

    ``keep_casts`` casts a parameter once for all its uses inside.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=keep_casts)
