"""What must be true of every table of the sea, whichever of its studies made it."""

from __future__ import annotations

import pandas as pd

from datadose.studies.referee.experiment import SeaStudy


def check_runs(table: pd.DataFrame, study: SeaStudy) -> None:
    """Numbers are there and in range; methods take as many rows, verified ones right rows only."""
    runs = table[table["method"] != "untouched"]
    assert runs.drop(columns="accuracy").notna().all(axis=None)
    assert (table["loss"] > 0).all()
    assert table["accuracy"].between(0, 1).all()
    # Every method takes as many rows, and of a pool with faults only right ones if it is verified.
    methods = runs[runs["method"].isin(study.methods)]
    assert (methods["rows"] == (methods["budget"] * study.pool_rows).round()).all()
    assert (methods.loc[methods["verified"], "share_faulty"] == 0).all()
    best, end = (methods[methods["stop"] == stop].reset_index(drop=True) for stop in ("best", "end"))
    assert (best["validation"] <= end["validation"]).all()
