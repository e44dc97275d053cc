"""The best time or penalty of a plan, with rows and weights: against the theory, grids and simulation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from datadose.covariance import dense
from datadose.errors import InputError
from datadose.planner import PoolSource, PostTraining, plan
from datadose.shapes import Array
from datadose.shift import Shift
from datadose.simulation.training import simulate_training
from datadose.theory import (
    Source,
    Stopping,
    TrainedOperator,
    WeightedTest,
    best_time,
    predict_error,
    pretrained_operator,
    trained,
    trained_on_shift,
)
from datadose.theory.effective_penalty import EffectivePenalty
from datadose.theory.sft import chain_weight
from datadose.theory.training_time import largest_learning_rate
from helpers.two_kinds import ETA, GOOD, SHIFT, START, TARGET, D, N, chosen, pools, section, two_kinds

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


@pytest.mark.parametrize("sources", [None, [PoolSource(x, Source(GOOD, N, 0), 30) for x in "ab"]])
@pytest.mark.parametrize("stop", ["best", "penalty"])
def test_a_test_that_no_prompt_shows_is_not_trained_for(stop: str, sources: Any) -> None:
    """A covariance of zero, and one where the data have none: the error is the same after any training."""
    for test in (np.zeros(D), np.where(GOOD > 0, 0.0, 1.0)):
        options = {"sources": sources, "stop": stop, "tests": [(test, 1.0)], "max_prompts": 60}
        found = section(Shift(SHIFT.sigma0, SHIFT.delta, GOOD, ETA), **options)
        assert found.reason.startswith(
            "training changes nothing on the test: its covariance is zero, or zero"
        )
        assert found.prompts == 0
        assert found.predicted_error == found.ceiling == found.error_if_converged
        assert found.predicted_error == pytest.approx(
            WeightedTest.of(test, N).error(TrainedOperator.fixed(START))
        )


def test_what_convergence_makes_of_the_known() -> None:
    found = section(stop="best")
    after = trained_on_shift(SHIFT, 200, N, Stopping()).error(SHIFT.sigma0, N)
    assert found.pretraining_if_converged == pytest.approx(after)
    assert (found.all_rows, found.pretraining_on_all_rows_if_converged) == (200, pytest.approx(after))
    assert found.pretraining_on_all_rows == pytest.approx(found.predicted_pretraining, rel=1e-4)
    peak = section(max_prompts=D, stop="best")
    assert peak.pretraining_if_converged is peak.pretraining_on_all_rows_if_converged is None


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
