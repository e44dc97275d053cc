"""The tiny GPT: error and forgetting along SFT, by rows, pool, weight and averaging; linearised beside.

A GPT pretrained on chains of Sigma0's prompts (:mod:`~datadose.studies.gpt.runs`), fine-tuned with AdamW on
prompts of the target, Sigma0 + Delta. A misleading row shows such a prompt with the chain of another,
independent w: a wrong answer, which nothing in the prompt gives away. One seed is a pretrained model with its
own rows and their order. Errors are those after ``test_steps`` thoughts, divided by d.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from datadose.models import PromptBatch
from datadose.models.gpt import GptModel, load_gpt
from datadose.models.linear_attention import chain_decay
from datadose.prompts import random_stream
from datadose.shapes import Float
from datadose.studies.gpt.runs import PRETRAINING, TARGET, GptPretraining, GptTask, pretrained_cell, tests
from datadose.studies.levels.linearised import Linearised
from datadose.studies.levels.schema import (
    AVERAGED,
    MEASURED,
    WEIGHTS,
    Column,
    Level,
    Model,
    Pool,
    misleading_rows,
    shared_columns,
)
from datadose.studies.levels.trajectory import Trajectory, follow
from datadose.studies.study import Preset
from datadose.studies.tables import Setting
from datadose.sweep import Cell

_SEEN_ROWS = 256
"""At most so many training rows are measured."""


class NextMeans(nn.Module):
    """The GPT as a module whose call gives the next thoughts, so that it can be linearised."""

    def __init__(self, model: GptModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, batch: PromptBatch, thoughts: Float[Tensor, "*runs B k d"]
    ) -> Float[Tensor, "*runs B k d"]:
        """The mean of each thought given the earlier ones."""
        # Only plain products have a forward derivative.
        with nullcontext() if torch.is_grad_enabled() else sdpa_kernel(SDPBackend.MATH):
            return self.model.next_means(batch, thoughts)


@dataclass(frozen=True)
class Rows:
    """Prompts (1, B, ..), the demonstrated chains (1, B, k + 1, d), and each row's weight (B,)."""

    prompts: PromptBatch
    chains: Float[Tensor, "1 B k1 d"]
    weights: Float[Tensor, " B"]

    @classmethod
    def drawn(cls, task: GptTask, pool: str, weight: float, prompts: int, seed: int) -> Rows:
        """B rows; the last of them mislead in a misleading pool, and are left out at weight 0."""
        batch = PromptBatch.draw(
            task.covariance("target"), task.length, prompts, seeds=[(seed, 40)], hold_inputs=True
        )
        wrong = 0 if pool == Pool.ONE_KIND else misleading_rows(prompts)
        answers, weights = batch.weights.clone(), torch.ones(prompts)
        if wrong:
            other = random_stream((seed, 41), "weights").standard_normal((wrong, task.dimension))
            answers[0, -wrong:] = torch.from_numpy(other).float()
            weights[-wrong:] = weight
        c = torch.tensor(chain_decay(task.eta, task.chain_steps)[1:])
        rows = cls(batch, answers.unsqueeze(-2) * c.unsqueeze(-1), weights)
        return rows.take(torch.nonzero(weights).reshape(-1))

    @property
    def count(self) -> int:
        """How many."""
        return len(self.weights)

    def take(self, index: Tensor) -> Rows:
        """The rows with these numbers."""
        return Rows(self.prompts.take(index), self.chains[:, index], self.weights[index])

    def loss(self, model: nn.Module, *, weighted: bool = True) -> Tensor:
        """1/2 of the squared residuals of the chains' steps, summed over a chain; the mean over rows."""
        means: Tensor = model(self.prompts, self.chains)
        gaps = (means - self.chains).square().sum(dim=(-1, -2)) / 2
        return (gaps * self.weights if weighted else gaps).mean()


