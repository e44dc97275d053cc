"""What the experiments on the nonlinear transformer share: the task, pretrained models on disk, one run.

The task is the paper's (section 8) at any dimension: Sigma0 = 0.1 on d/5 rare coordinates and 1 on the
rest, Delta = 1 on the rare ones. A pretrained model is a file named after everything that made it; making it
is resumable. A run post-trains a copy and measures it: error on the target and on Sigma0, on rare and common
directions, and the slope of its first thought on S w* in either group of directions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from datadose.configs import Stage
from datadose.covariance import Array
from datadose.dependencies import code_digest
from datadose.models import BlockLinearAttention, ChainModel, PromptBatch
from datadose.models.baselines import pretrained_lsa
from datadose.models.gpt import GptConfig, GptModel, load_gpt, save_gpt
from datadose.progress import step_progress
from datadose.stages import FixedData, Optimisation, held_out_prompts, stage_objective, train
from datadose.stages.config import CurriculumConfig, PretrainConfig
from datadose.stages.optimisation import Precision
from datadose.stages.pretrain import pretrain_on_chains
from datadose.studies.training import shift_covariances
from datadose.sweep import Workers, run_calls

Variant: TypeAlias = Literal["delta", "target", "replay"]
VARIANTS: tuple[Variant, ...] = ("delta", "target", "replay")


@dataclass(frozen=True)
class Task:
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

    def covariance(self, variant: Variant) -> Array:
        """Of the post-training prompts; ``replay`` mixes Delta with as many of Sigma0."""
        return self.sigma0 + self.delta if variant == "target" else self.delta


@dataclass(frozen=True)
class Pretraining:
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

    def config(self, task: Task) -> PretrainConfig:
        """What the pipeline's pretraining reads."""
        growth = CurriculumConfig(
            start_dimension=self.start_dimension, start_length=self.start_length, every=self.every
        )
        return PretrainConfig(
            length=task.length,
            method="train",
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            eta=task.eta,
            chain_steps=task.chain_steps,
            warmup=self.warmup,
            precision=self.precision,
            curriculum=growth,
        )


def pretrained_file(task: Task, pretraining: Pretraining, folder: Path) -> Path:
    """Where the model that these make lives; the name holds their digest and that of the code."""
    document = json.dumps([asdict(task), asdict(pretraining), code_digest(_pretrain)], sort_keys=True)
    name = hashlib.sha256(document.encode()).hexdigest()[:16]
    return folder / f"gpt-{pretraining.preset}-{pretraining.steps}-{name}.safetensors"


def pretrain_all(task: Task, pretrainings: Sequence[Pretraining], folder: Path, workers: Workers) -> None:
    """Make the files that are missing, in parallel; each continues where it was stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [p for p in pretrainings if not pretrained_file(task, p, folder).is_file()]
    if missing:
        # The longest first: it decides when all are done.
        missing.sort(key=lambda p: -p.steps)
        calls = [(_pretrain, {"task": task, "pretraining": p, "folder": folder}) for p in missing]
        # On this machine, where the files are to be, and without a bar of their own: each shows its steps.
        for _ in run_calls("pretraining", calls, Workers(workers.jobs)):
            pass


def _pretrain(task: Task, pretraining: Pretraining, folder: Path) -> None:
    """Teacher-forced chains on fresh prompts of Sigma0, dimension and length growing."""
    path = pretrained_file(task, pretraining, folder)
    checkpoint = path.with_suffix(".checkpoint")
    with step_progress() as progress:
        model = GptModel(
            GptConfig.preset(pretraining.preset, task.dimension, task.length, task.chain_steps),
            seed=pretraining.seed,
        ).to(_device())
        pretrain_on_chains(
            model,
            task.sigma0,
            pretraining.config(task),
            seed=pretraining.seed,
            vary_length=True,
            checkpoint=checkpoint,
            checkpoint_every=500,
            progress=lambda step, total: progress(f"pretrain {path.stem}", step, total),
        )
    save_gpt(path, model)
    checkpoint.unlink(missing_ok=True)


@dataclass(frozen=True)
class Work:
    """One post-training run: stage, data, sizes; B = 0 leaves the model untouched."""

    stage: Stage
    variant: Variant
    prompts: int
    length: int
    chain_steps: int
    steps: int
    learning_rate: float
    batch: int = 64


def post_train(model: ChainModel, task: Task, work: Work, seed: int) -> int:
    """Post-train ``model`` in place on one run's prompts; returns the number of lost runs."""
    torch.set_num_threads(1)
    prompts = _draw(task, work, seed)
    size = min(work.batch, work.prompts)
    optimisation = Optimisation("adam", work.learning_rate, steps=work.steps, batch=size)
    objective = stage_objective(work.stage, work.chain_steps, eta=task.eta, seeds=[seed])
    done = train(model, objective, FixedData(prompts, size, seed=seed), optimisation)
    return len(done.diverged)


