"""The fields of the configuration files of `train` and `plan`; :mod:`datadose.strict` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from pydantic import Field, ValidationError, model_validator

from datadose.covariance import LARGEST_DIMENSION, Array, require_size, validate_covariance
from datadose.errors import LARGEST_COUNT, reject
from datadose.printing import note
from datadose.reading import open_array
from datadose.strict import Config, Strict, first_fault, read_yaml, require_one

Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0."""
Size: TypeAlias = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
"""A whole number from 1 to a billion."""


class Blocks(Strict):
    """A spectrum by blocks: [[value, size], ...]."""

    blocks: list[tuple[float, Annotated[int, Field(ge=1, le=LARGEST_DIMENSION)]]]


CovarianceSpec: TypeAlias = list[float] | Blocks | str
"""A spectrum, blocks, or the path of a .npy file with a spectrum (d,) or a matrix (d, d)."""


def read_covariance(field: str, spec: CovarianceSpec, folder: Path, dimension: int | None = None) -> Array:
    """The covariance that ``spec`` describes; paths are relative to ``folder`` (the config's).

    Raises InputError naming ``field`` for a missing or unreadable file, for what is no covariance, and for a
    dimension above :data:`~datadose.covariance.LARGEST_DIMENSION` (a matrix: LARGEST_MATRIX).
    """
    if isinstance(spec, str):
        array = open_array(field, folder / spec)
        require_size(field, array.shape)
        return validate_covariance(field, array, dimension)
    require_size(field, shape_of(spec))
    if isinstance(spec, Blocks):
        values = np.array([value for value, _ in spec.blocks], dtype=np.float64)
        sizes = np.array([size for _, size in spec.blocks], dtype=np.int64)
        return validate_covariance(field, np.repeat(values, sizes), dimension)
    return validate_covariance(field, spec, dimension)


def shape_of(spec: list[float] | Blocks) -> tuple[int]:
    """(d,) of a spectrum that is a list or blocks, without making it."""
    return (sum(size for _, size in spec.blocks) if isinstance(spec, Blocks) else len(spec),)


class ModelConfig(Strict):
    """Which transformer, and in which precision; ``preset`` is the size of a GPT."""

    kind: Literal["lsa", "lsa-block", "gpt"] = "lsa"
    preset: Literal["tiny", "small", "paper"] = "tiny"
    train_attention: bool = True
    dtype: Literal["float32", "float64"] = "float32"


class ShiftConfig(Strict):
    """Pretraining covariance and shift."""

    sigma0: CovarianceSpec
    delta: CovarianceSpec


class Category(Strict):
    """A category of a pretraining mixture."""

    weight: Positive
    covariance: CovarianceSpec


class CurriculumConfig(Strict):
    """Garg's curriculum: dimension and length grow by ``dimension`` and ``length`` every so many steps."""

    start_dimension: Size = 5
    start_length: Size = 11
    dimension: Size = 1
    length: Size = 2
    every: Size = 2000


class PretrainConfig(Strict):
    """Pretraining: the population solution, or training on fresh prompts.

    A linear model trains towards the population solution with one thinking step; a GPT on teacher-forced
    chains (``eta``, ``chain_steps``) with AdamW, warm-up and cosine decay, under ``curriculum`` if given.
    """

    length: Size
    method: Literal["population", "train"] = "population"
    categories: list[Category] = Field(default=[])
    steps: Size = 2000
    batch: Size = 256
    learning_rate: Positive = 0.01
    eta: Annotated[float, Field(gt=0, lt=2)] = 0.5
    chain_steps: Annotated[int, Field(ge=0)] = 8
    warmup: Annotated[int, Field(ge=0)] = 0
    accumulate: Size = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    curriculum: CurriculumConfig | None = None


class StageConfig(Strict):
    """One post-training stage; fields that a stage does not use must keep their defaults."""

    stage: Literal["sft", "outcome", "rl"]
    data: Literal["delta", "target", "sigma0", "aligned"] | CovarianceSpec = "delta"
    interference: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    length: Size
    prompts: Size | Literal["fresh"]
    chain_steps: Annotated[int, Field(ge=0)] = 1
    eta: Annotated[float, Field(gt=0, lt=2)] = 0.2
    optimiser: Literal["gd", "sgd", "adam"] = "adam"
    learning_rate: Positive | Literal["theorem"] = 0.001
    epochs: Size | None = None
    steps: Size | None = None
    batch: Size | None = None
    clip: Positive | None = None
    reward: Literal["dense", "verifiable"] = "dense"
    tolerance: Positive = 1.0
    directions: Literal["all", "shifted"] = "shifted"
    group: Annotated[int, Field(ge=2)] = 8
    noise: Positive = 0.1
    advantage: Literal["grpo", "rloo", "reinforce"] = "grpo"
    every_step: bool = False
    kl: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require_one(epochs=self.epochs, steps=self.steps)
        if self.prompts == "fresh" and (self.batch is None or self.steps is None):
            reject("prompts", "fresh", "fresh where batch and steps are given")
        if isinstance(self.prompts, int) and self.batch is not None and self.batch > self.prompts:
            reject("batch", self.batch, f"at most prompts, {self.prompts}")
        if self.stage != "sft" and self.chain_steps < 1:
            reject("chain_steps", self.chain_steps, f"chain_steps >= 1 for stage {self.stage} (0: sft only)")
        if self.learning_rate == "theorem" and (self.stage, self.optimiser) != ("sft", "gd"):
            reject("learning_rate", "theorem", "a number (theorem: stage sft with optimiser gd only)")
        if self.interference > 0 and self.data != "aligned":
            reject("interference", self.interference, "interference with data: aligned only, else 0")
        return self


