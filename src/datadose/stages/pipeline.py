"""One pipeline from a config: pretrain, post-train stage by stage, post-test; resumable, all in one folder.

DIR/config.yaml is the resolved configuration, DIR/metrics.csv the recorded history, DIR/model.safetensors the
final weights, DIR/result.json the post-test before and after every stage. Checkpoints of the stages live in
DIR/checkpoints; with ``resume`` a run that was killed continues from them to the same result.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from datadose.configs import read_covariance
from datadose.covariance import Array, dense, same_form
from datadose.errors import reject
from datadose.files import prepare_folder, write_atomic, write_json, write_table
from datadose.models import BlockLinearAttention, ChainModel, LinearAttention, PromptBatch
from datadose.models.gpt import GptConfig, GptModel, save_gpt
from datadose.prompts import Moments
from datadose.shift import Shift
from datadose.stages import (
    Curriculum,
    CurriculumData,
    FixedData,
    FreshData,
    Optimisation,
    Outcome,
    Rl,
    Sft,
    Training,
    held_out_prompts,
    negative_squared_error,
    post_test,
    train,
    within_tolerance,
)
from datadose.stages.checkpoint import save_weights
from datadose.stages.config import StageConfig, TrainConfig
from datadose.stages.engine import Data, Objective
from datadose.stages.pretrain import chain_optimisation
from datadose.stages.rewards import Reward
from datadose.theory.pretraining import pretrained_on_mixture, pretrained_operator
from datadose.theory.sft import GradientDescent
from datadose.versions import versions

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Setting:
    """The config's covariances, read once."""

    sigma0: Array
    delta: Array
    categories: tuple[tuple[float, Array], ...]

    @classmethod
    def of(cls, config: TrainConfig, folder: Path) -> Setting:
        """Read and validate; paths are relative to ``folder``."""
        sigma0 = read_covariance("shift.sigma0", config.shift.sigma0, folder)
        delta = read_covariance("shift.delta", config.shift.delta, folder, len(sigma0))
        sigma0, delta = same_form(sigma0, delta)
        categories = tuple(
            (c.weight, read_covariance(f"pretrain.categories.{i}", c.covariance, folder, len(sigma0)))
            for i, c in enumerate(config.pretrain.categories)
        )
        return cls(sigma0, delta, categories)

    def pretrained(self, length: int) -> Array:
        """The population solution: of the mixture if there are categories, else of Sigma0."""
        if self.categories:
            return pretrained_on_mixture(self.categories, length)
        return pretrained_operator(self.sigma0, length)

    def data(self, stage: StageConfig, folder: Path, place: str) -> Array:
        """The covariance of a stage's prompts."""
        named = {"delta": self.delta, "sigma0": self.sigma0, "target": self.sigma0 + self.delta}
        if stage.data == "aligned":
            return Shift.aligned(self.sigma0, self.delta, stage.eta, stage.interference).data
        if isinstance(stage.data, str) and stage.data in named:
            return named[stage.data]
        return read_covariance(f"{place}.data", stage.data, folder, len(self.sigma0))


