"""The pilots of RL on the sea, on seeds outside the study and validation strings.

``python -m datadose.studies.referee rl-targets FOLDER`` lists the targets of the stages: of all families on
three groups of lengths, 23 with pass rates even in log-odds, no family twice. ``... rl-rates FOLDER``
trains on the unfiltered pool, which no selector favours, at each rate; ``... rl-stages FOLDER`` does SFT and
RL of three development targets at each rate; ``... rl-spread FOLDER`` runs three seeds of a few selectors and
prints the pooled spread of their differences to random prompts, and to each other. What they print is kept in
:mod:`~datadose.studies.referee.rl_grid`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logit

from datadose.power import pooled_spread
from datadose.studies.referee.base import model_cells
from datadose.studies.referee.language import FAMILIES
from datadose.studies.referee.rl import SeaRlStudy
from datadose.studies.referee.rl_prompts import RlRun, Selector, pass_rates
from datadose.studies.referee.rl_runs import Column, run_rl
from datadose.studies.referee.stage_runs import RL, SFT, Stage, StageRun, StageTarget, draw_target, run_stage
from datadose.studies.token_study.language import VALIDATION
from datadose.studies.token_study.model import load_model
from datadose.sweep import Cell, run_cells
from datadose.workers import Workers

SEEDS = (100, 101, 102)
RATES = (3e-5, 1e-4, 3e-4)
STAGE_RATES: dict[Stage, tuple[float, ...]] = {SFT: (3e-4, 1e-3, 3e-3), RL: RATES}
LENGTHS = ((3, 4, 5), (6, 7, 8), (9,))
_ENDS = (1e-5, 0.9)
"""Pass rates from hopeless to nearly solved."""


def list_targets(folder: Path, count: int = 23) -> Iterator[str]:
    """The targets by the first seed's pass rates, every second one first: for development."""
    network = load_model(_models(folder, SEEDS[:1])[SEEDS[0]])
    found = [StageTarget(header, lengths, 0.0) for header, lengths in product(FAMILIES, LENGTHS)]
    rates = [float(pass_rates(network, draw_target(one, 120, 0, VALIDATION)).mean()) for one in found]
    left = {one.name: replace(one, rate=rate) for one, rate in zip(found, rates, strict=True)}
    wanted = np.linspace(float(logit(_ENDS[0])), float(logit(_ENDS[1])), count)
    chosen = {}
    for rate in [*wanted[::2], *wanted[1::2]]:
        best = min(left.values(), key=lambda one: abs(float(logit(one.rate)) - rate))
        left = {name: one for name, one in left.items() if one.header != best.header}
        chosen[rate] = best
    for _, one in sorted(chosen.items()):
        yield f'StageTarget("{one.header}", {one.lengths}, {one.rate:.2g}),'


def run_rates(folder: Path) -> Iterator[str]:
    """The unfiltered pool at each rate."""
    study = SeaRlStudy.preset("quick")
    run = RlRun(Selector.UNFILTERED, 0, 0, SEEDS[0])
    model = _models(folder, SEEDS[:1])[run.seed]
    for rate in RATES:
        descent = replace(study.descent, rate=rate)
        for row in _run(folder, [_cell(study, model, run, descent=descent)])[0]:
            values = f"{row[Column.STEP]}, {row[Column.ALL]:.3f}, {row[Column.RARE]:.3f}"
            yield f'RlPoint("{run.selector}", {rate:g}, {values}),'


def run_stages(folder: Path) -> Iterator[str]:
    """SFT and RL alone on three development targets at each rate: validation rows at the best look."""
    part = SeaRlStudy.preset("quick").stages
    model = _models(folder, SEEDS[:1])[SEEDS[0]]
    for stage, rate in ((stage, rate) for stage, rates in STAGE_RATES.items() for rate in rates):
        descents = replace(part.descents, sft_rate=rate, rl_rate=rate)
        for target in part.targets[::8]:
            run = StageRun(target, stage, SEEDS[0])
            arguments = {"model": model, "run": run, "rows": part.rows, "descents": descents}
            found = _run(folder, [Cell(run_stage, arguments)])[0]
            yield f'StagePoint("{target.name}", "{stage}", {rate:g}, {found[Column.VALIDATION]:.3f}),'


def run_spread(folder: Path) -> Iterator[str]:
    """Three seeds of a few selectors: the spread of their differences to random prompts and to each other."""
    study = SeaRlStudy.preset("quick")
    models = _models(folder, SEEDS)
    arms = [(Selector.RANDOM, 0), (Selector.MEDIUM, study.scored), (Selector.PASSED, study.scored)]
    arms += [(Selector.SIGNAL, study.scored)]
    runs = [RlRun(name, K, study.prompts, seed) for seed in SEEDS for name, K in arms]
    cells = [_cell(study, models[run.seed], run) for run in runs]
    results = _run(folder, cells)
    for measure in (Column.ALL, Column.RARE):
        ends = np.array([rows[-1][measure] for rows in results]).reshape(len(SEEDS), len(arms))
        for scored, pairs in ((False, ((1, 0), (2, 0), (3, 0))), (True, ((2, 1), (3, 1), (3, 2)))):
            differences = np.array([ends[:, one] - ends[:, two] for one, two in pairs])
            spread, means = pooled_spread(differences), differences.mean(axis=1).round(3)
            yield f'RlPilot("{measure}", {scored}, Pilot({spread:.4f}, _SEEDS, _COMMAND)),  # {means}'


def _cell(study: SeaRlStudy, model: Path, run: RlRun, **changed: Any) -> Cell:
    shared = {"each": study.each, "descent": study.descent, "held": study.held_out, "validated": True}
    return Cell(run_rl, {"model": model, "run": run, **shared, **changed})


def _models(folder: Path, seeds: tuple[int, ...]) -> dict[int, Path]:
    cells = model_cells(folder, SeaRlStudy.preset("quick").pretraining, seeds)
    _run(folder, [*cells.values()])
    return {seed: cell.file for seed, cell in cells.items() if cell.file is not None}


def _run(folder: Path, cells: list[Cell]) -> list[Any]:
    return run_cells(cells, cache_folder=folder, workers=Workers(), title="pilot")
