"""The whole sea at the smallest size with its methods: cells, table, picture; a second start makes none."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from datadose.files import read_table, write_table
from datadose.studies.referee.experiment import METHODS, SeaStudy
from datadose.studies.referee.figure import draw_sea
from helpers.studies import run_twice

pytestmark = pytest.mark.slow


def test_a_whole_study_runs_resumes_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = SeaStudy.preset("smoke")
    table = run_twice(study, tmp_path, monkeypatch)

    assert {*METHODS, "oracle", "full", "weighted", "untouched"} == {*table["method"]}
    runs = table[table["method"] != "untouched"]
    assert runs.drop(columns="accuracy").notna().all(axis=None)
    assert (table["loss"] > 0).all()
    assert table["accuracy"].between(0, 1).all()
    # Every method takes as many rows, and of a pool with faults only right ones if it is verified.
    methods = runs[runs["method"].isin(METHODS)]
    assert (methods["rows"] == (methods["budget"] * study.pool_rows).round()).all()
    assert (methods.loc[methods["verified"], "share_faulty"] == 0).all()
    best, end = (methods[methods["stop"] == stop].reset_index(drop=True) for stop in ("best", "end"))
    assert (best["validation"] <= end["validation"]).all()

    path = tmp_path / "table.csv"
    write_table(path, table)
    json.dumps(asdict(study), allow_nan=False)
    assert len(draw_sea(read_table(path), study).axes) == 4
