"""Training time at its edges: long training, missing directions, large weights, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datadose.covariance import rotated
from datadose.errors import InputError
from datadose.shift import Shift
from datadose.theory import (
    Source,
    Stopping,
    WeightedTest,
    best_time,
    largest_learning_rate,
    predict_error,
    trained,
)
from datadose.theory.effective_weights import EffectiveSources
from datadose.theory.equal_weights import best_equal_weights
from datadose.theory.tuned_weights import ceiling, tuned_weights
from helpers.pools import D, agree, orthogonal, pool, spectrum, turned


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trained(-spectrum(9), 0.3, pool(), Stopping(), weights=[1.0]), "weights: got 1 of them"),
        (lambda: trained(-spectrum(9), 0.3, pool(), Stopping(), weights=[1.0, -1.0, 1.0]), "weights: got -1"),
        (
            lambda: trained(-spectrum(9), 0.3, pool(), Stopping(), weights=[1.0, np.nan, 1.0]),
            "weights: got nan",
        ),
        (lambda: trained(-spectrum(9, 5), 0.3, pool(), Stopping()), "sources: got dimension 24"),
        (
            lambda: trained(-spectrum(9), 0.3, pool(), Stopping(steps=3, learning_rate=99.0)),
            "largest stable one",
        ),
        (lambda: trained(-spectrum(9), 2.5, pool(), Stopping()), "eta: got 2.5"),
        (
            lambda: trained(-spectrum(9), 0.3, pool(), Stopping()).error(spectrum(1, 5), 9),
            "target: got shape",
        ),
        (lambda: trained(-spectrum(9), 0.3, pool(), Stopping()).averaged(0), "models: got 0"),
        (
            lambda: predict_error(Shift.two_block(20, 10, 0.1, 0.2), 30, 40, time=1.0, finite_size=True),
            "finite_size",
        ),
        (
            lambda: predict_error(Shift.two_block(20, 10, 0.1, 0.2), 30, 40, time=1.0, form="first-order"),
            "form: got first-order",
        ),
    ],
)
def test_bad_input_is_one_clear_line(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("sources", [1, 2])
@pytest.mark.parametrize(
    "way", [Stopping(ridge=1e-9), Stopping(time=1e9), Stopping(steps=10**9, learning_rate=0.01)]
)
def test_rounding_beside_the_data_is_not_magnified(way: Stopping, sources: int) -> None:
    """Dense data that miss directions: long training is what it is with spectra (once -10.98 for .914)."""
    basis, inside = orthogonal(7), np.arange(D) < D // 2
    other = np.where((np.arange(D) >= D // 3) & (np.arange(D) < 2 * D // 3), spectrum(2), 0.0)
    pool_ = [Source(np.where(inside, spectrum(1), 0.0), 20, 40.0), Source(other, 20, 30.0)][:sources]
    V0, target = -2 * spectrum(9), spectrum(7)
    plain = trained(V0, 0.3, pool_, way).error(target, 20)
    moved = trained(rotated(np.diag(V0), basis), 0.3, [turned(s, basis) for s in pool_], way)
    assert moved.error(rotated(np.diag(target), basis), 20) == pytest.approx(plain, rel=1e-7)


def test_tuned_weights_of_dense_data_that_miss_directions() -> None:
    basis = orthogonal(7)
    halves = [
        np.where(np.arange(D) < D // 3, spectrum(1), 0.0),
        np.where(np.arange(D) >= 20, 0.0, spectrum(2)),
    ]
    pool_ = [Source(A, 20, B) for A, B in zip(halves, (120.0, 60.0), strict=True)]
    V0, target = -2 * spectrum(9), spectrum(7)
    plain = EffectiveSources.of(V0, 0.3, pool_)
    moved = EffectiveSources.of(rotated(np.diag(V0), basis), 0.3, [turned(s, basis) for s in pool_])
    tests = WeightedTest.of(target, 20), WeightedTest.of(rotated(np.diag(target), basis), 20)
    for found in (tuned_weights, ceiling, best_equal_weights):
        one, two = (found(s, test).error for s, test in zip((plain, moved), tests, strict=True))
        assert two == pytest.approx(one, rel=1e-6)
        assert two > 0


def test_training_that_leaves_no_digits_is_refused() -> None:
    source = [Source(spectrum(1), 40, 60.0)]
    for way in (Stopping(ridge=1e-200), Stopping(time=1e100)):
        with pytest.raises(InputError, match="leaves digits"):
            trained(-spectrum(9), 0.3, source, way)
    shift = Shift.two_block(40, 20, 0.1, 0.2, 0.01)
    with pytest.raises(InputError, match="leaves digits"):
        predict_error(shift, 40, 60, ridge=1e-28)
    assert np.isfinite(predict_error(shift, 40, 60, ridge=1e-12))
    with pytest.raises(InputError, match="steps: got"):
        Stopping(steps=10**15, learning_rate=0.1)


def test_many_steps_keep_their_digits() -> None:
    source, V0 = [Source(spectrum(1), 40, 60.0)], -2 * spectrum(9)
    flow = trained(V0, 0.3, source, Stopping(time=5.0)).error(spectrum(7), 50)
    for steps in (10**9, 10**12):
        way = Stopping(steps=steps, learning_rate=5.0 / steps)
        assert trained(V0, 0.3, source, way).error(spectrum(7), 50) == pytest.approx(flow, rel=1e-8)


def test_a_common_weight_cancels_at_convergence() -> None:
    V0, sources = -2 * spectrum(9), pool(label=0.5)
    first = trained(V0, 0.3, sources, Stopping(), weights=[1.0, 0.5, 2.0], chain_steps=2)
    again = trained(V0, 0.3, sources, Stopping(), weights=[1e40, 5e39, 2e40], chain_steps=2)
    agree(again, first)


def test_near_the_best_time_where_there_is_none() -> None:
    wide = np.r_[np.ones(10), np.full(10, 3e-5)]
    endless = best_time(
        np.zeros(20), 1.0, [Source(wide, 10**9, 4000)], WeightedTest.of(np.full(20, 3e-5), 10**9)
    )
    assert endless.time is None
    low, high = endless.near(0.01)
    assert 0 < low < np.inf == high
    narrow = np.r_[np.full(10, 0.1), np.ones(10)]
    never = best_time(-np.ones(20), 0.2, [Source(narrow, 30, 2)], WeightedTest.of(np.ones(20), 10**6))
    assert never.time == 0
    low, high = never.near(0.1)
    assert (low, never.at(high)) == (0.0, pytest.approx(1.1 * never.error, rel=1e-3))


def test_the_largest_learning_rate_is_where_descent_is_refused() -> None:
    V0, sources, weights = -2 * spectrum(9), pool(label=0.5), [1.0, 0.5, 2.0]
    rate = largest_learning_rate(sources, 0.3, weights=weights, chain_steps=2)
    trained(V0, 0.3, sources, Stopping(steps=5, learning_rate=0.999 * rate), weights=weights, chain_steps=2)
    with pytest.raises(InputError, match="largest stable one"):
        trained(
            V0, 0.3, sources, Stopping(steps=5, learning_rate=1.001 * rate), weights=weights, chain_steps=2
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trained(-spectrum(9), 0.3, pool(), 5.0), "stoppings: got a float"),  # type: ignore[arg-type]
        (lambda: trained(-spectrum(9), 0.3, pool()[0], Stopping()), "sources: got a Source"),  # type: ignore[arg-type]
        (lambda: best_time(-spectrum(9), 0.3, pool(), spectrum(1)), "test: got a ndarray"),  # type: ignore[arg-type]
        (lambda: trained(-spectrum(9), 0.3, pool(), Stopping(), weights=1.0), "weights: got 1.0"),  # type: ignore[arg-type]
        (lambda: trained(-spectrum(9), 0.3, pool(), Stopping(), weights=[0, 0, 0]), "at least one above 0"),
        (lambda: trained(-spectrum(9), 0.3, pool(), Stopping(), weights=[1e99, 1, 1]), "weights: got"),
    ],
)
def test_what_is_of_another_kind_is_named(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("way", [{"time": 1e-300}, {"time": 5e-324}, {"steps": 3, "learning_rate": 1e-200}])
def test_a_time_that_moves_nothing_leaves_the_model(way: dict[str, Any]) -> None:
    start = -spectrum(9)
    model = trained(start, 0.3, pool(), Stopping(**way))
    np.testing.assert_array_equal(model.mean, start)
    np.testing.assert_array_equal(model.second_moment, start**2)
    assert not model.scatter.any()
