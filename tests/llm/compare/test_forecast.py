"""The curve over rows: exact curves are found, noise is covered, and what is no curve is refused."""

from __future__ import annotations

from dataclasses import astuple
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import stats

from datadose.errors import InputError
from datadose.llm.compare import Forecast, forecast
from datadose.llm.compare.forecast import Estimate, _resampled
from datadose.power import mean_interval

ROWS = [32, 64, 128, 256, 1024]


def scarce(rows: Any, c: float = 0.4, G: float = 20.0, b: float = -30.0) -> np.ndarray:
    return c + G / (np.asarray(rows, dtype=float) - b)


def powers(rows: Any, c: float = 0.4, A: float = 5.0, p: float = 0.6) -> np.ndarray:
    return c + A * np.asarray(rows, dtype=float) ** -p


def seeded(curve: np.ndarray, seeds: int = 4, noise: float = 1e-7, common: float = 0.0, seed: int = 0) -> Any:
    """Losses of seeds around ``curve``: each with a level of its own, and with noise."""
    rng = np.random.default_rng(seed)
    levels = common * rng.standard_normal((seeds, 1))
    return curve + levels + noise * rng.standard_normal((seeds, len(curve)))


quick = partial(forecast, resamples=200)


@pytest.mark.parametrize("rows", [ROWS, ROWS[1:4]], ids=["five", "three"])
@pytest.mark.parametrize("b", [-300.0, 0.0, 20.0])
def test_a_curve_of_the_theorys_form_is_found(rows: list[int], b: float) -> None:
    found = quick(rows, seeded(scarce(rows, b=b)))
    fit = found.fits["scarcity"]
    assert (fit.ceiling.value, fit.price.value, fit.bend) == pytest.approx((0.4, 20, b), rel=1e-3, abs=0.01)
    near = fit.rows_within_10_percent
    assert near.value == pytest.approx(max(b + 10 * 20 / 0.4, rows[0]), rel=1e-3)
    assert scarce(near.value, b=b) == pytest.approx(1.1 * 0.4, rel=1e-4)
    assert fit.error < 1e-6
    assert found.loss_at(4096, "scarcity").value == pytest.approx(scarce(4096, b=b), rel=1e-4)
    assert found.preferred == ("scarcity" if len(rows) > 3 else None)
    assert ("pass through" in found.note) == (len(rows) == 3)


def test_a_power_is_found_and_told_from_the_theorys_form() -> None:
    found = quick(ROWS, seeded(powers(ROWS)))
    fit = found.fits["power"]
    assert (fit.ceiling.value, fit.price.value, fit.bend) == pytest.approx((0.4, 5, 0.6), rel=1e-3)
    near = fit.rows_within_10_percent.value
    assert near is not None
    assert powers(near) == pytest.approx(1.1 * 0.4, rel=1e-3)
    assert (found.preferred, found.form) == ("power", "power")
    assert found.preferred_share == 1
    missed, other = fit.left_out, found.fits["scarcity"].left_out
    assert missed is not None
    assert other is not None
    assert missed.value == pytest.approx(0, abs=1e-5)
    assert abs(other.value or 0) > 1e-3
    assert "form: power, which from the others foretold the last loss with an error of" in found.sentence()


@pytest.mark.parametrize(
    ("rows", "losses", "why"),
    [
        ([8, 64], [[1.0, 0.5], [0.9, 0.4]], "2 budgets"),
        ([8, 16, 64], [[0.5, 0.6, 0.7], [0.4, 0.5, 0.6]], "the loss does not fall: 0.45 at 8 rows, 0.65 at"),
        ([8, 16, 64], [[0.5, 0.5, 0.1], [0.5, 0.5, 0.6]], "does not fall by more than the seeds differ"),
        ([8, 16, 64], [[0.9, 0.3, 0.5], [0.8, 0.3, 0.5], [1.0, 0.3, 0.4]], "the loss rises again: 0.3 at 16"),
    ],
)
def test_what_is_no_curve_is_refused_with_a_reason(rows: list[int], losses: Any, why: str) -> None:
    found = forecast(rows, losses)
    assert why in found.reason
    assert (found.fits, found.preferred) == ({}, None)
    assert found.sentence() == f"no curve over rows: {found.reason}"
    document = found.to_json()
    assert document["reason"] == found.reason
    assert document["form"] is None
    assert "scarcity" not in document
    with pytest.raises(InputError, match="losses that make a curve"):
        found.loss_at(2048)


