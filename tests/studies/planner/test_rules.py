"""Rules for the choice of stage on a hand-made table, and random cases that depend on their index alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from datadose.studies.planner.cases import COMBINATIONS, forecast_case, random_case
from datadose.studies.planner.rules import (
    RULES,
    compare_forecasts,
    compare_rules,
    summarise_forecasts,
)
from datadose.studies.planner.stages import ARMS, PlannerStages

pytestmark = pytest.mark.long


def table(reward: str, recommended: str, radius: float, **means: float) -> pd.DataFrame:
    """Two seeds an arm around the given errors (dense) or pass rates; the other measure is constant."""
    rows = []
    for arm in ARMS:
        value = means[arm.replace(" ", "_")]
        for seed, wobble in enumerate((-0.01, 0.01)):
            rows.append(
                {
                    "panel": "case",
                    "kind": arm,
                    "seed": seed,
                    "reward": reward,
                    "recommended": recommended,
                    "spectral_radius": radius,
                    "error": value + wobble if reward == "dense" else 1.0,
                    "pass_rate": value + wobble if reward == "verifiable" else 0.0,
                }
            )
    return pd.DataFrame(rows)


def test_dense_cases_are_compared_by_relative_error() -> None:
    found = compare_rules(table("dense", "rl", 0.5, none=1.0, sft=0.52, rl=0.5, sft_then_rl=0.6))
    by_rule = found.set_index("rule")
    assert list(found["rule"]) == list(RULES)
    assert (by_rule["best"] == "rl").all()
    assert by_rule["arm"].to_dict() == {
        "planner": "rl",
        "paper": "rl",
        "always sft": "sft",
        "always rl": "rl",
        "always sft then rl": "sft then rl",
    }
    assert by_rule["loss"]["always sft"] == pytest.approx(0.04)
    assert by_rule["good"].to_dict() == {
        "planner": True,
        "paper": True,
        "always sft": True,
        "always rl": True,
        "always sft then rl": False,
    }


def test_verifiable_cases_are_compared_by_pass_rate() -> None:
    found = compare_rules(table("verifiable", "none", 2.0, none=0.1, sft=0.86, rl=0.1, sft_then_rl=0.9))
    by_rule = found.set_index("rule")
    assert by_rule["arm"]["paper"] == "sft then rl"
    assert by_rule["loss"]["planner"] == pytest.approx(0.8)
    assert not by_rule["good"]["planner"]
    assert by_rule["good"]["always sft"]


def test_cases_depend_on_their_index_alone_and_cover_both_rewards() -> None:
    first, again = random_case(20, 7), random_case(20, 7)
    np.testing.assert_array_equal(first.shift.data, again.shift.data)
    assert first.training == again.training
    assert {random_case(20, i).training.reward for i in range(100, 104)} == {"dense", "verifiable"}
    assert not np.array_equal(random_case(20, 8).shift.delta, first.shift.delta)


def test_a_cell_reports_every_arm_and_repeats() -> None:
    config = PlannerStages.preset("smoke")
    cells = config.cells()
    results = [cell.function(**cell.arguments) for cell in cells]
    # The last case, a forecast, takes most of the time.
    assert results[0] == cells[0].function(**cells[0].arguments)
    found = config.table(results)
    # One of the two cases of the forecasts has a dense reward: its three stages also run with Adam.
    assert len(found) == ((config.cases + config.forecasts) * len(ARMS) + 3) * config.seeds
    assert set(found["kind"]) == set(ARMS)
    assert set(found.loc[found["optimiser"] == "adam", "kind"]) == set(ARMS[1:])
    assert found["error"].notna().all()
    assert found["pass_rate"].between(0, 1).all()


def test_the_forecasts_cases_go_through_all_combinations() -> None:
    cases = [forecast_case(i) for i in range(6 * COMBINATIONS)]
    seen = {
        (c.training.reward, c.training.chain_steps, c.length < 4 * c.shift.dimension)
        for c in cases[:COMBINATIONS]
    }
    assert len(seen) == COMBINATIONS
    assert sum(not c.shift.is_spectral for c in cases) == 2 * COMBINATIONS
    for case in cases:
        d = case.shift.dimension
        assert d <= case.length <= 2 * d or 8 * d - 1 <= case.length <= 12 * d
        assert 1 <= case.rank < d
        # Delta lies in the directions that the reward judges.
        outside = case.shift.delta[~case.inside]
        assert not outside.any()


def arm(kind: str, forecast: float, measured: float, **changes: object) -> list[dict[str, object]]:
    """Two seeds of an arm of case 0 of the forecasts; errors alone, pass rates are right."""
    row = {
        "panel": "forecast 0", "kind": kind, "optimiser": "gd", "reward": "dense", "steps": 1, "length": 300,
        "dimension": 30, "demonstrations": 10, "predicted": forecast, "predicted_pass_rate": 0.0,
        "pass_rate": 0.04, "error_withheld": False, "pass_rate_withheld": False, "recommended": "rl",
        "spectral_radius": 0.5, **changes,
    }  # fmt: skip
    return [{**row, "seed": seed, "error": measured + wobble} for seed, wobble in enumerate((-0.1, 0.1))]


def test_forecasts_are_off_by_more_than_a_fifth_of_what_is_measured() -> None:
    rows = [
        *arm("none", 1.0, 1.0),
        *arm("sft", 1.19, 1.0),
        *arm("rl", 1.21, 1.0, predicted_pass_rate=0.1),
        *arm("sft then rl", 0.79, 1.0, error_withheld=True),
        *arm("sft", 0.4, 0.4, panel="forecast 1", demonstrations=0),
        *arm("rl", 0.4, 0.4, panel="forecast 1", length=40),
    ]
    rows[-1]["error"] = None
    found = compare_forecasts(pd.DataFrame(rows))
    errors = found[found["measure"] == "error"]
    assert list(errors["stage"]) == ["none", "sft", "rl", "sft then rl", "rl"]
    assert list(errors["off"]) == [False, False, True, True, True]
    assert list(errors["withheld"]) == [False, False, False, True, False]
    assert list(errors["prompts"]) == ["long"] * 4 + ["short"]
    assert errors["ratio"].iloc[1] == pytest.approx(1.19)
    assert np.isinf(errors["measured"].iloc[-1])
    rates = found[found["measure"] == "pass rate"]
    # 0 for 0.04 is within 0.05, 0.1 for 0.04 is not.
    assert list(rates["off"]) == [False, False, True, False, False]
    table = summarise_forecasts(found)
    assert table["off"].between(0, 1).all()
    assert int(table["shifts"].sum()) == len(found)
    # Rules are compared on these cases only if asked for.
    assert compare_rules(pd.DataFrame(rows)).empty
    assert set(compare_rules(pd.DataFrame(rows[:8]), forecasts=True)["rule"]) == set(RULES)
