"""Every judge of a planner claim can say *holds*, *mixed* and *fails*: shown on small hand-made tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from datadose.files import write_json, write_table
from datadose.studies.ledger import Tables, judge_all
from datadose.studies.planner.claims import PLANNER_CLAIMS
from datadose.studies.planner.dose import EXTRA, NAME
from datadose.studies.planner.stages import EXTRA as STAGE_EXTRA
from datadose.studies.training import insight_row, insight_table

CLAIMS = {claim.id: claim for claim in PLANNER_CLAIMS}
QUIET = {"held_out_sem": 1e-4, "max_prompts": 100, "prompts": 10}


def judged(claim_id: str, rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    table = insight_table(
        [insight_row(NAME, f"shift={i}", error=1.0, **row) for i, row in enumerate(rows)], EXTRA
    )
    write_table(folder / f"{NAME}.csv", table)
    write_json(folder / f"{NAME}.json", {"config": {"seeds": 16}})
    return judge_all([CLAIMS[claim_id]], Tables(folder))[0]


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
    entry = judged("planner-dose", rows, tmp_path)
    assert entry["verdict"] == verdict
    assert entry["value"] == max(row["regret"] for row in rows)
    assert entry["seeds"] == 16
    assert "median" in entry["note"]


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
    entry = judged("planner-allocation", rows, tmp_path)
    assert (entry["verdict"], entry["value"]) == (verdict, value)
    assert "largest" in entry["note"]


def stages(*cases: tuple[str, dict[str, float]]) -> pd.DataFrame:
    """Dense cases: the recommended arm and the four arms' errors, two seeds alike."""
    rows = [
        insight_row(
            "planner_stages",
            f"case {i}",
            error=error,
            seed=seed,
            kind=arm,
            reward="dense",
            recommended=recommended,
            pass_rate=0.0,
            spectral_radius=2.0,
        )
        for i, (recommended, errors) in enumerate(cases)
        for arm, error in errors.items()
        for seed in (0, 1)
    ]
    return insight_table(rows, STAGE_EXTRA)


RL_WINS = {"none": 2.0, "sft": 2.0, "rl": 1.0, "sft then rl": 2.0}
SFT_WINS = {"none": 2.0, "sft": 1.0, "rl": 2.0, "sft then rl": 2.0}
BOTH_WIN = {"none": 2.0, "sft": 2.0, "rl": 2.0, "sft then rl": 1.0}
VARIED = [("rl", RL_WINS), ("sft", SFT_WINS), ("sft then rl", BOTH_WIN)] * 4


@pytest.mark.parametrize(
    ("cases", "verdict"),
    [
        (VARIED, "holds"),
        # Always SFT does as well: nothing to decide against that rule.
        ([("sft", SFT_WINS)] * 8, "mixed"),
        # The planner is always wrong and every rule sometimes right.
        ([("none", errors) for _, errors in VARIED], "fails"),
    ],
)
def test_stages_are_judged_against_fixed_rules(cases: Any, verdict: str, tmp_path: Path) -> None:
    write_table(tmp_path / "planner_stages.csv", stages(*cases))
    write_json(tmp_path / "planner_stages.json", {"config": {"seeds": 2}})
    entry = judge_all([CLAIMS["planner-stage"]], Tables(tmp_path))[0]
    assert entry["verdict"] == verdict
    assert "as good as the best: planner" in entry["note"]
