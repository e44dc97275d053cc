"""From a shift to a decision: how many prompts, of which kind, from which source, at which stage."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from datadose.covariance import (
    Array,
    plus,
    product,
    spectral_basis,
    transpose,
)
from datadose.errors import reject, require_integer, require_kind
from datadose.planner.allocation import Budget, allocation_basis, better_allocation
from datadose.planner.counts import PoolSource, plan_counts, require_costs
from datadose.planner.decision import Decision, Plan
from datadose.planner.dose import COARSE, dose_of
from datadose.planner.dynamics import Ground, PostTraining
from datadose.planner.error_model import ErrorModel
from datadose.planner.goal import Goal, Stop, Weights
from datadose.planner.schedule import (
    Costs,
    Schedule,
    no_schedule,
    require_schedulable,
    schedule_of_pool,
)
from datadose.planner.stage_choice import choose_stage, error_is_known, stage_problem
from datadose.planner.training_choice import TrainingGoal
from datadose.shapes import Operator
from datadose.shift import Shift
from datadose.theory.equivalent import Columns
from datadose.theory.outcome import adaptation_radius
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.weighted_test import WeightedTest

_NO_SHIFT = (
    "no stage is recommended: delta is zero, so that the target is what the model was pretrained on; the "
    "tests in its place judge the rows and the end of training"
)
_NOTHING_TO_ADAPT_TO = (
    "no stage: nothing to adapt to (delta is zero), the pretrained model is already the best: B* = 0"
)
_LENGTHS = (0.25, 0.5, 2.0, 4.0)


def plan(
    shift: Shift,
    *positional: int,
    length: int | None = None,
    max_prompts: int | None = None,
    rl_prompts: int | None = None,
    training: PostTraining | None = None,
    sources: Sequence[PoolSource] | None = None,
    budget: tuple[Budget, float] | None = None,
    choose_eta: bool = False,
    stop: Stop = "converged",
    keep: float = 0.0,
    weights: Weights = "equal",
    tests: Sequence[tuple[Operator, float]] | None = None,
    learning_rate: float | None = None,
    costs: Costs | None = None,
) -> Plan:
    """Decide how many prompts to take, of which kind and source, at which stage, and for how long to train.

    Errors are those of the exact asymptotics (docs/derivations/planner.md), divided by d. A zero Delta gives
    a plan too: there is nothing to adapt to.

    Args:
        shift: Sigma0, Delta, the data's covariance A (not used with ``sources``) and eta.
        positional: ``length`` and ``max_prompts`` without names, which warns and will be refused.
        length: prompt length n >= 1 of all stages.
        max_prompts: the largest number of prompts of SFT, >= 1.
        rl_prompts: how many target prompts RL has, >= 1; ``max_prompts`` unless given.
        training: chain length k, optimiser steps and reward; PostTraining() unless given.
        sources: the pool, to choose counts from.
        budget: (kind, cap) on tr A or tr A^2 for the better allocation; the cost of A itself unless given.
        choose_eta: whether to look for the best eta too, with the paper's allocation for each.
        stop: how SFT ends: ``best`` also decides the training time, ``penalty`` the penalty.
        keep: weight in [0, 1] of the error on Sigma0 in what these two minimise.
        weights: ``tuned`` also decides the weight of a row of each source in the loss.
        tests: (covariance, weight), weights with sum 1, that judge in place of the target.
        learning_rate: size > 0 of the steps that are counted; half of the largest stable one unless given.
        costs: prices and what may be spent: the stages are then scheduled too (``Plan.schedule``).

    Returns:
        The best number of prompts with its error, the stage that is recommended and why, and what was asked.

    Raises:
        InputError: a value out of range, or choices that mean nothing beside each other.

    Example:
        >>> from datadose import Shift, plan
        >>> plan(Shift.two_block(40, 20, 0.1, 0.2, 0.01), length=40, max_prompts=60).prompts
        4
    """
    require_kind("shift", shift, Shift, "Shift.two_block(400, 200, 0.1, 0.2)")
    length, max_prompts = _named(positional, length, max_prompts)
    limits = max_prompts, require_integer("rl_prompts", max_prompts if rl_prompts is None else rl_prompts, 1)
    recipe = _recipe(training, learning_rate, costs)
    asked = TrainingGoal.of(shift, length, stop, keep, weights, tests, learning_rate)
    judged = None if tests is None else asked.goal.target
    return _planned(shift, length, limits, recipe, asked, judged, sources, budget, costs, choose_eta)


def _planned(
    shift: Shift,
    length: int,
    limits: tuple[int, int],
    training: PostTraining,
    asked: TrainingGoal,
    tests: WeightedTest | None,
    sources: Sequence[PoolSource] | None,
    budget: tuple[Budget, float] | None,
    costs: Costs | None,
    choose_eta: bool,
) -> Plan:
    """The plan; ``limits`` of demonstrations and of RL's prompts, ``tests`` in place of the target if any."""
    V0 = pretrained_operator(shift.sigma0, length)
    model = ErrorModel(V0, shift.eta, shift.target, length, training.chain_steps)
    judge = model if tests is None else model.judged_by(tests)
    require_costs(sources or ())
    if sources is None:
        decision, columns = _dose(shift, judge, limits[0], budget, choose_eta=choose_eta)
    else:
        decision, columns = _counts(judge, sources, limits[0])
    chosen = asked.decide(model, shift.data, sources, limits[0], decision.counts)
    before = judge.error([], []) if decision.dose is None else decision.dose.error_before
    schedule = None if costs is None else no_schedule(before)
    if costs is not None and (tests is not None or shift.delta.any()):
        schedule = _scheduled(model, columns, sources, costs, limits, training, asked.goal)
    first = Plan(**vars(decision), error_before=before, training=chosen, schedule=schedule)
    return _with_stages(first, shift, (model, tests), columns, training, limits[1])


