"""The whole sea at the smallest size with its methods: cells, table, picture; a second start makes none."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from datadose.files import read_table, write_table
from datadose.studies.referee.experiment import METHODS, SeaStudy
from datadose.studies.referee.figure import draw_sea
from helpers.sea_runs import check_runs
from helpers.studies import run_twice

pytestmark = pytest.mark.slow


def test_a_whole_study_runs_resumes_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = SeaStudy.preset("smoke")
    table = run_twice(study, tmp_path, monkeypatch)

    assert {*METHODS, "oracle", "full", "weighted", "untouched"} == {*table["method"]}
    check_runs(table, study)

    path = tmp_path / "table.csv"
    write_table(path, table)
    json.dumps(asdict(study), allow_nan=False)
    assert len(draw_sea(read_table(path), study).axes) == 4