def _draw(task: Task, work: Work, seed: int) -> PromptBatch:
    def draw(covariance: Array, count: int, salt: int) -> PromptBatch:
        seeds = [(seed, salt)]
        return PromptBatch.draw(covariance, work.length, count, seeds=seeds, hold_inputs=True)

    if work.variant != "replay":
        return draw(task.covariance(work.variant), work.prompts, 0)
    half = work.prompts // 2
    return PromptBatch.join([draw(task.delta, work.prompts - half, 0), draw(task.sigma0, half, 1)], dim=1)


def measure(model: ChainModel, task: Task, length: int) -> dict[str, float]:
    """Errors per dimension after ``test_steps`` thoughts, and slopes of the first thought."""
    found: dict[str, float] = {}
    for name, covariance in (("target", task.sigma0 + task.delta), ("pretraining", task.sigma0)):
        batch = held_out_prompts(covariance, length, task.test_prompts, hold_inputs=True)
        with torch.no_grad():
            seen = batch.to(next(model.parameters()).device)
            thoughts = model.rollout(seen, task.test_steps).cpu()
        gap = (thoughts[..., -1, :] - batch.weights).double().square().flatten(0, -2).mean(0).numpy()
        rare = task.delta > 0
        found[name] = float(gap.mean())
        found[f"{name}_rare"], found[f"{name}_common"] = float(gap[rare].mean()), float(gap[~rare].mean())
        for group, inside in (("rare", rare), ("common", ~rare)):
            for regressor, values in (("phi", batch.apply(batch.weights)), ("w", batch.weights)):
                slope, fit = _slope(thoughts[..., 0, :], values, inside)
                found[f"{name}_slope_{group}_{regressor}"] = slope
                found[f"{name}_fit_{group}_{regressor}"] = fit
    return found


def _device() -> torch.device:
    """The GPU if there is one: the paper's size wants it (with one job)."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _slope(thought: Tensor, regressor: Tensor, inside: Any) -> tuple[float, float]:
    """Least-squares slope through 0 of the thought on the regressor over these directions, and R^2."""
    chosen = torch.from_numpy(np.asarray(inside))
    y, x = (t.double().flatten(0, -2)[:, chosen].flatten() for t in (thought, regressor))
    slope = float((x @ y) / (x @ x))
    return slope, float(1 - (y - slope * x).square().sum() / y.square().sum())


def run_gpt(path: str, task: Task, work: Work, seed: int, length: int) -> dict[str, float | None]:
    """Cell: post-train a copy of the GPT at ``path``, measure it on prompts of ``length``; None if lost."""
    return _run(load_gpt(Path(path)), task, work, seed, length)


def run_lsa(task: Task, work: Work, seed: int, length: int) -> dict[str, float | None]:
    """Cell: the same for the linear transformer that saw infinitely many prompts of Sigma0."""
    start: BlockLinearAttention = pretrained_lsa(task.sigma0, task.length)
    return _run(start, task, work, seed, length)


def _run(model: ChainModel, task: Task, work: Work, seed: int, length: int) -> dict[str, float | None]:
    model = model.to(_device())
    lost = post_train(model, task, work, seed) if work.prompts > 0 else 0
    found = measure(model, task, length)
    whole = lost == 0 and all(np.isfinite(value) for value in found.values())
    return {name: value if whole else None for name, value in found.items()}
