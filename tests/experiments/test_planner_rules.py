"""Rules for the choice of stage on a hand-made table, and random cases that depend on their index alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from datadose.experiments.planner_rules import ARMS, RULES, compare_rules
from datadose.experiments.planner_stages import PlannerStages, random_case, run_case


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
    results = [run_case(**cell.arguments) for cell in cells]
    assert results == [run_case(**cell.arguments) for cell in cells]
    found = config.table(results)
    assert len(found) == config.cases * len(ARMS) * config.seeds
    assert set(found["kind"]) == set(ARMS)
    assert found["error"].notna().all()
    assert found["pass_rate"].between(0, 1).all()
