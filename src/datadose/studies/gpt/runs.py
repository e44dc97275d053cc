"""What the experiments on the nonlinear transformer share: the task, pretrained models on disk, one run.

The task is the paper's (section 8) at any dimension: Sigma0 = 0.1 on d/5 rare coordinates and 1 on the
rest, Delta = 1 on the rare ones. A pretrained model is a file named after everything that made it; making it
is resumable. A run post-trains a copy and measures it: error on the target and on Sigma0, on rare and common
directions, and the slope of its first thought on S w* in either group of directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from datadose.configs import Stage
from datadose.covariance import Array
from datadose.errors import RunError
from datadose.models import BlockLinearAttention, ChainModel, PromptBatch
from datadose.models.baselines import pretrained_lsa
from datadose.models.gpt import GptConfig, GptModel, load_gpt, save_gpt
from datadose.progress import step_progress
from datadose.stages import FixedData, Optimisation, held_out_prompts, stage_objective, train
from datadose.stages.config import CurriculumConfig, Precision, PretrainConfig
from datadose.stages.pretrain import pretrain_on_chains
from datadose.studies.training import shift_covariances
from datadose.sweep import Cell, Round, file_cell

Variant: TypeAlias = Literal["delta", "target", "replay"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
VARIANT_NAMES = {
    "delta": "Delta",
    "target": "Sigma0 + Delta",
    "replay": "Delta + replay",
}
"""What the post-training prompts are of, in words."""
TARGET, PRETRAINING = "target", "pretraining"
"""The two tests: on prompts of the target, and on those of Sigma0."""
RARE, COMMON = "rare", "common"
"""The directions that the shift moves, and the others."""
Watch: TypeAlias = Callable[[int], None]
"""Called with the number of steps that a training has done, after each."""
PHI, W = "phi", "w"
"""What the first thought is regressed on: S w*, and w* itself."""
GPT = "gpt"
"""The model of a row in a table."""


def of(test: str, group: str, what: str = "", regressor: str = "") -> str:
    """The name of a measured number: an error, or ``what`` ("slope", "fit") of the regression."""
    return "_".join(part for part in (test, what, group, regressor) if part)


@dataclass(frozen=True)
class GptTask:
    """Dimension d, the length n and chain length k of pretraining, the chain's step eta, test sizes."""

    dimension: int
    length: int
    chain_steps: int
    test_steps: int
    eta: float = 0.2
    test_prompts: int = 512

    @property
    def sigma0(self) -> Array:
        """The pretraining covariance."""
        return shift_covariances(self.dimension)[0]

    @property
    def delta(self) -> Array:
        """The shift."""
        return shift_covariances(self.dimension)[1]

    @property
    def rare(self) -> Any:
        """Which directions the shift moves, shape (d,)."""
        return self.delta > 0

    def covariance(self, variant: Variant) -> Array:
        """Of the post-training prompts; ``replay`` mixes Delta with as many of Sigma0."""
        return self.sigma0 + self.delta if variant == "target" else self.delta


@dataclass(frozen=True)
class GptPretraining:
    """How a GPT is pretrained: size, optimiser steps, and Garg's curriculum."""

    preset: str
    steps: int
    batch: int = 64
    learning_rate: float = 3e-3
    warmup: int = 200
    start_dimension: int = 2
    start_length: int = 5
    every: int = 100
    precision: Precision = "fp32"
    seed: int = 0
    optimiser: Literal["adamw", "muon"] = "adamw"

    def config(self, length: int, chain_steps: int, eta: float) -> PretrainConfig:
        """What the pipeline's pretraining reads, for prompts and chains up to these lengths."""
        growth = CurriculumConfig(
            start_dimension=self.start_dimension, start_length=self.start_length, every=self.every
        )
        return PretrainConfig(
            length=length,
            method="train",
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            optimiser=self.optimiser,
            eta=eta,
            chain_steps=chain_steps,
            warmup=self.warmup,
            precision=self.precision,
            curriculum=growth,
        )


