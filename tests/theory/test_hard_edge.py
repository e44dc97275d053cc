"""Where the mean error is infinite (docs/derivations/hard_edge.md): the exponents behind it, measured.

A count of N of the smallest values has a relative standard error of at most 1/sqrt(N); every exponent below
is the logarithm to base 2 of a ratio of counts with at least 100 in the smaller (standard error below 0.15,
and 0.05 where the exponent is below 3), and is given three of these and what the next order may add.
"""

from __future__ import annotations

import numpy as np
import pytest

from datadose.covariance import Array
from datadose.prompts import draw_moments
from datadose.shift import Shift
from datadose.theory.asymptotics import predict_curve
from datadose.theory.sft import sft_minimiser

ETA = 0.2


def exponent(values: Array, share: float, factor: float = 2.0) -> float:
    """p in P(value < x) ~ x^p, from the counts below a small quantile and below it divided by ``factor``."""
    level = np.quantile(values, share)
    few = np.count_nonzero(values < level / factor)
    assert few >= 100
    return float(np.log(np.count_nonzero(values < level) / few) / np.log(factor))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_one_over_phi_squared_has_the_tail_index_of_half_the_length(n: int) -> None:
    """P(||phi|| < x ||w||) ~ x^n: E ||w||^2 / ||phi||^2 is finite if and only if n >= 3."""
    moments = draw_moments(np.linspace(0.5, 1.5, 20), n, 300_000, seed=n)
    ratio = np.linalg.norm(moments.phi, axis=0) / np.linalg.norm(moments.weights, axis=0)
    assert exponent(ratio, 0.01) == pytest.approx(n, rel=0.12, abs=0.15)


@pytest.mark.parametrize(("B", "index"), [(5, 1), (4, 2), (6, 2), (3, 3), (7, 3)])
def test_the_smallest_singular_value_of_true_prompts(B: int, index: int) -> None:
    """P(s_min < x) ~ x^{|B - r| + 1} for columns S w as for Gaussian ones: 1/s_min^2 has a mean from 2 on."""
    repeats, d = 60_000, 5
    phi = draw_moments(np.linspace(0.5, 1.5, d), 12, repeats * B, seed=B).phi
    columns = phi.T.reshape(repeats, B, d)
    smallest = np.linalg.svd(columns, compute_uv=False)[:, -1]
    assert exponent(smallest, 0.02) == pytest.approx(index, rel=0.12)


@pytest.mark.parametrize("B", [1, 4, 5, 6, 9])
def test_the_minimiser_is_at_least_as_large_as_the_bound_says(B: int) -> None:
    """||V*|| >= eta ||Omega v|| / s_min for the right singular vector v of s_min, at every B."""
    for seed in range(20):
        moments = draw_moments(np.linspace(0.5, 1.5, 5), 12, B, seed=seed)
        left, values, right = np.linalg.svd(moments.phi, full_matrices=False)
        bound = ETA * np.linalg.norm(moments.weights @ right[-1]) / values[-1]
        V = sft_minimiser(moments, ETA, -np.eye(5))
        assert np.linalg.norm(V @ left[:, -1]) == pytest.approx(bound, rel=1e-8)


def test_one_direction_is_an_exception() -> None:
    """d = 1, B = 1: V* = -eta n/(a c), c ~ chi^2_n: the mean of its square is finite from n = 5 on.

    n = 20: 200,000 draws, relative standard error below 0.2 percent.
    """
    n, a = 20, 0.7
    moments = draw_moments(np.array([a]), n, 200_000, seed=1)
    squares = (ETA * moments.weights / moments.phi) ** 2
    assert squares.mean() == pytest.approx(ETA**2 * n**2 / (a**2 * (n - 2) * (n - 4)), rel=0.01)


def test_two_directions_and_one_prompt_are_another() -> None:
    """d = 2, B = 1: P(||phi|| < x ||w||) ~ x^{(n + 1)/2}, above 2 from n = 4 on, though |B - d| = 1.

    The next order is smaller by sqrt(x) only, which takes up to a tenth off the measured exponent.
    """
    for n in (3, 4, 6):
        moments = draw_moments(np.array([0.8, 1.2]), n, 400_000, seed=n)
        ratio = np.linalg.norm(moments.phi, axis=0) / np.linalg.norm(moments.weights, axis=0)
        assert exponent(ratio, 0.005) == pytest.approx((n + 1) / 2, rel=0.15)


def test_means_over_more_seeds_grow_where_medians_do_not() -> None:
    """At B = r the error has tail index 1/2: means cut off at 100 times the 99th percentile are about ten
    times those cut off at it (minus the bulk); far from the peak the cut does not matter.

    20,000 draws, of which 200 lie above the first cut; the ratio of the cut means is known to 15 percent.
    """
    for B, heavy in ((5, True), (12, False)):
        repeats, d = 20_000, 5
        moments = draw_moments(np.linspace(0.5, 1.5, d), 12, repeats * B, seed=B)
        phi, weights = (x.T.reshape(repeats, B, d).transpose(0, 2, 1) for x in (moments.phi, moments.weights))
        size = (ETA * weights @ np.linalg.pinv(phi)) ** 2
        squares = size.sum(axis=(1, 2))
        cut = np.quantile(squares, 0.99)
        ratio = np.minimum(squares, 100 * cut).mean() / np.minimum(squares, cut).mean()
        assert (ratio > 2.5) == heavy
        if not heavy:
            assert ratio < 1.05


@pytest.mark.parametrize(("B", "infinite"), [(3, True), (4, True), (5, False)])
def test_prompts_of_one_example_on_one_direction(B: int, infinite: bool) -> None:
    """|V*| has the tail index B / 2: its square has a mean from B = 5 on, and fewer are refused.

    The limit is reached slowly: the smallest thousandth is still some percent below it.
    """
    rng = np.random.default_rng([32, B])
    w, c = rng.standard_normal((2, 2_000_000, B))
    c = c**2
    small = (c**2 * w**2).sum(axis=1) / (c * w**2).sum(axis=1)
    assert exponent(small, 0.001) == pytest.approx(B / 2, rel=0.12)
    assert np.isinf(predict_curve(Shift(np.ones(1), np.ones(1), np.ones(1), ETA), [B], 1)[0]) == infinite


@pytest.mark.parametrize("n", [3, 4, 5])
def test_a_noisy_chain_needs_one_example_more(n: int) -> None:
    """The smaller singular value of its two columns has exponent n - 1: 1/s^2 has a mean from n = 4 on."""
    rng, d = np.random.default_rng([31, n]), 12
    X = rng.standard_normal((100_000, d, n))
    answers = np.einsum("bdn,bd->bn", X, rng.standard_normal((100_000, d)))
    columns = X @ np.stack([answers, rng.standard_normal((100_000, n))], axis=2)
    assert exponent(np.linalg.svd(columns, compute_uv=False)[:, -1], 0.02) == pytest.approx(n - 1, rel=0.12)
