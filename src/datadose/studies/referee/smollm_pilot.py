"""The pilot of SmolLM2's sea: seeds outside the study fix the learning rate and state the power.

:func:`run_pilot` gives what ``smollm_grid`` records. It continues where it was stopped, and its base model
and scored pool are those of the study in the same folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from datadose.power import pooled_spread
from datadose.studies.referee.smollm_arms import Arm, gains, stopped
from datadose.studies.referee.smollm_experiment import RANDOM, SmolStudy
from datadose.studies.referee.smollm_grid import PILOT, GridPoint
from datadose.studies.referee.smollm_runs import ORACLE, Column
from datadose.studies.study import Preset
from datadose.sweep import Workers, run_cells

RATES = (5e-4, 1e-3, 2e-3)
_CHOSEN = "rds"
"""The method of the pilot, which was run before the sea had chosen another default."""
_ARMS = (RANDOM, _CHOSEN)


def run_pilot(
    out: Path, preset: Preset = "quick", rates: Sequence[float] = RATES
) -> tuple[list[GridPoint], float]:
    """Run the pilot in ``out``: all rates on the first seed, then the two best of them on all seeds.

    Returns every run of the two methods at its best update, and the spread over seeds of the gains of the
    candidate over random rows and over right target rows, at the rate with the lowest sum of validation
    losses over seeds and methods.
    """
    study = replace(SmolStudy.preset(preset), methods=_ARMS, unverified=(), first_seed=PILOT.seeds[0])

    def table_at(rate: float, seeds: int) -> pd.DataFrame:
        return _run(replace(study, training=replace(study.training, rate=rate), seeds=seeds), out)

    found = {rate: table_at(rate, 1) for rate in rates}
    for rate in sorted(rates, key=lambda rate: _total(_points(found[rate], rate)))[:2]:
        found[rate] = table_at(rate, len(PILOT.seeds))
    grid = [point for rate in rates for point in _points(found[rate], rate)]
    full = [rate for rate in rates if len(_points(found[rate], rate)) == len(_ARMS) * len(PILOT.seeds)]
    best = found[min(full, key=lambda rate: _total(_points(found[rate], rate)))]
    return grid, pooled_spread([gains(best, Arm(_CHOSEN), Arm(other)) for other in (RANDOM, ORACLE)])


def _points(table: pd.DataFrame, rate: float) -> list[GridPoint]:
    return [
        GridPoint(method, rate, int(seed), int(row[Column.STEP]), float(row[Column.VALIDATION]))
        for method in _ARMS
        for seed, row in stopped(table, Arm(method)).iterrows()
    ]


def _total(points: Sequence[GridPoint]) -> float:
    return sum(point.validation for point in points)


def _run(study: SmolStudy, out: Path) -> pd.DataFrame:
    results: list[Any] = []
    for title, cells in study.rounds(out / ".cache"):
        results = run_cells(cells, cache_folder=out / ".cache", workers=Workers(), title=title or "pilot")
    return study.table(results)
