"""A budget over the stages: against simulation, brute force, and what more money must and must not do."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from datadose.covariance import Array, rotated
from datadose.errors import InputError
from datadose.planner import Costs, ErrorModel, PoolSource, PostTraining, Schedule, plan, plan_schedule
from datadose.shift import Shift
from datadose.simulation.training import TrainingStage, simulate_stages
from datadose.theory import (
    Stopping,
    TrainedOperator,
    WeightedTest,
    pretrained_operator,
    trained,
    trained_path,
)
from datadose.theory.source import Source
from datadose.theory.training_time import largest_learning_rate
from helpers.pools import orthogonal

D, N = 80, 240
SHIFT = Shift.two_block(D, 40, 0.1, 0.2, 0.01)
V0 = pretrained_operator(SHIFT.sigma0, N)


MODEL = ErrorModel(V0, SHIFT.eta, SHIFT.target, N)


def scheduled(costs: Costs, *, most: int = 10_000, **options: Any) -> Schedule:
    options = {"max_demonstrations": most, "max_prompts": most, **options}
    return plan_schedule(MODEL, [MODEL.columns(Source(SHIFT.data, N, 1))], costs, **options)


BOTH = Costs(demonstration=0.3, prompt=1, total=500)
"""Where both stages in order are best."""


@cache
def both() -> Schedule:
    return scheduled(BOTH)


def stages_of(found: Schedule) -> list[TrainingStage]:
    """The schedule as it is simulated, with its own times."""
    kinds = {"sft": (SHIFT.eta, SHIFT.data), "outcome": (1.0, SHIFT.target)}
    return [
        TrainingStage(kinds[s.stage][0], [Source(kinds[s.stage][1], N, s.prompts)], Stopping(time=s.time))
        for s in found.stages
    ]


@pytest.mark.parametrize(
    ("costs", "order"),
    [
        (Costs(1, 1, 60), ["sft"]),
        (Costs(3, 1, 60), ["outcome"]),
        (BOTH, ["sft", "outcome"]),
        (Costs(0.3, 1, 500, 2.0), ["sft", "outcome"]),
    ],
)
def test_the_forecast_is_what_simulated_stages_come_to(costs: Costs, order: list[str]) -> None:
    """4 standard errors of 16 seeds (false alarm below 1e-3 in all), and 3 percent for the order 1/d."""
    found = scheduled(costs)
    assert [stage.stage for stage in found.stages] == order
    simulated = simulate_stages(V0, stages_of(found), [SHIFT.target], N, seeds=16)
    for place, stage in enumerate(found.stages):
        mean, sem = simulated.mean[place, 0], simulated.sem[place, 0]
        assert abs(stage.predicted_error - mean) <= 4 * sem + 0.03 * mean
    assert found.predicted_error == found.stages[-1].predicted_error


def test_steps_at_the_learning_rate_are_the_time() -> None:
    """Descent at the rates of the schedule comes to within 3 percent of gradient flow for its times."""
    found = both()
    state: Array | TrainedOperator = V0
    for stage, told in zip(stages_of(found), found.stages, strict=True):
        copies = 1 + (1 - SHIFT.eta) ** 2 if told.stage == "sft" else 1.0
        assert told.time == pytest.approx(told.steps * told.learning_rate * copies, rel=1e-9)
        assert told.epochs == told.steps
        stopping = Stopping(steps=told.steps, learning_rate=told.learning_rate)
        k = 1 if told.stage == "sft" else 0
        state = trained(state, stage.eta, stage.sources, stopping, chain_steps=k)
    assert isinstance(state, TrainedOperator)
    assert state.error(SHIFT.target, N) == pytest.approx(found.predicted_error, rel=0.03)


def test_no_grid_finds_a_better_plan() -> None:
    """All shares of the budget by all times of both stages, each by the law itself."""
    found, best = both(), np.inf
    sft, outcome = found.stages
    times = [np.geomspace(t / 20, 20 * t, 9).tolist() for t in (sft.time, outcome.time)]
    for share in (0.0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.9, 1.0):
        for t1 in times[0]:
            first = trained(V0, SHIFT.eta, [Source(SHIFT.data, N, 500 * share / 0.3)], Stopping(time=t1))
            for t2 in times[1]:
                rest = Source(SHIFT.target, N, 500 * (1 - share))
                second = trained(first, 1.0, [rest], Stopping(time=t2))
                best = min(best, second.error(SHIFT.target, N))
    assert found.predicted_error <= best * 1.001
    assert found.alternatives["both"] < min(found.alternatives["sft"], found.alternatives["outcome"])


@pytest.mark.parametrize("update", [0.0, 1.0])
def test_more_money_never_hurts_and_its_worth_is_told(update: float) -> None:
    """The gain is the slope of the least error over the budget: within 10 percent, at whole rows."""
    totals = [30, 600, 660] if update else [30, 300, 600, 660, 2000]
    found = [scheduled(Costs(0.3, 1, total, update)) for total in totals]
    errors = [one.predicted_error for one in found]
    assert all(b <= a * 1.001 for a, b in pairwise(errors))
    for name in ("none", "sft", "outcome", "both"):
        column = [one.alternatives[name] for one in found]
        assert all(b <= a * 1.001 for a, b in pairwise(column))
    for one, total in zip(found, totals, strict=True):
        assert one.cost <= total
        assert one.cost >= 0.9 * total
        assert one.predicted_error <= min(one.alternatives.values()) * 1.002
    if update == 0:
        low, high = found[2:4]
        assert low.next_unit is not None
        slope = (low.predicted_error - high.predicted_error) / 60
        mean = (low.next_unit.gain + high.next_unit.gain) / 2  # type: ignore[union-attr]
        assert mean == pytest.approx(slope, rel=0.1)


def test_no_whole_numbers_of_updates_and_rows_are_better() -> None:
    """SFT alone, every number of updates with all the rows that the rest buys, at a time up to theirs."""
    costs = Costs(demonstration=0.3, prompt=1e6, update=5.0, total=200)
    found, test = scheduled(costs), WeightedTest.of(SHIFT.target, N)
    errors = []
    for count in range(1, 30):
        source = Source(SHIFT.data, N, int((costs.total - costs.update * count) / costs.demonstration))
        longest = count * largest_learning_rate([source], SHIFT.eta) / 2
        ends = [Stopping(time=share * longest) for share in (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)]
        errors += [test.error(model) for model in trained_path(V0, SHIFT.eta, [source], ends)]
    assert found.predicted_error <= 1.005 * min(errors)
    assert costs.total - costs.demonstration <= found.cost <= costs.total


def test_no_row_more_than_there_may_be() -> None:
    found = scheduled(Costs(1, 1, 1e12), most=10**9)
    assert [stage.prompts for stage in found.stages] == [10**9]


def test_rows_that_show_nothing_are_no_stage() -> None:
    nothing = MODEL.columns(Source(np.zeros(D), N, 1))
    found = plan_schedule(MODEL, [nothing], BOTH, max_demonstrations=50, max_prompts=50)
    assert [stage.stage for stage in found.stages] == ["outcome"]
    assert found.alternatives["sft"] == found.alternatives["none"]


def test_without_a_shift_there_is_a_schedule_without_stages() -> None:
    still = Shift(SHIFT.sigma0, np.zeros(D), SHIFT.sigma0, SHIFT.eta)
    found = plan(still, length=N, max_prompts=50, costs=BOTH).to_json()
    assert (found["schedule"], found["next_unit"]) == ([], None)


def test_updates_that_cost_something_make_training_shorter() -> None:
    free, dear = scheduled(Costs(1, 1, 60)), scheduled(Costs(1, 1, 60, 1.0))
    assert dear.stages[0].steps < free.stages[0].steps
    assert dear.stages[0].cost == dear.stages[0].prompts + dear.stages[0].steps
    assert dear.predicted_error > free.predicted_error


def test_no_more_rows_than_there_are() -> None:
    """All rows are taken, and nothing more can be bought, or updates alone."""
    found = scheduled(BOTH, most=20)
    assert [stage.prompts for stage in found.stages] == [20, 20]
    assert found.next_unit is None
    found = scheduled(replace(BOTH, total=40, update=0.5), most=20)
    assert all(stage.prompts <= 20 for stage in found.stages)
    free = scheduled(Costs(0, 1, 5), most=2000)
    assert free.stages[0].stage == "sft"
    assert free.stages[0].prompts == 2000


def test_a_budget_for_nothing_is_no_stage() -> None:
    found = scheduled(Costs(10, 10, 5))
    assert found.stages == ()
    assert found.next_unit is None
    before = TrainedOperator.fixed(V0).error(SHIFT.target, N)
    assert set(found.alternatives.values()) == {found.predicted_error}
    assert found.predicted_error == pytest.approx(before)
    assert found.to_json()["schedule"] == []


def test_dense_is_spectral() -> None:
    d = 24
    basis, costs, plain = orthogonal(3, d), Costs(0.3, 1, 150), Shift.two_block(d, 12, 0.1, 0.2, 0.01)
    shift = Shift(*(rotated(M, basis) for M in (plain.sigma0, plain.delta, plain.data)), plain.eta)
    flat, found = (
        plan_schedule(
            ErrorModel(pretrained_operator(s.sigma0, N), s.eta, s.target, N),
            [Source(s.data, N, 1).columns(s.eta, 1)],
            costs,
            max_demonstrations=1000,
            max_prompts=1000,
        )
        for s in (plain, shift)
    )
    assert [s.stage for s in found.stages] == [s.stage for s in flat.stages]
    assert found.predicted_error == pytest.approx(flat.predicted_error, rel=1e-3)


def test_a_mixture_keeps_its_proportions() -> None:
    """Two sources, three rows of one for one of the other; both the same is one of them."""
    costs = Costs(1, 1, 60)
    one = [MODEL.columns(Source(SHIFT.data, N, B)) for B in (30.0, 10.0)]
    options = {"max_demonstrations": 1000, "max_prompts": 1000}
    same = plan_schedule(MODEL, one, costs, **options)
    assert same.predicted_error == pytest.approx(scheduled(costs).predicted_error, rel=1e-4)
    noisy = MODEL.columns(Source(SHIFT.data, N, 10.0, demonstration_noise=2.0))
    worse = plan_schedule(MODEL, [one[0], noisy], costs, **options)
    assert worse.alternatives["sft"] > same.alternatives["sft"]
    source = [Source(SHIFT.data, N, 45.0), Source(SHIFT.data, N, 15.0, demonstration_noise=2.0)]
    if [s.stage for s in worse.stages] == ["sft"]:
        direct = trained(V0, SHIFT.eta, source, Stopping(time=worse.stages[0].time), chain_steps=1)
        assert direct.error(SHIFT.target, N) == pytest.approx(worse.predicted_error, rel=1e-9)


def test_what_is_minimised_may_be_another_test() -> None:
    """The error on Sigma0 with half of the weight: less is forgotten, and the target pays for it."""
    keep = WeightedTest.weighted([(0.5, SHIFT.target, N), (0.5, SHIFT.sigma0, N)])
    plain, kept = scheduled(Costs(1, 1, 60)), scheduled(Costs(1, 1, 60), objective=keep)
    assert kept.predicted_error > plain.predicted_error

    def known(found: Schedule) -> float:
        state: Array | TrainedOperator = V0
        for stage in stages_of(found):
            state = trained(state, stage.eta, stage.sources, stage.stopping)
        assert isinstance(state, TrainedOperator)
        return state.error(SHIFT.sigma0, N)

    assert known(kept) < known(plain)


def test_bad_budgets_are_named() -> None:
    for name, value in product(("demonstration", "prompt", "update"), (-1.0, np.nan, np.inf)):
        with pytest.raises(InputError, match=f"{name}: got .*; allowed"):
            Costs(**{"demonstration": 1.0, "prompt": 1.0, "total": 1.0, name: value})
    with pytest.raises(InputError, match=r"total: got .*; allowed"):
        Costs(1, 1, 0)
    with pytest.raises(InputError, match=r"costs: got .*chain_steps: 3"):
        scheduled(BOTH, training=PostTraining(chain_steps=3))
    with pytest.raises(InputError, match=r"costs: got .*verifiable"):
        scheduled(BOTH, training=PostTraining(reward="verifiable"))
    with pytest.raises(InputError, match=r"max_prompts: got 0"):
        scheduled(BOTH, max_prompts=0)
    with pytest.raises(InputError, match=r"learning_rate: got 1e\+06; allowed: a number below"):
        scheduled(BOTH, training=PostTraining(learning_rate=1e6))
    nothing = [MODEL.columns(Source(SHIFT.data, N, 0))]
    with pytest.raises(InputError, match=r"columns: got no prompts"):
        plan_schedule(MODEL, nothing, BOTH, max_demonstrations=10, max_prompts=10)


def test_a_plan_schedules_its_own_mixture() -> None:
    """Of a good and a bad source: the plan's proportions, no more than there are; nothing else changes."""
    bad = Source(np.where(SHIFT.delta > 0, 0.01, 0.3), N, 0, demonstration_noise=3.0)
    pool = [PoolSource("good", Source(SHIFT.data, N, 0), 90), PoolSource("bad", bad, 500)]
    options: Any = {"length": N, "max_prompts": 400, "sources": pool}
    plain, found = plan(SHIFT, **options), plan(SHIFT, **options, costs=Costs(0.1, 1, 60), rl_prompts=50)
    assert found.schedule is not None
    assert found.sources == plain.sources
    assert plain.schedule is None
    taken = {s.name: s.prompts for s in found.sources or ()}
    assert taken["bad"] == 0
    assert all(s.prompts <= (90 if s.stage == "sft" else 50) for s in found.schedule.stages)
    document = found.to_json()
    assert document["alternatives"]["both"] <= document["alternatives"]["sft"]
    assert set(document["schedule"][0]) == {
        "stage", "prompts", "time", "steps", "epochs", "learning_rate", "predicted_error", "cost",
    }  # fmt: skip
    with pytest.raises(InputError, match=r"costs: got some beside chain_steps: 2"):
        plan(SHIFT, **options, costs=Costs(1, 1, 60), training=PostTraining(2))
