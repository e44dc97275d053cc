"""What to pretrain on: shares of categories that are best for the shifts that may come.

The error after a shift depends on pretraining through the moments of the pretrained operator alone: those of
unlimited prompts (:class:`~datadose.theory.pretraining.PretrainingMixture`) or of a number of prompts
(:class:`~datadose.theory.finite_pretraining.FinitePretraining`). Post-training follows with its best penalty
(:class:`~datadose.theory.start_gradient.ErrorFromStart`). All have derivatives in closed form, by which the
mean or the worst error over the shifts is minimised over the shares, within a budget (sequential quadratic
programming). The error is not convex in the shares (docs/derivations/pretraining_shares.md): descents start
at several mixtures, and what is returned is never worse than the balanced mixture or a single category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datadose.configs import read_covariance
from datadose.covariance import plus, trace, validate_covariance
from datadose.errors import InputError, reject, require_choice, require_integer, require_number
from datadose.planner.config import PlanConfig, PretrainingConfig
from datadose.planner.search import SearchRecord
from datadose.planner.shares import OBJECTIVES, Objective, SharesProblem
from datadose.shapes import Array, Float, Operator
from datadose.shift import Shift
from datadose.theory.equivalent import PeakError
from datadose.theory.finite_pretraining import FinitePretraining
from datadose.theory.pretraining import PretrainingMixture
from datadose.theory.source import Source
from datadose.theory.start_gradient import ErrorFromStart
from datadose.theory.weighted_test import WeightedTest

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Category:
    """A kind of pretraining data: prompts of one covariance, (d,) or (d, d), and the cost of one."""

    name: str
    covariance: Operator
    cost: float | None = None
    """The cost of a prompt in any unit; tr(covariance) / d where no category has one."""


@dataclass(frozen=True)
class PossibleShift:
    """A shift Delta, (d,) or (d, d), that may come, and its weight in the mean."""

    delta: Operator
    weight: float | None = None
    """The weights of all shifts sum to 1; equal ones if none has one."""


@dataclass(frozen=True)
class PretrainingShare:
    """What a plan takes of a category."""

    name: str
    share: float
    """The share of the pretraining prompts."""
    cost: float
    """The cost of a prompt."""


@dataclass(frozen=True)
class ShiftOutcome:
    """The error / d after one of the shifts, from the planned mixture and from the balanced one."""

    shift: int
    """The place of the shift in the list of shifts, from 0."""
    weight: float
    error: float
    error_balanced: float
    error_before: float
    """The error / d from the planned mixture without post-training."""
    penalty: float | None
    """Best effective penalty of post-training from the planned mixture; None where it is best left out."""


@dataclass(frozen=True)
class PretrainingPlan:
    """Shares of the categories, and the error that they lead to."""

    shares: tuple[PretrainingShare, ...]
    objective: Objective
    error: float
    """The mean or the worst error / d over the shifts, after the best post-training."""
    error_balanced: float
    """The error / d with equal shares."""
    gain: float
    """1 - error / error_balanced; negative only where the budget does not allow equal shares."""
    worst_shift: int
    by_shift: tuple[ShiftOutcome, ...]
    cost: float
    """Mean cost of a prompt."""
    cost_balanced: float
    budget: float | None
    prompts: int | None
    """The number of pretraining prompts; None where they are unlimited."""
    search: SearchRecord

    def to_json(self) -> dict[str, Any]:
        """The parts `pretraining` and `pretraining_error` of a plan's document."""
        document = {name: value for name, value in asdict(self).items() if name != "shares"}
        return {
            "pretraining": [asdict(share) for share in self.shares],
            "pretraining_error": document | {"by_shift": [asdict(one) for one in self.by_shift]},
        }