def think(model: nn.Module, batch: PromptBatch, steps: int) -> Tensor:
    """The model's own last thought after ``steps`` of them, (1, B, d)."""
    if isinstance(model, NextMeans):
        return model.model.rollout(batch, steps)[..., -1, :]
    thoughts = torch.zeros_like(batch.weights).unsqueeze(-2)
    for _ in range(steps):
        means = model(batch, thoughts)
        # The last place is only read for its predecessors.
        thoughts = torch.cat([thoughts[..., :-1, :], means[..., -1:, :], means[..., -1:, :]], dim=-2)
    return thoughts[..., -1, :]


def run_gpt(
    start: Path,
    task: GptTask,
    trajectory: Trajectory,
    pool: str,
    weight: float,
    prompts: int,
    models: int,
    linearised: bool,
    seed: int,
) -> list[list[Any]]:
    """Cell: rows (updates, epochs, seed, error, error on Sigma0, training loss / d)."""
    torch.set_num_threads(1)
    first = NextMeans(load_gpt(start))
    rows = Rows.drawn(task, pool, weight, prompts, seed)
    parts = [rows.take(torch.arange(place, rows.count, models)) for place in range(models)]
    shown = dict(tests(task, task.length))
    each: list[list[tuple[int, float, dict[str, Tensor]]]] = []
    for place, part in enumerate(parts):
        model = Linearised(first) if linearised else copy.deepcopy(first)

        def loss(chosen: Tensor, model: nn.Module = model, part: Rows = part) -> Tensor:
            return part.take(chosen).loss(model)

        def look(model: nn.Module = model) -> dict[str, Tensor]:
            return {name: value.clone() for name, value in model.state_dict().items()}

        each.append(follow(model, trajectory, part.count, seed + 1000 * place, loss, look))
    mean = Linearised(first) if linearised else copy.deepcopy(first)
    found = []
    for looks in zip(*each, strict=True):
        updates, epochs, _ = looks[0]
        states = [state for _, _, state in looks]
        mean.load_state_dict({name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]})
        found.append([updates, epochs, *_measured(mean, task, shown, rows)])
    return found


@torch.no_grad()
def _measured(
    model: nn.Module, task: GptTask, shown: dict[str, PromptBatch], rows: Rows
) -> list[float | None]:
    """Errors on the target and on Sigma0, and the loss on training rows, evenly among all."""
    chosen = np.unique(np.linspace(0, rows.count - 1, _SEEN_ROWS).round().astype(int))
    train = rows.take(torch.from_numpy(chosen)).loss(model, weighted=False) / task.dimension
    errors = [
        (think(model, shown[name], task.test_steps) - shown[name].weights).square().mean()
        for name in (TARGET, PRETRAINING)
    ]
    return [value if np.isfinite(value) else None for value in (float(x) for x in (*errors, train))]