def run_pipeline(
    config: TrainConfig,
    out: Path,
    *,
    folder: Path = Path(),
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run ``config`` into ``out`` and return the result document.

    Raises InputError for a bad value, for an ``out`` that holds another configuration, or that holds a run
    already while ``resume`` is False.
    """
    setting = Setting.of(config, folder)
    prepare_folder("out", out)
    _claim_folder(config, out, resume)
    dtype = getattr(torch, config.model.dtype)
    seeds = tuple(range(config.seeds))
    model = _pretrained_model(config, setting, out, seeds, dtype, progress)
    reference = _pretrained_copy(config, setting, model, dtype)
    tests = {
        "target": held_out_prompts(
            setting.sigma0 + setting.delta,
            config.test.length,
            config.test.prompts,
            runs=len(seeds),
            dtype=dtype,
            hold_inputs=_reads_inputs(config),
        ),
        "pretraining": held_out_prompts(
            setting.sigma0,
            config.test.length,
            config.test.prompts,
            runs=len(seeds),
            dtype=dtype,
            hold_inputs=_reads_inputs(config),
        ),
    }
    reports = [_report("pretrain", model, tests, config.test.steps, Training())]
    rows: list[dict[str, Any]] = []
    for index, stage in enumerate(config.stages):
        place = f"stages.{index}"
        data = _stage_data(
            stage, setting.data(stage, folder, place), seeds, dtype, index, hold_inputs=_reads_inputs(config)
        )
        training = train(
            model,
            _objective(stage, setting, seeds, reference, dtype),
            data,
            _optimisation(stage, data, setting, config.pretrain.length),
            record_every=config.record_every,
            checkpoint=out / "checkpoints" / f"{index}-{stage.stage}.safetensors",
            checkpoint_every=config.checkpoint_every,
            progress=None if progress is None else _named(progress, f"{index + 1}. {stage.stage}"),
        )
        rows += [{"stage": f"{index}-{stage.stage}", **row} for row in _rows(training)]
        reports.append(_report(stage.stage, model, tests, config.test.steps, training))
    result = {"stages": reports, "seeds": list(seeds), "versions": versions()}
    write_table(out / "metrics.csv", pd.DataFrame(rows))
    if isinstance(model, GptModel):
        save_gpt(out / "model.safetensors", model)
    else:
        save_weights(out / "model.safetensors", model, {"model": json.dumps(config.model.model_dump())})
    write_json(out / "result.json", result)
    return result


def _claim_folder(config: TrainConfig, out: Path, resume: bool) -> None:
    resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    saved = out / "config.yaml"
    if saved.exists():
        if not resume:
            reject("out", str(out), "a folder without a run, or --resume")
        if saved.read_bytes() != resolved.encode():
            reject("out", str(out), "the folder of this very configuration (config.yaml there differs)")
    prepare_folder("out", out / "checkpoints")
    write_atomic(saved, resolved)


def _build(config: TrainConfig, V0: Array, runs: int, dtype: torch.dtype) -> ChainModel:
    operator = torch.from_numpy(np.array(dense(V0))).to(dtype)
    operator = operator.expand(runs, *operator.shape).clone()
    if config.model.kind == "lsa":
        if not config.model.train_attention:
            reject("model.train_attention", False, "True with model.kind lsa (lsa-block can fix it)")
        return LinearAttention(operator)
    return BlockLinearAttention(operator, train_attention=config.model.train_attention)


def _pretrained_model(
    config: TrainConfig,
    setting: Setting,
    out: Path,
    seeds: tuple[int, ...],
    dtype: torch.dtype,
    progress: Progress | None,
) -> ChainModel:
    pretrain = config.pretrain
    if config.model.kind == "gpt":
        return _pretrained_gpt(config, setting, out, dtype, progress)
    V0 = setting.pretrained(pretrain.length)
    if pretrain.method == "population":
        return _build(config, V0, len(seeds), dtype)
    model = _build(config, np.zeros_like(V0), len(seeds), dtype)
    data = FreshData(
        setting.categories or setting.sigma0,
        pretrain.length,
        pretrain.batch,
        tuple(100_000 + s for s in seeds),
        dtype,
    )
    train(
        model,
        Outcome(1),
        data,
        Optimisation("adam", pretrain.learning_rate, steps=pretrain.steps),
        checkpoint=out / "checkpoints" / "pretrain.safetensors",
        checkpoint_every=config.checkpoint_every,
        progress=None if progress is None else _named(progress, "pretrain"),
    )
    return model


def _reads_inputs(config: TrainConfig) -> bool:
    return config.model.kind == "gpt"


def _pretrained_gpt(
    config: TrainConfig, setting: Setting, out: Path, dtype: torch.dtype, progress: Progress | None
) -> GptModel:
    """A GPT after teacher-forced chains on fresh prompts of Sigma0 (or the categories), AdamW and cosine."""
    pretrain, d = config.pretrain, len(setting.sigma0)
    chain = max([pretrain.chain_steps, *(stage.chain_steps for stage in config.stages), *config.test.steps])
    length = max([pretrain.length, config.test.length, *(stage.length for stage in config.stages)])
    model = GptModel(GptConfig.preset(config.model.preset, d, length, chain), seed=0).to(dtype)
    growth = pretrain.curriculum
    curriculum = Curriculum.constant(d, pretrain.length)
    if growth is not None:
        curriculum = Curriculum(
            d,
            pretrain.length,
            min(growth.start_dimension, d),
            min(growth.start_length, pretrain.length),
            growth.dimension,
            growth.length,
            growth.every,
        )
    data = CurriculumData(setting.categories or setting.sigma0, curriculum, pretrain.batch, (100_000,), dtype)
    train(
        model,
        Sft(pretrain.eta, pretrain.chain_steps),
        data,
        chain_optimisation(
            pretrain.learning_rate,
            pretrain.steps,
            pretrain.warmup,
            accumulate=pretrain.accumulate,
            precision=pretrain.precision,
        ),
        checkpoint=out / "checkpoints" / "pretrain.safetensors",
        checkpoint_every=config.checkpoint_every,
        progress=None if progress is None else _named(progress, "pretrain"),
    )
    return model


def _pretrained_copy(
    config: TrainConfig, setting: Setting, model: ChainModel, dtype: torch.dtype
) -> ChainModel | None:
    """The frozen reference of the KL term."""
    if not any(stage.kl > 0 for stage in config.stages):
        return None
    if isinstance(model, GptModel):
        return copy.deepcopy(model)
    reference = _build(config, setting.pretrained(config.pretrain.length), config.seeds, dtype)
    reference.load_state_dict(model.state_dict())
    return reference


def _stage_data(
    stage: StageConfig,
    covariance: Array,
    seeds: tuple[int, ...],
    dtype: torch.dtype,
    index: int,
    *,
    hold_inputs: bool,
) -> Data:
    # Stages must not meet each other's prompts: the stage's place is folded into the seed.
    own = tuple(1000 * (index + 1) + seed for seed in seeds)
    if stage.prompts == "fresh":
        return FreshData(covariance, stage.length, int(stage.batch or 1), own, dtype, hold_inputs)
    batch = PromptBatch.draw(
        covariance, stage.length, stage.prompts, seeds=own, dtype=dtype, hold_inputs=hold_inputs
    )
    return FixedData(batch, stage.batch, seed=index)


def _optimisation(stage: StageConfig, data: Data, setting: Setting, pretrain_length: int) -> Optimisation:
    rate = stage.learning_rate
    if rate == "theorem":
        rate = _theorem_step(stage, data, setting.pretrained(pretrain_length))
    return Optimisation(stage.optimiser, float(rate), stage.epochs, stage.steps, stage.batch, stage.clip)


def _theorem_step(stage: StageConfig, data: Data, V0: Array) -> float:
    """B / (c_k lambda_max(M)) of Thm 4.2, the smallest over runs."""
    if not isinstance(data, FixedData):
        reject("learning_rate", "theorem", "a number, when the data are fresh")
    batch = data.whole
    phi = batch.apply(batch.weights)
    steps = [
        GradientDescent.of(
            Moments(w.double().numpy().T, p.double().numpy().T), stage.eta, V0, stage.chain_steps
        ).balanced_step
        for w, p in zip(batch.weights, phi, strict=True)
    ]
    return min(steps)


def _objective(
    stage: StageConfig,
    setting: Setting,
    seeds: tuple[int, ...],
    reference: ChainModel | None,
    dtype: torch.dtype,
) -> Objective:
    if stage.stage == "sft":
        return Sft(stage.eta, stage.chain_steps)
    if stage.stage == "outcome":
        return Outcome(stage.chain_steps)
    reward: Reward = negative_squared_error
    if stage.reward == "verifiable":
        mask = None
        if stage.directions == "shifted":
            if setting.delta.ndim != 1:
                reject("directions", "shifted", "all, when the shift is dense")
            mask = torch.from_numpy(np.where(setting.delta > 0, 1.0, 0.0)).to(dtype)
        reward = within_tolerance(stage.tolerance, mask)
    return Rl(
        stage.chain_steps,
        seeds,
        reward,
        stage.group,
        stage.noise,
        stage.advantage,
        stage.every_step,
        stage.kl,
        reference,
    )


def _named(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda step, total: progress(name, step, total)


def _rows(training: Training) -> list[dict[str, Any]]:
    """History as one row a seed and step."""
    return [
        {"step": entry["step"], "seed": seed, **{name: entry[name][seed] for name in entry if name != "step"}}
        for entry in training.history
        for seed in range(len(entry["loss"]))
    ]


def _report(
    name: str, model: ChainModel, tests: dict[str, PromptBatch], steps: list[int], training: Training
) -> dict[str, Any]:
    """Errors / d per seed and their mean; a diverged run has null errors and does not enter the mean."""
    lost = {d.run for d in training.diverged}
    report: dict[str, Any] = {
        "stage": name,
        "optimiser_steps": training.steps,
        "diverged": [asdict(d) for d in training.diverged],
        "thinking_steps": steps,
    }
    for test, batch in tests.items():
        errors = post_test(model, batch, steps)
        kept = [
            [float(e) if run not in lost and bool(torch.isfinite(e)) else None for e in row]
            for run, row in enumerate(errors)
        ]
        finite = np.array([row for row in kept if None not in row], dtype=float)
        report[f"{test}_error"] = kept
        report[f"{test}_mean"] = finite.mean(axis=0).tolist() if len(finite) else None
    return report
