"""Identities of the law of training time, penalty and weights; simulations stand in theory_vs_simulation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from datadose.covariance import dense, identity_like, plus, product, rotated, trace_product
from datadose.prompts import draw_moments
from datadose.shapes import Array
from datadose.shift import Shift
from datadose.theory import (
    PeakError,
    Source,
    Stopping,
    TrainedOperator,
    WeightedTest,
    best_time,
    mixture_error,
    predict_curve,
    predict_error,
    pretrained_operator,
    trained,
    trained_on_shift,
    trained_path,
)
from datadose.theory.edge import largest_eigenvalue
from datadose.theory.equivalent import deterministic_equivalent
from datadose.theory.penalised import Weighted
from datadose.theory.time_search import best_time_curve
from datadose.theory.training_time import Request
from helpers.pools import EXACT, D, agree, orthogonal, pool, spectrum, turned

WAYS = [
    Stopping(time=0.7),
    Stopping(time=60.0),
    Stopping(steps=5, learning_rate=0.4),
    Stopping(steps=90, learning_rate=0.4),
    Stopping(ridge=2.0),
    Stopping(),
]


@pytest.mark.parametrize("chain_steps", [0, 2])
@pytest.mark.parametrize("weights", [None, [1.0, 0.2, 3.0]])
@pytest.mark.parametrize("label", [0.0, 1.5])
def test_a_penalty_agrees_with_the_equivalent_that_is_solved_on_the_reals(
    label: float, weights: list[float] | None, chain_steps: int
) -> None:
    eta, sources, V0 = 0.3, pool(label=label, demonstration=0.8), -2 * spectrum(9)
    target, n = spectrum(7), 50
    found = trained(V0, eta, sources, Stopping(ridge=1.7), weights=weights, chain_steps=chain_steps)
    heavy = [1.0] * 3 if weights is None else weights
    columns = [
        replace(source.columns(eta, chain_steps), weight=w) for source, w in zip(sources, heavy, strict=True)
    ]
    solved = deterministic_equivalent(V0, eta, columns, ridge=1.7)
    np.testing.assert_allclose(found.mean, solved.mean, rtol=EXACT)
    agree(found, solved.trained(TrainedOperator.fixed(V0)))
    form = WeightedTest.of(target, n)
    assert found.error(target, n) == pytest.approx(solved.error(target, form.second_moment), rel=EXACT)


@pytest.mark.parametrize("way", WAYS)
def test_matrices_agree_with_spectra_in_another_basis(way: Stopping) -> None:
    basis, eta, V0 = orthogonal(4), 0.3, -2 * spectrum(9)
    plain, weights = pool(label=0.7, demonstration=0.4), [1.0, 0.3, 0.6]
    start = trained(V0, eta, plain[:1], Stopping(time=3.0))
    first = trained(start, eta, plain, way, weights=weights, chain_steps=1)
    again = trained(
        start.mapped(lambda M: rotated(dense(M), basis)),
        eta,
        [turned(s, basis) for s in plain],
        way,
        weights=weights,
        chain_steps=1,
    )
    agree(again.mapped(lambda M: rotated(M, basis.T)), first, 1e-8)


@pytest.mark.parametrize("way", WAYS)
def test_one_dense_source_is_solved_in_its_own_basis(way: Stopping) -> None:
    basis, V0 = orthogonal(5), -2 * spectrum(9)
    source = pool()[1]
    beside = Source(spectrum(2), 30, 1e-12)
    alone = trained(dense(V0), 0.3, [turned(source, basis)], way)
    # A second source without weight to speak of takes the way of several matrices.
    both = trained(dense(V0), 0.3, [turned(source, basis), turned(beside, orthogonal(6))], way)
    agree(both, alone, 1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_equal_rows_may_be_counted_as_one_source_or_two(way: Stopping) -> None:
    whole, V0 = Source(spectrum(1), 40, 30.0, 0.5, 0.3), -2 * spectrum(9)
    parts = [replace(whole, prompts=11.0), replace(whole, prompts=19.0)]
    agree(trained(V0, 0.3, parts, way, chain_steps=1), trained(V0, 0.3, [whole], way, chain_steps=1), 1e-9)


def test_a_common_weight_is_a_unit_of_time_and_penalty() -> None:
    V0, sources = -2 * spectrum(9), pool(label=0.5)
    doubled = [2.0, 0.5, 6.0]
    single = [1.0, 0.25, 3.0]
    for first, second in (
        (Stopping(time=4.0), Stopping(time=8.0)),
        (Stopping(ridge=4.0), Stopping(ridge=2.0)),
        (Stopping(steps=40, learning_rate=0.05), Stopping(steps=40, learning_rate=0.1)),
    ):
        agree(
            trained(V0, 0.3, sources, first, weights=doubled, chain_steps=2),
            trained(V0, 0.3, sources, second, weights=single, chain_steps=2),
        )


@pytest.mark.parametrize("way", WAYS)
def test_a_source_of_weight_zero_is_left_out_and_not_counted(way: Stopping) -> None:
    V0, sources = -2 * spectrum(9), pool()
    agree(
        trained(V0, 0.3, sources, way, weights=[1.0, 0.0, 2.0]),
        trained(V0, 0.3, [sources[0], sources[2]], way, weights=[1.0, 2.0]),
    )


@pytest.mark.parametrize("scale", [1e-40, 1e-3, 1e5, 1e60])
@pytest.mark.parametrize(
    "way", [Stopping(time=5.0), Stopping(steps=30, learning_rate=0.3), Stopping(ridge=2.0)]
)
def test_the_unit_of_the_covariances_does_not_matter(way: Stopping, scale: float) -> None:
    """A -> s A, V0 -> V0 / s leaves the error of the same time in units of 1 / s^2."""
    sources, V0, target = pool(), -2 * spectrum(9), spectrum(7)
    plain = trained(V0, 0.3, sources, way).error(target, 50)
    moved = Stopping(
        time=None if way.time is None else way.time / scale**2,
        steps=way.steps,
        learning_rate=None if way.learning_rate is None else way.learning_rate / scale**2,
        ridge=None if way.ridge is None else way.ridge * scale**2,
    )
    scaled = [replace(s, covariance=scale * np.asarray(s.covariance)) for s in sources]
    assert trained(V0 / scale, 0.3, scaled, moved).error(scale * target, 50) == pytest.approx(plain, rel=1e-8)


@pytest.mark.parametrize("prompts", [10.0, 70.0])
def test_the_ends_of_the_path(prompts: float) -> None:
    V0 = -2 * spectrum(9)
    source = [Source(spectrum(1), 40, prompts)]
    untouched, early, late, tiny, ended = trained_path(
        V0,
        0.3,
        source,
        [Stopping(time=0.0), Stopping(time=1e-9), Stopping(time=1e9), Stopping(ridge=1e-9), Stopping()],
    )
    agree(untouched, TrainedOperator.fixed(V0))
    agree(TrainedOperator(early.mean, early.second_moment, untouched.scatter), untouched, 1e-7)
    agree(late, ended, 1e-6)
    agree(tiny, ended, 1e-6)
    assert ended.error(spectrum(7), 50) == pytest.approx(
        mixture_error(V0, 0.3, source, spectrum(7), 50), rel=1e-12
    )


def test_many_small_steps_are_a_time() -> None:
    V0, source = -2 * spectrum(9), [Source(spectrum(1), 40, 30.0)]
    weight = 1 + 0.7**2
    flow = trained(V0, 0.3, source, Stopping(time=6.0), chain_steps=1).error(spectrum(7), 50)
    gaps = [
        abs(
            trained(
                V0, 0.3, source, Stopping(steps=T, learning_rate=6.0 / (T * weight)), chain_steps=1
            ).error(spectrum(7), 50)
            - flow
        )
        for T in (100, 200, 400)
    ]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("way", WAYS)
def test_a_stage_leaves_a_covariance_that_is_positive(way: Stopping) -> None:
    start = trained(np.zeros(D), 1.0, [Source(spectrum(8), 30, 50.0)], Stopping(ridge=1.0))
    after = trained(start, 0.3, pool(label=1.0, demonstration=1.0), way, chain_steps=2)
    assert (after.second_moment - after.mean**2 >= -1e-12 * after.second_moment).all()
    assert (after.scatter > 0).all()
    assert after.variance(spectrum(7), 50) < after.error(spectrum(7), 50)


@pytest.mark.parametrize("way", WAYS)
def test_a_random_start_with_no_spread_is_a_fixed_one(way: Stopping) -> None:
    V0 = orthogonal(3)
    sources = pool()
    fixed = trained(V0, 0.3, sources, way)
    agree(trained(TrainedOperator.fixed(V0), 0.3, sources, way), fixed)


@pytest.mark.parametrize("way", WAYS)
def test_a_mixture_of_starts_gives_the_mixture_of_results(way: Stopping) -> None:
    """Every stage is linear in (E[V], E[V^T V]) together: V0 = X or Y with probability one half."""
    X, Y, sources = -2 * spectrum(9), -spectrum(10), pool()
    mixed = TrainedOperator((X + Y) / 2, (X**2 + Y**2) / 2, np.zeros(D))
    first, second = (trained(V0, 0.3, sources, way) for V0 in (X, Y))
    found = trained(mixed, 0.3, sources, way)
    np.testing.assert_allclose(found.mean, (first.mean + second.mean) / 2, rtol=1e-9)
    np.testing.assert_allclose(
        found.second_moment, (first.second_moment + second.second_moment) / 2, rtol=1e-8
    )


@pytest.mark.parametrize("basis", [None, orthogonal(4)], ids=["spectra", "matrices"])
@pytest.mark.parametrize("way", WAYS[:5])
def test_directions_of_the_answer_are_fitted_by_themselves(way: Stopping, basis: Array | None) -> None:
    """The moments of P V and of (I - P) V add up to those of V, from a random start, with every noise."""
    sources, P = pool(label=0.7, demonstration=0.4), np.where(np.arange(D) < D // 3, 1.0, 0.0)
    if basis is not None:
        sources, P = [turned(s, basis) for s in sources], rotated(P, basis)
    V0 = (-2 * np.eye(D) + 0.3 * np.random.default_rng(1).standard_normal((D, D))) / 2
    whole = Request.of(0.3, sources, [1.0, 0.3, 0.6], 1)
    first = Request.of(0.3, sources[:1], None, 1)
    parts = []
    for Q in (P, identity_like(P) - P):
        (start,) = first.fit(TrainedOperator.fixed(product(Q, V0)), Q).ends([Stopping(time=3.0)])
        parts.append(whole.fit(start, Q).ends([way])[0])
    (start,) = first.fit(V0).ends([Stopping(time=3.0)])
    (found,) = whole.fit(start).ends([way])
    mean, second, scatter = (
        plus(getattr(parts[0], name), getattr(parts[1], name))
        for name in ("mean", "second_moment", "scatter")
    )
    agree(TrainedOperator(mean, second, scatter), found, 1e-8)


@pytest.mark.parametrize("noise", [0.0, 0.8])
def test_the_variance_of_some_directions_is_that_of_the_equivalent(noise: float) -> None:
    eta, sources, V0 = 0.3, pool(label=noise, demonstration=noise), -2 * spectrum(9)
    rows, M = np.where(np.arange(D) % 3 == 0, 1.0, 0.0), spectrum(7)
    columns = [source.columns(eta, 2) for source in sources]
    solved = deterministic_equivalent(V0, eta, columns, ridge=1.7)
    fit = Request.of(eta, sources, None, 2).fit(TrainedOperator.fixed(rows * V0), rows)
    (found,) = fit.ends([Stopping(ridge=1.7)])
    assert trace_product(found.covariance, M) == pytest.approx(solved.variance(M, rows), rel=EXACT)


def test_averaging_models_divides_the_variance_alone() -> None:
    model = trained(-2 * spectrum(9), 0.3, pool(), Stopping(time=9.0))
    four = model.averaged(4)
    target, n = spectrum(7), 50
    assert four.variance(target, n) == pytest.approx(model.variance(target, n) / 4, rel=1e-12)
    mean = model.error(target, n) - model.variance(target, n)
    assert four.error(target, n) == pytest.approx(mean + model.variance(target, n) / 4, rel=1e-12)
    assert model.averaged(1).error(target, n) == pytest.approx(model.error(target, n), rel=1e-12)


def test_the_edge_is_where_df2_is_the_number_of_prompts() -> None:
    """One source: x(mu) = mu (B - df1(mu)) with mu below minus the largest C is least in x where df2 = B."""
    for B in (5.0, 24.0, 300.0):
        columns = Source(spectrum(1), 40, B).columns(0.3, 0)
        C = np.asarray(columns.second_moment)
        shift = -C.max() * (1 + np.geomspace(1e-4, 1e4, 200_001))
        x = -shift * (B - (C / (C + shift[:, None])).sum(axis=1)) if B == 24.0 else None
        edge = largest_eigenvalue(Weighted.of([columns]))
        mu = _stationary(C, B)
        assert edge == pytest.approx(-mu * (B - (C / (C + mu)).sum()), rel=1e-6)
        if x is not None:
            assert edge == pytest.approx(x.min(), rel=1e-4)


def _stationary(C: Array, B: float) -> float:
    """mu < -max C with df2(mu) = B, by bisection."""
    low, high = np.log(1e-12), np.log(1e12)
    for _ in range(200):
        middle = (low + high) / 2
        mu = -C.max() * (1 + np.exp(middle))
        low, high = (low, middle) if ((C / (C + mu)) ** 2).sum() < B else (middle, high)
    return float(-C.max() * (1 + np.exp(middle)))


def test_finite_matrices_end_at_the_edge() -> None:
    """The largest eigenvalue lies within 6 percent of the edge at d = 200 (d^(-2/3) = .03)."""
    d, B, w = 200, 150, 0.4
    A, A2 = spectrum(1, d), 0.3 * spectrum(2, d)
    sources = [Source(A, 300, B), Source(A2, 300, 2 * B)]
    columns = [replace(s.columns(0.3, 0), weight=x) for s, x in zip(sources, (w, 1.0), strict=True)]
    edge = largest_eigenvalue(Weighted.of(columns))
    for seed in range(3):
        phi = np.hstack(
            [
                np.sqrt(x) * draw_moments(s.covariance, s.length, int(s.prompts), seed=(seed, i)).phi
                for i, (s, x) in enumerate(zip(sources, (w, 1.0), strict=True))
            ]
        )
        assert np.linalg.norm(phi, 2) ** 2 == pytest.approx(edge, rel=0.06)


def test_labels_with_noise_at_a_tiny_eta_still_give_a_number() -> None:
    model = trained(
        -spectrum(9), 1e-6, [Source(spectrum(1), 40, 30.0, 1.0)], Stopping(time=50.0), chain_steps=3
    )
    assert np.isfinite(model.error(spectrum(7), 40))


def test_prediction_functions_take_the_same_ways() -> None:
    shift = Shift.two_block(60, 30, 0.1, 0.2, 0.05)
    for given in ({"time": 20.0}, {"steps": 30, "learning_rate": 0.5}, {"ridge": 3.0}):
        model = trained_on_shift(shift, 80, 120, Stopping(**given))  # type: ignore[arg-type]
        keywords: dict[str, Any] = given
        error = predict_error(shift, 80, 120, **keywords)
        assert error == pytest.approx(model.error(shift.target, 120), rel=1e-12)
        assert predict_curve(shift, [0, 80], 120, **keywords)[1] == pytest.approx(error, rel=1e-12)
        V0, source = pretrained_operator(shift.sigma0, 120), Source(shift.data, 120, 80)
        mixed = mixture_error(V0, 0.2, [source], shift.target, 120, weights=[1.0], **keywords)
        assert mixed == pytest.approx(error, rel=1e-12)
    # With a penalty or a time above 0 the mean is finite at the peak and for short prompts too.
    assert np.isfinite(predict_error(shift, 60, 120, time=5.0))
    assert np.isfinite(predict_error(shift, 20, 2, ridge=0.1))


def test_a_converged_stage_at_the_peak_is_refused() -> None:
    with pytest.raises(PeakError):
        trained(-spectrum(9), 0.3, [Source(spectrum(1), 40, float(D))], Stopping())


def test_the_best_time_and_its_range() -> None:
    shift = Shift.two_block(60, 30, 0.1, 0.2, 0.01)
    V0, source = pretrained_operator(shift.sigma0, 180), Source(shift.data, 180, 600)
    test = WeightedTest.of(shift.target, 180)
    best = best_time(V0, 0.2, [source], test)
    assert best.time is not None
    times = best.time * np.array([0.5, 0.9, 1.0, 1.1, 2.0])
    errors = [trained(V0, 0.2, [source], Stopping(time=t)).error(shift.target, 180) for t in times]
    assert min(errors) == pytest.approx(best.error, rel=1e-4)
    low, high = best.near(0.05)
    for end in (low, high):
        at = trained(V0, 0.2, [source], Stopping(time=end)).error(shift.target, 180)
        assert at == pytest.approx(1.05 * best.error, rel=1e-3)


@pytest.mark.parametrize(
    ("shift", "n"),
    [
        (Shift.two_block(60, 30, 0.1, 0.2, 0.01), 180),
        (Shift.two_block(60, 20, 0.5, 1.0, 0.0), 30),
        (Shift.two_block(60, 60, 0.02, 0.2, 0.2), 400),
        (Shift(spectrum(1), spectrum(2), spectrum(3), 0.3), 50),
    ],
)
def test_the_errors_at_the_best_times_of_many_numbers_of_prompts(shift: Shift, n: int) -> None:
    """Within 1e-3 of a search on a fine grid; 0 prompts leave the model as it is, at a peak too."""
    V0, test, d = pretrained_operator(shift.sigma0, n), WeightedTest.of(shift.target, n), shift.dimension
    counts = [0, 3, d / 3, d, 3 * d, 1000 * d]
    found = best_time_curve(V0, shift.eta, Source(shift.data, n, 1), test, counts)
    fine = [best_time(V0, shift.eta, [Source(shift.data, n, B)], test, per_decade=20).error for B in counts]
    np.testing.assert_allclose(found, fine, rtol=1e-3)
    assert found[0] == pytest.approx(predict_error(shift, 0, n))


def test_a_best_time_may_be_never_or_without_end() -> None:
    shift = Shift.two_block(60, 30, 0.1, 0.2, 0.01)
    V0, n = pretrained_operator(shift.sigma0, 180), 180
    never = best_time(V0, 0.2, [Source(shift.data, n, 30)], WeightedTest.of(shift.sigma0, n))
    assert (never.time, never.reason) == (0.0, "training raises the error from the start")
    # Outcome supervision on unlimited prompts of the target has nothing to lose.
    ended = best_time(V0, 1.0, [Source(shift.target, n, 1e9)], WeightedTest.of(shift.target, n))
    assert ended.time is None
    assert ended.error == pytest.approx(ended.model.error(shift.target, n))
    nothing = best_time(V0, 0.2, [Source(shift.data, n, 0)], WeightedTest.of(shift.target, n))
    assert nothing.time == 0.0
