"""Three samplers, one law: explicit prompts, exact moments, Bartlett's Wishart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from datadose.covariance import wishart_second_moment
from datadose.errors import InputError
from datadose.prompts import (
    Moments,
    NoisyMoments,
    draw_moments,
    draw_noisy_moments,
    draw_prompts,
    draw_wishart,
)
from helpers.literal import random_psd

DRAWS = 20_000
CASES = {
    "spectrum, n > d": (np.array([1.1, 0.6, 0.3, 0.05]), 9),
    "spectrum, n < d": (np.array([1.1, 0.6, 0.3, 0.05]), 2),
    "dense": (random_psd(4, seed=5), 5),
    "singular": (random_psd(4, seed=6, rank=2), 5),
    "one example": (random_psd(4, seed=7), 1),
}


def explicit_moments(covariance: np.ndarray, length: int, seed: int) -> Moments:
    return draw_prompts(covariance, length, DRAWS, seed=seed).moments


@pytest.mark.parametrize("name", CASES)
def test_moment_sampler_has_the_exact_second_moments(name: str) -> None:
    """E[w phi^T] = A and E[phi phi^T] = E[S^2], 32 entries each within 5 standard errors: failure < 1e-4."""
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


def explicit_noisy(covariance: np.ndarray, length: int, noise: float, seed: int) -> NoisyMoments:
    prompts = draw_prompts(covariance, length, DRAWS, seed=seed)
    eps = np.sqrt(noise) * np.random.default_rng([seed, 1]).standard_normal((DRAWS, length))
    h = np.einsum("bni,bn->ib", prompts.inputs, eps) / length
    return NoisyMoments(prompts.moments.weights, prompts.moments.phi, h)


@pytest.mark.parametrize("name", CASES)
def test_noisy_sampler_has_the_exact_second_moments(name: str) -> None:
    """E[h h^T] = (s^2/n) A, E[h phi^T] = E[h w^T] = 0: 48 entries a case within 5 standard errors, failure
    below 2e-4 in all. The w and phi are those of `draw_moments`.
    """
    A, n = CASES[name]
    noisy, clean = draw_noisy_moments(A, n, DRAWS, 0.7, seed=12), draw_moments(A, n, DRAWS, seed=12)
    np.testing.assert_array_equal(noisy.phi, clean.phi)
    np.testing.assert_array_equal(noisy.weights, clean.weights)
    expected = 0.7 / n * (np.diag(A) if A.ndim == 1 else A)
    for other, moment in ((noisy.echo, expected), (noisy.phi, 0.0), (noisy.weights, 0.0)):
        products = noisy.echo[:, None, :] * other[None, :, :]
        sem = products.std(axis=2) / np.sqrt(DRAWS) + 1e-15
        assert (np.abs(products.mean(axis=2) - moment) < 5 * sem).all()


NOISY_STATISTICS = {
    "h": lambda m, p, q: p @ m.echo,
    "phi + h": lambda m, p, q: p @ m.phi + q @ m.echo,
    "h phi": lambda m, p, q: (p @ m.echo) * (q @ m.phi),
    "h w": lambda m, p, q: (p @ m.echo) * (q @ m.weights),
    "|h|^2 |phi|^2": lambda m, p, q: (m.echo**2).sum(axis=0) * (m.phi**2).sum(axis=0),
    "<h, phi>^2": lambda m, p, q: (m.echo * m.phi).sum(axis=0) ** 2,
}


@pytest.mark.parametrize("name", CASES)
def test_noisy_sampler_has_the_law_of_explicit_prompts(name: str) -> None:
    """Kolmogorov-Smirnov tests of (w, phi, h) on 3 draws of 6 statistics up to fourth order, level 1e-5 each,
    and their fourth moments within 5 standard errors: failure below 1e-3 over all cases.
    """
    A, n = CASES[name]
    fast, slow = draw_noisy_moments(A, n, DRAWS, 0.7, seed=24), explicit_noisy(A, n, 0.7, seed=25)
    rng = np.random.default_rng(26)
    for _ in range(3):
        p, q = rng.standard_normal((2, 4))
        for statistic in NOISY_STATISTICS.values():
            assert stats.ks_2samp(statistic(fast, p, q), statistic(slow, p, q)).pvalue > 1e-5
        for one, other in (("echo", "echo"), ("echo", "phi"), ("echo", "weights")):
            fourth = [(p @ getattr(m, one)) ** 2 * (q @ getattr(m, other)) ** 2 for m in (fast, slow)]
            sem = np.sqrt(sum(x.var() for x in fourth) / DRAWS)
            assert abs(fourth[0].mean() - fourth[1].mean()) < 5 * sem


def test_noise_that_knows_nothing_of_the_prompt_is_told_apart() -> None:
    """An independent h of the right covariance has another joint law with phi: the test above has power."""
    A, n = CASES["dense"]
    slow = explicit_noisy(A, n, 0.7, seed=25)
    h = np.sqrt(0.7 / n) * np.linalg.cholesky(A) @ np.random.default_rng(0).standard_normal((4, DRAWS))
    wrong = NoisyMoments(slow.weights, slow.phi, h)
    for name in ("|h|^2 |phi|^2", "<h, phi>^2"):
        statistic, p = NOISY_STATISTICS[name], np.ones(4)
        assert stats.ks_2samp(statistic(wrong, p, p), statistic(slow, p, p)).pvalue < 1e-6


def test_noisy_streams_are_nested() -> None:
    A, n = CASES["dense"]
    long, short = draw_noisy_moments(A, n, 50, 0.3, seed=3), draw_noisy_moments(A, n, 20, 0.3, seed=3)
    np.testing.assert_allclose(long.first(20).echo, short.echo, rtol=1e-12)
    np.testing.assert_array_equal(draw_noisy_moments(A, n, 20, 0.0, seed=3).echo, 0.0)
    with pytest.raises(InputError, match="label_noise"):
        draw_noisy_moments(A, n, 20, -0.1, seed=3)


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
