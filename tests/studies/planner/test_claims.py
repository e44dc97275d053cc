"""Every judge of a planner claim can say *holds*, *mixed* and *fails*: shown on small hand-made tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from datadose.studies.planner import dose_study, stages_study
from datadose.studies.planner.dose import Column, PlannerRegret
from datadose.studies.planner.stages import DENSE, NO_STAGE, RL, SFT, SFT_THEN_RL
from datadose.studies.planner.stages import Column as StageColumn
from datadose.studies.tables import as_table
from helpers.studies import entry, write_result

QUIET = {Column.HELD_OUT_SEM: 1e-4, Column.MAX_PROMPTS: 100, Column.PROMPTS: 10}


def judged(claim_id: str, rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    shared = {Column.FIGURE: "planner", Column.ERROR: 1.0}
    table = as_table([{**shared, Column.PANEL: f"shift={i}", **row} for i, row in enumerate(rows)], Column)
    config = replace(PlannerRegret.preset("smoke"), seeds=16)
    return entry(dose_study.STUDY, claim_id, write_result(folder, dose_study.STUDY, table, config))


def doses(*regrets: tuple[float, float], **changes: float) -> list[dict[str, Any]]:
    return [{**QUIET, "regret": r, "held_out_regret": h, **changes} for r, h in regrets]


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (doses((0.0, -0.001), (0.002, 0.0), (0.04, 0.03)), "holds"),
        # Biased high over the limit, held out below it: open.
        (doses((0.0, 0.0), (0.002, 0.0), (0.06, 0.04)), "mixed"),
        (doses((0.0, 0.0), (0.002, 0.0), (0.08, 0.07)), "fails"),
        # The same, but not known so well.
        (doses((0.0, 0.0), (0.002, 0.0), (0.08, 0.07), held_out_sem=0.02), "mixed"),
        # The median.
        (doses((0.0, 0.0), (0.02, 0.015), (0.03, 0.02)), "fails"),
        (doses((0.0, 0.0), (0.02, 0.001), (0.03, 0.02)), "mixed"),
    ],
)
def test_dose_is_judged_on_both_regrets(rows: list[dict[str, Any]], verdict: str, tmp_path: Path) -> None:
    found = judged("planner-dose", rows, tmp_path)
    assert found["verdict"] == verdict
    assert found["value"] == max(row["regret"] for row in rows)
    assert found["seeds"] == 16
    assert "median" in found["note"]


def test_the_note_tells_inner_doses_from_the_ends(tmp_path: Path) -> None:
    rows = [*doses((0.0, 0.0), prompts=0), *doses((0.0, 0.0), prompts=100), *doses((0.03, 0.02))]
    note = judged("planner-dose", rows, tmp_path)["note"]
    assert "B* is 0 or the largest B in 2, in the other 1 the median is 3.00%" in note
    note = judged("planner-dose", doses((0.0, 0.0), prompts=0), tmp_path)["note"]
    assert "in the other" not in note


def gains(*settings: tuple[float, float, float]) -> list[dict[str, Any]]:
    return [{**QUIET, "predicted_gain": p, "gain": g, "gain_sem": s} for p, g, s in settings]


@pytest.mark.parametrize(
    ("rows", "verdict", "value"),
    [
        (gains((0.0, 0.0, 0.0), (0.05, 0.04, 0.01), (0.01, -0.01, 0.002)), "holds", 1.0),
        (gains((0.05, 0.04, 0.01), (0.05, 0.01, 0.01)), "mixed", 0.5),
        (gains((0.05, -0.04, 0.01), (0.03, -0.03, 0.01)), "fails", 0.0),
        (gains((0.0, 0.0, 0.0), (0.01, 0.01, 0.002)), "mixed", None),
    ],
)
def test_allocation_is_judged_where_a_gain_is_predicted(
    rows: list[dict[str, Any]], verdict: str, value: float | None, tmp_path: Path
) -> None:
    found = judged("planner-allocation", rows, tmp_path)
    assert (found["verdict"], found["value"]) == (verdict, value)
    assert "largest" in found["note"]


def stages(*cases: tuple[str, dict[str, float]]) -> pd.DataFrame:
    """Dense cases: the recommended arm and the four arms' errors, two seeds alike."""
    rows = [
        {
            StageColumn.FIGURE: "planner_stages",
            StageColumn.PANEL: f"case {i}",
            StageColumn.ERROR: error,
            StageColumn.SEED: seed,
            StageColumn.KIND: arm,
            StageColumn.OPTIMISER: "gd",
            StageColumn.REWARD: DENSE,
            StageColumn.RECOMMENDED: recommended,
            StageColumn.PASS_RATE: 0.0,
            StageColumn.SPECTRAL_RADIUS: 2.0,
        }
        for i, (recommended, errors) in enumerate(cases)
        for arm, error in errors.items()
        for seed in (0, 1)
    ]
    return as_table(rows, StageColumn)


RL_WINS = {NO_STAGE: 2.0, SFT: 2.0, RL: 1.0, SFT_THEN_RL: 2.0}
SFT_WINS = {NO_STAGE: 2.0, SFT: 1.0, RL: 2.0, SFT_THEN_RL: 2.0}
SFT_THEN_RL_WINS = {NO_STAGE: 2.0, SFT: 2.0, RL: 2.0, SFT_THEN_RL: 1.0}
VARIED = [(RL, RL_WINS), (SFT, SFT_WINS), (SFT_THEN_RL, SFT_THEN_RL_WINS)] * 4


@pytest.mark.parametrize(
    ("cases", "verdict"),
    [
        (VARIED, "holds"),
        # Always SFT does as well: nothing to decide against that rule.
        ([(SFT, SFT_WINS)] * 8, "mixed"),
        # The planner is always wrong and every rule sometimes right.
        ([(NO_STAGE, errors) for _, errors in VARIED], "fails"),
    ],
)
def test_stages_are_judged_against_fixed_rules(cases: Any, verdict: str, tmp_path: Path) -> None:
    folder = write_result(tmp_path, stages_study.STUDY, stages(*cases))
    found = entry(stages_study.STUDY, "planner-stage", folder)
    assert found["verdict"] == verdict
    assert "as good as the best: planner" in found["note"]
