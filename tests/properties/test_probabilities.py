"""Every probability lies in [0, 1], grows with the tolerance, and is right: closed forms, series, samples.

The pass rate on long prompts is P(sum_i w_i z_i^2 <= tolerance^2) with the squared singular values of
(I + V Sigma)^k as weights (plus the policy's noise): every list of weights is the pass rate of some model.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from datadose.theory import pass_probability, pass_rate
from helpers.problems import examples, log_integer, log_uniform, random_basis, spectrum

TAIL = 5.1
"""Standard errors: a normal variable leaves them with probability below 1e-6 (3.4e-7)."""


def rate(weights: np.ndarray, x: float) -> float:
    """P(sum w z^2 <= x) as the pass rate of the model whose one step leaves sqrt(w) of every direction."""
    return pass_rate(np.sqrt(weights) - 1, np.ones(len(weights)), 1, 0.0, float(np.sqrt(x)))


def positive_series(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Ruben's series: a mixture of chi-squares of d, d + 2, ... degrees with positive shares.

    With b the smallest weight and g_k = sum_j (1 - b/w_j)^k the shares obey
    a_k = (1/2k) sum_{r<k} g_{k-r} a_r; they sum to one. All terms are positive: the smallest probability
    keeps its digits.
    """
    smallest, ratios = weights.min(), 1 - weights.min() / weights
    length = min(int(60 + 40 * len(weights) * weights.max() / smallest), 6000)
    powers = np.array([(ratios**k).sum() for k in range(1, length)])
    # In units of the first share, and of 1e200 wherever they would overflow.
    shares, log_unit = np.zeros(length), 0.0
    shares[0] = 1.0
    for k in range(1, length):
        shares[k] = powers[:k][::-1] @ shares[:k] / (2 * k)
        if shares[k] > 1e200:
            shares[: k + 1] /= 1e200
            log_unit += 200 * np.log(10)
    # The first share is known, the product of (b/w_j)^(1/2): so it shows if the series was cut too early.
    first = 0.5 * np.log(smallest / weights).sum()
    assert first + np.log(shares.sum()) + log_unit == pytest.approx(0, abs=1e-9)
    degrees = len(weights) + 2 * np.arange(length)
    return np.array([float(stats.chi2.cdf(y / smallest, degrees) @ shares) for y in x]) / shares.sum()


QUANTILES = np.array([1e-12, 1e-6, 1e-3, 0.05, 0.3, 0.5, 0.7, 0.95, 0.999, 1 - 1e-6])


@examples(30)
def test_equal_weights_are_a_chi_square(seed: int) -> None:
    """1 to 5,000 directions, both tails; also in a random basis and along a longer chain.

    1e-8: the trapezoidal rule's own error is below it, and rounding of exponents of size d far below.
    """
    rng = np.random.default_rng([41, seed])
    d, weight = log_integer(rng, 1, 5000), log_uniform(rng, 1e-8, 1e8)
    x = weight * stats.chi2.ppf(QUANTILES, d)
    found = [rate(np.full(d, weight), y) for y in x]
    np.testing.assert_allclose(found, QUANTILES, rtol=1e-8)
    if d <= 60:
        basis, noise = random_basis(rng, d), 0.3
        V = -0.7 * basis @ basis.T
        size = 0.3**6 + noise**2
        chained = [pass_rate(V, np.eye(d), 3, noise, float(np.sqrt(size * y / weight))) for y in x]
        np.testing.assert_allclose(chained, QUANTILES, rtol=1e-8)


@examples(25)
def test_any_weights_are_a_positive_series(seed: int) -> None:
    """Up to 400 directions of up to 20 in ratio; from 1e-40 up to the last digit below 1."""
    rng = np.random.default_rng([42, seed])
    d = log_integer(rng, 1, 400)
    weights = spectrum(rng, d, condition=20 if d < 50 else 4, full=True) * log_uniform(rng, 1e-6, 1e6)
    mean = weights.sum()
    x = mean * np.array([0.05, 0.3, 0.7, 0.9, 1.0, 1.1, 1.3, 2.0, 5.0])
    expected = positive_series(weights, x)
    found = np.array([rate(weights, y) for y in x])
    seen = expected > 1e-250
    np.testing.assert_allclose(found[seen], expected[seen], rtol=1e-8)


