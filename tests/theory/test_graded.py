"""Dense sources of mixed rank: one is fitted to the last digit, another hardly at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datadose.shapes import Array
from datadose.theory import Source, Stopping, TrainedOperator, trained
from datadose.theory.effective_weights import EffectiveSources
from datadose.theory.equal_weights import effective_weights
from datadose.theory.equivalent import deterministic_equivalent
from datadose.theory.graded import graded, graded_inverse, order_of
from datadose.theory.tuned_weights import ceiling, tuned_weights
from helpers.two_kinds import ETA, START, TARGET, D, N


def covariance(rank: int, seed: int) -> Array:
    X = np.random.default_rng(seed).standard_normal((D, rank))
    return np.asarray(X @ X.T / rank)


MANY_ON_HALF = Source(covariance(D // 2, 1), N, 10 * D)
FEW_EVERYWHERE = Source(covariance(2 * D, 2), N, 2)
MANY_ON_THIRD = Source(covariance(D // 3, 3), N, 5 * D)
POOLS = {
    "half": [MANY_ON_HALF, FEW_EVERYWHERE],
    "half last": [FEW_EVERYWHERE, MANY_ON_HALF],
    "half and third": [FEW_EVERYWHERE, MANY_ON_HALF, MANY_ON_THIRD],
    "everything misses directions": [MANY_ON_THIRD, replace(MANY_ON_HALF, prompts=2.0)],
}
pools = pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)


@pools
@pytest.mark.parametrize("ridge", [1.0, 1e-3, 1e-5, 1e-9, 1e-14])
def test_small_penalties_are_those_of_the_penalised_equivalent(pool: list[Source], ridge: float) -> None:
    """Which works with roots and QR factorisations: a way of its own."""
    columns = [source.columns(ETA, 0) for source in pool]
    expected = deterministic_equivalent(START, ETA, [c.dense() for c in columns], ridge=ridge)
    error = expected.error(TARGET.target, TARGET.second_moment)
    assert TARGET.error(trained(START, ETA, pool, Stopping(ridge=ridge))) == pytest.approx(error, rel=1e-8)
    found = EffectiveSources.of(START, ETA, pool)
    model = found.at(effective_weights(found, ridge))
    assert model.error(TARGET) == pytest.approx(error, rel=1e-8)
    assert TARGET.error(model.trained) == pytest.approx(error, rel=1e-8)


@pools
def test_small_penalties_and_long_times_end_in_convergence(pool: list[Source]) -> None:
    end = TARGET.error(trained(START, ETA, pool, Stopping()))
    for late in (Stopping(ridge=1e-9), Stopping(ridge=1e-14), Stopping(time=1e10), Stopping(time=1e14)):
        assert TARGET.error(trained(START, ETA, pool, late)) == pytest.approx(end, rel=1e-8)


def test_weights_far_apart_are_those_of_the_explicit_form() -> None:
    """Three scales of weights, a random start, and noise: two forms that share the basis alone."""
    pool = [replace(source, demonstration_noise=0.3) for source in POOLS["half and third"]]
    start = replace(TrainedOperator.fixed(START), second_moment=START**2 + 0.2)
    weights = np.array([1e-8, 1e-3, 1.0])
    found = EffectiveSources.of(start, ETA, pool)
    model = found.at(effective_weights(found, 1e-7, weights))
    expected = trained(start, ETA, pool, Stopping(ridge=1e-7), weights=weights)
    assert model.error(TARGET) == pytest.approx(TARGET.error(expected), rel=1e-8)
    assert model.penalties[0] == pytest.approx(10.0, rel=1e-7)


def test_slopes_keep_their_digits_where_an_effective_weight_is_large() -> None:
    found = EffectiveSources.of(START, ETA, POOLS["half"])
    rho = np.array([1e10, 0.1])
    slope, step = found.at(rho).gradient(TARGET).weights[1], 1e-4
    more, less = (found.at(rho + np.array([0, x])).error(TARGET) for x in (step, -step))
    assert slope == pytest.approx((more - less) / (2 * step), rel=1e-5)


@pools
def test_tuned_weights_of_mixed_ranks_are_no_worse_than_equal_ones(pool: list[Source]) -> None:
    found = EffectiveSources.of(START, ETA, pool)
    tuned = tuned_weights(found, TARGET)
    equal = [TARGET.error(trained(START, ETA, pool, Stopping(ridge=x))) for x in np.geomspace(1e-9, 1e3, 13)]
    assert 0 < ceiling(found, TARGET).error <= tuned.error <= min(equal)
    if tuned.ridge > 0:
        model = trained(START, ETA, pool, Stopping(ridge=tuned.ridge), weights=tuned.weights)
        assert TARGET.error(model) == pytest.approx(tuned.error, rel=1e-7)


def test_a_search_from_near_by_ends_where_the_several_do() -> None:
    found = EffectiveSources.of(START, ETA, [replace(s, prompts=40.0) for s in POOLS["half and third"]])
    more = EffectiveSources.of(START, ETA, [replace(s, prompts=44.0) for s in POOLS["half and third"]])
    near = tuned_weights(found, TARGET).effective_weights
    searched, followed = tuned_weights(more, TARGET), tuned_weights(more, TARGET, near)
    assert followed.error == pytest.approx(searched.error, rel=1e-9)
    np.testing.assert_allclose(followed.values, searched.values, rtol=1e-3, atol=1e-9)


def test_sources_fill_one_block_after_another() -> None:
    columns = [source.columns(ETA, 0) for source in POOLS["half and third"]]
    order = order_of(columns, np.array([1.0, 1e5, 1e12]))
    assert order == (2, 1, 0)
    turned, basis = graded(columns, order)
    np.testing.assert_allclose(basis.T @ basis, np.eye(D), atol=1e-12)
    ends = (D, D // 2 + D // 3, D // 3)
    for c, before, end in zip(turned, columns, ends, strict=True):
        assert not c.second_moment[end:].any()
        assert np.linalg.matrix_rank(c.second_moment) == np.linalg.matrix_rank(before.second_moment)
        np.testing.assert_allclose(basis @ c.cross @ basis.T, before.cross, atol=1e-12)
    assert order_of(columns, np.array([1.0, 2.0, 3.0])) == (0, 1, 2)


def test_rows_of_any_size_are_inverted_to_rounding() -> None:
    size, inner = np.geomspace(1e10, 1, D), np.eye(D) + covariance(2 * D, 4)
    expected = np.linalg.inv(inner) / size[:, None] / size
    np.testing.assert_allclose(graded_inverse(inner * size[:, None] * size), expected, rtol=1e-11, atol=0)
