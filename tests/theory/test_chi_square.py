"""Tails of weighted sums of chi-squares against scipy, closed forms, simulation and each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from datadose.errors import InputError, InternalError, probability
from datadose.theory.chi_square import weighted_chi_square
from datadose.theory.outcome import pass_rate

SLACK = 1e-9
"""The rule's own tolerance; what it leaves is smaller, and scipy's digits near 1e-300 are fewer."""


@pytest.mark.parametrize("m", [1, 2, 3, 10, 30, 199, 500, 2000, 20_000])
def test_equal_weights_are_a_chi_square_in_both_tails(m: int) -> None:
    for deviations in (-30, -5, -1, -1e-9, 0, 1e-9, 0.1, 1, 5, 30, 300):
        x = m + deviations * np.sqrt(2 * m)
        x = x if x > 0 else m * 10.0**deviations
        for upper, exact in ((False, chi2.cdf(x, m)), (True, chi2.sf(x, m))):
            found = weighted_chi_square(np.full(m, 0.3), 0.3 * x, upper=upper)
            assert 0 <= found <= 1
            near_side = (x > m) == upper
            assert found == pytest.approx(
                exact, rel=SLACK if near_side else 0, abs=1e-300 if near_side else SLACK
            )


def test_the_pass_rate_of_many_directions() -> None:
    """The ninth decile of a chi-square with 500 degrees of freedom."""
    rate = pass_rate(-np.ones(500), np.ones(500), 1, 1.0, float(chi2.ppf(0.9, 500)) ** 0.5)
    assert rate == pytest.approx(0.9, rel=SLACK)


@pytest.mark.parametrize(
    "weights", [(1, 0.5), (1, 1e-3), (1, 0.1, 1e-2, 1e-5), (1, 0.9, 0.5, 0.1), (1, 1e-8)]
)
def test_pairs_of_weights_have_a_closed_form(weights: tuple[float, ...]) -> None:
    """Each twice: P(Q > x) = sum_i e^{-x / 2 lambda_i} prod_{j != i} lambda_i / (lambda_i - lambda_j)."""
    a = np.array(weights)
    for x in (1.0, 3.0, 20.0, 100.0, 800.0):
        factors = [np.prod([own / (own - other) for other in a if other != own]) for own in a]
        exact = float(np.array(factors) @ np.exp(-x / (2 * a)))
        upper = x > 2 * a.sum()
        found = weighted_chi_square(np.repeat(a, 2), x, upper=upper)
        assert found == pytest.approx(exact if upper else 1 - exact, rel=SLACK)


def test_the_lower_end_of_two_pairs() -> None:
    """P(Q <= x) = x^2 / (8 lambda_1 lambda_2) (1 + O(x / lambda)) for two weights, each twice."""
    for scale in (1.0, 1e-75, 1e75):
        for x in (1e-30, 1e-150):
            found = weighted_chi_square(scale * np.array([1, 1, 1e-9, 1e-9]), scale * x)
            assert found == pytest.approx(x**2 / 8 * 1e9, rel=SLACK)


def test_extreme_arguments() -> None:
    one = np.ones(1)
    assert weighted_chi_square(one, 1e-320) == pytest.approx(
        (2 * 1e-320 / np.pi) ** 0.5, rel=1e-3
    )  # 1e-320 has 4 digits
    assert weighted_chi_square(one * 1e300, 1e-300) == pytest.approx((2 / np.pi) ** 0.5 * 1e-300, rel=SLACK)
    for x, rate in ((0.0, 0.0), (-1.0, 0.0), (1e308, 1.0), (np.inf, 1.0)):
        assert weighted_chi_square(one, x) == rate
        assert weighted_chi_square(one, x, upper=True) == 1 - rate
    assert weighted_chi_square(np.zeros(3), 0.0) == 1.0
    assert weighted_chi_square(np.zeros(0), 1.0) == 1.0
    assert weighted_chi_square(np.zeros(0), -1.0) == 0.0
    assert weighted_chi_square(np.array([0.0, 2.0]), 3.0) == weighted_chi_square(np.array([2.0]), 3.0)


@pytest.mark.parametrize("seed", range(40))
def test_random_weights(seed: int) -> None:
    """In [0, 1], increasing in x, free of scale and order, the tails sum to one; x near the mean and far."""
    rng = np.random.default_rng(seed)
    m, decades = int(np.exp(rng.uniform(0, 6))), float(rng.choice([0.3, 2, 8, 40]))
    weights = 10 ** rng.uniform(-decades, 0, m)
    mean, deviation = weights.sum(), np.sqrt(2 * (weights**2).sum())
    points = np.concatenate(
        [mean * 10.0 ** -np.arange(0, 12, 3), mean + deviation * np.array([1e-6, 0.1, 2, 20])]
    )
    for before, x in zip([0.0, *np.sort(points)], np.sort(points), strict=False):
        lower, upper = (weighted_chi_square(weights, x, upper=side) for side in (False, True))
        assert 0 <= lower <= 1
        assert lower + upper == pytest.approx(1, abs=1e-15)
        assert lower >= weighted_chi_square(weights, before) * (1 - SLACK)
        tail = upper if x > mean else lower
        turned = weighted_chi_square(1e60 * weights[::-1], 1e60 * x, upper=x > mean)
        assert turned == pytest.approx(tail, rel=SLACK, abs=1e-300)


@pytest.mark.parametrize(("m", "decades"), [(3, 1.0), (40, 3.0), (400, 6.0)])
def test_random_weights_in_simulation(m: int, decades: float) -> None:
    """100,000 draws at three quantiles: an exact binomial test at level 1e-6 each (the seeds are fixed)."""
    rng = np.random.default_rng(m)
    weights = 10 ** rng.uniform(-decades, 0, m)
    drawn = np.concatenate([rng.standard_normal((10_000, m)) ** 2 @ weights for _ in range(10)])
    for x in np.array([0.3, 1.0, 2.5]) * weights.sum():
        passed = int((drawn <= x).sum())
        assert binomtest(passed, len(drawn), weighted_chi_square(weights, float(x))).pvalue > 1e-6


@pytest.mark.usefixtures("any_shape")
def test_bad_arguments_and_impossible_probabilities_are_named() -> None:
    for weights in ([-1.0], [np.nan], [np.inf], [[1.0]]):
        with pytest.raises(InputError, match="weights"):
            weighted_chi_square(np.array(weights), 1.0)
    with pytest.raises(InputError, match="x: got nan"):
        weighted_chi_square(np.ones(2), np.nan)
    for value in (-1e-300, 1 + 1e-15, np.nan):
        with pytest.raises(InternalError, match="a rate came out as"):
            probability("a rate", value)


def test_a_threshold_that_no_sum_reaches_has_probability_one() -> None:
    """Up to what a float holds, where the equation of the saddle has no digits left."""
    for weights in ([1.1117], [1.0, 1e-3, 1e-3], np.geomspace(1e-200, 1e-100, 50)):
        for ratio in (1e4, 1e12, 1e15, 1e16, 1e50, 1e300):
            x = ratio * float(np.max(weights))
            assert weighted_chi_square(np.array(weights), x) == 1
            assert weighted_chi_square(np.array(weights), x, upper=True) == 0
