"""The pilot of SmolLM2's sea: seeds outside the study fix the learning rate and state the power.

``python -m datadose.studies.referee.smollm_pilot OUT [PRESET]`` prints what ``smollm_grid`` records; it
continues where it was stopped, and its base model and scored pool are those of the study in OUT.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd

from datadose.power import pooled_spread
from datadose.studies.referee.smollm_arms import Arm, gains, stopped
from datadose.studies.referee.smollm_experiment import CANDIDATE, RANDOM, SmolStudy
from datadose.studies.referee.smollm_grid import PILOT, GridPoint
from datadose.studies.referee.smollm_runs import Column
from datadose.studies.study import Preset
from datadose.sweep import Workers, run_cells

RATES = (5e-4, 1e-3, 2e-3)
_ARMS = (RANDOM, CANDIDATE)


def run_pilot(out: Path, preset: Preset, rates: Sequence[float] = RATES) -> tuple[list[GridPoint], float]:
    """Run the pilot in ``out``.

    Returns the grid on the first seed, and the spread over all pilot seeds of the gain of one arm over the
    other, at the rate with the lowest validation loss.
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
    return grid, pooled_spread(gains(_run(chosen, out), Arm(CANDIDATE), Arm(RANDOM)))


def _run(study: SmolStudy, out: Path) -> pd.DataFrame:
    results: list[Any] = []
    for title, cells in study.rounds(out / ".cache"):
        results = run_cells(cells, cache_folder=out / ".cache", workers=Workers(), title=title or "pilot")
    return study.table(results)


if __name__ == "__main__":
    points, spread = run_pilot(Path(sys.argv[1]), cast("Preset", (sys.argv[2:] or ["quick"])[0]))
    for point in points:
        print(point)
    print(f"spread {spread:.4f}")
