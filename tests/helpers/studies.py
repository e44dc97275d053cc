"""A study run twice, a results folder made by hand for its judges, and the ledger's entry of one claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from datadose import sweep
from datadose.files import write_recorded_table
from datadose.studies.ledger import judge_all
from datadose.studies.study import Study
from datadose.sweep import Workers, run_cells


def write_result(folder: Path, study: Study[Any], table: pd.DataFrame, config: Any = None) -> Path:
    """Write NAME.csv and NAME.json as `datadose reproduce` does, and return ``folder``.

    ``config`` is the study's configuration, its smoke preset if None.
    """
    if config is None and study.experiment is not None:
        config = study.experiment.preset("smoke")
    write_recorded_table(folder, study.name, table, {"config": asdict(config), "versions": {}})
    return folder


def entry(study: Study[Any], claim_id: str, folder: Path) -> dict[str, Any]:
    """The ledger's entry of one claim of ``study``, judged from the files in ``folder``."""
    [claim] = [claim for claim in study.claims if claim.id == claim_id]
    return judge_all([replace(study, claims=(claim,))], folder)[0]


def run_twice(study: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The table of a study with rounds, run in ``folder``; a second start finds every cell made."""

    def run() -> pd.DataFrame:
        results = [
            run_cells(cells, cache_folder=folder, workers=Workers(1), title=title)
            for title, cells in study.rounds(folder)
        ]
        return study.table(results[-1])

    table = run()

    def nothing(calls: Sequence[Any], _: Workers) -> Iterator[Any]:
        assert not calls, "made twice"
        return iter(())

    monkeypatch.setattr(sweep, "finished_calls", nothing)
    pd.testing.assert_frame_equal(run(), table)
    return table
