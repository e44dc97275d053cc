"""The fields of a file of `datadose plan`; :mod:`datadose.configs` reads it."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from datadose.configs import CovarianceSpec, Positive, Size
from datadose.errors import reject
from datadose.planner.goal import Stop, Weights
from datadose.planner.shares import Objective
from datadose.strict import Strict, require_one

NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number of at least 0."""
Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A number from 0 to 1."""


class SourceConfig(Strict):
    """A source of a pool; noises are variances (of the labels, and of a thought per dimension)."""

    name: Annotated[str, Field(min_length=1)]
    covariance: CovarianceSpec
    size: Size
    length: Size | None = None
    label_noise: NotNegative = 0.0
    demonstration_noise: NotNegative = 0.0
    cost: Positive | None = None
    """The cost of a prompt in any unit. The next purchase is planned if every source has one."""


class BudgetConfig(Strict):
    """A cap on what the data may cost: tr A (trace) or tr A^2 (energy)."""

    kind: Literal["trace", "energy"] = "trace"
    cap: Positive


class WeightedTestConfig(Strict):
    """One of several tests; the weights of all sum to 1."""

    covariance: CovarianceSpec
    weight: Share


class CostsConfig(Strict):
    """What a unit of each stage costs, and what may be spent on post-training in all, in one unit."""

    demonstration: NotNegative
    prompt: NotNegative
    update: NotNegative = 0.0
    total: Positive


class CategoryConfig(Strict):
    """A category of pretraining data; ``cost`` is that of a prompt."""

    name: Annotated[str, Field(min_length=1)]
    covariance: CovarianceSpec
    cost: Positive | None = None


class ComingShift(Strict):
    """A shift that may come after pretraining."""

    delta: CovarianceSpec
    weight: Share | None = None


class PretrainingConfig(Strict):
    """Categories to pretrain on, and the shifts that may come: by their weights, or the worst of them."""

    categories: Annotated[list[CategoryConfig], Field(min_length=1)]
    prompts: Size | None = None
    """The number of pretraining prompts; unlimited unless given."""
    budget: Positive | None = None
    shifts: Annotated[list[ComingShift], Field(min_length=1)]
    objective: Objective = "mean"


class PlanConfig(Strict):
    """SHIFT.yaml of `plan`: the shift, what data there could be, and how post-training is run."""

    sigma0: CovarianceSpec
    delta: CovarianceSpec
    length: Size
    eta: Annotated[float, Field(gt=0, lt=2)]
    max_prompts: Size
    interference: NotNegative | None = None
    sources: Annotated[list[SourceConfig], Field(min_length=1)] | None = None
    rl_prompts: Size | None = None
    chain_steps: Size = 1
    steps: Size = 1000
    reward: Literal["dense", "verifiable"] = "dense"
    tolerance: Positive = 0.5
    noise: Positive = 0.1
    budget: BudgetConfig | None = None
    choose_eta: bool = False
    training: Stop = "converged"
    learning_rate: Positive | None = None
    keep: Share = 0.0
    weights: Weights = "equal"
    tests: Annotated[list[WeightedTestConfig], Field(min_length=1)] | None = None
    costs: CostsConfig | None = None
    pretraining: PretrainingConfig | None = None

    @model_validator(mode="after")
    def _one_kind_of_data(self) -> Self:
        require_one(interference=self.interference, sources=self.sources)
        if self.sources is not None and (self.budget is not None or self.choose_eta):
            name = "choose_eta" if self.budget is None else "budget"
            reject(name, "one beside sources", f"{name} with interference only")
        return self