def plan_pretraining(
    categories: Sequence[Category],
    shifts: Sequence[PossibleShift],
    *,
    sigma0: Operator,
    eta: float,
    length: int,
    max_prompts: int,
    interference: float = 0.0,
    prompts: int | None = None,
    budget: float | None = None,
    objective: Objective = "mean",
) -> PretrainingPlan:
    """Choose the shares of a pretraining mixture that minimise the error after the shifts that may come.

    Pretraining is on prompts that are each of one category, in the proportions of the shares. Then one of
    the shifts comes, and the model is post-trained on ``max_prompts`` prompts that are aligned with it, of
    covariance eta (P Sigma P + Delta) + r (I - P), where P projects on range(Delta) and Sigma is ``sigma0``.
    The penalty is the best one for its test. The test prompts have covariance Sigma + Delta whatever the
    shares are: shares change the model, not the task that it is judged by. A Delta of zero is a task without
    a shift, for which there is no post-training.

    Args:
        categories: J >= 1 categories with different names and one dimension. Costs are given for all of
            them or for none.
        shifts: one or more shifts; weights are given for all of them, with sum 1, or for none.
        sigma0: base covariance Sigma of the test prompts, (d,) or (d, d).
        eta: chain-of-thought step of post-training, in (0, 2).
        length: prompt length n of pretraining, post-training and test, >= 1.
        max_prompts: number of post-training prompts B, >= 1.
        interference: r >= 0 of the post-training data.
        prompts: number of pretraining prompts, trained on to convergence; unlimited if None. Unlimited
            prompts train on a category whatever its share, so the best shares of costly ones or of ones with
            large inputs are small; with finitely many such shares may be far from the best.
        budget: largest mean cost of a prompt of pretraining; not bounded if None.
        objective: "mean" (by the weights) or "worst" error over the shifts.

    Returns the best mixture found. A category that alone contains some direction has a share of at least
    0.001 in the search: among unlimited prompts any share above 0 covers a direction, and share 0 does not.

    Raises InputError for values out of range, and for a budget below the cost of the cheapest category;
    PeakError where the mean error of every penalty is infinite.
    """
    problem = shares_problem(
        categories,
        shifts,
        sigma0=sigma0,
        eta=eta,
        length=length,
        max_prompts=max_prompts,
        interference=interference,
        prompts=prompts,
        budget=budget,
        objective=objective,
    )
    return _planned(problem, [category.name for category in categories], prompts)


def shares_problem(
    categories: Sequence[Category],
    shifts: Sequence[PossibleShift],
    *,
    sigma0: Operator,
    eta: float,
    length: int,
    max_prompts: int,
    interference: float = 0.0,
    prompts: int | None = None,
    budget: float | None = None,
    objective: Objective = "mean",
) -> SharesProblem:
    """The problem that :func:`plan_pretraining` solves, with its arguments, checked; errors as there."""
    require_choice("objective", objective, OBJECTIVES)
    base = validate_covariance("sigma0", sigma0)
    costs, cap = _costs(categories, len(base), budget)
    weights = _weights(shifts)
    require_integer("max_prompts", max_prompts, 1)
    covariances = [category.covariance for category in categories]
    pretraining = (
        PretrainingMixture.of(covariances, length)
        if prompts is None
        else FinitePretraining.of(covariances, length, require_integer("prompts", prompts, 1))
    )
    ends = [_after(base, shift.delta, eta, length, max_prompts, interference) for shift in shifts]
    return SharesProblem(pretraining, tuple(ends), weights, costs, cap, objective)


def _planned(problem: SharesProblem, names: Sequence[str], prompts: int | None) -> PretrainingPlan:
    """The best shares, set against the balanced ones."""
    shares, errors, record = problem.solve()
    start, balanced = problem.pretraining.start(shares), problem.errors(problem.balanced)[0]
    outcomes = []
    for place, end in enumerate(problem.ends):
        penalty = end.best(start).trained.penalty
        outcomes.append(
            ShiftOutcome(
                shift=place,
                weight=float(problem.weights[place]),
                error=float(errors[place]),
                error_balanced=float(balanced[place]),
                error_before=end.at_penalty(start, np.inf).error,
                penalty=None if np.isinf(penalty) else penalty,
            )
        )
    value, even = problem.value(errors), problem.value(balanced)
    parts = zip(names, shares.tolist(), problem.costs.tolist(), strict=True)
    return PretrainingPlan(
        shares=tuple(PretrainingShare(*part) for part in parts),
        objective=problem.objective,
        error=value,
        error_balanced=even,
        gain=1 - value / even,
        worst_shift=int(errors.argmax()),
        by_shift=tuple(outcomes),
        cost=float(shares @ problem.costs),
        cost_balanced=float(problem.balanced @ problem.costs),
        budget=problem.budget,
        prompts=prompts,
        search=record,
    )


