"""What a plan is: the decisions about data and stages, and the numbers behind them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from datadose.covariance import Array
from datadose.equality import ByValue
from datadose.planner.allocation import BetterAllocation
from datadose.planner.counts import SourceAdvice
from datadose.planner.dose import Dose
from datadose.planner.pretraining import PretrainingPlan
from datadose.planner.schedule import Schedule
from datadose.planner.search import SearchRecord
from datadose.planner.stage_choice import StageChoice
from datadose.planner.training_choice import TrainingChoice
from datadose.showing import Tabular


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Decision(ByValue, Tabular):
    """How many prompts of which data, the first half of a plan; errors are predicted post-test errors / d."""

    prompts: int
    predicted_error: float
    error_at_max_prompts: float | None
    """At ``max_prompts``; with sources with as many prompts of them as there are up to that, in the pool's
    proportions. None at a peak, where the mean error is infinite."""
    near_optimal: tuple[int, int] | None = None
    """The range of B around the best with an error within 5 percent of it (None with sources)."""
    allocation: Array
    """The data covariance that the numbers above are for (with sources: that of the planned mixture)."""
    curve: tuple[tuple[int, float | None], ...]
    dose: Dose | None = None
    by_length: tuple[tuple[int, int, float], ...] = ()
    """(length n, best B, error) at other prompt lengths of the post-training data."""
    better: BetterAllocation | None = None
    sources: tuple[SourceAdvice, ...] | None = None
    search: SearchRecord | None = None
    """How the search for the sources' counts went (None without sources)."""
    best_eta: tuple[float, int, float] | None = None
    """(eta, best B, error) over a grid of eta with the paper's allocation for each."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Prompts of each source; none without sources."""
        return tuple(advice.prompts for advice in self.sources or ())


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Plan(Decision):
    """A plan says how much to take of which data, at which stage, and holds the numbers behind both.

    :func:`~datadose.plan` returns it. Errors are predicted post-test errors divided by d. ``to_frame`` has
    the columns ``prompts`` and ``predicted``, the error of training on that many prompts to convergence, NaN
    where it is infinite; ``plot`` draws them. What ``to_json`` returns is explained in
    docs/how_to/plan_own_covariances.md. Two plans are equal if all that they hold is.

    Example:
        >>> from datadose import Shift, plan
        >>> found = plan(Shift.two_block(40, 20, 0.1, 0.2, 0.01), length=40, max_prompts=60)
        >>> found.prompts, round(found.predicted_error, 3), found.near_optimal
        (4, 1.847, (0, 8))
        >>> found.to_frame().columns.tolist()
        ['prompts', 'predicted']
    """

    _picture: ClassVar[str] = "datadose.drawing.plan.draw_dose_of"

    error_before: float
    spectral_radius: float = 0.0
    regime: str = "incremental"
    recommendation: str = ""
    stages: StageChoice | None = None
    note: str | None = None
    """Why ``predicted_error`` may be far off; None where nothing speaks against it."""
    training: TrainingChoice | None = None
    """How long, under which penalty and in what mixture to train; None for training to convergence."""
    schedule: Schedule | None = None
    """What a budget buys of each stage, with ``costs``; None where there are none, or nothing to adapt to."""
    pretraining: PretrainingPlan | None = None
    """What to pretrain on for the shifts that may come, where they are given."""

    def _facts(self) -> dict[str, object]:
        names = ("prompts", "predicted_error", "error_before", "near_optimal", "recommendation", "note")
        told = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.sources is not None:
            told["sources"] = {advice.name: advice.prompts for advice in self.sources}
        if self.training is not None:
            told |= self.training.in_short()
        return told

    def _columns(self) -> dict[str, Any]:
        prompts, errors = zip(*self.curve, strict=True)
        return {"prompts": prompts, "predicted": np.array(errors, dtype=np.float64)}

    def to_json(self) -> dict[str, Any]:
        """Return the document that `datadose plan --json` prints."""
        numbers = ("prompts", "predicted_error", "note", "error_before", "error_at_max_prompts")
        document: dict[str, Any] = {name: getattr(self, name) for name in numbers}
        document["allocation"] = self.allocation.tolist()
        for name in ("spectral_radius", "regime", "recommendation"):
            document[name] = getattr(self, name)
        document["curve"] = [dict(zip(("prompts", "predicted"), point, strict=True)) for point in self.curve]
        if self.sources is not None:
            document["sources"] = [asdict(source) for source in self.sources]
        if self.search is not None:
            document["search"] = asdict(self.search)
        document["near_optimal"] = self.near_optimal
        if self.dose is not None:
            for name in ("best_below_peak", "best_above_peak"):
                side = getattr(self.dose, name)
                document[name] = side and {"prompts": side[0], "predicted": side[1]}
        document["by_length"] = [
            {"length": n, "prompts": B, "predicted_error": error} for n, B, error in self.by_length
        ]
        if self.better is not None:
            allocation = self.better.allocation.tolist()
            document["better_allocation"] = {**asdict(self.better), "allocation": allocation}
        if self.best_eta is not None:
            names = ("eta", "prompts", "predicted_error")
            document["best_eta"] = dict(zip(names, self.best_eta, strict=True))
        if self.stages is not None:
            document["stages"] = asdict(self.stages)
        if self.training is not None:
            document |= self.training.to_json()
        if self.schedule is not None:
            document |= self.schedule.to_json()
        if self.pretraining is not None:
            document |= self.pretraining.to_json()
        return document
