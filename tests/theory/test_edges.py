"""The exact theory at its edges: scales, ranges far apart, infinite means, no data; all deterministic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datadose import Shift, predict_curve, predict_error
from datadose.covariance import wishart_second_moment
from datadose.errors import InputError
from datadose.planner import ErrorModel
from datadose.simulation.mixtures import simulate_mixture_error
from datadose.theory import (
    PeakError,
    Source,
    first_order_error,
    first_order_limits,
    hardness,
    mixture_equivalent,
    mixture_error,
    population_minimiser,
    post_test_error,
    pretrained_operator,
)
from datadose.theory.sensitivity import sensitivity

RNG = np.random.default_rng(0)
D = 30
SIGMA0, DELTA, DATA, OTHER = RNG.uniform(0.1, 1.0, (4, D))
TURN = np.linalg.qr(RNG.standard_normal((D, D)))[0]


def turned(spectrum: np.ndarray, turn: np.ndarray = TURN) -> np.ndarray:
    return (turn * spectrum) @ turn.T


@pytest.mark.parametrize("form", ["spectra", "dense"])
@pytest.mark.parametrize("scale", [1e-75, 1e-8, 1e8, 1e75])
def test_a_common_scale_of_all_covariances_changes_no_error(scale: float, form: str) -> None:
    """V0 scales inversely with it. Rounding: relative 1e-11."""

    def everything(s: float) -> list[float]:
        make = turned if form == "dense" else np.asarray
        shift = Shift(s * make(SIGMA0), s * make(DELTA), s * make(DATA), 0.3)
        found = [
            predict_error(shift, B, 45, form=name, finite_size=corrected)
            for B in (10, 45)
            for name, corrected in (("exact", False), ("exact", True), ("first-order", False))
        ]
        V0 = pretrained_operator(shift.sigma0, 45)
        M = wishart_second_moment(shift.target, 45)
        for first, second in ((5, 4), (30, 30), (5, 15)):
            sources = [Source(s * make(DATA), 45, first), Source(s * make(OTHER), 30, second, 0.5 * s, 0.1)]
            found.append(mixture_error(V0, 0.3, sources, shift.target, 45, chain_steps=2))
            slopes = sensitivity(mixture_equivalent(V0, 0.3, sources, chain_steps=2), shift.target, M)
            found += [*slopes.counts, slopes.eta, s**2 * slopes.second_moments[0].flat[0]]
            found.append(s * slopes.crosses[1].flat[0])
        return [*found, *predict_curve(shift, [0, 10, 45], 45), *first_order_limits(shift, 45)]

    np.testing.assert_allclose(everything(scale), everything(1.0), rtol=1e-10)


@pytest.mark.parametrize("s", [1e-8, 1e-5, 1e-4, 1.0, 1e8])
@pytest.mark.parametrize("counts", [(90, 30), (30, 90), (90, 80), (20, 30)])
def test_two_white_halves_of_any_scales(s: float, counts: tuple[int, int]) -> None:
    """Sources on disjoint halves do not meet: each fits its own half like one source alone on it."""
    d, half = 120, np.arange(120) < 60
    ones = np.ones(d)
    sources = [Source(half * 1.0, d, counts[0]), Source(~half * s, d, counts[1])]
    alone = [mixture_error(-ones, 0.2, [source], ones, d) for source in sources]
    both = mixture_error(-ones, 0.2, sources, ones, d)
    untouched = post_test_error(-ones, ones, d)
    assert both == pytest.approx(sum(alone) - untouched, rel=1e-9)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((d, d)))[0]
    dense = [replace(source, covariance=turned(source.covariance, turn)) for source in sources]
    assert mixture_error(-np.eye(d), 0.2, dense, np.eye(d), d) == pytest.approx(both, rel=1e-9)


@pytest.mark.parametrize("condition", [1e4, 1e7, 1e9])
def test_ill_conditioned_matrices_have_the_errors_of_their_spectra(condition: float) -> None:
    """One source, the same in two parts, and two sources of unequal lengths; above and below the peak.

    A matrix holds its smallest eigenvalue to eps * condition: that, times ten, is allowed.
    """
    values = np.geomspace(1, 1 / condition, D)
    allowed = max(1e-9, 10 * D * np.finfo(float).eps * condition)
    A = turned(values)
    A = (A + A.T) / 2
    for B in (20, 32, 60):
        spectral = Shift(np.ones(D), np.ones(D), values, 0.2)
        expected = predict_error(spectral, B, D)
        assert predict_error(Shift(np.eye(D), np.eye(D), A, 0.2), B, D) == pytest.approx(
            expected, rel=allowed
        )
        V0 = pretrained_operator(spectral.sigma0, D)
        parts = [Source(A, D, 0.25 * B), Source(A, D, 0.75 * B)]
        found = mixture_error(np.diag(V0), 0.2, parts, 2 * np.eye(D), D)
        assert found == pytest.approx(expected, rel=allowed)
        lengths = [(Source(X, D, B / 2), Source(X, 2 * D, B / 2)) for X in (values, A)]
        pair = [
            mixture_error(V, 0.2, both, 2 * one, D)
            for V, both, one in zip((V0, np.diag(V0)), lengths, (np.ones(D), np.eye(D)), strict=True)
        ]
        assert pair[1] == pytest.approx(pair[0], rel=allowed)


def test_directions_that_the_rank_counts_are_never_dropped() -> None:
    """Long prompts square the eigenvalues of A: 1e-8 of the largest is 1e-16 in C, and still counts."""
    values = np.logspace(0, -8, 40)
    ones = np.ones(40)
    shift = Shift(ones, ones, values, 0.2)
    assert shift.data_rank == 40
    # Above the peak, from the closed form (20): V = -eta A / C, residual eta^2 tr(I - A C^{-1} A).
    n, B = 4000, 60
    C = (1 + 1 / n) * values**2 + values.sum() / n * values
    V, M = -0.2 * values / C, wishart_second_moment(2 * ones, n)
    variance = (M / C).sum() / (B - 40) * 0.04 * (1 - values**2 / C).sum()
    expected = 1 + (2 * (V * 2).sum() + (V**2 * M).sum() + variance) / 40
    assert expected > 1e9
    assert predict_error(shift, B, n) == pytest.approx(expected, rel=1e-9)
    dense = Shift(np.eye(40), np.eye(40), np.diag(values), 0.2)
    assert predict_error(dense, B, n) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("r", [1e-3, 2e-6, 1e-9])
def test_the_first_order_limit_is_exact_at_any_interference(r: float) -> None:
    """eta^2 mu2 (1 + gamma Sbar) / r^2 to leading order; V = -eta/a on every direction exactly."""
    shift = Shift.two_block(600, 300, 0.1, 0.2, r)
    V = -0.2 / shift.data
    expected = ((1 + V * shift.target) ** 2).mean() + shift.target.sum() / 1000 * (V**2 * shift.target).mean()
    assert first_order_limits(shift, 1000)[1] == pytest.approx(expected, rel=1e-12)
    assert expected * r**2 == pytest.approx(0.04 * 0.5 * (1 + 0.6 * 1.05), rel=0.02)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_where_the_mean_is_infinite(n: int) -> None:
    """Within one prompt of the rank and not at B = 0; and from 1 to the rank for one or two examples."""
    shift = Shift.two_block(60, 30, 0.1, 0.2, 0.1)
    counts = np.array([0, 0.5, 1, 30, 58, 58.9, 59, 60, 61, 61.1, 100])
    infinite = (np.abs(counts - 60) <= 1) | ((n <= 2) & (counts >= 1) & (counts <= 60))
    np.testing.assert_array_equal(np.isinf(predict_curve(shift, counts, n)), infinite)
    V0 = pretrained_operator(shift.sigma0, n)
    model = ErrorModel(V0, 0.2, shift.target, n)
    column = model.columns(Source(shift.data, n, 1))
    for B, no_mean in zip(counts, infinite, strict=True):
        assert np.isinf(model.error([column], [B])) == no_mean
        for finite_size in (False, True):
            if no_mean:
                with pytest.raises(PeakError, match="prompts"):
                    predict_error(shift, B, n, finite_size=finite_size)
                with pytest.raises(PeakError, match="prompts"):
                    mixture_error(
                        V0, 0.2, [Source(shift.data, n, B)], shift.target, n, finite_size=finite_size
                    )
            else:
                assert predict_error(shift, B, n, finite_size=finite_size) > 0


def test_without_prompts_the_mean_is_finite_whatever_the_rank() -> None:
    shift = Shift(np.ones(2), np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0.2)
    assert shift.data_rank == 1
    expected = post_test_error(pretrained_operator(shift.sigma0, 10), shift.target, 10)
    assert predict_error(shift, 0, 10) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(np.isinf(predict_curve(shift, [0, 0.5, 1, 2, 2.1], 10)), [0, 1, 1, 1, 0])


def test_a_source_of_the_shortest_prompts_spoils_a_mixture_where_it_is_interpolated() -> None:
    first, second = np.where(np.arange(D) < 10, 1.0, 0.0), np.ones(D)
    for counts, infinite in (((20, 5), False), ((5, 5), True), ((20, 50), False)):
        sources = [Source(first, 2, counts[0]), Source(second, 40, counts[1])]
        solved = mixture_equivalent(-second, 0.2, sources)
        assert (solved.infinite_because is not None) == infinite


@pytest.mark.parametrize("finite_size", [False, True])
def test_any_source_near_its_own_rank_is_a_peak(finite_size: bool) -> None:
    thin = np.where(np.arange(40) < 20, 1.0, 0.0)
    sources = [Source(thin, 40, 19.5), Source(np.ones(40), 40, 10)]
    with pytest.raises(PeakError, match="of some sources"):
        mixture_error(-np.ones(40), 0.2, sources, np.ones(40), 40, finite_size=finite_size)


@pytest.mark.usefixtures("any_shape")
@pytest.mark.parametrize(
    "V0",
    [-np.ones((D, 1)), np.full(D, np.nan), -np.ones(D - 1), [-1.0] * D, None, np.array(["a"] * D)],
    ids=["column", "nan", "size", "list", "nothing", "words"],
)
def test_an_operator_that_is_none_is_named(V0: object) -> None:
    source, ones = Source(np.ones(D), 20, 5), np.ones(D)
    calls = {
        "V0": [
            lambda: mixture_error(V0, 0.2, [source], ones, 20),  # type: ignore[arg-type]
            lambda: mixture_equivalent(V0, 0.2, [source]),  # type: ignore[arg-type]
            lambda: first_order_error(V0, 0.2, source, ones, 20),  # type: ignore[arg-type]
            lambda: population_minimiser(ones, 20, 0.2, V0),  # type: ignore[arg-type]
            lambda: simulate_mixture_error(V0, 0.2, [source], ones, 20, seeds=1),  # type: ignore[arg-type]
            lambda: ErrorModel(V0, 0.2, ones, 20),  # type: ignore[arg-type]
        ],
        "V": [lambda: post_test_error(V0, ones, 20), lambda: hardness(ones, V0)],  # type: ignore[arg-type]
    }
    for field, some in calls.items():
        for call in some:
            with pytest.raises(InputError, match=f"^{field}: got"):
                call()


@pytest.mark.parametrize("form", ["spectra", "dense"])
def test_data_without_variance_leave_the_pretrained_model(form: str) -> None:
    one, nothing = (np.ones(D), np.zeros(D)) if form == "spectra" else (np.eye(D), np.zeros((D, D)))
    shift = Shift(one, one, nothing, 0.2)
    V0 = pretrained_operator(one, 20)
    expected = post_test_error(V0, 2 * one, 20)
    for B in (0, 1, 5, 50):
        for finite_size in (False, True):
            assert predict_error(shift, B, 20, finite_size=finite_size) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(predict_curve(shift, [0, 1, 5], 20), expected, rtol=1e-12)
    sources = [Source(nothing, 20, 5, 1.0, 0.3), Source(nothing, 20, 9)]
    assert mixture_error(V0, 0.2, sources, 2 * one, 20, chain_steps=1) == pytest.approx(expected, rel=1e-12)
    before, after = first_order_limits(shift, 20)
    assert before == after == pytest.approx(predict_error(shift, 5, 20, form="first-order"), rel=1e-12)


@pytest.mark.parametrize("eta", [0.1, 1e-3, 1e-5])
def test_noisy_labels_at_small_steps(eta: float) -> None:
    """White data, k = 1, B on both sides of r / 2 and of r: the pair's equations hold for theta and G."""
    ones = np.ones(20)
    for B in (5, 15, 30):
        solved = mixture_equivalent(-ones, eta, [Source(0.3 * ones, 40, B, 1.0)], chain_steps=1)
        theta = np.array([(F * X).sum() for F, X in zip(solved.features.roots, solved.reach, strict=True)])
        if B == 5:
            np.testing.assert_allclose(solved.weights * theta, B, rtol=1e-12)
            continue
        # With O = [[1 + rho^2, 1 + rho], [1 + rho, 2]] / (1 + rho^2): G = O - O (Theta^{-1} + O)^{-1} O.
        rho = 1 - eta
        weights = np.array([[1 + rho**2, 1 + rho], [1 + rho, 2]]) / (1 + rho**2)
        G = weights - weights @ np.linalg.solve(np.diag(1 / theta) + weights, weights)
        np.testing.assert_allclose(solved.gain, G, rtol=1e-6, atol=1e-14)
        np.testing.assert_allclose(solved.weights, B * solved.gain.diagonal(), rtol=1e-12)


def test_pools_whose_ranges_overlap_and_labels_are_noisy() -> None:
    """Every count of two flat sources that share four directions has an error or is a peak."""
    first = np.where(np.arange(20) < 10, 1.0, 0.0)
    second = np.where((np.arange(20) >= 6) & (np.arange(20) < 18), 1.0, 0.0)
    ones = np.ones(20)
    found = []
    for a in range(0, 25, 3):
        for b in range(0, 25, 3):
            sources = [Source(first, 40, a, 1.0), Source(second, 40, b)]
            try:
                found.append(mixture_error(-ones, 0.1, sources, ones, 40, chain_steps=1))
            except PeakError:
                continue
    assert len(found) > 40
    assert all(0 < error < np.inf for error in found)
