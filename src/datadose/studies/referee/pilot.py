"""The pilots of the sea, on seeds outside the study: the learning rate, and the spread of paired differences.

``python -m datadose.studies.referee rates FOLDER`` prints one run a line, on validation rows;
``... spread FOLDER`` runs three seeds of a few methods and prints the pooled spread of differences of log
test losses to random rows, ``... methods-spread FOLDER`` the same in every sort of pool; ``... forecasts
FOLDER`` runs three seeds of the curves and prints the spread of the errors of forecasts. Their output is kept
in :mod:`~datadose.studies.referee.grid`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from datadose.power import pooled_spread
from datadose.studies.referee.arms import Arm, budgets_of, gains, settings_of
from datadose.studies.referee.experiment import RANDOM, SeaStudy
from datadose.studies.referee.forecasting import ForecastStudy, curves_of, spread_of
from datadose.studies.referee.runs import Column, Reference, Stop
from datadose.sweep import run_cells
from datadose.workers import Workers

RATES = (1e-4, 3e-4, 1e-3, 3e-3)
FIRST_SEED = 100


def run_rates(folder: Path) -> Iterator[str]:
    """Train on 5 percent of the first pool of one seed, at random and on the target's rows, at each rate."""
    quick = SeaStudy.preset("quick")
    for rate in RATES:
        study = replace(
            quick,
            descent=replace(quick.descent, rate=rate),
            settings=quick.settings[:1],
            methods=(RANDOM,),
            budgets=(0.05,),
            seeds=1,
            first_seed=FIRST_SEED,
        )
        table = _run(study, folder, (RANDOM, Reference.ORACLE))
        for method in (RANDOM, Reference.ORACLE):
            rows = table[table[Column.METHOD] == method].set_index(Column.STOP)
            end, best = rows.loc[Stop.END], rows.loc[Stop.BEST]
            values = f"{end[Column.VALIDATION]:.3f}, {best[Column.VALIDATION]:.3f}, {best[Column.STEP]}"
            yield f'GridPoint("{method}", {rate:g}, {values}),'


def run_spread(folder: Path, study: SeaStudy) -> Iterator[str]:
    """Run three seeds of a few methods on the pools of ``study``; give the spread by budget, and by pool and
    stop."""
    methods = (RANDOM, "rds", "sketch-mean")
    study = replace(study, methods=methods, unverified_budgets=(), seeds=3, first_seed=FIRST_SEED)
    table = _run(study, folder, methods)
    table.to_csv(folder / "pilot.csv", index=False)
    for contents, pair in settings_of(table):
        for stop in (Stop.BEST, Stop.END):
            every = []
            for budget in budgets_of(table, RANDOM):
                base = Arm(contents, pair, RANDOM, budget, stop=stop)
                found = [gains(table, replace(base, method=name), base) for name in methods[1:]]
                every += found
                yield f"{contents} {pair} {stop} {budget:g}: {pooled_spread(np.array(found)):.3f}"
            yield f'PoolPilot("{contents}", "{stop}", {pooled_spread(np.array(every)):.3f})'


def run_forecasts(folder: Path) -> Iterator[str]:
    """Run three seeds of every curve; give the spread over seeds that the errors' intervals stand for."""
    study = replace(ForecastStudy.preset("quick"), seeds=3, first_seed=FIRST_SEED)
    table = _run(study, folder, study.methods)
    table.to_csv(folder / "forecasts.csv", index=False)
    for contents, pair in settings_of(table):
        curves = [one for one in curves_of(table) if (one.contents, one.pair) == (contents, pair)]
        spreads = []
        for curve in curves:
            error = curve.error()
            yield f"{curve.name}: {error.value:+.3f} ({error.low:+.3f} to {error.high:+.3f})"
            spreads.append(spread_of(error, len(curve.losses)))
        yield f'PoolPilot("{contents}", "{Stop.BEST}", {np.sqrt(np.mean(np.square(spreads))):.3f})'


def _run(study: SeaStudy, folder: Path, methods: Collection[str]) -> Any:
    """The table of the runs of ``methods``."""
    results: list[Any] = []
    for title, every in study.rounds(folder):
        cells = every if title else [cell for cell in every if cell.arguments["run"].method in methods]
        results = run_cells(cells, cache_folder=folder, workers=Workers(jobs=2), title=title or "pilot")
    return study.table(results)
