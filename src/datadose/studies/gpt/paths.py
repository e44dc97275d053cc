"""Post-training paths: what a GPT's error is at several steps of one training, runs side by side.

One training gives every number of steps up to its own. Of a seed all is nested: the prompts of a smaller B
are the first of a larger one, those of a smaller n are the beginnings of longer ones, in training and in the
test. Each seed has test prompts of its own, so that an interval over seeds covers their sampling error too;
they are not among the training prompts. Paths run on the GPU if there is one; errors are measured in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from datadose.configs import Stage
from datadose.models import ChainModel, PromptBatch
from datadose.models.gpt import GptModel, load_gpt
from datadose.models.gpt_runs import GptRuns
from datadose.stages import FixedData, Optimisation, squared_gaps, stage_objective, train
from datadose.stages.config import Precision
from datadose.stages.data import Data, SideBySide, split
from datadose.stages.engine import Objective
from datadose.studies.gpt.runs import (
    GptPretraining,
    GptRun,
    GptTask,
    Variant,
    Watch,
    best_device,
    draw_prompts,
    measure,
    numbers_or_none,
)

T = TypeVar("T")

_TEST = 2
"""The salt of a seed's test prompts; 0 and 1 are those of its training prompts."""
_AT_ONCE = {"cpu": 64, "cuda": 256}
"""Test prompts of a run that are thought about at once: on a CPU more leave the cache, a GPU is filled."""


@dataclass(frozen=True)
class GptPath:
    """One way of post-training, for several B.

    Args:
        variant: what the prompts are of.
        prompts: the numbers B, multiples of ``batch``.
        length: n of the post-training prompts, at most the task's.
        chain_steps: k.
        looks: the optimiser steps at which the error is measured, rising; training ends at the last.
        test_lengths: the n of the test prompts, at most the task's.
    """

    stage: Stage
    variant: Variant
    prompts: tuple[int, ...]
    length: int
    chain_steps: int
    looks: tuple[int, ...]
    test_lengths: tuple[int, ...]
    learning_rate: float
    batch: int
    precision: Precision = "fp32"


def path_of(run: GptRun, looks: Collection[int], test_lengths: Collection[int]) -> GptPath:
    """The path of a run with one B, which is looked at after these steps and tested at these n."""
    return GptPath(
        run.stage,
        run.variant,
        (run.prompts,),
        run.length,
        run.chain_steps,
        tuple(sorted(looks)),
        tuple(sorted(test_lengths)),
        run.learning_rate,
        min(run.batch, run.prompts),
    )