@examples(40)
def test_a_pass_rate_is_a_probability_that_grows_with_the_tolerance(seed: int) -> None:
    """Weights of up to 1e16 in ratio, 1 to 1,000 directions, tolerances from far below to far above."""
    rng = np.random.default_rng([43, seed])
    d = log_integer(rng, 1, 1000)
    V = spectrum(rng, d) * log_uniform(rng, 1e-4, 1e4) * rng.choice([-1.0, 1.0], d)
    data, noise = spectrum(rng, d), float(rng.choice([0.0, 1e-6, 0.1]))
    steps = int(rng.integers(1, 4))
    size = float(np.sqrt(d * (np.mean((1 + V * data) ** (2 * steps)) + noise**2)))
    # Even numbers around the likely ones, and the ends of what a float holds.
    tolerances = np.sort(
        np.concatenate([size * np.logspace(-8, 8, 33), size * np.linspace(0.3, 3, 28), [0.0]])
    )
    rates = np.array([pass_rate(V, data, steps, noise, float(t)) for t in tolerances])
    assert ((rates >= 0) & (rates <= 1)).all()
    assert (np.diff(rates) >= -1e-9).all()
    assert rates[-1] == pytest.approx(1, abs=1e-9)
    assert rates[0] <= float((1 + V * data == 0).all() and noise == 0)


@examples(12)
def test_a_pass_rate_is_a_share_of_samples(seed: int) -> None:
    """200,000 samples of w*; each of the 12 x 5 comparisons fails with probability below 1e-6."""
    rng = np.random.default_rng([44, seed])
    d, count = log_integer(rng, 1, 30), 200_000
    V, data = -spectrum(rng, d) * rng.uniform(0.1, 3), spectrum(rng, d)
    noise, steps = float(rng.choice([0.0, 0.2])), int(rng.integers(1, 4))
    left = (1 + V * data) ** steps * rng.standard_normal((count, d)) + noise * rng.standard_normal((count, d))
    lengths = np.sort(np.sqrt((left**2).sum(axis=1)))
    for share in (0.01, 0.3, 0.5, 0.9, 0.99):
        limit = lengths[int(share * count)] * rng.uniform(0.95, 1.05)
        seen = float((lengths <= limit).mean())
        p = pass_rate(V, data, steps, noise, float(limit))
        # Two of a share's own resolution keep the normal law honest where few samples pass.
        assert abs(seen - p) < TAIL * np.sqrt(p * (1 - p) / count) + 2 / count * TAIL
        # The comparison has power: it rejects a rate that is off by a tenth of what there is to be off.
        wrong = p - 0.1 * min(p, 1 - p)
        if min(p, 1 - p) > 0.05:
            assert abs(seen - wrong) > TAIL * np.sqrt(p * (1 - p) / count) + 2 / count * TAIL


@examples(40)
def test_the_pass_probability_of_one_answer(seed: int) -> None:
    """In [0, 1], growing with the tolerance, falling with the distance; chi-square at distance 0."""
    rng = np.random.default_rng([45, seed])
    d, noise = log_integer(rng, 1, 500), log_uniform(rng, 1e-6, 1e3)
    tolerances = np.append(0, noise * np.sqrt(d) * np.logspace(-6, 6, 60))
    distances = np.append(0, noise * np.sqrt(d) * np.logspace(-2, 1.5, 20))
    found = pass_probability(distances[:, None], noise, tolerances, d)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found, axis=1) >= -1e-10).all()
    assert (np.diff(found, axis=0) <= 1e-10).all()
    assert found[0] == pytest.approx(stats.chi2.cdf((tolerances / noise) ** 2, d), rel=1e-10, abs=1e-300)
    # Along the distance a non-central chi-square: its normal limit where the distance is large.
    far = 1e4 * noise * np.sqrt(d)
    z = np.array([-2.0, 0.0, 1.5])
    spread = noise * far
    limit = np.sqrt(far**2 + d * noise**2 + 2 * z * spread)
    assert pass_probability(far, noise, limit, d) == pytest.approx(stats.norm.cdf(z), abs=1e-3)
    assert pass_probability(distances, 0.0, distances, d).tolist() == [1.0] * len(distances)
