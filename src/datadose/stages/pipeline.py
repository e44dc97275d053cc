"""One pipeline from a config: pretrain, post-train stage by stage, post-test; resumable, all in one folder.

DIR/config.yaml is the resolved configuration, DIR/metrics.csv the recorded history, DIR/model.safetensors the
final weights, DIR/result.json the post-test before and after every stage. Checkpoints of the stages live in
DIR/checkpoints; with ``resume`` a run that was killed continues from them to the same result.

Several processes (``torchrun --nproc-per-node 2 -m datadose train CONFIG.yaml``) share every batch, see
:mod:`datadose.stages.distributed`; the first one alone writes files.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from datadose.configs import load_config, read_covariance, validate_config
from datadose.covariance import same_form
from datadose.errors import reject, require_kind
from datadose.files import prepare_folder, write_atomic, write_json, write_table
from datadose.models import BlockLinearAttention, ChainModel, LinearAttention, PromptBatch, starting_operator
from datadose.models.gpt import GptConfig, GptModel, save_gpt
from datadose.prompts import Moments
from datadose.shapes import Operator
from datadose.shift import Shift
from datadose.stages.checkpoint import Training, save_weights
from datadose.stages.config import StageConfig, TrainConfig
from datadose.stages.data import Data, FixedData, FreshData
from datadose.stages.distributed import Processes
from datadose.stages.engine import Objective, train
from datadose.stages.evaluate import held_out_prompts, post_test
from datadose.stages.objectives import stage_objective
from datadose.stages.optimisation import Optimisation
from datadose.stages.outcome import Outcome
from datadose.stages.pretrain import pretrain_on_chains
from datadose.stages.rewards import Reward, negative_squared_error, within_tolerance
from datadose.theory.pretraining import pretrained_on_mixture, pretrained_operator
from datadose.theory.sft import GradientDescent
from datadose.versions import versions

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PipelineRun:
    """One run of a configuration: what every part of the pipeline reads, with the covariances read once."""

    config: TrainConfig
    folder: Path
    """Paths in the configuration are relative to it."""
    out: Path
    progress: Progress | None
    sigma0: Operator
    delta: Operator
    categories: tuple[tuple[float, Operator], ...]

    @classmethod
    def of(cls, config: TrainConfig, folder: Path, out: Path, progress: Progress | None) -> PipelineRun:
        """Read and validate the covariances."""
        sigma0 = read_covariance("shift.sigma0", config.shift.sigma0, folder)
        delta = read_covariance("shift.delta", config.shift.delta, folder, len(sigma0))
        sigma0, delta = same_form(sigma0, delta)
        categories = tuple(
            (c.weight, read_covariance(f"pretrain.categories.{i}", c.covariance, folder, len(sigma0)))
            for i, c in enumerate(config.pretrain.categories)
        )
        return cls(config, folder, out, progress, sigma0, delta, categories)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, one for each run of the model."""
        return tuple(range(self.config.seeds))

    @property
    def dtype(self) -> torch.dtype:
        """The type of parameters and prompts."""
        found: torch.dtype = getattr(torch, self.config.model.dtype)
        return found

    @property
    def hold_inputs(self) -> bool:
        """Whether the model reads the prompts' inputs X."""
        return self.config.model.kind == "gpt"

    def population_solution(self) -> Operator:
        """V0 of unlimited pretraining: on the mixture if there are categories, else on Sigma0."""
        length = self.config.pretrain.length
        if self.categories:
            return pretrained_on_mixture(self.categories, length)
        return pretrained_operator(self.sigma0, length)

    def covariance(self, index: int) -> Operator:
        """The covariance of the prompts of stage ``index`` (from 0)."""
        stage = self.config.stages[index]
        named = {"delta": self.delta, "sigma0": self.sigma0, "target": self.sigma0 + self.delta}
        if stage.data == "aligned":
            return Shift.aligned(self.sigma0, self.delta, stage.eta, stage.interference).data
        if isinstance(stage.data, str) and stage.data in named:
            return named[stage.data]
        return read_covariance(f"stages.{index}.data", stage.data, self.folder, len(self.sigma0))

    def keeping(self, name: str, file: str) -> dict[str, Any]:
        """Arguments of :func:`train`: ``file`` among the checkpoints, and progress under ``name``."""
        report = self.progress
        return {
            "checkpoint": self.out / "checkpoints" / f"{file}.safetensors",
            "checkpoint_every": self.config.checkpoint_every,
            "progress": None if report is None else lambda step, total: report(name, step, total),
        }