def _after(
    base: Operator, delta: Operator, eta: float, length: int, prompts: int, interference: float
) -> ErrorFromStart:
    """Post-training for one shift; on data of covariance zero for a Delta of zero."""
    delta = validate_covariance("delta", delta, len(base))
    test = WeightedTest.of(plus(base, delta), length)
    data = Shift.aligned(base, delta, eta, interference).data if delta.any() else np.zeros_like(base)
    return ErrorFromStart.of(eta, Source(data, length, prompts), test)


def _costs(
    categories: Sequence[Category], dimension: int, budget: float | None
) -> tuple[Float[Array, " J"], float | None]:
    """The cost of each category, and the budget, checked."""
    if not categories:
        reject("categories", "none", "at least one category")
    names = [category.name for category in categories]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        reject("categories", f"the name {twice} twice", "a name of its own for each category")
    for category in categories:
        found = validate_covariance(f"covariance of category {category.name}", category.covariance, dimension)
        if not found.any():
            reject(f"covariance of category {category.name}", "a zero matrix", "a non-zero covariance")
    given = [category.name for category in categories if category.cost is not None]
    if given and len(given) < len(categories):
        reject("cost", f"costs of {', '.join(given)} only", "a cost for every category, or for none")
    costs = np.array(
        [
            trace(np.asarray(category.covariance, np.float64)) / dimension
            if category.cost is None
            else require_number(f"cost of category {category.name}", category.cost, 0, np.inf, open_ends=True)
            for category in categories
        ]
    )
    if budget is None:
        return costs, None
    cap, least = require_number("budget", budget, 0, np.inf, open_ends=True), float(costs.min())
    if cap < least * (1 - _ROUNDING):
        allowed = f"at least {least:.6g}, the cost of the cheapest category ({names[int(costs.argmin())]})"
        reject("budget", f"{cap:g}", allowed)
    return costs, max(cap, least)


def _weights(shifts: Sequence[PossibleShift]) -> Float[Array, " L"]:
    """The weight of each shift, checked."""
    if not shifts:
        reject("shifts", "none", "at least one shift")
    given = [require_number("weight", s.weight, 0, 1) for s in shifts if s.weight is not None]
    if not given:
        return np.full(len(shifts), 1 / len(shifts))
    if len(given) < len(shifts):
        reject(
            "weight", f"weights of {len(given)} of {len(shifts)} shifts", "one for every shift, or for none"
        )
    if abs(sum(given) - 1) > _ROUNDING:
        reject("weight", f"{given} with sum {sum(given):.6g}", "weights of the shifts that sum to 1")
    return np.array(given)


def pretraining_of(config: PlanConfig, folder: Path, sigma0: Operator) -> PretrainingPlan | None:
    """The result of :func:`plan_pretraining` for the section `pretraining` of a file; None where it has none.

    Post-training has the file's eta, length, interference and largest number of prompts.

    Args:
        config: the file.
        folder: the folder that its paths are relative to.
        sigma0: base covariance Sigma of the test prompts, (d,) or (d, d).

    Raises InputError naming the category, the shift or the field, and where the file has sources:
    post-training data are those that are aligned with each shift.
    """
    section = config.pretraining
    if section is None:
        return None
    if config.interference is None:
        reject("pretraining", "one beside sources", "pretraining with interference only")
    try:
        return _of_section(section, config, config.interference, folder, sigma0)
    except PeakError as error:
        raise PeakError(f"pretraining.{error.field}", error.value, error.allowed, error.reason) from error
    except InputError as error:
        raise error.below("pretraining") from error


def _of_section(
    section: PretrainingConfig, config: PlanConfig, interference: float, folder: Path, sigma0: Operator
) -> PretrainingPlan:
    d = len(sigma0)
    categories = [
        Category(
            entry.name,
            read_covariance(f"covariance of category {entry.name}", entry.covariance, folder, d),
            entry.cost,
        )
        for entry in section.categories
    ]
    shifts = [
        PossibleShift(read_covariance(f"delta of shift {place}", entry.delta, folder, d), entry.weight)
        for place, entry in enumerate(section.shifts)
    ]
    return plan_pretraining(
        categories,
        shifts,
        sigma0=sigma0,
        eta=config.eta,
        length=config.length,
        max_prompts=config.max_prompts,
        interference=interference,
        prompts=section.prompts,
        budget=section.budget,
        objective=section.objective,
    )