@dataclass(frozen=True)
class HeldOut:
    """The held-out prompts of several runs by n: of the target at all lengths, of Sigma0 at the last."""

    task: GptTask
    lengths: tuple[int, ...]
    target: PromptBatch
    sigma0: PromptBatch

    @classmethod
    def of(cls, task: GptTask, lengths: Sequence[int], seeds: Sequence[int]) -> HeldOut:
        """``test_prompts`` of the task for each seed; of one seed the two kinds have the same w*."""
        drawn = (
            PromptBatch.draw(
                covariance,
                task.length,
                task.test_prompts,
                seeds=[(seed, _TEST) for seed in seeds],
                hold_inputs=True,
            )
            for covariance in (task.sigma0 + task.delta, task.sigma0)
        )
        return cls(task, tuple(lengths), *drawn)

    def measure(self, model: ChainModel) -> list[list[list[float]]]:
        """By length and run: errors / d on the target, its rare and common directions, and on Sigma0.

        The last is measured at the last length, and stands beside all.
        """
        rare = torch.from_numpy(self.task.rare)
        kept = self._gaps(model, beginnings(self.sigma0, self.lengths[-1])).mean(-1)
        found = []
        for n in self.lengths:
            gaps = self._gaps(model, beginnings(self.target, n))
            parts = gaps.mean(-1), gaps[:, rare].mean(-1), gaps[:, ~rare].mean(-1), kept
            found.append(torch.stack(parts, dim=-1).tolist())
        return found

    def _gaps(self, model: ChainModel, batch: PromptBatch) -> Tensor:
        """Mean squared gaps by run and direction, (runs, d), on the CPU."""
        device = next(model.parameters()).device
        pieces = split(batch.to(device), -(-batch.prompts // _AT_ONCE.get(device.type, _AT_ONCE["cuda"])))
        k = self.task.test_steps
        found = [share * squared_gaps(model, piece, k).mean(-2) for piece, share in pieces]
        return torch.stack(found).sum(0).cpu()


def beginnings(batch: PromptBatch, length: int) -> PromptBatch:
    """The same prompts with their first ``length`` examples only."""
    return replace(batch, length=length, inputs=batch.held_inputs()[..., :length, :])


def untouched_errors(model: Path, task: GptTask, lengths: list[int], seeds: list[int]) -> list[list[Any]]:
    """Cell: rows (seed, test length, errors as ``HeldOut.measure`` has them) of the GPT in a file."""
    torch.set_num_threads(1)
    copies = GptRuns(load_gpt(model).to(best_device()), len(seeds))
    found = HeldOut.of(task, lengths, seeds).measure(copies)
    return [
        [seed, n, *values]
        for n, by_run in zip(lengths, found, strict=True)
        for seed, values in zip(seeds, by_run, strict=True)
    ]


def seeds_at_once(pretraining: GptPretraining, seeds: int) -> list[list[int]]:
    """The seeds 0, 1, .. in the groups that train side by side.

    Of the tiny GPT all do, since calls take longer than arithmetic there; larger ones train one by one, so
    that a run that is stopped loses less.
    """
    size = seeds if pretraining.preset == "tiny" else 1
    return [list(range(first, min(first + size, seeds))) for first in range(0, seeds, size)]


def follow_seeds(model: Path, task: GptTask, path: GptPath, seeds: list[int]) -> list[list[Any]]:
    """Cell: rows (seed, optimiser steps, test length, numbers) along ``path``, which has one B.

    The seeds train side by side from the GPT in a file. Their test prompts are the same, those of every run
    of a task, and the prompts of a seed depend on n. The numbers are those of ``measure``; a run has none
    from the step on at which it is lost.
    """
    torch.set_num_threads(1)
    start = load_gpt(model).to(best_device())
    [B] = path.prompts

    def shown(copies: ChainModel) -> list[list[dict[str, float]]]:
        return [measure(copies, task, n, len(seeds)) for n in path.test_lengths]

    drawn = replace(task, length=path.length)
    seen, lost = post_trained(start, drawn, path, [(B, seed) for seed in seeds], shown)
    return [
        [seed, step, n, {} if lost_by(lost, run, step) else numbers_or_none(seen[step][place][run])]
        for run, seed in enumerate(seeds)
        for step in path.looks
        for place, n in enumerate(path.test_lengths)
    ]


def follow_path(
    model: Path, task: GptTask, path: GptPath, runs: list[list[int]], watch: Watch | None = None
) -> list[list[Any]]:
    """Cell: rows (B, seed, optimiser steps, test length, errors) along ``path`` from the GPT in a file.

    ``runs`` (B, seed) train side by side, which changes no number of a run beyond rounding. The errors are
    those of ``HeldOut.measure``, None from the step on at which a run is lost. ``watch`` is called with each
    step, before errors are measured.
    """
    torch.set_num_threads(1)
    start = load_gpt(model).to(best_device())
    shown = HeldOut.of(task, path.test_lengths, [seed for _, seed in runs])
    seen, lost = post_trained(start, task, path, runs, shown.measure, watch)
    rows: list[list[Any]] = []
    for run, (B, seed) in enumerate(runs):
        for step in path.looks:
            for place, n in enumerate(path.test_lengths):
                values = seen[step][place][run] if not lost_by(lost, run, step) else []
                whole = bool(values) and all(np.isfinite(values))
                rows.append([B, seed, step, n, *(values if whole else [None] * 4)])
    return rows


def post_trained(
    start: GptModel,
    task: GptTask,
    path: GptPath,
    runs: Sequence[Sequence[int]],
    measure: Callable[[ChainModel], T],
    watch: Watch | None = None,
) -> tuple[dict[int, T], dict[int, int]]:
    """Train copies of ``start`` side by side along ``path``, one for each (B, seed) of ``runs``.

    ``watch`` is called with each step, before ``measure``. Returns what :func:`looked_along` does.
    """
    seeds = [seed for _, seed in runs]
    each = (
        FixedData(
            beginnings(draw_prompts(task, path.variant, B, task.length, seed), path.length),
            path.batch,
            seed=seed,
        )
        for B, seed in runs
    )
    return looked_along(
        GptRuns(start, len(runs)),
        stage_objective(path.stage, path.chain_steps, eta=task.eta, seeds=seeds),
        SideBySide(tuple(each)),
        Optimisation(
            "adam",
            path.learning_rate,
            steps=path.looks[-1],
            batch=path.batch,
            precision=path.precision,
        ),
        path.looks,
        measure,
        watch,
    )


def looked_along(
    model: ChainModel,
    objective: Objective,
    data: Data,
    optimisation: Optimisation,
    looks: Collection[int],
    measure: Callable[[ChainModel], T],
    watch: Watch | None = None,
) -> tuple[dict[int, T], dict[int, int]]:
    """Train ``model`` in place; returns its ``measure`` after each of the steps ``looks``, 0 among them if
    requested, and the step at which each lost run was lost. ``watch`` is called with each step."""
    seen = {0: measure(model)} if 0 in looks else {}

    def look(step: int, total: int) -> None:
        del total
        if watch is not None:
            watch(step)
        if step in looks:
            seen[step] = measure(model)

    done = train(model, objective, data, optimisation, progress=look)
    return seen, {entry.run: entry.step for entry in done.diverged}


def lost_by(lost: dict[int, int], run: int, step: int) -> bool:
    """Whether a run is lost after ``step`` steps: the parameters are those whose loss showed it."""
    return lost.get(run, step + 1) <= step
