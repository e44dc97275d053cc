"""RL on the sea at the smallest size: cells, table, picture; a second start makes none."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from datadose.files import read_table, write_table
from datadose.studies.referee.rl import SeaRlStudy
from datadose.studies.referee.rl_figure import draw_sea_rl
from datadose.studies.token_study.training import GROUP
from helpers.studies import run_twice

pytestmark = pytest.mark.slow


def test_a_whole_study_runs_resumes_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = SeaRlStudy.preset("smoke")
    table = run_twice(study, tmp_path, monkeypatch)

    runs = table[table["panel"] == "selectors"]
    counted = runs[["arm", "samples", "prompts"]].drop_duplicates()
    assert len(counted) == len(study.arms())
    assert (runs.groupby("seed").size() == runs.groupby("seed").size().iloc[0]).all()
    assert runs[["all", "rare", "known"]].stack().between(0, 1).all()
    # What a selector samples first, then GROUP completions of each prompt a step.
    batch = runs["chosen"].clip(upper=study.descent.batch)
    drawn = runs["total"] - runs["step"] * batch * GROUP
    assert (drawn % runs["samples"].where(runs["samples"] > 0, 1) == 0).all()
    assert ((drawn > 0) == (runs["samples"] > 0)).all()

    stages = table[table["panel"] == "stages"]
    assert (stages.groupby("target").size() == 4).all()
    assert (
        stages.loc[stages["arm"] == "none", ["nll", "pass_rate", "share_mixed", "signal"]]
        .notna()
        .all(axis=None)
    )
    assert stages["on_target"].between(0, 1).all()

    path = tmp_path / "table.csv"
    write_table(path, table)
    json.dumps(asdict(study), allow_nan=False)
    assert len(draw_sea_rl(read_table(path), study).axes) == 3