def _scheduled(
    model: ErrorModel,
    columns: Sequence[Columns],
    sources: Sequence[PoolSource] | None,
    costs: Costs,
    limits: tuple[int, int],
    training: PostTraining,
    goal: Goal,
) -> Schedule:
    """The stages that the budget is best spent on; ``limits`` of demonstrations and of RL's prompts."""
    sizes = [np.inf] if sources is None else [entry.size for entry in sources]
    told = goal.objective, goal.target
    return schedule_of_pool(model, columns, sizes, costs, limits, training, told)


def _recipe(training: PostTraining | None, learning_rate: float | None, costs: Costs | None) -> PostTraining:
    """How post-training is run; InputError where it cannot be scheduled though there are costs."""
    found = training or PostTraining()
    if learning_rate is not None:
        found = replace(found, learning_rate=learning_rate)
    if costs is not None:
        require_schedulable(found)
    return found


def _with_stages(
    found: Plan,
    shift: Shift,
    judged: tuple[ErrorModel, WeightedTest | None],
    columns: Sequence[Columns],
    training: PostTraining,
    rl_prompts: int,
) -> Plan:
    """The plan ``found`` with the choice of stage, for SFT on ``columns``, ``judged`` by tests if any."""
    model, tests = judged
    if not shift.delta.any():
        return replace(found, recommendation=_NOTHING_TO_ADAPT_TO if tests is None else _NO_SHIFT)
    radius = adaptation_radius(shift.sigma0, shift.delta, model.test_length)
    ground, turned = stage_problem(shift, model, columns, training, tests)
    stages = choose_stage(ground, turned, rl_prompts, radius)
    return replace(
        found,
        spectral_radius=radius,
        regime=stages.regime,
        recommendation=stages.reason,
        stages=stages,
        note=_caution(ground, turned),
    )


