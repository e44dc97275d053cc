"""The best time or penalty of a plan, with rows and weights: against the theory, grids and simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from datadose.covariance import dense
from datadose.errors import InputError
from datadose.planner import PoolSource, PostTraining, plan
from datadose.planner.equal_rows import choose_rows, row_values
from datadose.planner.goal import Goal
from datadose.planner.mixture import mixture_of
from datadose.planner.penalty import choose_penalty
from datadose.planner.pool import Pool
from datadose.planner.rows_worth import next_purchase
from datadose.planner.stopping import choose_stopping
from datadose.planner.timing import choose_time
from datadose.planner.training_choice import TrainingChoice
from datadose.shapes import Array
from datadose.shift import Shift
from datadose.simulation.training import simulate_training
from datadose.theory import (
    Source,
    Stopping,
    WeightedTest,
    best_time,
    predict_error,
    pretrained_operator,
    trained,
)
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.equal_weights import best_equal_weights
from datadose.theory.sft import chain_weight
from datadose.theory.training_time import largest_learning_rate
from datadose.theory.tuned_weights import tuned_weights

D, N, ETA = 24, 60, 0.2
SHIFT = Shift.two_block(D, 12, 0.1, ETA, 0.01)
START = pretrained_operator(SHIFT.sigma0, N)
TARGET = WeightedTest.of(SHIFT.target, N)
GOOD = ETA * SHIFT.target
WRONG = 0.2 * np.geomspace(3, 0.05, D)


def two_kinds(
    sizes: Sequence[int] = (40, 400), limit: int | None = None, costs: Sequence[float | None] = (None, None)
) -> Pool:
    """Rows of the target, and ten times as many that mislead."""
    sources = [
        PoolSource(name, Source(A, N, 0), size, cost)
        for name, A, size, cost in zip(("good", "wrong"), (GOOD, WRONG), sizes, costs, strict=True)
    ]
    goal = Goal.of(SHIFT.target, SHIFT.sigma0, N)
    return Pool.of(START, ETA, sources, goal, limit or sum(sizes), 1)


def pools(pool: Pool) -> list[PoolSource]:
    return [
        PoolSource(name, s, int(s.prompts), cost)
        for name, s, cost in zip(pool.names, pool.sources, pool.costs, strict=True)
    ]


def chosen(shift: Shift = SHIFT, **options: Any) -> TrainingChoice:
    """What a plan decides about training."""
    found = plan(shift, **{"length": N, "max_prompts": 200, **options}).training
    assert found is not None
    return found


def section(shift: Shift = SHIFT, **options: Any) -> Any:
    """The part of it that is about the time, or the penalty."""
    found = chosen(shift, **options)
    return found.stopping or found.penalty


# --- one kind of data -------------------------------------------------------------------------------------


def test_the_penalty_of_one_kind_is_that_of_the_theory() -> None:
    found = chosen(stop="penalty").to_json()["penalty"]
    curve = EffectivePenalty.of(START, ETA, Source(SHIFT.data, N, 1), TARGET)
    best = curve.best(200)
    assert found["value"] == pytest.approx(best.ridge)
    assert found["predicted_error"] == pytest.approx(best.error)
    assert found["variance"] == pytest.approx(best.variance)
    assert found["ceiling"] == curve.ceiling.error
    assert found["scarcity"] == pytest.approx(best.error - curve.ceiling.error)
    assert found["prompts_within_10_percent"] == np.ceil(curve.prompts_within(0.1))
    assert found["error_if_converged"] == pytest.approx(predict_error(SHIFT, 200, N))
    model = trained(START, ETA, [Source(SHIFT.data, N, 200)], Stopping(ridge=best.ridge))
    assert found["predicted_pretraining"] == pytest.approx(model.error(SHIFT.sigma0, N))


@pytest.mark.parametrize("k", [1, 3])
def test_the_time_of_one_kind_its_steps_and_its_range(k: int) -> None:
    training = PostTraining(chain_steps=k)
    found = section(stop="best", training=training, learning_rate=0.05)
    sources = [Source(SHIFT.data, N, 200)]
    best = best_time(START, ETA, sources, TARGET)
    assert best.time is not None
    assert found.predicted_error == pytest.approx(best.error, rel=1e-6)
    assert found.steps == round(found.time / (0.05 * chain_weight(ETA, k)))
    assert found.epochs == found.steps
    by_steps = trained(START, ETA, sources, Stopping(steps=found.steps, learning_rate=0.05), chain_steps=k)
    assert found.error_of_steps == pytest.approx(TARGET.error(by_steps))
    low, high = found.near_optimal_time
    assert high is not None
    for end in (low, high):
        assert best.at(end) == pytest.approx(1.05 * best.error, rel=1e-3)
    assert min(point.objective for point in found.curve) >= found.objective * (1 - 1e-9)
    assert found.ceiling < found.objective < best.at(4 * found.time)


def test_the_learning_rate_is_half_of_the_largest_stable_one_unless_given() -> None:
    found = section(stop="best")
    largest = largest_learning_rate([Source(SHIFT.data, N, 200)], ETA, chain_steps=1)
    assert found.learning_rate == pytest.approx(largest / 2)
    with pytest.raises(InputError, match=r"learning_rate: got .*largest stable one"):
        chosen(stop="best", learning_rate=1.01 * largest)


def test_the_rows_within_a_tenth_of_the_ceiling_of_the_time() -> None:
    found = section(stop="best", max_prompts=100)
    rows = found.prompts_within_10_percent
    for share, above in ((0.97, True), (1.03, False)):
        error = best_time(START, ETA, [Source(SHIFT.data, N, share * rows)], TARGET).error
        assert (error > 1.1 * found.ceiling) == above


def test_matrices_give_the_plan_of_their_spectra() -> None:
    basis = np.linalg.qr(np.random.default_rng(3).standard_normal((D, D)))[0]

    def turned(A: Any) -> Array:
        M = basis @ dense(np.asarray(A)) @ basis.T
        return np.asarray((M + M.T) / 2)

    turned_shift = Shift(turned(SHIFT.sigma0), turned(SHIFT.delta), turned(SHIFT.data), ETA)
    for stop in ("best", "penalty"):
        flat, full = (section(s, max_prompts=150, stop=stop, keep=0.3) for s in (SHIFT, turned_shift))
        for name in ("objective", "predicted_error", "ceiling", "error_if_converged"):
            assert getattr(flat, name) == pytest.approx(getattr(full, name), rel=1e-4), name


# --- several sources --------------------------------------------------------------------------------------


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


# --- goals ------------------------------------------------------------------------------------------------


def test_keeping_weighs_what_was_known() -> None:
    sections = []
    for keep in (0.0, 0.7):
        sections.append(section(stop="best", keep=keep))
        both = (1 - keep) * sections[-1].predicted_error + keep * sections[-1].predicted_pretraining
        assert sections[-1].objective == pytest.approx(both)
    assert sections[1].predicted_pretraining < sections[0].predicted_pretraining
    assert sections[1].predicted_error > sections[0].predicted_error


def test_to_keep_all_is_not_to_train() -> None:
    for stop, name, kind in (("best", "time", "stopping"), ("penalty", "value", "penalty")):
        found = chosen(stop=stop, keep=1.0).to_json()[kind]
        assert found[name] == (0.0 if stop == "best" else None)
        assert found["reason"]
        assert found["prompts"] == 0
        assert found["prompts_within_10_percent"] == 0


def test_several_tests_stand_in_for_the_target() -> None:
    options: dict[str, Any] = {"length": N, "max_prompts": 200, "stop": "penalty"}
    one = plan(SHIFT, **options)
    same = plan(SHIFT, tests=[(SHIFT.target, 0.25), (SHIFT.target, 0.75)], **options)
    assert same.predicted_error == pytest.approx(one.predicted_error)
    assert same.prompts == one.prompts
    other = plan(SHIFT, tests=[(SHIFT.target, 0.5), (SHIFT.sigma0, 0.5)], **options)
    judged = WeightedTest.weighted([(0.5, SHIFT.target, N), (0.5, SHIFT.sigma0, N)])
    assert other.error_before == pytest.approx(judged.error(trained(START, ETA, [], Stopping())))
    assert other.training is not None
    assert other.training.penalty is not None
    kept = section(keep=0.5, stop="penalty")
    assert other.training.penalty.predicted_error == pytest.approx(kept.objective)


def test_a_zero_shift_is_a_plan() -> None:
    still = Shift(SHIFT.sigma0, np.zeros(D), SHIFT.sigma0, ETA)
    assert plan(still, length=N, max_prompts=200, stop="best").prompts == 0
    for stop in ("best", "penalty"):
        found = section(still, stop=stop)
        assert found.prompts == 0
        assert found.predicted_error == pytest.approx(found.error_if_converged)


# --- edges ------------------------------------------------------------------------------------------------


def test_no_number_where_convergence_has_none() -> None:
    found = section(max_prompts=D, stop="best")
    assert found.error_if_converged is None
    assert "infinite" in found.reason
    assert np.isfinite(found.predicted_error)


def test_a_time_without_end() -> None:
    """Data from the target with eta near 1 are right to the last: more training never hurts."""
    right = Shift(SHIFT.sigma0, SHIFT.delta, SHIFT.target, 1.0)
    found = chosen(right, length=5000, max_prompts=10**6, stop="best").to_json()["stopping"]
    assert found["time"] is None
    assert found["steps"] is None
    assert found["near_optimal_time"][1] is None
    assert found["reason"] == "the error falls for as long as training lasts"
    assert found["predicted_error"] == pytest.approx(found["error_if_converged"])


def test_noisy_labels_have_a_best_time_but_no_explicit_penalty() -> None:
    noisy = [
        PoolSource("clean", Source(GOOD, N, 0), 30),
        PoolSource("noisy", Source(GOOD, N, 0, label_noise=0.5), 200),
    ]
    options: dict[str, Any] = {"max_prompts": 230, "sources": noisy}
    for weights in ("equal", "tuned"):
        found = section(stop="best", weights=weights, **options)
        assert found.predicted_error < found.error_if_converged
        assert found.ceiling < found.objective
    with pytest.raises(InputError, match="label_noise"):
        chosen(stop="penalty", **options)


def test_choices_that_mean_nothing() -> None:
    sources = pools(two_kinds())
    bad: list[tuple[dict[str, Any], str]] = [
        ({"keep": 0.5}, "keep: got 0.5 with training: converged"),
        ({"weights": "tuned", "sources": sources}, "weights: got tuned with training: converged"),
        ({"tests": [(SHIFT.target, 1.0)]}, "tests: got some with training: converged"),
        ({"stop": "best", "weights": "tuned"}, "weights: got tuned without sources"),
        ({"stop": "best", "tests": [(SHIFT.target, 0.5)]}, "tests: got weights with sum 0.5"),
        ({"stop": "best", "tests": [(np.ones(3), 1.0)]}, "covariance of test 0"),
        ({"stop": "best", "tests": []}, "tests: got none"),
        ({"stop": "best", "keep": -0.1}, "keep: got -0.1"),
        ({"stop": "later"}, "training: got later"),
        ({"stop": "best", "weights": "heavy"}, "weights: got heavy"),
        ({"stop": "best", "learning_rate": 0.0}, "learning_rate: got 0"),
        (
            {"stop": "best", "sources": [sources[0], replace(sources[1], cost=2.0)]},
            "cost: got none for source good",
        ),
    ]
    for options, message in bad:
        with pytest.raises(InputError) as caught:
            plan(SHIFT, length=N, max_prompts=100, **options)
        assert message in str(caught.value)
    with pytest.raises(InputError, match="cost of source a: got -1"):
        PoolSource("a", Source(GOOD, N, 0), 5, cost=-1.0)


# --- simulation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["best", "penalty"])
def test_the_promised_error_is_the_simulated_one(stop: str) -> None:
    """Spectra, d = 120, 12 seeds: the gap is within chance (level 1e-4) and finite size (3 percent)."""
    shift = Shift.two_block(120, 60, 0.1, ETA, 0.01)
    names = {"good": (ETA * shift.target, 150), "wrong": (0.2 * np.geomspace(3, 0.05, 120), 900)}
    sources = [PoolSource(name, Source(A, 240, 0), size) for name, (A, size) in names.items()]
    found = chosen(shift, length=240, max_prompts=1050, sources=sources, stop=stop, weights="tuned")
    assert found.mixture is not None
    told: Any = found.stopping or found.penalty
    ended = Stopping(time=told.time) if stop == "best" else Stopping(ridge=told.value)
    drawn = simulate_training(
        pretrained_operator(shift.sigma0, 240),
        ETA,
        [replace(s.source, prompts=part.prompts) for s, part in zip(sources, found.mixture, strict=True)],
        [shift.target, shift.sigma0],
        240,
        [ended],
        weights=[part.weight for part in found.mixture],
        seeds=12,
    )
    mean, sem = drawn.mean[0, 0], drawn.sem[0, 0]
    allowed = float(stats.t.ppf(1 - 5e-5, 11)) * sem
    gap = np.abs(np.array([told.predicted_error, told.predicted_pretraining]) - mean)
    assert (gap <= allowed + 0.03 * mean).all()
