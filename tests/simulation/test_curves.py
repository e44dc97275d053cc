"""The nested curve equals the definition at every number of prompts, across the peak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datadose import Shift, sft_error_curve, simulate_error
from datadose.errors import InputError
from datadose.prompts import Moments, draw_moments, draw_prompts
from datadose.simulation.curves import error_curve
from datadose.theory import post_test_error, pretrained_operator
from helpers.literal import literal_sft_minimiser, random_psd


def by_definition(moments: Moments, B: int, shift: Shift, n: int) -> tuple[float, float]:
    """Err(V*) / d from an SVD pseudo-inverse, and the condition number of Phi on range(A)."""
    V0 = pretrained_operator(shift.sigma0, n)
    V0 = np.diag(V0) if V0.ndim == 1 else V0
    if B == 0:
        return post_test_error(V0, shift.target, n), 1.0
    phi, w = moments.phi[:, :B], moments.weights[:, :B]
    left, singular, right = np.linalg.svd(phi, full_matrices=False)
    keep = min(B, shift.data_rank)
    pinv = (right[:keep].T / singular[:keep]) @ left[:, :keep].T
    V = -shift.eta * w @ pinv + V0 @ (np.eye(len(phi)) - phi @ pinv)
    return post_test_error(V, shift.target, n), singular[0] / singular[keep - 1]


@settings(max_examples=40, deadline=None)
@given(
    dimension=st.integers(2, 40),
    share=st.floats(0.1, 1.0),
    interference=st.sampled_from([0.0, 1e-3, 0.01, 0.1, 1.0]),
    length=st.integers(1, 200),
    eta=st.floats(0.05, 1.9),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
def test_curve_equals_the_svd_at_random_places(
    dimension: int, share: float, interference: float, length: int, eta: float, seed: int, data: st.DataObject
) -> None:
    """Relative error below 100 eps cond(Phi)^2 + 1e-12, at random B and around the peak."""
    m = max(1, round(share * dimension))
    shift = Shift.two_block(dimension, m, 0.1, eta, interference)
    rank = shift.data_rank
    curve = sft_error_curve(shift, 3 * dimension + 3, length, seed=seed)
    moments = draw_moments(shift.data, length, 3 * dimension + 3, seed=seed)
    around = {rank + step for step in (-1, 0, 1, 2, 3)}
    for B in sorted(around | {0, 1, data.draw(st.integers(0, 3 * dimension + 3))}):
        exact, condition = by_definition(moments, B, shift, length)
        tolerance = 1e-12 + 100 * np.finfo(float).eps * condition**2
        assert abs(curve[B] / exact - 1) < min(tolerance, 1e-2)


@pytest.mark.parametrize("rank", [None, 7])
def test_curve_with_dense_non_commuting_matrices(rank: int | None) -> None:
    d, n = 15, 40
    A = random_psd(d, seed=1, rank=rank)
    shift = Shift(random_psd(d, seed=2), random_psd(d, seed=3, rank=4), A, 0.3)
    curve = sft_error_curve(shift, 60, n, seed=9)
    moments = draw_moments(A, n, 60, seed=9)
    for B in (0, 1, 5, 7, 8, 14, 15, 16, 17, 30, 60):
        exact, condition = by_definition(moments, B, shift, n)
        assert curve[B] == pytest.approx(exact, rel=1e-11 + 1e-14 * condition**2)


def test_curve_at_the_paper_size_across_the_peak() -> None:
    """d = 400: within 1e-10 of the SVD next to B = d, where a plain recursion would lose digits."""
    shift = Shift.two_block(400, 200, 0.1, 0.2, 0.01)
    curve = sft_error_curve(shift, 700, 800, seed=0)
    moments = draw_moments(shift.data, 800, 700, seed=0)
    for B in (100, 399, 400, 401, 410, 700):
        assert curve[B] == pytest.approx(by_definition(moments, B, shift, 800)[0], rel=1e-10)


def test_curve_from_explicit_prompts_matches_the_literal_method() -> None:
    shift = Shift.two_block(12, 5, 0.1, 0.4, 0.05)
    prompts = draw_prompts(shift.data, 30, 25, seed=4)
    V0 = pretrained_operator(shift.sigma0, 30)
    curve = error_curve(
        prompts.moments, eta=shift.eta, V0=V0, data=shift.data, target=shift.target, test_length=17
    )
    V = literal_sft_minimiser(prompts, shift.eta, np.diag(V0))
    assert curve[25] == pytest.approx(post_test_error(V, shift.target, 17), rel=1e-11)


def test_other_lengths_per_stage() -> None:
    shift = Shift.two_block(10, 4, 0.1, 0.2, 0.1)
    curve = sft_error_curve(shift, 0, 20, seed=0, pretrain_length=50, test_length=70)
    assert curve[0] == pytest.approx(post_test_error(pretrained_operator(shift.sigma0, 50), shift.target, 70))


def test_shorter_curves_are_prefixes() -> None:
    shift = Shift.two_block(20, 10, 0.1, 0.2, 0.1)
    long, short = (sft_error_curve(shift, B, 40, seed=1) for B in (55, 31))
    np.testing.assert_allclose(long[:32], short, rtol=1e-9)


def test_simulate_error_reports_means_and_standard_errors() -> None:
    shift = Shift.two_block(20, 10, 0.1, 0.2, 0.1)
    simulated = simulate_error(shift, [5, 40], 30, seeds=4)
    curves = np.array([sft_error_curve(shift, 40, 30, seed=s)[[5, 40]] for s in range(4)])
    np.testing.assert_array_equal(simulated.values, curves)
    np.testing.assert_allclose(simulated.mean, curves.mean(axis=0))
    np.testing.assert_allclose(simulated.sem, curves.std(axis=0, ddof=1) / 2)
    assert np.isnan(simulate_error(shift, 5, 30, seeds=1).sem).all()


@pytest.mark.parametrize(
    ("field", "prompts", "seeds"), [("prompts", [-1], 2), ("prompts", [], 2), ("seeds", [3], 0)]
)
def test_bad_requests_are_named(field: str, prompts: list[int], seeds: int) -> None:
    with pytest.raises(InputError, match=field):
        simulate_error(Shift.two_block(4, 2, 0.1, 0.2, 0.1), prompts, 10, seeds=seeds)