class TestConfig(Strict):
    """The post-test."""

    __test__ = False

    length: Size
    thinking_steps: list[Size] = Field(default=[1])
    prompts: Size = 512

    @model_validator(mode="before")
    @classmethod
    def _old_name(cls, document: Any) -> Any:
        """``steps``, the old name of ``thinking_steps``, is read, with a line on stderr."""
        if isinstance(document, dict) and "steps" in document and "thinking_steps" not in document:
            note("test.steps is called test.thinking_steps now: `steps` are those of the optimiser")
            return {"thinking_steps" if key == "steps" else key: value for key, value in document.items()}
        return document


class TrainConfig(Strict):
    """A pipeline: pretraining, stages in order, post-test; ``seeds`` independent runs side by side."""

    shift: ShiftConfig
    pretrain: PretrainConfig
    stages: list[StageConfig]
    test: TestConfig
    model: ModelConfig = ModelConfig()
    seeds: Size = 1
    record_every: Annotated[int, Field(ge=0)] = 10
    checkpoint_every: Annotated[int, Field(ge=0)] = 500

    @model_validator(mode="after")
    def _one_gpt(self) -> Self:
        if self.model.kind == "gpt":
            if self.pretrain.method != "train":
                reject(
                    "pretrain.method",
                    self.pretrain.method,
                    "train with model.kind gpt, which has no solution",
                )
            if self.seeds != 1:
                reject("seeds", self.seeds, "1 (runs of model.kind gpt do not train side by side)")
            for place, stage in enumerate(self.stages):
                if stage.learning_rate == "theorem":
                    reject(
                        f"stages.{place}.learning_rate", "theorem", "a number (theorem: linear models only)"
                    )
        elif self.pretrain.curriculum is not None:
            reject("pretrain.curriculum", f"one for model.kind {self.model.kind}", "one for model.kind gpt")
        return self


class SourceConfig(Strict):
    """A source of a pool; noises are variances (of the labels, and of a thought per dimension)."""

    name: Annotated[str, Field(min_length=1)]
    covariance: CovarianceSpec
    size: Size
    length: Size | None = None
    label_noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    demonstration_noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class BudgetConfig(Strict):
    """A cap on what the data may cost: tr A (trace) or tr A^2 (energy)."""

    kind: Literal["trace", "energy"] = "trace"
    cap: Positive


class PlanConfig(Strict):
    """SHIFT.yaml of `plan`: the shift, what data there could be, and how post-training is run."""

    sigma0: CovarianceSpec
    delta: CovarianceSpec
    length: Size
    eta: Annotated[float, Field(gt=0, lt=2)]
    max_prompts: Size
    interference: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    sources: Annotated[list[SourceConfig], Field(min_length=1)] | None = None
    rl_prompts: Size | None = None
    chain_steps: Size = 1
    steps: Size = 1000
    reward: Literal["dense", "verifiable"] = "dense"
    tolerance: Positive = 0.5
    noise: Positive = 0.1
    budget: BudgetConfig | None = None
    choose_eta: bool = False

    @model_validator(mode="after")
    def _one_kind_of_data(self) -> Self:
        require_one(interference=self.interference, sources=self.sources)
        if self.sources is not None and (self.budget is not None or self.choose_eta):
            name = "choose_eta" if self.budget is None else "budget"
            reject(name, "one beside sources", f"{name} with interference only")
        return self


def load_config(path: Path, kind: type[Config]) -> Config:
    """The YAML file ``path`` as ``kind``; InputError naming the line or the field."""
    document = read_yaml("config", path)
    keys = f"keys {', '.join(kind.model_fields)}"
    if document is None:
        reject("config", f"{path}, which is empty", keys)
    if not isinstance(document, dict):
        reject("config", f"{path}, which holds a {type(document).__name__}", keys)
    for command, other in _COMMANDS.items():
        if other is not kind and len(document.keys() & other.model_fields) > len(
            document.keys() & kind.model_fields
        ):
            wanted = next(name for name, one in _COMMANDS.items() if one is kind)
            reject(
                "config",
                f"{path}, which looks like a file of `datadose {command}`",
                f"one of `datadose {wanted}`, with {keys}",
            )
    return validate_config(document, kind)


_COMMANDS: dict[str, type[Strict]] = {"plan": PlanConfig, "train": TrainConfig}


def validate_config(document: dict[str, Any], kind: type[Config]) -> Config:
    """``document`` as ``kind``, or InputError for its first fault."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise first_fault(error, kind) from error
