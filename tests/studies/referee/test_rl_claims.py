"""The judges of RL on the sea on hand-made tables: selectors at equal steps and samples, stages by rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.studies.referee.judging import Pilot
from datadose.studies.referee.rl import Panel, Role, SeaRlStudy
from datadose.studies.referee.rl_figure import draw_sea_rl
from datadose.studies.referee.rl_study import STUDY
from datadose.studies.referee.stage_rules import FIXED, Outcomes, Rule, find_rule
from datadose.studies.token_study.training import GROUP
from helpers.studies import entry, write_result

SEEDS = 5
PILOT = Pilot(0.02, (100, 101, 102), "a test")
CONFIG = replace(SeaRlStudy.preset("smoke"), seeds=SEEDS, pilot=PILOT, rare_pilot=PILOT)
GOOD = {
    "random": 0.1, "unfiltered": 0.0, "drop": 0.1, "medium": 0.1, "hardest": 0.3, "hardest-passed": 0.3,
    "signal": 0.4, "few": -0.3,
}  # fmt: skip
"""Gain of each arm at the last step if every claim holds."""
SELECTORS = [claim.id for claim in STUDY.claims if "stage" not in claim.id]
POOL = 100


def selectors(gains: dict[str, float]) -> list[dict[str, Any]]:
    """Runs whose pass probability rises evenly over ten steps of 2 x 8 samples."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for arm in CONFIG.arms():
        gain = gains["few" if arm.prompts == CONFIG.few else arm.selector]
        for seed in range(SEEDS):
            level = 0.4 + 0.02 * seed
            for step in range(0, 101, 10):
                value = level + gain * step / 100 + rng.normal(0, 1e-3)
                row = {"panel": Panel.SELECTORS, "arm": arm.selector, "samples": arm.samples}
                row |= {"prompts": arm.prompts, "seed": seed, "step": step, "rare": value, "all": value}
                rows.append({**row, "total": arm.samples * POOL + step * 2 * GROUP, "known": 0.9})
    return rows


def stages(best_below: str = "sft", best_above: str = "rl", targets: int = 24) -> list[dict[str, Any]]:
    """Targets whose best stage depends on their pass rate before; the share of mixed groups says nothing."""
    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for place in range(targets):
        rate = (place + 0.5) / targets
        best = best_below if rate < 0.45 else best_above
        for seed in range(3):
            row = {"panel": Panel.STAGES, "target": f"T{place}", "seed": seed}
            row["role"] = (Role.DEVELOPMENT, Role.HELD_OUT)[place % 2]
            numbers = {"nll": 0.5, "pass_rate": rate, "share_mixed": rng.random(), "signal": 0.1}
            rows.append({**row, **numbers, "arm": "none", "on_target": rate})
            for stage in ("sft", "rl", "both"):
                passed = 0.9 * (stage == best) + 0.01 * rng.random()
                rows.append({**row, "arm": stage, "on_target": passed})
    return rows


def table(gains: dict[str, float] | None = None, trials: list[dict[str, Any]] | None = None) -> pd.DataFrame:
    return pd.DataFrame([*selectors(gains or GOOD), *(stages() if trials is None else trials)])


def judged(claim_id: str, content: pd.DataFrame, folder: Path) -> dict[str, Any]:
    return entry(STUDY, claim_id, write_result(folder, STUDY, content, CONFIG))


@pytest.mark.parametrize("claim_id", SELECTORS)
def test_selectors_are_judged_at_equal_steps_and_samples(claim_id: str, tmp_path: Path) -> None:
    good = judged(claim_id, table(), tmp_path)
    assert (good["verdict"], good["seeds"]) == ("holds", SEEDS), good["note"]
    reverse = {name: -gain for name, gain in GOOD.items()}
    assert judged(claim_id, table(reverse), tmp_path)["verdict"] == "fails"
    same = judged(claim_id, table(dict.fromkeys(GOOD, 0.4)), tmp_path)
    if claim_id == "sea-rl-signal-samples":
        # As good a step as any, but fewer of them.
        assert same["verdict"] == "fails", same["note"]
    else:
        assert same["verdict"] == "no difference", same["note"]


def test_a_rule_is_found_in_development_and_tested_once(tmp_path: Path) -> None:
    good = judged("sea-rl-stage-rule", table(), tmp_path)
    assert good["verdict"] == "holds", good["note"]
    assert "sft if pass_rate <" in good["note"]
    # Held-out targets of another kind: what development found is of no use there.
    turned = [*stages()]
    other = iter(stages("rl", "sft"))
    turned = [next(other) if row["role"] == Role.HELD_OUT else (next(other), row)[1] for row in turned]
    bad = judged("sea-rl-stage-rule", table(None, turned), tmp_path)
    assert bad["verdict"] != "holds"
    assert "sft if pass_rate <" in bad["note"]
    assert judged("sea-rl-stage-rule", table(None, stages(targets=1)), tmp_path)["verdict"] == "not run"


def test_regret_and_accuracy_are_those_of_the_taken_stage() -> None:
    outcomes = Outcomes.of(table(), Role.HELD_OUT)
    right, wrong = Rule("pass_rate", 0.45, "sft", "rl"), Rule("pass_rate", 0.45, "rl", "sft")
    assert outcomes.regrets(right) == pytest.approx(0)
    assert outcomes.accuracy(right) == 1
    assert outcomes.regrets(wrong) == pytest.approx(0.9, abs=0.02)
    assert outcomes.accuracy(wrong) == 0
    assert outcomes.accuracy(FIXED[0]) == 5 / 12
    # Where one stage is always best, no threshold is found.
    always = Outcomes.of(table(None, stages("both", "both")), Role.DEVELOPMENT)
    assert find_rule(always).name == "always both"


def test_both_stages_are_held_against_each(tmp_path: Path) -> None:
    claim = "sea-rl-stage-both"
    assert judged(claim, table(None, stages("both", "both")), tmp_path)["verdict"] == "holds"
    assert judged(claim, table(), tmp_path)["verdict"] in ("mixed", "fails")


def test_the_figure_has_three_panels() -> None:
    assert len(draw_sea_rl(table(), CONFIG).axes) == 3
