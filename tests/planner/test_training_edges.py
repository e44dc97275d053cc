"""Pools that a choice of time, penalty and weights once went wrong on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from datadose.planner import PoolSource, plan
from datadose.planner.goal import Goal
from datadose.planner.pool import Pool
from datadose.planner.timing import COARSE, choose_time, time_of
from datadose.shift import Shift
from datadose.theory import Source, Stopping, TrainedOperator, WeightedTest, best_time, trained
from datadose.theory.columns import Columns
from datadose.theory.equal_weights import best_equal_weights, effective_weights
from helpers.two_kinds import ETA, GOOD, SHIFT, START, TARGET, D, N, chosen


def test_the_best_penalty_of_matrices_is_not_one_that_rounding_makes() -> None:
    """Few rows everywhere beside many in half of the directions: against the law with complex nodes."""
    rng = np.random.default_rng(3)
    half, all_over = (X @ X.T / len(X.T) for X in (rng.standard_normal((D, r)) for r in (D // 2, 2 * D)))
    kinds = [PoolSource("half", Source(half, N, 0), 10 * D), PoolSource("all", Source(all_over, N, 0), 3)]
    pool = Pool.of(START, ETA, kinds, Goal.of(SHIFT.target, SHIFT.sigma0, N), 11 * D, 1)
    for test in (TARGET, WeightedTest.of(half, N)):
        found = best_equal_weights(pool.effective(pool.sizes), test)
        assert 0 <= found.ridge < np.inf
        end = Stopping(ridge=found.ridge) if found.ridge > 0 else Stopping()
        assert found.error == pytest.approx(test.error(pool.trained(pool.sizes, end)), rel=1e-9)
        ridges = np.geomspace(1e-9, 1e4, 14)
        others = [test.error(pool.trained(pool.sizes, Stopping(ridge=x))) for x in ridges]
        assert found.error <= min(others) * (1 + 1e-9)


def test_a_pool_works_its_columns_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eigendecomposition of each matrix; the fits are those of sources given anew."""
    rng = np.random.default_rng(3)
    some, all_over = (X @ X.T / len(X.T) for X in (rng.standard_normal((D, r)) for r in (D // 2, 2 * D)))
    kinds = [PoolSource("some", Source(some, N, 0), 80), PoolSource("all", Source(all_over, N, 0, 0.3), 30)]
    pool = Pool.of(START, ETA, kinds, Goal.of(SHIFT.target, SHIFT.sigma0, N), 90, 1)
    counts, weights = np.array([60.0, 30.0]), np.array([1.0, 0.2])
    for end in (Stopping(ridge=2.0), Stopping(time=3.0), Stopping(steps=20, learning_rate=0.01)):
        anew = trained(START, ETA, pool.taking(counts), end, weights=weights, chain_steps=1)
        np.testing.assert_array_equal(pool.trained(counts, end, weights).second_moment, anew.second_moment)
    worked, columns = [], Source.columns

    def counted(source: Source, eta: float, chain_steps: int) -> Columns:
        worked.append(source)
        return columns(source, eta, chain_steps)

    monkeypatch.setattr(Source, "columns", counted)
    pool = replace(pool)
    for rows in (counts, pool.sizes):
        pool.trained(rows, Stopping(ridge=2.0), weights)
        time_of(pool, rows, weights, COARSE)
    assert len(worked) == len(kinds)


def test_a_source_that_is_left_out_does_not_hide_directions_without_data() -> None:
    """Matrices: rounding beside the data of the other once made a negative error of a small penalty."""
    rng = np.random.default_rng(3)
    few, many = (X @ X.T / len(X.T) for X in (rng.standard_normal((D, r)) for r in (D // 2, 2 * D)))
    goal = Goal.of(SHIFT.target, SHIFT.sigma0, N)
    both = [PoolSource("few", Source(few, N, 0), 10 * D), PoolSource("many", Source(many, N, 0), 50)]
    alone, beside = (Pool.of(START, ETA, sources, goal, 20 * D, 1) for sources in (both[:1], both))
    counts = np.array([10.0 * D, 0.0])
    found = best_equal_weights(beside.effective(counts), goal.objective)
    assert found.error == pytest.approx(best_equal_weights(alone.effective(counts[:1]), goal.objective).error)
    for ridge in (1e-9, 1e-6, 1e-3):
        model = beside.effective(counts).at(effective_weights(beside.effective(counts), ridge))
        assert model.error(TARGET) == pytest.approx(
            TARGET.error(alone.trained(counts[:1], Stopping(ridge=ridge))), rel=1e-6
        )


def test_a_weight_is_found_where_the_penalty_says_none() -> None:
    """Much of one source and a trace of the other: the best penalty has weights 20 orders apart."""
    sources = [
        PoolSource("clean", Source(np.repeat([0.22, 0.0], 12), N, 0), 300),
        PoolSource("broad", Source(np.repeat([0.1, 0.6], 12), N, 0), 300),
    ]
    pool = Pool.of(START, ETA, sources, Goal.of(SHIFT.target, SHIFT.sigma0, N), 600, 1)
    found, test = choose_time(pool, tuned=True), pool.goal.objective
    grid = np.geomspace(1e-6, 1, 13)
    errors = [best_time(START, ETA, pool.taking(pool.sizes), test, weights=[1.0, w]).error for w in grid]
    assert found.best.error <= min(errors) * (1 + 1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_tuned_weights_are_no_worse_than_equal_ones(noise: float) -> None:
    """Where not all rows may be taken, and where noisy labels leave no explicit penalty to start from."""
    sources = [
        PoolSource("clean", Source(np.repeat([0.22, 0.0], 12), N, 0), 60),
        PoolSource("wrong", Source(np.repeat([0.1, 0.6], 12), N, 0, noise), 180),
    ]
    pool = Pool.of(START, ETA, sources, Goal.of(SHIFT.target, SHIFT.sigma0, N), 150, 1)
    equal, tuned = (choose_time(pool, tuned=tuned).best.error for tuned in (False, True))
    assert tuned <= equal * (1 + 1e-4)


@pytest.mark.parametrize("stop", ["best", "penalty"])
@pytest.mark.parametrize("weights", ["equal", "tuned"])
def test_sources_without_data(stop: str, weights: str) -> None:
    nothing = [PoolSource(name, Source(np.zeros(D), N, 0), 50) for name in "ab"]
    found = chosen(max_prompts=100, sources=nothing, stop=stop, weights=weights)
    ended: Any = found.stopping or found.penalty
    assert (ended.prompts, ended.predicted_error) == (0, TARGET.error(TrainedOperator.fixed(START)))
    beside = [PoolSource("good", Source(GOOD, N, 0), 40), nothing[0]]
    found = chosen(max_prompts=100, sources=beside, stop=stop, weights=weights)
    assert found.mixture is not None
    assert found.mixture[1].reason == "its covariance is zero"


def test_tests_may_need_training_without_a_shift() -> None:
    still = Shift(SHIFT.sigma0, np.zeros(D), SHIFT.data, ETA)
    found = plan(still, length=N, max_prompts=200, stop="best", tests=[(SHIFT.target, 1.0)])
    shifted = plan(SHIFT, length=N, max_prompts=200, stop="best")
    assert found.prompts == shifted.prompts
    assert found.training is not None
    assert found.training.stopping is not None
    assert shifted.training is not None
    assert found.training.stopping == shifted.training.stopping
    assert "already the best" not in found.recommendation
