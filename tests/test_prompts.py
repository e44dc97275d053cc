"""Three samplers, one law: explicit prompts, exact moments, Bartlett's Wishart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from datadose.covariance import wishart_second_moment
from datadose.errors import InputError
from datadose.prompts import Moments, draw_moments, draw_prompts, draw_wishart
from literal import random_psd

DRAWS = 20_000
CASES = {
    "spectrum, n > d": (np.array([1.1, 0.6, 0.3, 0.05]), 9),
    "spectrum, n < d": (np.array([1.1, 0.6, 0.3, 0.05]), 2),
    "dense": (random_psd(4, seed=5), 5),
    "singular": (random_psd(4, seed=6, rank=2), 5),
}


def explicit_moments(covariance: np.ndarray, length: int, seed: int) -> Moments:
    return draw_prompts(covariance, length, DRAWS, seed=seed).moments


@pytest.mark.parametrize("name", CASES)
def test_moment_sampler_has_the_exact_second_moments(name: str) -> None:
    """E[w phi^T] = A and E[phi phi^T] = E[S^2], 32 entries each within 5 standard errors (failure < 2e-5)."""
    A, n = CASES[name]
    drawn = draw_moments(A, n, DRAWS, seed=11)
    A_matrix = np.diag(A) if A.ndim == 1 else A
    second = wishart_second_moment(A, n)
    for left, right, expected in (
        (drawn.weights, drawn.phi, A_matrix),
        (drawn.phi, drawn.phi, np.diag(second) if A.ndim == 1 else second),
    ):
        products = left[:, None, :] * right[None, :, :]
        sem = products.std(axis=2) / np.sqrt(DRAWS) + 1e-15
        assert (np.abs(products.mean(axis=2) - expected) < 5 * sem).all()


@pytest.mark.parametrize("name", CASES)
def test_moment_sampler_has_the_law_of_explicit_prompts(name: str) -> None:
    """Two-sample Kolmogorov-Smirnov tests on 12 projections of (w, phi), half of them of products (fourth
    moments of the joint law). Level 1e-4 each: failure probability below 2.5e-3 for a fixed seed.
    """
    A, n = CASES[name]
    fast, slow = draw_moments(A, n, DRAWS, seed=21), explicit_moments(A, n, seed=22)
    rng = np.random.default_rng(23)
    for _ in range(6):
        p, q = rng.standard_normal((2, 4))
        for statistic in (
            lambda m, p=p, q=q: p @ m.weights + q @ m.phi,
            lambda m, p=p, q=q: (p @ m.phi) * (q @ m.weights),
        ):
            assert stats.ks_2samp(statistic(fast), statistic(slow)).pvalue > 1e-4


@pytest.mark.parametrize("name", CASES)
def test_bartlett_wishart_has_the_law_of_explicit_prompts(name: str) -> None:
    """Kolmogorov-Smirnov on quadratic forms, the trace and the largest eigenvalue; level 1e-4 each."""
    A, n = CASES[name]
    fast = draw_wishart(A, n, 8000, seed=31)
    slow = draw_prompts(A, n, 8000, seed=32).covariances
    p = np.random.default_rng(33).standard_normal(4)
    for statistic in (
        lambda S: np.einsum("i,bij,j->b", p, S, p),
        lambda S: np.trace(S, axis1=1, axis2=2),
        lambda S: S[:, 0, 1],
        lambda S: np.linalg.eigvalsh(S)[:, -1],
    ):
        assert stats.ks_2samp(statistic(fast), statistic(slow)).pvalue > 1e-4


def test_wishart_second_moments() -> None:
    """E[S] and E[S^2] within 5 standard errors, 32 entries (failure < 2e-5)."""
    A, n = CASES["dense"]
    S = draw_wishart(A, n, DRAWS, seed=41)
    for sample, expected in ((S, A), (S @ S, wishart_second_moment(A, n))):
        sem = sample.std(axis=0) / np.sqrt(DRAWS)
        assert (np.abs(sample.mean(axis=0) - expected) < 5 * sem).all()


def test_the_laws_differ_where_they_should() -> None:
    """The tests reject a wrong length and the Gaussian column of the first-order theory: they can fail."""
    A, n = CASES["spectrum, n > d"]
    p = np.ones(4)
    right, short = explicit_moments(A, n, seed=22), draw_moments(A, 2, DRAWS, seed=21)
    assert stats.ks_2samp(p @ short.phi, p @ right.phi).pvalue < 1e-6
    w, xi = np.random.default_rng(0).standard_normal((2, 4, DRAWS))
    gaussian = A[:, None] * w + np.sqrt(A.sum() / n * A)[:, None] * xi
    assert stats.ks_2samp((p @ gaussian) * (p @ w), (p @ right.phi) * (p @ right.weights)).pvalue < 1e-6


def test_streams_are_nested_and_seeded() -> None:
    A, n = CASES["dense"]
    long, short = draw_moments(A, n, 50, seed=3), draw_moments(A, n, 20, seed=3)
    np.testing.assert_allclose(long.first(20).phi, short.phi, rtol=1e-12)
    np.testing.assert_array_equal(long.first(20).weights, short.weights)
    assert not np.array_equal(draw_moments(A, n, 20, seed=4).phi, short.phi)
    np.testing.assert_array_equal(draw_moments(A, n, 20, seed=3).phi, short.phi)


def test_explicit_prompts_are_consistent() -> None:
    prompts = draw_prompts(np.ones(3), 7, 4, seed=0)
    np.testing.assert_allclose(prompts.labels[2], prompts.inputs[2] @ prompts.weights[2])
    S = prompts.covariances
    np.testing.assert_allclose(prompts.moments.phi[:, 1], S[1] @ prompts.weights[1], rtol=1e-12)


@pytest.mark.parametrize(
    ("field", "length", "prompts"), [("length", 0, 5), ("prompts", 3, 0), ("length", 2.5, 5)]
)
def test_bad_sizes_are_named(field: str, length: int, prompts: int) -> None:
    for draw in (draw_prompts, draw_moments, draw_wishart):
        with pytest.raises(InputError, match=field):
            draw(np.ones(3), length, prompts, seed=0)
