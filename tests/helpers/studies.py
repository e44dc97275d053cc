"""A results folder made by hand for the judges of a study, and the ledger's entry of one claim."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from datadose.files import write_recorded_table
from datadose.studies.ledger import judge_all
from datadose.studies.study import Study


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
