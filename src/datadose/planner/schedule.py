"""A budget over the stages: rows and training time of SFT, of outcome supervision, and of both in order.

Demonstrations, prompts of the target and updates have a price in one unit; an update is one step of gradient
descent of a stage, on all of its rows. Given what may be spent in all, four plans are compared: no stage, SFT
alone, outcome supervision alone (one thinking step), and SFT followed by it, each with the rows and the times
of gradient flow of the least error. Errors are those of the exact composition of stages
(:mod:`datadose.theory.training_time`), a limit in d, with an oracle that chooses the times. Derivation and
validation: docs/derivations/planner.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from datadose.covariance import spectral_basis
from datadose.errors import reject, require_integer, require_number
from datadose.planner.dynamics import PostTraining, outcome_request
from datadose.planner.error_model import ErrorModel
from datadose.planner.stage_budget import Budget, NextUnit, Rows, ScheduledStage, Steps
from datadose.theory.equivalent import Columns
from datadose.theory.sft import chain_weight
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.weighted_test import WeightedTest

_SIMPLER = 1e-3
"""A plan with more stages must be better than a simpler one by this share of its error."""


@dataclass(frozen=True)
class Costs:
    """What one unit of each stage costs and what may be spent, all in one unit of money.

    Args:
        demonstration: of one demonstration of SFT, >= 0.
        prompt: of one target prompt of outcome supervision, >= 0.
        update: of one optimiser step of either stage on all of its rows, >= 0.
        total: what may be spent, > 0.

    Raises:
        InputError: a value out of range.

    Example:
        >>> from datadose import Costs, Shift, plan
        >>> costs = Costs(demonstration=2.0, prompt=1.0, total=100.0)
        >>> found = plan(Shift.two_block(40, 20, 0.1, 0.2, 0.1), length=40, max_prompts=60, costs=costs)
        >>> [(stage.stage, stage.prompts) for stage in found.schedule.stages]
        [('sft', 20), ('outcome', 60)]
    """

    demonstration: float
    prompt: float
    total: float
    update: float = 0.0

    def __post_init__(self) -> None:
        for name in ("demonstration", "prompt", "update"):
            require_number(name, getattr(self, name), 0, np.inf)
        require_number("total", self.total, 0, np.inf, open_ends=True)


@dataclass(frozen=True)
class Schedule:
    """The stages on which a budget is best spent, and the errors of the other plans."""

    stages: tuple[ScheduledStage, ...]
    """The stages in order; empty where every stage would raise the error."""
    predicted_error: float
    cost: float
    alternatives: dict[str, float]
    """Error / d of the best plans with the stages "none", "sft", "outcome" and "both"."""
    next_unit: NextUnit | None
    """The best use of a further unit of money; None where none lowers the error or can be spent."""

    def to_json(self) -> dict[str, Any]:
        """The fields ``schedule``, ``next_unit`` and ``alternatives`` of `datadose plan --json`."""
        return {
            "schedule": [asdict(stage) for stage in self.stages],
            "next_unit": self.next_unit and asdict(self.next_unit),
            "alternatives": self.alternatives,
        }


def no_schedule(error: float) -> Schedule:
    """The schedule of a model that there is nothing to adapt to, with its error / d."""
    return Schedule((), error, 0.0, dict.fromkeys(("none", "sft", "outcome", "both"), error), None)


def require_schedulable(training: PostTraining) -> None:
    """InputError for training whose stages have no exact composition: longer chains, verifiable rewards."""
    if training.chain_steps > 1:
        reject("costs", f"some beside chain_steps: {training.chain_steps}", "chain_steps: 1 beside costs")
    if training.reward != "dense":
        reject("costs", f"some beside reward: {training.reward}", "reward: dense beside costs")


def plan_schedule(
    model: ErrorModel,
    columns: Sequence[Columns],
    costs: Costs,
    *,
    max_demonstrations: int,
    max_prompts: int,
    training: PostTraining | None = None,
    objective: WeightedTest | None = None,
    judge: WeightedTest | None = None,
) -> Schedule:
    """Spend a budget on SFT, outcome supervision, or both in order.

    Args:
        model: the pretrained model and the target.
        columns: SFT's data; only the proportions of their counts matter, which stay as they are.
        costs: prices, and what may be spent.
        max_demonstrations: the most rows of SFT, >= 1.
        max_prompts: the most target prompts of outcome supervision, >= 1.
        training: the recipe; its learning rate is that of both stages, half of the largest stable one of each
            unless given.
        objective: the test whose error is minimised; that of the target unless given.
        judge: the test whose error is reported; that of the target unless given.

    Raises InputError for more than one thinking step or a verifiable reward, for which no composition of
    stages is known, for columns without prompts, and for a value out of range.

    Example:
        >>> from datadose import Shift
        >>> from datadose.planner import ErrorModel
        >>> from datadose.theory import Source, pretrained_operator
        >>> shift = Shift.two_block(120, 60, 0.1, 0.2, 0.01)
        >>> model = ErrorModel(pretrained_operator(shift.sigma0, 360), 0.2, shift.target, 360)
        >>> data, costs = [model.columns(Source(shift.data, 360, 1))], Costs(0.3, 1, 60)
        >>> found = plan_schedule(model, data, costs, max_demonstrations=5000, max_prompts=5000)
        >>> [(stage.stage, stage.prompts) for stage in found.stages], round(found.predicted_error, 2)
        ([('sft', 200)], 0.6)
    """
    recipe = training or PostTraining()
    require_schedulable(recipe)
    tests = (objective, judge)
    budget = _budget(
        *_in_target_basis(model, columns, tests), costs, (max_demonstrations, max_prompts), recipe
    )
    return _best(budget)


def _best(budget: Budget) -> Schedule:
    """The best of no stage, SFT, outcome supervision and both, and the error of each."""
    sft, outcome = budget.alone(budget.sft), budget.alone(budget.outcome)
    found: dict[str, Steps] = {"none": (), "sft": sft, "outcome": outcome, "both": budget.both(sft, outcome)}
    plans = {name: budget.whole(steps) for name, steps in found.items()}
    errors = {name: budget.error(steps) for name, steps in plans.items()}
    chosen = "none"
    for name in plans:
        if errors[name] < (1 - _SIMPLER) * errors[chosen]:
            chosen = name
    # A plan may leave out what does not help.
    simpler = {
        "none": ("none",),
        "sft": ("none", "sft"),
        "outcome": ("none", "outcome"),
        "both": tuple(plans),
    }
    best = {name: min(few, key=errors.__getitem__) for name, few in simpler.items()}
    ends = {name: budget.train(steps)[-1] if steps else budget.start for name, steps in plans.items()}
    told = budget.told(plans[chosen])
    return Schedule(
        told,
        budget.target.error(ends[chosen]),
        sum(stage.cost for stage in told),
        {name: budget.target.error(ends[best[name]]) for name in plans},
        budget.next_unit(found[chosen]),
    )


Tests: TypeAlias = tuple[WeightedTest, WeightedTest]
"""What is minimised, and what is reported."""


def _in_target_basis(
    model: ErrorModel, columns: Sequence[Columns], tests: tuple[WeightedTest | None, WeightedTest | None]
) -> tuple[ErrorModel, list[Columns], Tests]:
    """All in the target's eigenbasis, where outcome supervision is elementwise."""
    own = WeightedTest(model.target, model.test_second_moment)
    objective, judge = (own if test is None else test for test in tests)
    target, basis = spectral_basis(model.target)
    if basis is None:
        return model, list(columns), (objective, judge)
    turned = objective.rotated(basis), judge.rotated(basis)
    return model.rotated(basis, target), [c.rotated(basis) for c in columns], turned