def _dose(
    shift: Shift,
    model: ErrorModel,
    max_prompts: int,
    budget: tuple[Budget, float] | None,
    *,
    choose_eta: bool,
) -> tuple[Decision, list[Columns]]:
    """The decision on data of one kind, ``shift.data``, and the columns that SFT sees."""
    if not shift.delta.any():
        # Neither an allocation nor eta can serve what is not there.
        budget, choose_eta = None, False
    length, (spectrum, basis) = model.test_length, spectral_basis(shift.data)
    turned, several = model if basis is None else model.rotated(basis), model.tests_second_moment is not None
    others = {max(1, round(factor * length)) for factor in _LENGTHS}
    found = {n: dose_of(turned, spectrum, n, max_prompts, COARSE) for n in others}
    dose = found[length] = dose_of(turned, spectrum, length, max_prompts)
    decision = Decision(
        prompts=dose.prompts,
        predicted_error=dose.error,
        error_at_max_prompts=dose.error_at_max,
        near_optimal=dose.near_optimal,
        allocation=shift.data,
        curve=dose.curve,
        dose=dose,
        by_length=tuple((n, found[n].prompts, found[n].error) for n in sorted(found)),
        # Its rule of refusal needs the O(1/d) correction, which is known for one test.
        better=None if several else better_allocation(shift, model, length, max_prompts, dose, budget),
        best_eta=_best_eta(shift, model, max_prompts) if choose_eta else None,
    )
    return decision, [model.columns(Source(shift.data, length, dose.prompts))]


def _counts(
    model: ErrorModel, sources: Sequence[PoolSource], max_prompts: int
) -> tuple[Decision, list[Columns]]:
    """The decision on a pool of ``sources``, and the columns that SFT sees."""
    found = plan_counts(model, sources, max_prompts)
    decision = Decision(
        prompts=sum(found.prompts),
        predicted_error=found.error,
        error_at_max_prompts=found.error_at_max,
        allocation=mean_covariance(sources, found.prompts),
        curve=found.curve,
        sources=found.sources,
        search=found.search,
    )
    taken = zip(sources, found.prompts, strict=True)
    return decision, [model.columns(replace(entry.source, prompts=B)) for entry, B in taken]


def _caution(ground: Ground, columns: Sequence[Columns]) -> str | None:
    """A warning where the error of the plan's ``columns`` is a limit that finite sizes are far from."""
    found = ground.model.equivalent(columns, [c.count for c in columns])
    correction = ground.correction(found)
    if error_is_known(correction):
        return None
    size = f"by about {correction:.0%} of it" if np.isfinite(correction) else "by an unknown amount"
    return (
        f"predicted_error is the limit of many directions: with so few the mean differs {size}, and the next "
        "order may be as large"
    )


def _named(positional: Sequence[int], length: int | None, max_prompts: int | None) -> tuple[int, int]:
    """(length, max_prompts) of a call of :func:`plan`, with a warning where they came without names."""
    if positional:
        if len(positional) != 2 or length is not None or max_prompts is not None:
            reject("plan", f"{len(positional)} unnamed numbers", "length=... and max_prompts=..., both named")
        length, max_prompts = positional
        warnings.warn(
            f"plan(shift, {length}, {max_prompts}) is read as length={length}, max_prompts={max_prompts}: "
            "name the two; the next release refuses them without names",
            FutureWarning,
            stacklevel=3,
        )
    return require_integer("length", length, 1), require_integer("max_prompts", max_prompts, 1)


def mean_covariance(sources: Sequence[PoolSource], counts: Sequence[int]) -> Array:
    """The covariance of a prompt of the planned mixture; of the whole pool where the plan takes nothing."""
    weights = np.array(counts if sum(counts) else [entry.size for entry in sources], dtype=np.float64)
    shares = weights / weights.sum()
    return plus(*(share * entry.source.covariance for share, entry in zip(shares, sources, strict=True)))


def _best_eta(shift: Shift, model: ErrorModel, max_prompts: int) -> tuple[float, int, float]:
    """(eta, B, error) over a grid of eta, data by the paper's allocation plus A's part off the shift."""
    found = []
    basis, _, floor, _ = allocation_basis(shift)
    outside = floor if basis is None else product(basis, product(floor, transpose(basis)))
    for eta in np.geomspace(0.05, 1.0, 9).tolist():
        data = Shift.aligned(shift.sigma0, shift.delta, eta).data + outside
        dose = dose_of(replace(model, eta=eta), data, model.test_length, max_prompts, COARSE)
        found.append((eta, dose.prompts, dose.error))
    return min(found, key=lambda entry: entry[2])
