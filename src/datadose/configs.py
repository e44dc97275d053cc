"""Configuration files: strict keys, and one clear error that names the field, the value and what is allowed.

Validation is pydantic's; this module states the fields of `train` and turns the first complaint into the
project's one-line error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from datadose.covariance import Array, validate_covariance
from datadose.errors import InputError, reject

Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0."""
Size: TypeAlias = Annotated[int, Field(ge=1)]
"""A whole number, 1 or more."""


class Strict(BaseModel):
    """A config section: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Config = TypeVar("Config", bound=Strict)


class Blocks(Strict):
    """A spectrum by blocks: [[value, size], ...]."""

    blocks: list[tuple[float, Size]]


CovarianceSpec: TypeAlias = list[float] | Blocks | str
"""A spectrum, blocks, or the path of a .npy file with a spectrum (d,) or a matrix (d, d)."""


def read_covariance(field: str, spec: CovarianceSpec, folder: Path, dimension: int | None = None) -> Array:
    """The covariance that ``spec`` describes; paths are relative to ``folder`` (the config's).

    Raises InputError naming ``field`` for a missing or unreadable file and for what is no covariance.
    """
    if isinstance(spec, Blocks):
        spec = [value for value, size in spec.blocks for _ in range(size)]
    if isinstance(spec, list):
        return validate_covariance(field, spec, dimension)
    path = folder / spec
    try:
        matrix = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(field, str(path), "the path of an existing .npy file") from error
    except (ValueError, OSError, EOFError) as error:
        raise InputError(field, str(path), f"a readable .npy file of numbers ({error})") from error
    return validate_covariance(field, matrix, dimension)


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
    categories: list[Category] = []
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
        if (self.epochs is None) == (self.steps is None):
            msg = "exactly one of epochs and steps is wanted"
            raise ValueError(msg)
        if self.prompts == "fresh" and (self.batch is None or self.steps is None):
            msg = "prompts: fresh wants batch and steps"
            raise ValueError(msg)
        if isinstance(self.prompts, int) and self.batch is not None and self.batch > self.prompts:
            msg = f"batch {self.batch} is larger than prompts {self.prompts}"
            raise ValueError(msg)
        if self.stage != "sft" and self.chain_steps < 1:
            msg = "chain_steps >= 1 is wanted, but for sft"
            raise ValueError(msg)
        if self.learning_rate == "theorem" and (self.stage, self.optimiser) != ("sft", "gd"):
            msg = "learning_rate: theorem is Thm 4.2's, for stage sft with optimiser gd"
            raise ValueError(msg)
        if self.interference > 0 and self.data != "aligned":
            msg = "interference goes with data: aligned"
            raise ValueError(msg)
        return self


class TestConfig(Strict):
    """The post-test."""

    __test__ = False

    length: Size
    steps: list[Size] = [1]
    prompts: Size = 512


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
                msg = "model.kind gpt wants pretrain.method train: it has no population solution"
                raise ValueError(msg)
            if self.seeds != 1:
                msg = "model.kind gpt wants seeds 1: its runs do not train side by side"
                raise ValueError(msg)
            if any(stage.learning_rate == "theorem" for stage in self.stages):
                msg = "learning_rate: theorem is for the linear models"
                raise ValueError(msg)
        elif self.pretrain.curriculum is not None:
            msg = "pretrain.curriculum goes with model.kind gpt"
            raise ValueError(msg)
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
        if (self.interference is None) == (self.sources is None):
            msg = "exactly one of interference and sources is wanted"
            raise ValueError(msg)
        if self.sources is not None and (self.budget is not None or self.choose_eta):
            msg = "budget and choose_eta go with interference, not with sources"
            raise ValueError(msg)
        return self


def load_config(path: Path, kind: type[Config]) -> Config:
    """The YAML file ``path`` as ``kind``; InputError naming the line or the field."""
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise InputError("config", str(path), "an existing YAML file") from error
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise InputError("config", str(path), "a YAML file in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError("config", f"{path}{where}", f"well-formed YAML ({problem})") from error
    if not isinstance(document, dict):
        reject("config", f"{path}: {type(document).__name__}", f"keys {', '.join(kind.model_fields)}")
    return validate_config(document, kind)


def validate_config(document: dict[str, Any], kind: type[Config]) -> Config:
    """``document`` as ``kind``, or InputError for its first fault."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        # A union reports every alternative that failed; the deepest place is the one that was meant.
        first = max(error.errors(), key=lambda e: (e["type"] == "extra_forbidden", -len(e["loc"])))
        place = ".".join(str(part) for part in first["loc"]) or "config"
        if first["type"] == "extra_forbidden":
            known = ", ".join(_known_keys(kind, first["loc"][:-1]))
            raise InputError(place, "an unknown key", f"keys {known}") from error
        if first["type"] == "missing":
            raise InputError(place, "nothing", "a value (the field is required)") from error
        message = first["msg"].removeprefix("Value error, ")
        shown = "this section" if isinstance(first["input"], dict) else first["input"]
        raise InputError(place, shown, message[:1].lower() + message[1:]) from error


def _known_keys(kind: type[Strict], place: tuple[int | str, ...]) -> list[str]:
    """Names allowed at ``place`` below ``kind``."""
    fields = kind.model_fields
    for part in place:
        if isinstance(part, int) or part not in fields:
            continue
        nested = _section(fields[part].annotation)
        if nested is None:
            break
        fields = nested.model_fields
    return sorted(fields)


def _section(annotation: Any) -> type[Strict] | None:
    """The config section inside an annotation, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section(inner)
        if found is not None:
            return found
    return None