def _budget(
    model: ErrorModel,
    columns: Sequence[Columns],
    tests: Tests,
    costs: Costs,
    most: tuple[int, int],
    training: PostTraining,
) -> Budget:
    names = ("max_demonstrations", "max_prompts")
    sizes = [require_integer(name, value, 1) for name, value in zip(names, most, strict=True)]
    rows = sum(c.count for c in columns)
    if not rows > 0:
        reject("columns", "no prompts", "at least one source with prompts")
    mixture = tuple(replace(c, count=c.count / rows) for c in columns if c.count > 0)
    copies, update, rate = chain_weight(model.eta, model.chain_steps), costs.update, training.learning_rate
    target = outcome_request(model, 1.0).columns
    return Budget(
        TrainedOperator.fixed(model.V0),
        Rows("sft", model.eta, mixture, copies, sizes[0], costs.demonstration, update, rate),
        Rows("outcome", 1.0, target, 1.0, sizes[1], costs.prompt, update, rate),
        costs.total,
        *tests,
    )


def schedule_of_pool(
    model: ErrorModel,
    columns: Sequence[Columns],
    sizes: Sequence[float],
    costs: Costs,
    limits: tuple[int, int],
    training: PostTraining,
    tests: Tests,
) -> Schedule:
    """The schedule of a plan: SFT takes its sources in the plan's proportions, and no more than there are.

    Where the plan takes nothing they are the pool's.

    Args:
        model: the pretrained model and the target.
        columns: the sources with the plan's numbers of prompts.
        sizes: prompts that there are of each source; may be infinite.
        costs: prices; a demonstration costs the same from every source.
        limits: the most demonstrations in all, and the most target prompts.
        training: the recipe.
        tests: what is minimised, and what is reported.
    """
    counts = np.array([c.count for c in columns], dtype=np.float64)
    if not counts.any():
        finite = np.isfinite(sizes).all()
        counts = np.asarray(sizes, dtype=np.float64) if finite else np.ones(len(columns))
    taken, owned = counts / counts.sum(), np.asarray(sizes, dtype=np.float64)
    most = min([limits[0], *(owned[taken > 0] / taken[taken > 0]).tolist()])
    return plan_schedule(
        model,
        [replace(c, count=share) for c, share in zip(columns, taken, strict=True)],
        costs,
        max_demonstrations=max(1, int(most)),
        max_prompts=limits[1],
        training=training,
        objective=tests[0],
        judge=tests[1],
    )
