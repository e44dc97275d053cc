"""The study of all levels: run at one seed, resumed, drawn and judged from its table alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from datadose.errors import InputError
from datadose.files import read_table
from datadose.studies.levels.gpt import GptLevel
from datadose.studies.levels.linear import LinearLevel
from datadose.studies.levels.schema import Column, Level
from datadose.studies.levels.study import STUDY, Levels
from datadose.studies.study import Saved
from datadose.sweep import Workers, run_cells
from helpers.studies import write_result


@pytest.mark.long
def test_two_levels_at_one_seed(tmp_path: Path) -> None:
    config = Levels(LinearLevel.preset("smoke"), GptLevel.preset("smoke"), None, None, 1)
    results = []
    for _ in range(2):
        for title, cells in config.rounds(tmp_path):
            results = run_cells(cells, cache_folder=tmp_path, workers=Workers(), title=title or "levels")
    table = config.table(results)
    assert set(table[Column.LEVEL]) == {Level.LINEAR, Level.GPT}
    assert set(table[Column.SEED].dropna()) == {0}
    assert table[Column.ERROR].notna().all()
    write_result(tmp_path, STUDY, table, config)
    saved = Saved(STUDY, tmp_path)
    assert saved.config == config
    assert len(read_table(tmp_path / "levels.csv")) == len(table)
    assert STUDY.draw is not None
    assert len(STUDY.draw(saved.table, saved.config).axes) == 10
    for claim in STUDY.claims:
        claim.judge(saved, claim.threshold)


def test_presets() -> None:
    assert Levels.preset("quick").smollm is None
    assert Levels.preset("paper").smollm is not None
    with pytest.raises(InputError, match="preset"):
        Levels.preset("small")
    for name in ("quick", "paper"):
        linear = Levels.preset(name).linear
        assert linear is not None
        d = linear.task.block.dimension
        assert len(linear.prompts) >= 5
        assert min(linear.prompts) < d < max(linear.prompts)
        assert d in linear.prompts
