"""The fields of a file of `datadose train`; :mod:`datadose.configs` reads it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from datadose.configs import CovarianceSpec, Positive, Size, Stage
from datadose.errors import reject
from datadose.printing import note
from datadose.strict import Strict, require_one

Precision: TypeAlias = Literal["fp32", "bf16"]
"""Of a GPT's arithmetic in training."""
Advantage: TypeAlias = Literal["grpo", "rloo", "reinforce"]
"""How rewards become advantages in RL; :func:`datadose.stages.rl.advantages` says what each is."""


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
    chains (``eta``, ``chain_steps``) with AdamW or Muon, warm-up and cosine decay, under ``curriculum`` if
    given. ``optimiser`` is a GPT's.
    """

    length: Size
    method: Literal["population", "train"] = "population"
    categories: list[Category] = Field(default=[])
    steps: Size = 2000
    batch: Size = 256
    learning_rate: Positive = 0.01
    optimiser: Literal["adamw", "muon"] = "adamw"
    eta: Annotated[float, Field(gt=0, lt=2)] = 0.5
    chain_steps: Annotated[int, Field(ge=0)] = 8
    warmup: Annotated[int, Field(ge=0)] = 0
    accumulate: Size = 1
    precision: Precision = "fp32"
    curriculum: CurriculumConfig | None = None


class StageConfig(Strict):
    """One post-training stage; a stage ignores the fields that are not its own."""

    stage: Stage
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
    advantage: Advantage = "grpo"
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
    """A pipeline: pretraining, stages in order, and the post-test; `datadose train` reads it from YAML.

    Args:
        shift: ``sigma0`` and ``delta``, each a spectrum, blocks or the path of a .npy file.
        pretrain: ``length`` of the pretraining prompts, and how the model comes by what it knows.
        stages: stages of post-training in order, each with ``stage``, ``length``, ``prompts`` and more.
        test: ``length`` of the test prompts, their number and the numbers of thinking steps.
        model: which transformer, linear attention unless given.
        seeds: independent runs >= 1 side by side.
        record_every: steps >= 0 between two rows of the history; 0 for none.
        checkpoint_every: steps >= 0 between two checkpoints; 0 for none.

    Raises:
        InputError: from :func:`~datadose.run_pipeline` and `datadose train`, which name the field; made
            directly, it is pydantic's ValidationError.

    Example:
        >>> from datadose import TrainConfig
        >>> config = TrainConfig(
        ...     shift={"sigma0": [1, 1], "delta": [1, 0]},
        ...     pretrain={"length": 10},
        ...     stages=[{"stage": "sft", "length": 10, "prompts": 8, "steps": 3}],
        ...     test={"length": 10},
        ... )
        >>> config.stages[0].learning_rate
        0.001
    """

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
        elif self.pretrain.optimiser != "adamw":
            reject("pretrain.optimiser", self.pretrain.optimiser, "muon for model.kind gpt alone")
        return self