def test_a_level_that_the_seeds_differ_by_is_no_noise_of_the_fall() -> None:
    """Seeds have test rows of their own, harder or easier for all budgets."""
    found = quick(ROWS, seeded(scarce(ROWS), common=0.3, noise=1e-4))
    assert not found.reason
    price, ceiling = found.fits["scarcity"].price, found.fits["scarcity"].ceiling
    assert price.low is not None
    assert 19 < price.low < price.high < 21
    assert ceiling.low is not None
    assert ceiling.high - ceiling.low > 0.2


def test_a_ceiling_of_zero_has_no_tenth() -> None:
    found = quick(ROWS, seeded(3 - 0.0025 * np.array(ROWS)))
    for fit in found.fits.values():
        assert fit.ceiling.value == 0
        assert fit.rows_within_10_percent.value is None
        assert "the ceiling of the fitted curve is 0" in fit.rows_within_10_percent.reason
    assert "no ceiling shows" in found.sentence()


def test_a_straight_line_has_no_price() -> None:
    price = quick(ROWS, seeded(3 - 1e-7 * np.array(ROWS), noise=1e-11)).fits["scarcity"].price
    assert (price.value, price.high) == (None, None)
    assert "no bend shows" in price.reason


def test_a_fall_that_is_over_at_the_second_budget_is_no_more_than_that() -> None:
    found = quick(ROWS, seeded(np.array([1.0, 0.5, 0.5, 0.5, 0.5])))
    for fit in found.fits.values():
        assert fit.ceiling.value == pytest.approx(0.5, abs=1e-3)
        assert fit.price.value is None
        assert (fit.rows_within_10_percent.value, fit.rows_within_10_percent.low) == (64, 32)
    assert "the whole fall lies between the two smallest budgets" in found.sentence()
    # Seeds that agree do not show either where between the two it was.
    for fit in quick(ROWS, np.tile([1.0, 0.5, 0.5, 0.5, 0.5], (3, 1))).fits.values():
        assert astuple(fit.rows_within_10_percent)[:3] == (64, 32, 64)


def test_no_loss_is_said_to_be_below_0() -> None:
    for last, said in (
        (0.0, "the loss falls to 0; form: "),
        (0.05, "so steadily that no ceiling shows; form"),
    ):
        found = quick(ROWS, np.tile([2.0, 1.5, 1.0, 0.5, last], (3, 1)))
        assert found.fits[found.form].ceiling.high == 0
        assert said in found.sentence()


def test_few_rows_may_be_enough() -> None:
    found = quick(ROWS, seeded(scarce(ROWS, c=2.0, G=1.0, b=0.0)))
    near = found.fits["scarcity"].rows_within_10_percent
    assert near.value == 32
    assert "the smallest budget is within already" in near.reason


def test_draws_of_a_mean_have_students_interval() -> None:
    values = seeded(scarce(ROWS) + 1, seeds=4, noise=0.05)
    drawn = _resampled(values, 0, 40_000)
    for place in (0, 4):
        low, high = np.quantile(drawn[:, place], [0.025, 0.975])
        mean, *ends = mean_interval(values[:, place])
        assert (low - mean, high - mean) == pytest.approx((ends[0] - mean, ends[1] - mean), rel=0.05)
    # Resampling the seeds themselves, the plain bootstrap, is too narrow by far for four.
    plain = values[np.random.default_rng(0).integers(4, size=(40_000, 4)), 0].mean(axis=1)
    width = np.diff(np.quantile(plain, [0.025, 0.975]))[0]
    assert width < 0.7 * np.diff(np.quantile(drawn[:, 0], [0.025, 0.975]))[0]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [[64, 256, 1024], [32, 64, 128, 512]])
