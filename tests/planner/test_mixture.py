"""Several sources: which rows, in what mixture, what one more is worth, and what to buy next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from datadose.planner import PoolSource, plan
from datadose.planner.equal_rows import choose_rows, row_values
from datadose.planner.goal import Goal
from datadose.planner.mixture import mixture_of
from datadose.planner.penalty import choose_penalty
from datadose.planner.pool import Pool
from datadose.planner.rows_worth import next_purchase
from datadose.planner.stopping import choose_stopping
from datadose.planner.timing import choose_time
from datadose.shift import Shift
from datadose.theory import (
    Source,
    best_time,
    pretrained_operator,
)
from datadose.theory.equal_weights import best_equal_weights
from datadose.theory.tuned_weights import tuned_weights
from helpers.two_kinds import ETA, SHIFT, START, N, chosen, pools, section, two_kinds


def test_values_of_rows_are_the_slope_of_the_least_error() -> None:
    """Envelope theorem: the penalty is chosen anew at every number of rows, but need not be followed."""
    pool, counts = two_kinds(), np.array([40.0, 30.0])
    test = pool.goal.objective
    best = best_equal_weights(pool.effective(counts), test)
    for at, value in enumerate(row_values(pool, counts, best.ridge)):
        step = np.eye(2)[at]
        more, less = (best_equal_weights(pool.effective(counts + s * step), test).error for s in (1, -1))
        assert value == pytest.approx((less - more) / 2, rel=1e-3)


@pytest.mark.parametrize("limit", [None, 60])
def test_no_rows_of_a_grid_are_better_at_equal_weights(limit: int | None) -> None:
    pool = two_kinds(limit=limit)
    found, test = choose_rows(pool)[0], pool.goal.objective
    most = limit or 440
    assert found.counts.sum() <= most
    grid = [np.array([a, b]) for a in (0, 10, 25, 40) for b in (0, 5, 20, 60, 200, 400) if 0 < a + b <= most]
    errors = [best_equal_weights(pool.effective(counts), test).error for counts in grid]
    assert found.error <= min(errors) * (1 + 1e-9)
    timed = choose_time(pool, tuned=False)
    times = [best_time(START, ETA, pool.taking(counts), test, chain_steps=1).error for counts in grid]
    assert timed.best.error <= min(times) * (1 + 1e-5)


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_rows_are_split_where_training_has_no_end(noise: float) -> None:
    """Few rows of data with a broad tail are best fitted to the end; in the pool's proportions 17% is lost.

    Label noise leaves no explicit penalty, so that the search over times is all that there is.
    """
    d, length, most = 100, 6000, 14
    target, one, two = np.ones(d), np.full(d, 3.0), np.full(d, 3.0)
    target[:6] = one[:3] = two[3:6] = 30.0
    sources = [
        PoolSource(name, Source(ETA * A, length, 0, label_noise=noise), size)
        for name, A, size in (("one", one, 8), ("two", two, 300))
    ]
    goal = Goal.of(target, np.ones(d), length)
    pool = Pool.of(pretrained_operator(np.ones(d), length), ETA, sources, goal, most, 1)
    grid = [np.array([a, most - a], dtype=np.float64) for a in range(1, 9)]
    timed = choose_time(pool, tuned=False)
    times = [
        best_time(pool.start, ETA, pool.taking(rows), goal.objective, chain_steps=1).error for rows in grid
    ]
    assert timed.best.time is None
    assert timed.best.error <= min(times) * (1 + 1e-6)
    if noise == 0:
        found = choose_rows(pool)[0]
        errors = [best_equal_weights(pool.effective(rows), goal.objective).error for rows in grid]
        assert found.ridge == 0
        assert found.error <= min(errors) * (1 + 1e-9)


def test_no_weight_of_a_grid_is_better_than_the_tuned_one() -> None:
    pool = two_kinds()
    timed, test = choose_time(pool, tuned=True), pool.goal.objective
    grid = [*np.geomspace(1e-4, 1, 13), 0.0]
    errors = [
        best_time(START, ETA, pool.taking(pool.sizes), test, weights=[1.0, w], chain_steps=1).error
        for w in grid
    ]
    assert timed.best.error <= min(errors) * (1 + 1e-4)
    held, _ = choose_penalty(pool, tuned=True)
    assert held.objective == pytest.approx(tuned_weights(pool.effective(pool.sizes), test).error)
    assert held.objective <= choose_penalty(pool, tuned=False)[0].objective * (1 + 1e-9)


def test_which_rows_to_take_where_not_all_may_be_taken_at_tuned_weights() -> None:
    pool = two_kinds((300, 300), limit=100)
    held, decided = choose_penalty(pool, tuned=True)
    errors = [
        tuned_weights(pool.effective(np.array([a, 100.0 - a])), pool.goal.objective).error
        for a in (1, 20, 40, 60, 80, 99)
    ]
    assert decided.counts.sum() <= 100
    assert held.objective <= min(errors) * (1 + 1e-4)


def test_no_way_to_end_training_is_worse_than_convergence() -> None:
    """Where the best is convergence on some of the rows, a time without an end and no penalty find it too."""
    shifted = np.arange(20) < 8
    shift = Shift.aligned(np.where(shifted, 0.1, 1.0), np.where(shifted, 0.8, 0.0), eta=ETA)
    kinds = {"curated": (0.18, 0.0, 20), "logs": (0.18, 0.05, 400), "web": (0.01, 0.2, 1000)}
    sources = [
        PoolSource(name, Source(np.where(shifted, inside, outside), N, 0), size)
        for name, (inside, outside, size) in kinds.items()
    ]
    asked: dict[str, Any] = {"length": N, "max_prompts": 400, "sources": sources}
    best = plan(shift, **asked).predicted_error
    for stop in ("best", "penalty"):
        assert section(shift, stop=stop, **asked).objective <= best * (1 + 1e-6)


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("stop", ["best", "penalty"])
def test_the_mixture_adds_up(stop: str, tuned: bool) -> None:
    weights = "tuned" if tuned else "equal"
    found = chosen(max_prompts=440, sources=pools(two_kinds()), stop=stop, weights=weights)
    ended: Any = found.stopping or found.penalty
    assert found.mixture is not None
    good, wrong = found.mixture
    assert good.weight == 1.0
    assert good.share + wrong.share == pytest.approx(1)
    assert ended.prompts == sum(part.prompts for part in found.mixture)
    assert good.marginal_value is not None
    assert good.marginal_value > 0
    assert (wrong.reason is None) == (wrong.weight > 0)
    if not tuned:
        assert wrong.weight in (0.0, 1.0)
    rows = good.prompts + wrong.weight * wrong.prompts
    assert wrong.share == pytest.approx(wrong.weight * wrong.prompts / rows)


@pytest.mark.parametrize("tuned", [False, True])
def test_the_worth_of_a_row_at_the_best_time(tuned: bool) -> None:
    """Against the least error with one row more and one less, time (and weights) chosen anew."""
    pool = two_kinds((60, 60))
    _, decided = choose_stopping(pool, tuned=tuned, learning_rate=None)
    (good, _) = mixture_of(pool, decided)

    def least(rows: float) -> float:
        moved = replace(pool, sources=(replace(pool.sources[0], prompts=rows), pool.sources[1]))
        return choose_time(replace(moved, max_prompts=1000), tuned=tuned).best.error

    assert good.marginal_value == pytest.approx((least(55) - least(65)) / 10, rel=0.05)


def test_the_ceiling_bounds_what_more_rows_give() -> None:
    """With tuned weights the error falls to it, and a tenth above it takes the rows that are said."""
    pool = two_kinds()
    ways: list[Callable[[Pool], Any]] = [
        lambda p: choose_penalty(p, tuned=True)[0],
        lambda p: choose_stopping(p, tuned=True, learning_rate=None)[0],
    ]
    for choose in ways:
        found = choose(pool)
        rows = found.prompts_within_10_percent
        sizes = [round(20 * rows * share) for share in pool.shares]
        more = choose(two_kinds(sizes))
        assert found.ceiling == pytest.approx(more.ceiling, rel=1e-4)
        assert found.ceiling <= more.objective <= 1.012 * found.ceiling
        assert found.objective >= found.ceiling


def test_what_to_buy_next() -> None:
    pool = two_kinds(costs=(5.0, 1.0))
    found, decided = choose_penalty(pool, tuned=True)
    bought = next_purchase(pool, decided)
    assert bought is not None
    budget, purchases = bought
    assert budget == pytest.approx(0.1 * np.dot([5.0, 1.0], decided.counts))
    spent = sum(purchase.cost for purchase in purchases)
    assert 0.9 * budget - 5 <= spent <= budget
    counts = decided.counts + np.array([purchase.prompts for purchase in purchases])
    assert tuned_weights(pool.effective(counts), pool.goal.objective).error < found.objective
    dearer = next_purchase(two_kinds(costs=(50.0, 10.0)), decided)
    assert dearer is not None
    assert [p.prompts for p in dearer[1]] == [p.prompts for p in purchases]
    assert next_purchase(two_kinds(), decided) is None
    shares = mixture_of(pool, decided)
    assert [part.gain_per_cost for part in shares] == [
        part.marginal_value / cost  # type: ignore[operator]
        for part, cost in zip(shares, (5.0, 1.0), strict=True)
    ]


def test_replay_is_a_source_like_another() -> None:
    """Rows that hold the model where pretraining left it, beside rows that move what was known."""
    replay = PoolSource("replay", Source(ETA * SHIFT.sigma0, N, 0), 300)
    alone = [PoolSource("web", Source(np.where(SHIFT.delta > 0, SHIFT.data, 0.06), N, 0), 300)]
    options: dict[str, Any] = {"max_prompts": 600, "stop": "best", "weights": "tuned", "keep": 0.5}
    without, with_replay = (chosen(sources=sources, **options) for sources in (alone, [*alone, replay]))
    assert without.stopping is not None
    assert with_replay.stopping is not None
    assert with_replay.stopping.objective < 0.99 * without.stopping.objective
    assert with_replay.mixture is not None
    assert with_replay.mixture[1].weight > 0