def pretrained_cells(task: GptTask, pretrainings: Sequence[GptPretraining], folder: Path) -> dict[int, Cell]:
    """Optimiser steps -> the cell that makes the model below ``folder``."""
    return {p.steps: pretrained_cell(task, p, folder) for p in pretrainings}


def pretrained_cell(task: GptTask, pretraining: GptPretraining, folder: Path) -> Cell:
    """The cell that makes a model below ``folder``."""
    # Of the task only what a pretrained model depends on: its name is independent of tests to come.
    own: dict[str, Any] = {
        "dimension": task.dimension,
        "length": task.length,
        "chain_steps": task.chain_steps,
    }
    own |= {"eta": task.eta, "pretraining": pretraining}
    stem = f"gpt-{pretraining.preset}-{pretraining.steps}"
    return file_cell(folder / "pretrained", stem, ".safetensors", pretrain, **own)


def pretraining_round(models: Iterable[Cell]) -> Round:
    """All models, the longest first: it decides when all are done."""
    return "pretraining", sorted(models, key=lambda cell: -cell.arguments["pretraining"].steps)


def pretrain(
    dimension: int,
    length: int,
    chain_steps: int,
    eta: float,
    pretraining: GptPretraining,
    *,
    file: Path,
    checkpoint_every: int = 500,
    watch: Watch | None = None,
) -> None:
    """Cell: teacher-forced chains on fresh prompts of Sigma0, dimension and length growing; resumable.

    ``watch`` is called with each step done; what it raises ends the training, which a later call resumes.
    Raises RunError if the training diverges.
    """

    def after_step(step: int, total: int) -> None:
        progress(f"pretrain {file.stem}", step, total)
        if watch is not None:
            watch(step)

    checkpoint = file.with_suffix(".checkpoint")
    sizes = GptConfig.preset(pretraining.preset, dimension, length, chain_steps)
    model = GptModel(sizes, seed=pretraining.seed).to(best_device())
    with step_progress() as progress:
        done = pretrain_on_chains(
            model,
            shift_covariances(dimension)[0],
            pretraining.config(length, chain_steps, eta),
            seed=pretraining.seed,
            vary_length=True,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            progress=after_step,
        )
    if done.diverged:
        msg = f"{file.stem}: pretraining diverged at step {done.diverged[0].step:,}"
        raise RunError(msg)
    save_gpt(file, model)
    checkpoint.unlink(missing_ok=True)


@dataclass(frozen=True)
class GptRun:
    """One post-training run: stage, data, sizes; B = 0 leaves the model untouched."""

    stage: Stage
    variant: Variant
    prompts: int
    length: int
    chain_steps: int
    steps: int
    learning_rate: float
    batch: int = 64


def post_train(model: ChainModel, task: GptTask, run: GptRun, seed: int) -> int:
    """Post-train ``model`` in place on one run's prompts; returns the number of lost runs."""
    torch.set_num_threads(1)
    prompts = draw_prompts(task, run.variant, run.prompts, run.length, seed)
    size = min(run.batch, run.prompts)
    optimisation = Optimisation("adam", run.learning_rate, steps=run.steps, batch=size)
    objective = stage_objective(run.stage, run.chain_steps, eta=task.eta, seeds=[seed])
    done = train(model, objective, FixedData(prompts, size, seed=seed), optimisation)
    return len(done.diverged)


def draw_prompts(task: GptTask, variant: Variant, prompts: int, length: int, seed: int) -> PromptBatch:
    """The post-training prompts of a run, shape (1, B, ...), inputs held; half of Sigma0 with ``replay``."""

    def draw(covariance: Array, count: int, salt: int) -> PromptBatch:
        seeds = [(seed, salt)]
        return PromptBatch.draw(covariance, length, count, seeds=seeds, hold_inputs=True)

    if variant != "replay":
        return draw(task.covariance(variant), prompts, 0)
    half = prompts // 2
    return PromptBatch.join([draw(task.delta, prompts - half, 0), draw(task.sigma0, half, 1)], dim=1)


