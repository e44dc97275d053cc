"""Intervals over paired seeds, and the difference that so many seeds detect."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from datadose.errors import InputError
from datadose.power import detectable_difference, mean_interval, pooled_spread, required_seeds


@pytest.mark.parametrize(("seeds", "power"), [(3, 0.8), (10, 0.8), (10, 0.95)])
def test_the_detectable_difference_is_detected_so_often(seeds: int, power: float) -> None:
    """In simulated experiments, by the interval that judges the real ones."""
    spread, experiments = 0.3, 20_000
    difference = detectable_difference(spread, seeds, power=power)
    drawn = np.random.default_rng(7).normal(difference, spread, (experiments, seeds))
    half = stats.t.ppf(0.975, seeds - 1) * drawn.std(axis=1, ddof=1) / seeds**0.5
    found = float((np.abs(drawn.mean(axis=1)) > half).mean())
    assert abs(found - power) < 4 * (power * (1 - power) / experiments) ** 0.5
    low = mean_interval(drawn[0])[1]
    assert low == pytest.approx(drawn[0].mean() - half[0])


def test_known_numbers() -> None:
    """Ten pairs detect one standard deviation with probability .803 (Cohen's tables)."""
    assert detectable_difference(1.0, 10, power=0.8031) == pytest.approx(1.0, abs=1e-3)
    assert detectable_difference(0.2, 10) == pytest.approx(0.2 * detectable_difference(1.0, 10))
    usual = (stats.t.ppf(0.975, 9) + stats.t.ppf(0.8, 9)) / 10**0.5
    assert usual < detectable_difference(1.0, 10) < 1.02 * usual


def test_the_number_of_seeds_is_the_smallest_that_detects() -> None:
    for difference in (0.05, 0.3, 3.0):
        K = required_seeds(0.2, difference)
        assert detectable_difference(0.2, K) <= difference
        assert K == 2 or detectable_difference(0.2, K - 1) > difference
    with pytest.raises(InputError, match="difference: got 1e-06"):
        required_seeds(1.0, 1e-6)


def test_the_spread_of_a_pilot_is_that_of_its_comparisons_together() -> None:
    rng = np.random.default_rng(3)
    assert pooled_spread(rng.normal(5, 0.4, (2000, 3))) == pytest.approx(0.4, rel=0.03)
    assert pooled_spread([1.0, 2.0, 3.0]) == pytest.approx(1.0)
    for bad in ([[1.0]], [[1.0, np.nan]], [[2.0, 2.0]]):
        with pytest.raises(InputError, match="differences"):
            pooled_spread(bad)


def test_one_seed_has_no_interval_and_bad_input_is_refused() -> None:
    assert mean_interval([2.0]) == (2.0, float("-inf"), float("inf"))
    with pytest.raises(InputError, match="seeds"):
        detectable_difference(1.0, 1)
    with pytest.raises(InputError, match="power"):
        detectable_difference(1.0, 5, power=0.01)
    with pytest.raises(InputError, match="spread"):
        detectable_difference(0.0, 5)
