"""The fields of a file of `datadose plan`; :mod:`datadose.configs` reads it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from datadose.configs import CovarianceSpec, Positive, Size
from datadose.errors import reject
from datadose.strict import Strict, require_one


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
