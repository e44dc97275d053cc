"""The claim on forecasts says *holds*, *mixed*, *fails* and *not run*: shown on small hand-made tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datadose.files import write_json, write_table
from datadose.studies.ledger import Tables, judge_all
from datadose.studies.planner.forecasts import FORECAST_CLAIMS
from datadose.studies.planner.rules import ARMS
from datadose.studies.planner.stages import EXTRA
from datadose.studies.training import insight_row, insight_table


def rows(index: int, off: float, *, panel: str = "forecast", withheld: bool = False) -> list[dict[str, Any]]:
    """A case whose three stages are forecast ``off`` times what is measured; pass rates are right."""
    common: dict[str, Any] = {
        "error": 1.0, "reward": "dense", "recommended": "rl", "predicted_pass_rate": 0.0, "pass_rate": 0.0,
        "steps": 1, "length": 100, "spectral_radius": 1.0, "demonstrations": 5, "prompts": 10,
        "optimiser": "gd", "dimension": 20, "error_withheld": withheld, "pass_rate_withheld": withheld,
    }  # fmt: skip
    return [
        insight_row(
            "planner_stages",
            f"{panel} {index}",
            **common,
            seed=seed,
            kind=arm,
            predicted=1.0 if arm == "none" else off,
        )
        for arm in ARMS
        for seed in (0, 1)
    ]


def judged(folder: Path, *cases: list[dict[str, Any]]) -> dict[str, Any]:
    write_table(folder / "planner_stages.csv", insight_table([row for case in cases for row in case], EXTRA))
    write_json(folder / "planner_stages.json", {"config": {"seeds": 2}})
    return judge_all(FORECAST_CLAIMS, Tables(folder))[0]


@pytest.mark.parametrize(
    ("off", "verdict"),
    [([1.1] * 12, "holds"), ([1.1] * 9 + [1.5] * 3, "mixed"), ([1.5] * 12, "fails")],
)
def test_told_forecasts_are_judged(off: list[float], verdict: str, tmp_path: Path) -> None:
    """Half of a case's numbers are errors: one that is off weighs a half."""
    entry = judged(tmp_path, *(rows(i, value) for i, value in enumerate(off)))
    assert entry["verdict"] == verdict
    assert entry["value"] == pytest.approx(sum(value > 1.2 for value in off) / 2 / len(off))
    assert f"of {len(off)} cases" in entry["note"]


def test_what_is_withheld_counts_neither_way(tmp_path: Path) -> None:
    told, kept = [rows(i, 1.0) for i in range(4)], [rows(i, 9.0, withheld=True) for i in range(4, 8)]
    entry = judged(tmp_path, *told, *kept)
    assert (entry["verdict"], entry["value"]) == ("holds", 0.0)
    assert "withheld error off in 100% of 12" in entry["note"]
    assert judged(tmp_path, *kept)["verdict"] == "mixed"


def test_a_table_without_these_cases_is_not_judged(tmp_path: Path) -> None:
    assert judged(tmp_path, rows(200, 1.0, panel="case"))["verdict"] == "not run"
