"""Tables made by hand for the judges of the studies of stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datadose.studies.study import Study
from datadose.studies.tables import THEORY, as_table
from datadose.studies.training_time.outcome_cells import Column
from helpers.studies import entry, write_result

SEEDS = 60


def verdict(study: Study[Any], claim: str, folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """The verdict of one claim on these rows, by column."""
    columns = getattr(study.experiment, "columns", Column)
    full = [{"figure": study.name, "model": THEORY, **row} for row in rows]
    write_result(folder, study, as_table(full, columns))
    return str(entry(study, claim, folder)["verdict"])
