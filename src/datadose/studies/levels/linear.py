"""The linear transformer with all its weights, beside the exact theory of the one that moves V~ alone.

Pretrained in the population (V~ = -Gamma0^{-1} and W~ = I in dense V and W), then SFT by plain gradient
descent on all rows or by Adam in batches. The shift is the paper's two-block one at a small d. The misleading
rows show the directions that the shift leaves alone, ``wrong_scale`` times too large: they demonstrate too
small a step where the pretrained model was right. The theory is that of gradient descent with W~ = I.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datadose.models import ChainModel, PromptBatch
from datadose.models.linear_attention import LinearAttention, starting_operator
from datadose.shapes import Array
from datadose.shift import Shift
from datadose.stages import held_out_prompts
from datadose.stages.evaluate import post_test
from datadose.studies.levels.schema import (
    AVERAGED,
    MEASURED,
    WEIGHTS,
    Level,
    Model,
    Pool,
    misleading_rows,
    shared_columns,
)
from datadose.studies.levels.trajectory import Trajectory, follow
from datadose.studies.study import Preset
from datadose.studies.tables import Setting, TwoBlock
from datadose.sweep import Cell
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.training_time import trained_path

CHAIN_STEPS = 1


@dataclass(frozen=True)
class LinearTask:
    """The shift and the prompts.

    Args:
        block: the two-block shift.
        interference: r, the data's covariance on directions outside the shift.
        length: n of prompts in pretraining, post-training and test.
        wrong_scale: the misleading rows' covariance is eta times Sigma0 times this outside the shift.
        test_prompts: number of test prompts of each kind.
    """

    block: TwoBlock
    interference: float
    length: int
    wrong_scale: float
    test_prompts: int

    @property
    def shift(self) -> Shift:
        """The shift."""
        return self.block.shift(self.interference)

    @property
    def start(self) -> Array:
        """V0, a spectrum."""
        return np.asarray(pretrained_operator(self.shift.sigma0, self.length))

    @property
    def wrong(self) -> Array:
        """The covariance of misleading rows, a spectrum."""
        inside = np.arange(self.block.dimension) < self.block.shifted
        return np.where(inside, self.interference, self.wrong_scale * self.block.eta)

    def pool(self, pool: str, weight: float, prompts: int) -> list[tuple[Array, int, float]]:
        """(covariance, rows, weight in the loss) of each source whose rows are in the loss."""
        data = np.asarray(self.shift.data)
        if pool == Pool.ONE_KIND:
            return [(data, prompts, 1.0)]
        wrong = misleading_rows(prompts)
        sources = [(data, prompts - wrong, 1.0), (self.wrong, wrong, weight)]
        return [source for source in sources if source[2] > 0]


@dataclass(frozen=True)
class LinearRows:
    """The rows of all runs, seeds x models side by side: the prompts and the weight of each source."""

    parts: list[PromptBatch]
    weights: list[float]
    task: LinearTask

    @classmethod
    def drawn(
        cls, task: LinearTask, pool: str, weight: float, prompts: int, models: int, seeds: list[int]
    ) -> LinearRows:
        """``models`` disjoint shares of the rows of each seed; what a remainder leaves is dropped."""
        parts, weights = [], []
        for place, (covariance, count, own) in enumerate(task.pool(pool, weight, prompts)):
            drawn = PromptBatch.draw(
                covariance, task.length, count, seeds=[(seed, place) for seed in seeds], dtype=torch.float64
            )
            share = count // models

            def dealt(x: Tensor, _: int, share: int = share) -> Tensor:
                return x[:, : models * share].reshape(-1, share, *x.shape[2:])

            parts.append(drawn.map(dealt))
            weights.append(own)
        return cls(parts, weights, task)

    @property
    def count(self) -> int:
        """Rows of one model."""
        return sum(part.prompts for part in self.parts)

    def loss(self, model: ChainModel, rows: Tensor | None, *, weighted: bool = True) -> Tensor:
        """The mean over ``rows`` (None: all) of each row's weight times its L_SFT, for each run."""
        total, first = torch.zeros(1, dtype=torch.float64), 0
        for part, weight in zip(self.parts, self.weights, strict=True):
            own = part
            if rows is not None and len(rows) < self.count:
                chosen = rows[(rows >= first) & (rows < first + part.prompts)] - first
                own = part.take(chosen)
            first += part.prompts
            if own.prompts > 0:
                found = model.teacher_forced_loss(own, self.task.block.eta, CHAIN_STEPS)
                total = total + (weight if weighted else 1.0) * own.prompts * found
        return total / (self.count if rows is None else len(rows))


def run_linear(
    task: LinearTask,
    trajectory: Trajectory,
    pool: str,
    weight: float,
    prompts: int,
    models: int,
    seeds: list[int],
) -> list[list[Any]]:
    """Cell: rows (updates, epochs, seed, error, error on Sigma0, training loss), errors divided by d.

    All seeds, and the models that are averaged, train side by side.
    """
    torch.set_num_threads(1)
    runs = len(seeds) * models
    model = LinearAttention(starting_operator(task.start, runs, torch.float64))
    rows = LinearRows.drawn(task, pool, weight, prompts, models, seeds)
    shown = [
        held_out_prompts(covariance, task.length, task.test_prompts, runs=len(seeds), dtype=torch.float64)
        for covariance in (task.shift.target, task.shift.sigma0)
    ]

    def look() -> list[list[float | None]]:
        mean = LinearAttention(starting_operator(task.start, len(seeds), torch.float64))
        for averaged, own in zip(mean.parameters(), model.parameters(), strict=True):
            averaged.copy_(own.view(len(seeds), models, *own.shape[1:]).mean(1))
        errors = [post_test(mean, batch, 1)[:, 0] for batch in shown]
        train = rows.loss(model, None, weighted=False).view(len(seeds), models).mean(1)
        table = torch.stack([*errors, train / task.block.dimension], dim=1)
        return [[x if np.isfinite(x) else None for x in row] for row in table.tolist()]

    def loss(chosen: Tensor) -> Tensor:
        return rows.loss(model, chosen).sum()

    found = follow(model, trajectory, rows.count, 0, loss, look)
    return [
        [updates, epochs, seed, *values]
        for updates, epochs, seen in found
        for seed, values in zip(seeds, seen, strict=True)
    ]


