"""The dose: the global minimum over integers and the near-optimal range, against brute force."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datadose.planner import Dose, ErrorModel, find_dose
from datadose.planner.dose import NEAR_OPTIMAL
from datadose.shift import Shift
from datadose.theory.fixed_point import NoFixedPointError
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source

SHIFTS = {
    "no interference": (Shift.two_block(30, 10, 0.1, 0.2), 60),
    "weak interference": (Shift.two_block(30, 15, 0.1, 0.2, 0.01), 30),
    "strong interference": (Shift.two_block(30, 15, 0.1, 0.2, 0.3), 120),
    "short prompts": (Shift.two_block(24, 12, 0.3, 0.4, 0.05), 4),
    "graded": (
        Shift.aligned(np.geomspace(0.05, 2, 20), np.where(np.arange(20) < 8, 1.5, 0.0), 0.3, 0.02),
        40,
    ),
}


def error_of(shift: Shift, length: int) -> Callable[[int], float]:
    model = ErrorModel(pretrained_operator(shift.sigma0, length), shift.eta, shift.target, length)
    column = model.columns(Source(shift.data, length, 1))
    return lambda B: model.error([column], [B])


def check(found: Dose, error: Callable[[int], float], max_prompts: int) -> None:
    """Every field against all integers."""
    values = np.array([error(B) for B in range(max_prompts + 1)])
    best = int(values.argmin())
    assert (found.prompts, found.error) == (best, values[best])
    near = values <= (1 + NEAR_OPTIMAL) * values[best]
    low = high = best
    while low > 0 and near[low - 1]:
        low -= 1
    while high < max_prompts and near[high + 1]:
        high += 1
    assert found.near_optimal == (low, high)
    assert found.error_before == values[0]
    assert found.error_at_max == (values[-1] if np.isfinite(values[-1]) else None)
    for B, value in found.curve:
        assert value == (values[B] if np.isfinite(values[B]) else None)


@pytest.mark.parametrize("max_prompts", [1, 9, 30, 150])
@pytest.mark.parametrize("name", SHIFTS)
def test_the_dose_is_the_best_of_all_integers(name: str, max_prompts: int) -> None:
    shift, length = SHIFTS[name]
    error = error_of(shift, length)
    check(find_dose(error, max_prompts, shift.data_rank), error, max_prompts)


def test_the_sides_of_the_peak() -> None:
    shift, length = SHIFTS["weak interference"]
    error = error_of(shift, length)
    found = find_dose(error, 150, 30)
    values = np.array([error(B) for B in range(151)])
    below, above = found.best_below_peak, found.best_above_peak
    assert below == (1 + int(values[1:30].argmin()), values[1:30].min())
    assert above is not None
    assert above[0] > 30
    assert above[1] == pytest.approx(values[31:].min(), rel=0.02)
    assert find_dose(error, 29, 30).best_above_peak is None
    assert find_dose(error, 30, 30).error_at_max is None


def test_no_prompts_where_any_data_hurt() -> None:
    """Data at a fifth of the right scale: the first prompts cost and at most 10 are allowed."""
    shift = Shift(np.full(20, 1.0), np.full(20, 0.05), np.full(20, 0.004), 0.2)
    error = error_of(shift, 80)
    found = find_dose(error, 10, shift.data_rank)
    check(found, error, 10)
    assert found.prompts == 0
    assert found.error == found.error_before


@pytest.mark.parametrize("max_prompts", [1, 40, 41, 60, 500])
@pytest.mark.parametrize("valleys", [(10, 200), (35, 50), (3, 420)])
@pytest.mark.parametrize("depth", [0.9, 1.0, 1.1])
def test_two_valleys_and_a_pole(valleys: tuple[int, int], depth: float, max_prompts: int) -> None:
    """Equal and unequal valleys on both sides of a pole at 40."""

    def error(B: int) -> float:
        if B == 40:
            return np.inf
        wells = [
            d * np.exp(-((np.log1p(B) - np.log1p(v)) ** 2) / 0.5)
            for d, v in zip((1, depth), valleys, strict=True)
        ]
        return float(2 - sum(wells) + 0.05 / abs(B - 40))

    found = find_dose(error, max_prompts, 40)
    values = [error(B) for B in range(max_prompts + 1)]
    assert found.error == min(values)


def test_a_valley_next_to_the_pole() -> None:
    """A narrow valley ten prompts wide at 970 of 1000, which an even grid in log B steps over."""
    error = {B: 1 - 0.5 * np.exp(-(((B - 970) / 10) ** 2)) for B in range(5001)} | {1000: np.inf}
    assert find_dose(error.__getitem__, 5000, 1000).prompts == 970


@pytest.mark.parametrize(("best", "ends"), [(20, (0, 194)), (480, (207, 500))])
def test_the_near_optimal_range_does_not_leap_over_a_peak(best: int, ends: tuple[int, int]) -> None:
    """Within 5 percent everywhere but near a narrow peak: the range ends before it."""

    def error(B: int) -> float:
        return np.inf if B == 200 else 1 + 0.3 / abs(B - 200) + 1e-5 * abs(B - best)

    found = find_dose(error, 500, 200)
    check(found, error, 500)
    assert found.near_optimal == ends


@settings(deadline=None, max_examples=60)
@given(
    bottom=st.integers(0, 400),
    scale=st.floats(0.05, 5),
    peak=st.integers(1, 300),
    max_prompts=st.integers(1, 400),
)
@example(bottom=241, scale=1.0, peak=241, max_prompts=242)
def test_one_valley_anywhere(bottom: int, scale: float, peak: int, max_prompts: int) -> None:
    """One valley in log B, monotone on either side, wherever the grid's points fall."""

    def error(B: int) -> float:
        return np.inf if B == peak and B != bottom else 1 + scale * abs(np.log1p(B) - np.log1p(bottom))

    found = find_dose(error, max_prompts, peak)
    assert found.error == min(error(B) for B in range(max_prompts + 1))
    low, high = found.near_optimal
    assert low <= found.prompts <= high
    assert all(error(B) <= 1.05 * found.error for B in {low, high})


def test_points_without_a_value_do_not_end_the_search() -> None:
    """The solver fails on every seventh B: the best of the others is found, and how many failed is told."""

    def error(B: int) -> float:
        if B % 7 == 3:
            raise NoFixedPointError("prompts", B, "none")
        return (B - 40.2) ** 2 + 1

    found = find_dose(error, 300, 1)
    assert found.prompts == 40
    assert found.unsolved > 0
    assert find_dose(lambda B: (B - 40.2) ** 2 + 1, 300, 1).unsolved == 0
