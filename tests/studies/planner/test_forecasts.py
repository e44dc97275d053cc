"""The claim on forecasts says *holds*, *mixed*, *fails* and *not run*: shown on small hand-made tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datadose.studies.planner.stages import ARMS, NO_STAGE, RL, Column
from datadose.studies.planner.stages_study import STUDY
from datadose.studies.tables import as_table
from helpers.studies import entry, write_result


def rows(index: int, off: float, *, panel: str = "forecast", withheld: bool = False) -> list[dict[str, Any]]:
    """A case whose three stages are forecast ``off`` times what is measured; pass rates are right."""
    common: dict[str, Any] = {
        Column.FIGURE: STUDY.name,
        Column.ERROR: 1.0,
        Column.REWARD: "dense",
        Column.RECOMMENDED: RL,
        Column.PREDICTED_PASS_RATE: 0.0,
        Column.PASS_RATE: 0.0,
        Column.STEPS: 1,
        Column.LENGTH: 100,
        Column.SPECTRAL_RADIUS: 1.0,
        Column.DEMONSTRATIONS: 5,
        Column.PROMPTS: 10,
        Column.OPTIMISER: "gd",
        Column.DIMENSION: 20,
        Column.ERROR_WITHHELD: withheld,
        Column.PASS_RATE_WITHHELD: withheld,
    }
    return [
        {
            **common,
            Column.PANEL: f"{panel} {index}",
            Column.SEED: seed,
            Column.KIND: arm,
            Column.PREDICTED: 1.0 if arm == NO_STAGE else off,
        }
        for arm in ARMS
        for seed in (0, 1)
    ]


def judged(folder: Path, *cases: list[dict[str, Any]]) -> dict[str, Any]:
    table = as_table([row for case in cases for row in case], Column)
    return entry(STUDY, "planner-forecasts", write_result(folder, STUDY, table))


@pytest.mark.parametrize(
    ("off", "verdict"),
    [([1.1] * 12, "holds"), ([1.1] * 9 + [1.5] * 3, "mixed"), ([1.5] * 12, "fails")],
)
def test_told_forecasts_are_judged(off: list[float], verdict: str, tmp_path: Path) -> None:
    """Half of a case's numbers are errors: one that is off weighs a half."""
    found = judged(tmp_path, *(rows(i, value) for i, value in enumerate(off)))
    assert found["verdict"] == verdict
    assert found["value"] == pytest.approx(sum(value > 1.2 for value in off) / 2 / len(off))
    assert f"of {len(off)} cases" in found["note"]


def test_what_is_withheld_counts_neither_way(tmp_path: Path) -> None:
    told, kept = [rows(i, 1.0) for i in range(4)], [rows(i, 9.0, withheld=True) for i in range(4, 8)]
    found = judged(tmp_path, *told, *kept)
    assert (found["verdict"], found["value"]) == ("holds", 0.0)
    assert "withheld error off in 100% of 12" in found["note"]
    assert judged(tmp_path, *kept)["verdict"] == "mixed"


def test_a_table_without_these_cases_is_not_judged(tmp_path: Path) -> None:
    assert judged(tmp_path, rows(200, 1.0, panel="case"))["verdict"] == "not run"