def forecast_linear(
    task: LinearTask, trajectory: Trajectory, pool: str, weight: float, prompts: int
) -> list[list[Any]]:
    """Cell: the same rows by exact theory of gradient descent with W~ = I, without training loss."""
    parts = task.pool(pool, weight, prompts)
    sources = [Source(covariance, task.length, count) for covariance, count, _ in parts]
    models = trained_path(
        task.start,
        task.block.eta,
        sources,
        [Stopping(steps=u, learning_rate=trajectory.learning_rate) for u in trajectory.updates],
        weights=[own for _, _, own in parts],
        chain_steps=CHAIN_STEPS,
    )
    tests = (task.shift.target, task.shift.sigma0)
    return [
        [u, float(u), None, *(float(model.error(test, task.length)) for test in tests), None]
        for u, model in zip(trajectory.updates, models, strict=True)
    ]


@dataclass(frozen=True)
class LinearLevel:
    """Sizes of the linear transformer's level.

    Args:
        task: the shift and the prompts.
        descent, adam: the two optimisers' trajectories.
        prompts: B of the pools of one kind.
        fresh: B with which Adam uses no row twice up to its best time; beside ``prompts``.
        misleading: B of the pools with a misleading source, for Adam.
        descent_misleading: the same for gradient descent.
        averaged: B of the averaged models, all their rows together; for Adam.
        seeds: of the rows.
    """

    task: LinearTask
    descent: Trajectory
    adam: Trajectory
    prompts: tuple[int, ...]
    fresh: int
    misleading: tuple[int, ...]
    descent_misleading: tuple[int, ...]
    averaged: tuple[int, ...]
    seeds: int

    measured: ClassVar[tuple[str, ...]] = MEASURED

    @classmethod
    def preset(cls, name: Preset) -> LinearLevel:
        """Quick: about 8 minutes of one core; paper: a larger d and more seeds, hours."""
        if name == "smoke":
            task = LinearTask(TwoBlock(6, 2, 0.3), 0.05, 12, 4.0, 32)
            gd, adam = Trajectory("gd", 0.1, None, (0, 1, 3, 10)), Trajectory("adam", 1e-2, 4, (0, 1, 3, 10))
            return cls(task, gd, adam, (2, 4, 6, 12, 24), 40, (12,), (12,), (24,), 2)
        if name == "quick":
            task = LinearTask(TwoBlock(16, 4, 0.3), 0.05, 48, 4.0, 1024)
            seeds = 6
        else:
            task = LinearTask(TwoBlock(32, 8, 0.3), 0.05, 96, 4.0, 2048)
            seeds = 10
        d = task.block.dimension
        gd = Trajectory("gd", 0.1, None, (0, 1, 3, 10, 30, 100, 300, 1000, 3000))
        adam = Trajectory("adam", 1e-2, d, (0, 3, 10, 30, 60, 100, 200, 300, 1000, 3000))
        sizes = (d // 4, d // 2, d, 4 * d, 30 * d)
        return cls(task, gd, adam, sizes, 300 * d, sizes[2:], sizes[3:4], sizes[2:4], seeds)

    def made(self, folder: Path) -> list[Cell]:
        """None: pretraining is known in closed form."""
        del folder
        return []

    def settings(self, folder: Path) -> Iterator[Setting]:
        """Pools of one kind, then with a misleading source, then averaged models."""
        del folder
        for B in self.prompts:
            yield from self._cells(self.descent, B)
            yield from self._cells(self.adam, B)
        yield from self._cells(self.adam, self.fresh)
        for trajectory, sizes in ((self.descent, self.descent_misleading), (self.adam, self.misleading)):
            for B in sizes:
                for weight in WEIGHTS:
                    yield from self._cells(trajectory, B, Pool.MISLEADING, weight)
        for B in self.averaged:
            yield from self._cells(self.adam, B, models=AVERAGED)

    def _cells(
        self, trajectory: Trajectory, B: int, pool: str = Pool.ONE_KIND, weight: float = 1.0, models: int = 1
    ) -> Iterator[Setting]:
        """The run, and for gradient descent the theory beside it."""
        name = trajectory.optimiser
        own: dict[str, Any] = {
            "task": self.task,
            "trajectory": trajectory,
            "pool": pool,
            "weight": weight,
            "prompts": B,
        }
        more = {"models": models, "seeds": [*range(self.seeds)]}
        shared = shared_columns(Level.LINEAR, name, B, pool=pool, weight=weight, models=models)
        yield Cell(run_linear, own | more), shared
        if name == "gd" and models == 1:
            theory = shared_columns(Level.LINEAR, name, B, pool=pool, weight=weight, model=Model.THEORY)
            yield Cell(forecast_linear, own), theory