def test_intervals_cover_the_right_numbers(rows: list[int]) -> None:
    """Three hundred comparisons. For intervals that cover at .93 or more, fewer hits have a chance of 1e-4
    each; at .81, the level of a plain bootstrap of four seeds, so many have one below 1e-2."""
    runs, hits, missed = 300, np.zeros(4), 0
    truth = (0.4, 20.0, -30 + 10 * 20 / 0.4, float(scarce(4 * rows[-1])))
    for run in range(runs):
        losses = seeded(scarce(rows), seeds=4, noise=0.004, common=0.01, seed=run)
        found = forecast(rows, losses, resamples=300, seed=run)
        fit = found.fits["scarcity"]
        estimates = (fit.ceiling, fit.price, fit.rows_within_10_percent)
        later = found.loss_at(4 * rows[-1], "scarcity")
        hits += [_covers(one, number) for one, number in zip((*estimates, later), truth, strict=True)]
        missed += fit.left_out is not None and _covers(fit.left_out, 0.0)
    if len(rows) > 3:
        hits = np.append(hits, missed)
    fewest = stats.binom.ppf(1e-4, runs, 0.93)
    assert 1 - stats.binom.cdf(fewest - 1, runs, 0.81) < 1e-2
    assert (hits >= fewest).all(), hits
    assert (hits <= runs - 1).all(), hits


def _covers(one: Estimate, number: float) -> bool:
    return (one.low is None or one.low <= number) and (one.high is None or number <= one.high)


def test_the_seed_decides_and_the_document_is_plain() -> None:
    losses = seeded(scarce(ROWS), noise=0.01)
    documents = [forecast(ROWS, losses, seed=seed, resamples=200).to_json() for seed in (0, 0, 1)]
    assert documents[0] == documents[1] != documents[2]
    assert set(documents[0]["scarcity"]) == {
        *("ceiling", "price", "rows_within_10_percent"),
        *("b", "error", "left_out"),
    }
    assert set(documents[0]["power"]["left_out"]) == {"value", "low", "high", "reason"}
    assert set(documents[0]["power"]["ceiling"]) == {"value", "low", "high", "reason"}
    assert repr(forecast(ROWS, losses, resamples=200)).startswith("Forecast(budgets=(32, 64")


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (([8, 4, 16], np.ones((2, 3))), {}, "budgets: got"),
        (([8], np.ones((2, 1))), {}, "budgets: got"),
        (([8, 16], np.ones((1, 2))), {}, "losses: got an array of shape"),
        (([8, 16], np.ones((2, 3))), {}, "losses: got an array of shape"),
        (([8, 16], np.full((2, 2), np.nan)), {}, "losses: got a number"),
        (([8, 16], -np.ones((2, 2))), {}, "losses: got a number"),
        (([8, 16], np.full((2, 2), 1e160)), {}, r"losses: got .* allowed: numbers in \[0, 1e\+100\]"),
        (([8, 16], np.ones((2, 2))), {"level": 1}, "level: got 1"),
        (([8, 16], np.ones((2, 2))), {"resamples": 5}, "resamples: got 5"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        forecast(*arguments, **options)


def test_a_forecast_is_for_more_rows_by_a_known_form() -> None:
    found: Forecast = quick(ROWS, seeded(scarce(ROWS)), resamples=200)
    with pytest.raises(InputError, match=r"^rows: got 8"):
        found.loss_at(8)
    with pytest.raises(InputError, match=r"^form: got line"):
        found.loss_at(64, "line")
