"""The Beta posterior of pass rates: closed forms against quadrature and draws, the fit against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import beta as beta_law
from scipy.stats import betabinom

from datadose.llm.pass_rates import (
    MIXED,
    Prior,
    best_chance,
    chance_mixed,
    chance_mixed_at,
    expected_signal,
    fit_pool,
    fit_prior,
    mixed_band,
    pool_signals,
)

CASES = [(1.0, 1.0), (2.5, 0.7), (0.2, 0.2), (16.2, 0.05), (3e-3, 8.0), (40.0, 900.0)]


def _mean(function, alpha: float, beta: float) -> float:
    """E f(p), p ~ Beta(alpha, beta), by quadrature over the quantiles u: no singular density."""
    low = quad(lambda u: function(beta_law.ppf(u, alpha, beta)), 0, 0.5, limit=400)[0]
    high = quad(lambda u: function(beta_law.isf(u, alpha, beta)), 0, 0.5, limit=400)[0]
    return low + high


@pytest.mark.parametrize(("alpha", "beta"), CASES)
@pytest.mark.parametrize("group", [2, 8, 33])
def test_signal_and_mixed_groups_are_the_integrals(alpha: float, beta: float, group: int) -> None:
    one, other = np.array(alpha), np.array(beta)
    assert expected_signal(one, other) == pytest.approx(_mean(lambda p: p * (1 - p), alpha, beta), rel=1e-6)
    expected = _mean(lambda p: 1 - p**group - (1 - p) ** group, alpha, beta)
    assert chance_mixed(one, other, group) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("alpha", "beta"), CASES[:4])
def test_signal_and_mixed_groups_are_what_draws_show(alpha: float, beta: float) -> None:
    rng = np.random.default_rng(0)
    rates = rng.beta(alpha, beta, 400_000)
    passed = rng.binomial(8, rates)
    mixed = (passed > 0) & (passed < 8)
    error = 4 * mixed.std() / np.sqrt(len(mixed)) + 1e-5
    assert chance_mixed(np.array(alpha), np.array(beta), 8) == pytest.approx(mixed.mean(), abs=error)
    # The variance of one reward, from two samples of one rate: half the mean squared difference.
    halves = (rng.binomial(1, rates) - rng.binomial(1, rates)) ** 2 / 2
    error = 4 * halves.std() / np.sqrt(len(halves)) + 1e-5
    assert expected_signal(np.array(alpha), np.array(beta)) == pytest.approx(halves.mean(), abs=error)


@given(st.floats(1e-7, 1e7), st.floats(1e-7, 1e7), st.integers(2, 200))
@settings(deadline=None, derandomize=True)
def test_the_chance_keeps_its_digits_at_the_ends(alpha: float, beta: float, group: int) -> None:
    """Against the sum of the beta-binomial chances of 1 ... G - 1 passes, all of which are positive."""
    j = np.arange(1, group)
    expected = betabinom.pmf(j, group, alpha, beta).sum()
    found = float(chance_mixed(np.array(alpha), np.array(beta), group))
    # scipy's chances come from log-Gamma functions, which lose digits at 1e7.
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-13)
    assert found == chance_mixed(np.array(beta), np.array(alpha), group)


@pytest.mark.parametrize(("a", "b"), [(0.2, 0.2), (0.05, 0.3), (1.0, 1.0), (3.0, 1.0), (20.0, 20.0)])
def test_the_prior_is_the_most_likely_one_and_near_the_truth(a: float, b: float) -> None:
    """Totals differ from row to row; scipy's likelihood and search find the same a and b."""
    rng = np.random.default_rng(1)
    judged = rng.integers(1, 17, 3000)
    passed = rng.binomial(judged, rng.beta(a, b, 3000))
    found = fit_prior(passed, judged)

    def loss(logarithms: np.ndarray) -> float:
        return -float(betabinom.logpmf(passed, judged, *np.exp(logarithms)).sum())

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    assert (found.a, found.b) == pytest.approx(tuple(np.exp(best.x)), rel=1e-4)
    assert (found.a, found.b) == pytest.approx((a, b), rel=0.15)
    assert found.mean == pytest.approx(a / (a + b), abs=0.03)
    assert (found.prompts, found.samples, found.note) == (3000, judged.sum(), None)


def test_the_fit_gets_nearer_as_the_pool_grows() -> None:
    """The error falls as the root of the number of prompts."""
    rng, errors = np.random.default_rng(2), []
    for prompts in (200, 20_000):
        found = [
            fit_prior(rng.binomial(8, rng.beta(0.5, 1.5, prompts)), np.full(prompts, 8)) for _ in range(20)
        ]
        errors.append(np.sqrt(np.mean([(one.a - 0.5) ** 2 for one in found])))
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.5)


