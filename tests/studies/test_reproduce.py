"""Which studies a preset runs, and what a results folder shows while it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datadose.cli import main
from datadose.errors import RunError
from datadose.studies import reproduce as module
from datadose.studies.index import BEYOND, CLAIMS, GROUPS, named, study
from datadose.studies.reproduce import reproduce
from datadose.studies.study import Preset
from helpers.small_results import small_presets


def test_full_runs_all_that_quick_leaves_out() -> None:
    """Quick has Figures 1 to 5 and the claims; a study that is named runs whatever the preset."""
    quick = named(["all"], "quick")
    assert quick >= {*CLAIMS, *(f"fig{number}" for number in range(1, 6))}
    for preset in ("smoke", "full", "paper"):
        assert named(["all"], preset) == {*GROUPS["all"]} == quick | {*BEYOND}
    assert named(["all", "rl_bands", "training_time"], "quick") == quick | {
        "rl_bands",
        *GROUPS["training_time"],
    }


def test_full_has_the_sizes_of_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded is the preset of the sizes: one study alone is the same at both."""
    asked: list[Preset] = []
    with small_presets(asked):
        reproduce(["fig1"], preset="full", out=tmp_path)
    assert asked == ["quick"]
    assert json.loads((tmp_path / "fig1.json").read_text())["preset"] == "quick"


def test_the_report_is_there_after_the_first_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figure 1 is run first, wherever it was named; of what is to come the ledger says nothing yet."""
    real = module._run

    def run(one: Any, *arguments: Any) -> None:
        if one.name == "fig2":
            msg = "stopped"
            raise RunError(msg)
        real(one, *arguments)

    monkeypatch.setattr(module, "_run", run)
    with small_presets(), pytest.raises(RunError, match="stopped"):
        reproduce(["claims", "fig2", "fig1"], preset="smoke", out=tmp_path)
    assert 'id="fig1"' in (tmp_path / "report.html").read_text()
    entries = json.loads((tmp_path / "claims.json").read_text())
    assert [entry["id"] for entry in entries] == [claim.id for claim in study("fig1").claims]


def test_a_changed_table_of_a_study_to_come_is_made_again(tmp_path: Path) -> None:
    """The page of the studies before it does not read it."""
    with small_presets():
        reproduce(["fig1", "fig2"], preset="smoke", out=tmp_path)
        whole = (tmp_path / "fig2.csv").read_bytes()
        (tmp_path / "fig2.csv").write_bytes(whole + b"x\n")
        reproduce(["fig1", "fig2"], preset="smoke", out=tmp_path)
    assert (tmp_path / "fig2.csv").read_bytes() == whole


def test_what_is_left_over_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command and on the page, with the command that runs it."""
    # Nothing is run or judged: what is left over depends on the names alone.
    monkeypatch.setattr(module, "NAMES", ())
    monkeypatch.setattr(module, "judge_all", lambda *_: [])
    assert main(["reproduce", "all", "--preset", "quick", "--out", str(tmp_path)]) == 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left over")]
    page = (tmp_path / "report.html").read_text()
    for said in (line, page):
        assert "datadose reproduce all --preset full" in said
        assert all(name in said for name in BEYOND)
