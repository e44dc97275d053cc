"""The whole token study at the smallest size: cells, table, picture; a second start makes nothing again."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

from datadose.files import read_table, write_table
from datadose.studies.token_study.experiment import TokenStudy
from datadose.studies.token_study.figure import draw_token_study
from datadose.studies.token_study.pools import BANDS
from datadose.studies.token_study.runs import ARM_COLUMNS
from helpers.studies import run_twice


@pytest.mark.slow
def test_a_whole_study_runs_resumes_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = replace(TokenStudy.preset("smoke"), seeds=2)
    table = run_twice(study, tmp_path, monkeypatch)

    panels = {"pretraining", "activation", "sft size", "selectors", "replay", "rl", "stages"}
    assert set(table["panel"]) == panels
    assert table["value"].notna().all()
    accuracy = table[table["split"] != "train"]
    assert accuracy["value"].between(0, 1).all()
    assert set(accuracy["split"]) == {"validation", "test"}
    # One rate is chosen for every arm, and every seed has run at it.
    chosen = table[table["chosen"]]
    assert (chosen.groupby(ARM_COLUMNS)["rate"].nunique() == 1).all()
    assert (chosen.groupby(ARM_COLUMNS)["seed"].nunique() == study.seeds).all()
    assert set(chosen.loc[chosen["panel"] == "rl", "arm"]) == set(BANDS)

    path = tmp_path / "table.csv"
    write_table(path, table)
    json.dumps(asdict(study), allow_nan=False)
    figure = draw_token_study(read_table(path), study)
    assert len(figure.axes) == 12


def test_presets_grow() -> None:
    quick, paper = (TokenStudy.preset(name) for name in ("quick", "paper"))  # type: ignore[arg-type]
    assert quick.seeds >= 3
    assert paper.seeds >= 5
    assert set(quick.sft_rates) < set(paper.sft_rates)
    # The size that chooses rates is among those at equal steps, and the unfiltered band among the numbers.
    for study in (quick, paper):
        assert study.rl_band_size in study.rl_numbers
        assert pd.Series(study.sft_sizes).is_monotonic_increasing