def test_adaptive_counts_do_not_move_the_fit() -> None:
    """Who is sampled more is decided by the verdicts so far: the likelihood does not mind."""
    rng = np.random.default_rng(3)
    rates = rng.beta(0.5, 0.5, 20_000)
    passed, judged = rng.binomial(4, rates), np.full(20_000, 4)
    again = (passed == 0) | (passed == 4)
    passed[again] += rng.binomial(12, rates[again])
    judged[again] += 12
    found = fit_prior(passed, judged)
    assert (found.a, found.b) == pytest.approx((0.5, 0.5), rel=0.05)


def _chances(prior: Prior, judged: int) -> np.ndarray:
    passed = np.arange(judged + 1)
    return chance_mixed(*prior.posterior(passed, np.full(judged + 1, judged)), 8)


def test_half_always_half_never_leaves_nothing_mixed() -> None:
    """What 33 prompts at 0 of 16 and 60 at 16 of 16 say: groups of them are hardly ever mixed."""
    found = fit_prior(np.repeat([0, 16], [33, 60]), np.full(93, 16))
    assert (
        found.note
        == "no prompt has both passed and failed samples: one with 1 of 2 passed is added for the fit"
    )
    assert found.mean == pytest.approx(60 / 93, abs=0.01)
    # About one prompt more of 93 would be mixed.
    prior_mixed = 93 * chance_mixed(np.array(found.a), np.array(found.b), 16)
    assert 0.5 < prior_mixed < 3
    chances = _chances(found, 16)
    assert chances[[0, 16]].max() < 0.01
    # From two of each on a group is more often mixed than not.
    assert chances[2:15].min() > MIXED


@pytest.mark.parametrize("passed", [0, 16])
def test_all_alike_at_an_end_stays_finite(passed: int) -> None:
    found = fit_prior(np.full(60, passed), np.full(60, 16))
    assert "1 of 2 passed" in str(found.note)
    assert min(found.a, found.b) > 0
    assert abs(found.mean - passed / 16) < 0.02
    assert _chances(found, 16)[passed] < 0.01


def test_equal_rates_are_one_rate() -> None:
    found = fit_prior(np.full(60, 4), np.full(60, 16))
    assert found.note == (
        "the prompts look alike, their pass rates differing no more than by chance: a + b is held at the "
        "number of samples"
    )
    assert found.a + found.b == pytest.approx(960)
    assert found.mean == pytest.approx(0.25, abs=0.001)
    assert np.ptp(_chances(found, 16)) < 0.02


def test_one_sample_each_shows_no_spread() -> None:
    found = fit_prior(np.array([1, 0, 0]), np.ones(3, int))
    assert (found.a, found.b) == pytest.approx((0.8, 1.2))
    assert "no prompt has two samples" in str(found.note)


def test_without_samples_there_is_no_prior() -> None:
    with pytest.raises(ValueError, match="no judged samples"):
        fit_prior(np.zeros(3, int), np.zeros(3, int))
    nothing = np.full(3, np.nan)
    assert fit_pool(np.arange(3), nothing, nothing) is None
    assert np.isnan(pool_signals(None, nothing, nothing)).all()


def test_a_question_counts_once_in_the_fit() -> None:
    """Rows of one prompt share its samples; a row without samples has no signal."""
    passed, judged = np.array([1.0, 1, 3, np.nan, 0]), np.array([4.0, 4, 4, np.nan, 4])
    found = fit_pool(np.array([7, 7, 8, 9, 5]), passed, judged)
    assert found is not None
    assert found == fit_prior(np.array([0, 1, 3]), np.full(3, 4))
    signals = pool_signals(found, passed, judged)
    assert np.isnan(signals).tolist() == [False, False, False, True, False]
    k, n = passed[2] + found.a, 4 + found.a + found.b
    assert signals[2] == pytest.approx(k * (n - k) / (n * (n + 1)))


def test_shares_are_those_of_the_law() -> None:
    prior = Prior(0.3, 1.4, 10, 10)
    below, above = prior.shares(0.1, 0.8)
    assert below == pytest.approx(beta_law.cdf(0.1, 0.3, 1.4))
    assert above == pytest.approx(beta_law.sf(0.8, 0.3, 1.4))


@given(st.integers(2, 300), st.floats(0.001, 0.999))
@settings(deadline=None, derandomize=True)
def test_the_band_is_where_known_rates_reach_the_chance(group: int, part: float) -> None:
    chance = part * best_chance(group)
    low, high = mixed_band(group, chance)
    assert low + high == pytest.approx(1)
    assert chance_mixed_at(np.array([low, high]), group) == pytest.approx(chance, abs=1e-9)
    assert chance_mixed_at(np.array(0.5), group) == pytest.approx(best_chance(group))


def test_the_default_is_near_the_usual_band() -> None:
    assert mixed_band(8, MIXED) == pytest.approx((0.083, 0.917), abs=5e-4)
    assert mixed_band(8, 0.0) == (0.0, 1.0)
    assert mixed_band(2, 0.5) == (0.5, 0.5)
