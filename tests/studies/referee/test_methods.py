"""Every method in every pool: judges on hand-made tables, the picture, and a whole small run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose.studies.referee.grid import PoolPilot
from datadose.studies.referee.judging import Pilot
from datadose.studies.referee.methods_experiment import BLIND, METHODS, MethodsStudy
from datadose.studies.referee.methods_figure import draw_methods
from datadose.studies.referee.methods_study import STUDY
from helpers.studies import entry, run_twice, write_result

SEEDS = 5
PILOTS = (PoolPilot("clean", "best", Pilot(0.05, (100,), "a test")),)
CONFIG = replace(MethodsStudy.preset("smoke"), seeds=SEEDS, pilots=PILOTS)
POOLS = (("clean", "A"), ("clean", "B"), ("wrong", "B"), ("mixed", "B"))
GOOD = {
    **dict.fromkeys(BLIND, -0.2), "random": 0.0, "filters": 0.1, "sketch-mean": 0.1, "sketch": 0.2,
    "gradient": 0.4, "rds": 0.6, "transport": 0.8, "bm25": 0.9, "oracle": 1.0, "full": 0.1, "untouched": -0.5,
}  # fmt: skip
"""Lift in log loss of each arm if every claim holds."""


def table(lifts: dict[str, float] | None = None, *, fault: float = 0.0) -> pd.DataFrame:
    """Five seeds in each pool; faults raise the log loss of all arms by ``fault``."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for contents, pair in POOLS:
        for name, lift in (lifts or GOOD).items():
            for seed in range(SEEDS):
                level = lift + 0.3 * seed + rng.normal(0, 0.005) - (fault if contents != "clean" else 0)
                row = {"contents": contents, "pair": pair, "method": name, "verified": True, "seed": seed}
                row |= {"budget": {"full": 1.0, "untouched": 0.0}.get(name, 0.05), "stop": "best"}
                rows.append({**row, "loss": float(np.exp(-level))})
    return pd.DataFrame(rows)


def judged(claim_id: str, content: pd.DataFrame, folder: Path) -> dict[str, Any]:
    return entry(STUDY, claim_id, write_result(folder, STUDY, content, CONFIG))


@pytest.mark.parametrize("claim_id", [claim.id for claim in STUDY.claims])
def test_a_claim_holds_fails_or_finds_no_difference(claim_id: str, tmp_path: Path) -> None:
    good = judged(claim_id, table(), tmp_path)
    assert (good["verdict"], good["seeds"]) == ("holds", SEEDS), good["note"]
    bad = judged(claim_id, table({name: -lift for name, lift in GOOD.items()}, fault=0.3), tmp_path)
    assert bad["verdict"] == "fails", bad["note"]
    same = judged(claim_id, table(dict.fromkeys(GOOD, 0.0)), tmp_path)["verdict"]
    unbeaten = ("sea-methods-blind", "sea-methods-rivals", "sea-methods-faults")
    assert same == ("holds" if claim_id in unbeaten else "no difference")


def test_a_fault_is_held_against_the_clean_pool_of_its_own_targets(tmp_path: Path) -> None:
    content = table()
    other = (content["contents"] == "clean") & (content["pair"] == "A")
    content.loc[other, "loss"] *= np.exp(-1.0)
    found = judged("sea-methods-faults", content, tmp_path)
    assert found["verdict"] == "holds"
    assert "clean" not in found["note"]


def test_the_picture_has_a_panel_a_pool_and_the_best_method_on_top() -> None:
    figure = draw_methods(table(), CONFIG)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == len(POOLS)
    names = [text.get_text() for text in shown[0].get_yticklabels()]
    assert names[:3] == ["bm25", "transport", "rds"]
    assert {*names[-len(BLIND) :]} == {*BLIND}
    assert {*names} == {*METHODS} - {"random"}


def test_presets_grow() -> None:
    smoke, quick, paper = (MethodsStudy.preset(name) for name in ("smoke", "quick", "paper"))
    assert smoke.seeds < quick.seeds < paper.seeds
    assert {*quick.settings} < {*paper.settings}
    assert smoke.methods == quick.methods == paper.methods == METHODS
    for one in quick.pilots:
        assert not {*one.pilot.seeds} & {*quick.numbers}


@pytest.mark.slow
def test_a_whole_study_runs_resumes_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = MethodsStudy.preset("smoke")
    found = run_twice(study, tmp_path, monkeypatch)
    assert {*found["figure"]} == {"sea_methods"}
    assert {*found["method"]} == {*METHODS, "oracle", "full", "untouched"}
    assert len(draw_methods(found, study).axes) == len(study.settings)