def run_pipeline(
    config: TrainConfig | Mapping[str, Any],
    out: str | Path,
    *,
    folder: str | Path = Path(),
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Pretrain a model, post-train it stage by stage and test it, as `datadose train` does.

    Args:
        config: what is trained, a TrainConfig or the same as nested dicts, as in a YAML file.
        out: folder for ``config.yaml``, ``metrics.csv``, ``model.safetensors``, ``result.json`` and the
            checkpoints; made if need be.
        folder: what paths in the configuration are relative to.
        resume: whether to continue the run of this very configuration that ``out`` holds.
        progress: called with the name of the stage, its step and its number of steps.

    Returns:
        The document of ``result.json``: under ``stages`` the post-test after each stage, errors divided by d.

    Raises:
        InputError: a bad value in ``config``, an ``out`` that holds another configuration, or that holds a
            run while ``resume`` is False.

    Example:
        >>> from datadose import run_pipeline
        >>> sft = {"stage": "sft", "length": 10, "prompts": 8, "steps": 3}
        >>> config = {"shift": {"sigma0": [1, 1], "delta": [1, 0]}, "pretrain": {"length": 10}}
        >>> result = run_pipeline({**config, "stages": [sft], "test": {"length": 10}}, scratch)
        >>> [(stage["stage"], len(stage["target_mean"])) for stage in result["stages"]]
        [('pretrain', 1), ('sft', 1)]
    """
    run = PipelineRun.of(_validated(config), Path(folder), Path(out), progress)
    _claim_folder(run, resume)
    result = _post_trained(run)
    if Processes.current().first:
        write_json(run.out / "result.json", result)
    return result


def _validated(config: TrainConfig | Mapping[str, Any]) -> TrainConfig:
    if isinstance(config, TrainConfig):
        return config
    require_kind("config", config, Mapping, "the sections of a YAML file")
    return validate_config(dict(config), TrainConfig)


def _post_trained(run: PipelineRun) -> dict[str, Any]:
    """Train stage by stage, write the history and the weights, and return the result document."""
    config = run.config
    model = _pretrained_model(run)
    # The frozen reference of the KL term.
    reference = copy.deepcopy(model) if any(stage.kl > 0 for stage in config.stages) else None
    test = config.test
    held_out = partial(
        held_out_prompts,
        length=test.length,
        prompts=test.prompts,
        runs=config.seeds,
        dtype=run.dtype,
        hold_inputs=run.hold_inputs,
    )
    tests = {"target": held_out(run.sigma0 + run.delta), "pretraining": held_out(run.sigma0)}
    reports = [_report("pretrain", model, tests, test.thinking_steps, Training())]
    rows: list[dict[str, Any]] = []
    for index, stage in enumerate(config.stages):
        training = _post_train(run, model, reference, index)
        rows += [{"stage": f"{index}-{stage.stage}", **row} for row in _rows(training)]
        reports.append(_report(stage.stage, model, tests, test.thinking_steps, training))
    result = {"stages": reports, "seeds": list(run.seeds), "versions": versions()}
    if Processes.current().first:
        write_table(run.out / "metrics.csv", pd.DataFrame(rows))
        weights = run.out / "model.safetensors"
        if isinstance(model, GptModel):
            save_gpt(weights, model)
        else:
            save_weights(weights, model, {"model": json.dumps(config.model.model_dump())})
    return result


def _claim_folder(run: PipelineRun, resume: bool) -> None:
    prepare_folder("out", run.out)
    saved = run.out / "config.yaml"
    if saved.exists():
        if not resume:
            reject("out", str(run.out), "a folder without a run, or --resume")
        if load_config(saved, TrainConfig) != run.config:
            reject("out", str(run.out), "the folder of this very configuration (config.yaml there differs)")
    processes = Processes.current()
    # No process writes before all have checked.
    processes.wait()
    if processes.first:
        prepare_folder("out", run.out / "checkpoints")
        write_atomic(saved, yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False))


def _pretrained_model(run: PipelineRun) -> ChainModel:
    pretrain = run.config.pretrain
    if run.config.model.kind == "gpt":
        return _pretrained_gpt(run)
    V0 = run.population_solution()
    if pretrain.method == "population":
        return _linear_model(run, V0)
    model = _linear_model(run, np.zeros_like(V0))
    seeds = tuple(100_000 + seed for seed in run.seeds)
    data = FreshData(run.categories or run.sigma0, pretrain.length, pretrain.batch, seeds, run.dtype)
    optimisation = Optimisation("adam", pretrain.learning_rate, steps=pretrain.steps)
    train(model, Outcome(1), data, optimisation, **run.keeping("pretrain", "pretrain"))
    return model


def _linear_model(run: PipelineRun, V0: Operator) -> ChainModel:
    model = run.config.model
    operator = starting_operator(V0, len(run.seeds), run.dtype)
    if model.kind == "lsa":
        if not model.train_attention:
            reject("model.train_attention", False, "True with model.kind lsa (lsa-block can fix it)")
        return LinearAttention(operator)
    return BlockLinearAttention(operator, train_attention=model.train_attention)


def _pretrained_gpt(run: PipelineRun) -> GptModel:
    """A GPT after teacher-forced chains on fresh prompts of Sigma0 (or the categories), by AdamW or Muon."""
    config, pretrain, d = run.config, run.config.pretrain, len(run.sigma0)
    ks = [pretrain.chain_steps, *(stage.chain_steps for stage in config.stages), *config.test.thinking_steps]
    lengths = [pretrain.length, config.test.length, *(stage.length for stage in config.stages)]
    sizes = GptConfig.preset(config.model.preset, d, max(lengths), max(ks))
    model = GptModel(sizes, seed=0).to(run.dtype)
    kept = run.keeping("pretrain", "pretrain")
    pretrain_on_chains(model, run.categories or run.sigma0, pretrain, seed=100_000, **kept)
    return model


def _post_train(run: PipelineRun, model: ChainModel, reference: ChainModel | None, index: int) -> Training:
    """Stage ``index`` on ``model``, in place."""
    stage = run.config.stages[index]
    data = _stage_data(run, index)
    rate = stage.learning_rate
    if rate == "theorem":
        rate = _theorem_step(stage, data, run.population_solution())
    return train(
        model,
        _objective(run, stage, reference),
        data,
        Optimisation(stage.optimiser, rate, stage.epochs, stage.steps, stage.batch, stage.clip),
        record_every=run.config.record_every,
        **run.keeping(f"{index + 1}. {stage.stage}", f"{index}-{stage.stage}"),
    )


def _stage_data(run: PipelineRun, index: int) -> Data:
    stage, covariance = run.config.stages[index], run.covariance(index)
    # Stages must not share prompts: the stage's place is folded into the seed.
    seeds = tuple(1000 * (index + 1) + seed for seed in run.seeds)
    if stage.prompts == "fresh":
        size = int(stage.batch or 1)
        return FreshData(covariance, stage.length, size, seeds, run.dtype, run.hold_inputs)
    batch = PromptBatch.draw(
        covariance, stage.length, stage.prompts, seeds=seeds, dtype=run.dtype, hold_inputs=run.hold_inputs
    )
    return FixedData(batch, stage.batch, seed=index)


def _theorem_step(stage: StageConfig, data: Data, V0: Operator) -> float:
    """B / (c_k lambda_max(M)) of Thm 4.2, the smallest over runs."""
    if not isinstance(data, FixedData):
        reject("learning_rate", "theorem", "a number, when the data are fresh")
    batch = data.whole
    phi = batch.apply(batch.weights)
    moments = (
        Moments(w.double().numpy().T, p.double().numpy().T) for w, p in zip(batch.weights, phi, strict=True)
    )
    return min(GradientDescent.of(m, stage.eta, V0, stage.chain_steps).balanced_step for m in moments)


def _objective(run: PipelineRun, stage: StageConfig, reference: ChainModel | None) -> Objective:
    policy: dict[str, Any] = {}
    if stage.stage == "rl":
        policy = {name: getattr(stage, name) for name in ("group", "noise", "advantage", "every_step", "kl")}
        policy |= {"reward": _reward(run, stage), "reference": reference}
    return stage_objective(stage.stage, stage.chain_steps, eta=stage.eta, seeds=run.seeds, **policy)


def _reward(run: PipelineRun, stage: StageConfig) -> Reward:
    if stage.reward == "dense":
        return negative_squared_error
    if stage.directions == "all":
        return within_tolerance(stage.tolerance)
    if run.delta.ndim != 1:
        reject("directions", "shifted", "all, when the shift is dense")
    return within_tolerance(
        stage.tolerance, torch.from_numpy(np.where(run.delta > 0, 1.0, 0.0)).to(run.dtype)
    )


def _rows(training: Training) -> list[dict[str, Any]]:
    """History as one row a seed and step."""
    return [
        {"step": entry["step"], "seed": seed, **{name: entry[name][seed] for name in entry if name != "step"}}
        for entry in training.history
        for seed in range(len(entry["loss"]))
    ]


def _report(
    name: str, model: ChainModel, tests: dict[str, PromptBatch], thinking_steps: list[int], training: Training
) -> dict[str, Any]:
    """Errors / d per seed and their mean; a diverged run has null errors and does not enter the mean."""
    lost = {d.run for d in training.diverged}
    report: dict[str, Any] = {
        "stage": name,
        "optimiser_steps": training.steps,
        "diverged": [asdict(d) for d in training.diverged],
        "thinking_steps": thinking_steps,
    }
    for test, batch in tests.items():
        errors = post_test(model, batch, thinking_steps)
        kept = [
            [float(e) if run not in lost and bool(torch.isfinite(e)) else None for e in row]
            for run, row in enumerate(errors)
        ]
        finite = np.array([row for row in kept if None not in row], dtype=float)
        report[f"{test}_error"] = kept
        report[f"{test}_mean"] = finite.mean(axis=0).tolist() if len(finite) else None
    return report
