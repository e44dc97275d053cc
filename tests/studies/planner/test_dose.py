"""The planner's validation: shifts are pure functions of their index, regrets are what they say."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from datadose.covariance import is_spectrum
from datadose.planner import plan
from datadose.simulation.curves import sft_error_curve
from datadose.studies.index import CLAIMS, GROUPS, NAMES
from datadose.studies.planner.cases import random_shift
from datadose.studies.planner.dose import NAME, UNTOUCHED, Column, PlannerRegret, _held_out
from datadose.studies.planner.dose_study import draw_planner
from datadose.studies.tables import names

pytestmark = pytest.mark.long


@cache
def smoke() -> pd.DataFrame:
    config = PlannerRegret.preset("smoke")
    return config.table([cell.function(**cell.arguments) for cell in config.cells()])


@pytest.mark.parametrize("index", range(12))
def test_a_shift_is_a_function_of_its_index(index: int) -> None:
    first, second = random_shift(index), random_shift(index)
    np.testing.assert_array_equal(first.shift.sigma0, second.shift.sigma0)
    np.testing.assert_array_equal(first.shift.delta, second.shift.delta)
    d = first.shift.dimension
    assert 60 <= d <= 120
    assert first.max_prompts == 4 * d
    assert d / 2 - 1 <= first.length <= 6 * d + 1
    assert 0.1 <= first.shift.eta <= 0.5
    assert first.interference == 0 or 0.003 <= first.interference <= 0.3
    assert is_spectrum(first.shift.sigma0) == (index % 4 != 3)
    if not is_spectrum(first.shift.sigma0):
        crossed = first.shift.sigma0 @ first.shift.delta
        assert np.abs(crossed - crossed.T).max() > 1e-3


def test_the_table_has_a_row_a_shift() -> None:
    table, config = smoke(), PlannerRegret.preset("smoke")
    assert list(table.columns) == names(Column)
    assert len(table) == 2 * config.shifts
    assert (table["figure"] == NAME).all()
    table = table[: config.shifts]
    assert (table["regret"] >= -1e-12).all()
    assert (table["best_error"] <= table["error"] + 1e-12).all()
    np.testing.assert_allclose(table["regret"], table["error"] / table["best_error"] - 1, atol=1e-12)


def test_a_row_is_what_simulation_gives() -> None:
    row, config = smoke().iloc[1], PlannerRegret.preset("smoke")
    asked = random_shift(1, config.dimensions)
    curves = np.array(
        [
            sft_error_curve(asked.shift, asked.max_prompts, asked.length, seed=1000 + seed)
            for seed in range(config.seeds)
        ]
    )
    assert row["error"] == pytest.approx(curves[:, int(row["prompts"])].mean())
    assert row["best_prompts"] == curves.mean(axis=0).argmin()


def test_doses_and_allocations_are_measured_on_different_shifts() -> None:
    """Each shift has the numbers of one of the two studies, and the gain is that of paired simulations."""
    table, config = smoke(), PlannerRegret.preset("smoke")
    first = np.arange(len(table)) < config.shifts
    assert not {*config.indices[config.shifts :]} & {*range(UNTOUCHED), *config.indices[: config.shifts]}
    assert table["panel"].tolist() == [f"shift={index}" for index in config.indices]
    assert (table["regret"].notna() == first).all()
    assert (table["gain"].notna() == ~first).all()
    for place in np.flatnonzero(~first):
        row, index = table.iloc[place], config.indices[place]
        asked = random_shift(index, config.dimensions)
        found = plan(asked.shift, length=asked.length, max_prompts=asked.max_prompts)
        shifts = [asked.shift]
        if row["predicted_gain"] > 0:
            assert found.better is not None
            shifts.append(replace(asked.shift, data=found.better.allocation))
        ends = [
            np.mean(
                [
                    sft_error_curve(shift, int(B), asked.length, seed=1000 * index + seed)[-1]
                    for seed in range(config.seeds)
                ]
            )
            for shift, B in zip(shifts, (row["prompts"], row["better_prompts"]), strict=False)
        ]
        assert row["gain"] == pytest.approx(1 - ends[-1] / ends[0])


def test_held_out_errors_are_chosen_by_the_other_half() -> None:
    """Even seeds are best at B = 1, odd ones at B = 2: each is judged at the other's."""
    curves = np.array([[3.0, 1.0, 2.0], [3.0, 2.0, 1.0]] * 3)
    np.testing.assert_array_equal(_held_out(curves), [2.0] * 6)


def test_held_out_regret_of_the_best_choice_is_not_biased_high() -> None:
    """Pure noise around one level: the regret of a fixed B is zero held out, positive in sample.

    300 tables of 16 seeds, 40 places, relative noise .1: the mean held-out regret has a standard error of
    about .002, so that 4.5 of them (0.01) are passed with probability 7e-6.
    """
    rng = np.random.default_rng(0)
    held_out, in_sample = [], []
    for _ in range(300):
        curves = 1 + 0.1 * rng.standard_normal((16, 40))
        held_out.append(curves[:, 0].mean() / _held_out(curves).mean() - 1)
        in_sample.append(curves[:, 0].mean() / curves.mean(axis=0).min() - 1)
    assert abs(np.mean(held_out)) < 0.01
    assert np.mean(in_sample) > 0.03


def test_the_figure_draws_from_the_table_and_the_configuration() -> None:
    assert all(axis.has_data() for axis in draw_planner(smoke(), PlannerRegret.preset("smoke")).axes)


def test_the_target_is_no_insight_and_the_claims_stay_last() -> None:
    assert NAME in NAMES
    assert NAME not in GROUPS["insights"]
    assert NAMES[-len(CLAIMS) :] == CLAIMS


@pytest.mark.parametrize(("preset", "shifts", "seeds"), [("quick", 56, 16), ("paper", 200, 40)])
def test_larger_presets(preset: str, shifts: int, seeds: int) -> None:
    config = PlannerRegret.preset(preset)  # type: ignore[arg-type]
    assert (config.shifts, config.seeds) == (shifts, seeds)
    assert len(config.cells()) == 2 * shifts
