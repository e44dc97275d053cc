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
from datadose.studies.referee.smollm_experiment import CANDIDATE, RANDOM, SmolStudy
from datadose.studies.referee.smollm_grid import PILOT, GridPoint
from datadose.studies.referee.smollm_runs import ORACLE, Column
from datadose.studies.study import Preset
from datadose.sweep import Workers, run_cells

RATES = (5e-4, 1e-3, 2e-3)
_ARMS = (RANDOM, CANDIDATE)


def run_pilot(
    out: Path, preset: Preset = "quick", rates: Sequence[float] = RATES
) -> tuple[list[GridPoint], float]:
    """Run the pilot in ``out``.

    Returns the grid on the first seed, and the spread over all pilot seeds of the gains of the candidate over
    random rows and over right target rows, at the rate with the lowest validation loss of the two methods.
    """
    first = replace(
        SmolStudy.preset(preset), methods=_ARMS, unverified=(), first_seed=PILOT.seeds[0], seeds=1
    )
    grid = []
    for rate in rates:
        table = _run(replace(first, training=replace(first.training, rate=rate)), out)
        for method in _ARMS:
            row = stopped(table, Arm(method)).iloc[0]
            grid.append(GridPoint(method, rate, int(row[Column.STEP]), float(row[Column.VALIDATION])))
    best = min(rates, key=lambda rate: sum(point.validation for point in grid if point.rate == rate))
    chosen = replace(first, training=replace(first.training, rate=best), seeds=len(PILOT.seeds))
    table = _run(chosen, out)
    return grid, pooled_spread([gains(table, Arm(CANDIDATE), Arm(other)) for other in (RANDOM, ORACLE)])


def _run(study: SmolStudy, out: Path) -> pd.DataFrame:
    results: list[Any] = []
    for title, cells in study.rounds(out / ".cache"):
        results = run_cells(cells, cache_folder=out / ".cache", workers=Workers(), title=title or "pilot")
    return study.table(results)