@dataclass(frozen=True)
class GptLevel:
    """Sizes of the GPT's level.

    Args:
        task: dimension, length, chains and tests.
        pretraining: of seed 0.
        trajectory: of fine-tuning.
        prompts: B of the pools of one kind; with the last no row is used twice in ``trajectory``.
        long_prompts: those of ``prompts`` that are trained for ``long_updates`` too.
        long_updates: numbers of updates after those of ``trajectory``.
        misleading: B of the pools with a misleading source, at all weights.
        averaged: B of the averaged models, all their rows together.
        linearised: B of the linearised runs on one kind.
        linearised_misleading: B of those on a misleading pool, all rows alike.
        linearised_updates: when the linearised model is measured.
        seeds: pretrained models, each with its own rows.
    """

    task: GptTask
    pretraining: GptPretraining
    trajectory: Trajectory
    prompts: tuple[int, ...]
    long_prompts: tuple[int, ...]
    long_updates: tuple[int, ...]
    misleading: tuple[int, ...]
    averaged: tuple[int, ...]
    linearised: tuple[int, ...]
    linearised_misleading: tuple[int, ...]
    linearised_updates: tuple[int, ...]
    seeds: int

    measured: ClassVar[tuple[str, ...]] = tuple(name for name in MEASURED if name != Column.SEED)

    @classmethod
    def preset(cls, name: Preset) -> GptLevel:
        """Quick: about 25 minutes of one core; paper: longer pretraining, all B, more seeds: hours."""
        if name == "smoke":
            task = GptTask(2, 3, 1, 1, eta=0.5, test_prompts=8)
            how = Trajectory("adamw", 1e-3, 4, (0, 1, 3), clip=1.0)
            return cls(
                task, GptPretraining("tiny", 2, batch=4, warmup=1), how,
                (4, 8, 12), (8,), (5,), (8,), (8,), (8,), (8,), (0, 1), 2,
            )  # fmt: skip
        task = GptTask(5, 10, 3, 3, eta=0.5, test_prompts=256)
        quick = cls(
            task,
            GptPretraining("tiny", 3000),
            Trajectory("adamw", 3e-4, 32, (0, 3, 10, 30, 100, 300), clip=1.0),
            prompts=(8, 64, 512, 2048, 9600),
            long_prompts=(64, 9600),
            long_updates=(1000,),
            misleading=(64, 512),
            averaged=(2048,),
            linearised=(64, 512, 9600),
            linearised_misleading=(512,),
            linearised_updates=(0, 3, 10, 30, 100),
            seeds=4,
        )
        if name == "quick":
            return quick
        sizes = (8, 64, 512, 4096, 96000)
        return replace(
            quick,
            task=replace(task, test_prompts=1024),
            pretraining=GptPretraining("tiny", 6000),
            prompts=sizes,
            long_prompts=sizes,
            long_updates=(1000, 3000),
            misleading=(64, 512, 4096),
            averaged=(64, 512, 4096),
            linearised=sizes,
            linearised_misleading=(64, 512, 4096),
            linearised_updates=quick.trajectory.updates,
            seeds=8,
        )

    def made(self, folder: Path) -> list[Cell]:
        """The cells that pretrain the models, by seed."""
        return [
            pretrained_cell(self.task, replace(self.pretraining, seed=seed), folder)
            for seed in range(self.seeds)
        ]

    def settings(self, folder: Path) -> Iterator[Setting]:
        """Pools of one kind, then with a misleading source, then averaged, then linearised models."""
        starts = [cell.file for cell in self.made(folder)]
        for given in self._runs():
            for seed, start in enumerate(starts):
                shared = {"start": start, "task": self.task, "seed": seed}
                own = {key: value for key, value in given.items() if key != "trajectory"}
                model = Model.LINEARISED if own.pop("linearised") else Model.REAL
                columns = shared_columns(
                    Level.GPT, "adamw", own.pop("prompts"), **own, model=model, seed=seed
                )
                yield Cell(run_gpt, {**shared, **given}), columns

    def _runs(self) -> Iterator[dict[str, Any]]:
        """The arguments of :func:`run_gpt` without the seed's own."""

        def run(B: int, pool: str = Pool.ONE_KIND, weight: float = 1.0, **more: Any) -> dict[str, Any]:
            whole = {"trajectory": self.trajectory, "pool": pool, "weight": weight, "prompts": B}
            return {**whole, "models": 1, "linearised": False, **more}

        updates = self.trajectory.updates + self.long_updates
        longer = replace(self.trajectory, updates=updates)
        for B in self.prompts:
            yield run(B, trajectory=longer if B in self.long_prompts else self.trajectory)
        yield from (run(B, Pool.MISLEADING, weight) for B in self.misleading for weight in WEIGHTS)
        yield from (run(B, models=AVERAGED) for B in self.averaged)
        shorter = replace(self.trajectory, updates=self.linearised_updates)
        pools: Sequence[tuple[str, tuple[int, ...]]] = (
            (Pool.ONE_KIND, self.linearised),
            (Pool.MISLEADING, self.linearised_misleading),
        )
        for pool, sizes in pools:
            yield from (run(B, pool, linearised=True, trajectory=shorter) for B in sizes)