def tests(task: GptTask, length: int) -> list[tuple[str, PromptBatch]]:
    """Held-out prompts of the target and of Sigma0."""
    return [
        (name, held_out_prompts(covariance, length, task.test_prompts, hold_inputs=True))
        for name, covariance in ((TARGET, task.sigma0 + task.delta), (PRETRAINING, task.sigma0))
    ]


def errors(task: GptTask, name: str, answers: Tensor, batch: PromptBatch) -> dict[str, float]:
    """Errors of the answers per dimension: over all, rare and common directions."""
    gap = (answers - batch.weights).double().square().flatten(0, -2).mean(0).numpy()
    groups = {name: gap, of(name, RARE): gap[task.rare], of(name, COMMON): gap[~task.rare]}
    return {group: float(values.mean()) for group, values in groups.items()}


def measure(model: ChainModel, task: GptTask, length: int, runs: int = 1) -> list[dict[str, float]]:
    """Of every run: errors per dimension after ``test_steps`` thoughts, and slopes of the first thought.

    The ``runs`` of ``model`` are tested on the same prompts, of ``length`` examples.
    """
    found: list[dict[str, float]] = [{} for _ in range(runs)]
    for name, batch in tests(task, length):
        with torch.no_grad():
            seen = batch.expand(runs).to(next(model.parameters()).device)
            thoughts = model.rollout(seen, task.test_steps).cpu()
        regressors = ((PHI, batch.apply(batch.weights)), (W, batch.weights))
        for own, made in zip(found, thoughts, strict=True):
            own.update(errors(task, name, made[..., -1, :], batch))
            for group, inside in ((RARE, task.rare), (COMMON, ~task.rare)):
                for regressor, values in regressors:
                    slope, fit = _slope(made[..., 0, :], values, inside)
                    own[of(name, group, "slope", regressor)] = slope
                    own[of(name, group, "fit", regressor)] = fit
    return found


def numbers_or_none(found: dict[str, float], *, lost: bool = False) -> dict[str, float | None]:
    """The numbers of a run, all of them None if it is ``lost`` or one of them is not finite."""
    whole = not lost and all(np.isfinite(value) for value in found.values())
    return {name: value if whole else None for name, value in found.items()}


def best_device() -> torch.device:
    """The GPU if there is one: the paper's size needs it (with one job)."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _slope(thought: Tensor, regressor: Tensor, inside: Any) -> tuple[float, float]:
    """Least-squares slope through 0 of the thought on the regressor over these directions, and R^2."""
    y, x = (t.double().flatten(0, -2)[:, torch.from_numpy(inside)].flatten() for t in (thought, regressor))
    slope = float((x @ y) / (x @ x))
    return slope, float(1 - (y - slope * x).square().sum() / y.square().sum())


def run_gpt(model: Path, task: GptTask, run: GptRun, seed: int, length: int) -> dict[str, float | None]:
    """Cell: post-train a copy of the GPT in a file, measure it on prompts of ``length``; None if lost."""
    return _run(load_gpt(model), task, run, seed, length)


def run_lsa(task: GptTask, run: GptRun, seed: int, length: int) -> dict[str, float | None]:
    """Cell: the same for the linear transformer pretrained on infinitely many prompts of Sigma0."""
    start: BlockLinearAttention = pretrained_lsa(task.sigma0, task.length)
    return _run(start, task, run, seed, length)


def _run(model: ChainModel, task: GptTask, run: GptRun, seed: int, length: int) -> dict[str, float | None]:
    model = model.to(best_device())
    lost = post_train(model, task, run, seed) if run.prompts > 0 else 0
    [found] = measure(model, task, length)
    return numbers_or_none(found, lost=lost > 0)
