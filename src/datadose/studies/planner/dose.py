"""The planner on random shifts that nothing was built from: is its dose the best, does its allocation gain?

For every shift the planner chooses B*; then V* is simulated at every B up to the largest, on nested streams.
Regret is the simulated error at B* over the best simulated error, minus 1. The smallest of many noisy means
is biased low, so the regret against it is too large on average; for the honest one the best B is chosen on
half of the seeds and judged on the other half, both ways. Right at the peak the simulated error has no finite
mean, which does a minimum no harm. The planner's better allocation is simulated at its own B against the
paper's at B*, under the same seeds, on other shifts: its rule of refusal was chosen while looking at shifts 0
to 55 (docs/derivations/planner.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from datadose.covariance import Array
from datadose.planner import Plan, plan
from datadose.shift import Shift
from datadose.simulation.curves import sft_error_curve
from datadose.studies import tables
from datadose.studies.planner.cases import DoseProblem, random_shift
from datadose.studies.study import Preset
from datadose.studies.tables import MINIMISER, as_table
from datadose.studies.training import SFT
from datadose.sweep import Cell

NAME = "planner"


class Column(tables.Column):
    """The columns of this study."""

    DIMENSION = "dimension"
    DATA_RANK = "data_rank"
    DENSE = "dense"
    ETA = "eta"
    MAX_PROMPTS = "max_prompts"
    SEM = "sem"
    BEST_PROMPTS = "best_prompts"
    BEST_ERROR = "best_error"
    REGRET = "regret"
    HELD_OUT_REGRET = "held_out_regret"
    HELD_OUT_SEM = "held_out_sem"
    BETTER_PROMPTS = "better_prompts"
    BETTER_PREDICTED = "better_predicted"
    BETTER_ERROR = "better_error"
    PREDICTED_GAIN = "predicted_gain"
    GAIN = "gain"
    GAIN_SEM = "gain_sem"


_GAIN = 1e-9
UNTOUCHED = 56
"""The first shift that had no part in choosing the planner's rule of refusal."""


def measure_dose(index: int, dimensions: tuple[int, int], seeds: list[int]) -> dict[str, Any]:
    """Cell: the plan of a random shift and the simulated errors of every number of prompts, a row."""
    problem = random_shift(index, dimensions)
    found = plan(problem.shift, length=problem.length, max_prompts=problem.max_prompts)
    curves = _simulated(problem.shift, problem.max_prompts, problem, index, seeds)
    chosen, mean = curves[:, found.prompts], curves.mean(axis=0)
    best, held_out = int(mean.argmin()), _held_out(curves)
    return {
        **_described(problem, found, chosen),
        Column.BEST_PROMPTS: best,
        Column.BEST_ERROR: float(mean[best]),
        Column.REGRET: float(chosen.mean() / mean[best] - 1),
        Column.HELD_OUT_REGRET: float(chosen.mean() / held_out.mean() - 1),
        Column.HELD_OUT_SEM: _ratio_sem(chosen, held_out),
    }


def measure_allocation(index: int, dimensions: tuple[int, int], seeds: list[int]) -> dict[str, Any]:
    """Cell: the planner's allocation at its own B against the paper's at B*, over paired seeds, a row."""
    problem = random_shift(index, dimensions)
    base = problem.shift
    found = plan(base, length=problem.length, max_prompts=problem.max_prompts)
    chosen = _simulated(base, found.prompts, problem, index, seeds)[:, -1]
    row, better = _described(problem, found, chosen), found.better
    prompts, predicted, gain, errors = found.prompts, found.predicted_error, 0.0, chosen
    if better is not None and better.gain >= _GAIN:
        shift = Shift(base.sigma0, base.delta, better.allocation, base.eta)
        prompts, predicted, gain = better.prompts, better.predicted_error, better.gain
        errors = _simulated(shift, prompts, problem, index, seeds)[:, -1]
    return {
        **row,
        Column.BETTER_PROMPTS: prompts,
        Column.BETTER_PREDICTED: predicted,
        Column.BETTER_ERROR: float(errors.mean()),
        Column.PREDICTED_GAIN: gain,
        Column.GAIN: float(1 - errors.mean() / chosen.mean()),
        Column.GAIN_SEM: _ratio_sem(errors, chosen),
    }


def _simulated(shift: Shift, prompts: int, problem: DoseProblem, index: int, seeds: list[int]) -> Array:
    """Simulated errors / d at every B up to ``prompts``, shape (seeds, prompts + 1)."""
    streams = [1000 * index + seed for seed in seeds]
    return np.array([sft_error_curve(shift, prompts, problem.length, seed=s) for s in streams])


def _described(problem: DoseProblem, found: Plan, chosen: Array) -> dict[str, Any]:
    """The columns of either study: the shift, its planned dose, and the errors simulated there."""
    return {
        Column.PROMPTS: found.prompts,
        Column.LENGTH: problem.length,
        Column.INTERFERENCE: problem.interference,
        Column.ERROR: float(chosen.mean()),
        Column.PREDICTED: found.predicted_error,
        Column.DIMENSION: problem.shift.dimension,
        Column.DATA_RANK: problem.shift.data_rank,
        Column.DENSE: int(problem.is_dense),
        Column.ETA: problem.shift.eta,
        Column.MAX_PROMPTS: problem.max_prompts,
        Column.SEM: _sem(chosen),
    }


def _held_out(curves: Array) -> Array:
    """Per seed, the error at the B that is best on the half of the seeds without it."""
    half = np.arange(len(curves)) % 2 == 0
    errors = np.empty(len(curves))
    for own in (half, ~half):
        errors[own] = curves[own, curves[~own].mean(axis=0).argmin()]
    return errors


def _sem(values: Array) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)


def _ratio_sem(above: Array, below: Array) -> float:
    """The standard error of mean(above) / mean(below) over paired seeds (delta method)."""
    ratio = above.mean() / below.mean()
    return _sem((above - ratio * below) / below.mean())


@dataclass(frozen=True)
class PlannerRegret:
    """Doses on random shifts 0 .. ``shifts`` - 1, allocations on as many untouched ones behind them."""

    shifts: int
    dimensions: tuple[int, int]
    seeds: int

    @classmethod
    def preset(cls, name: Preset) -> PlannerRegret:
        """The configuration of a preset."""
        if name == "smoke":
            return cls(4, (12, 20), 4)
        return cls(200, (60, 120), 40) if name == "paper" else cls(56, (60, 120), 16)

    @property
    def indices(self) -> list[int]:
        """The shifts of the doses, then those of the allocations."""
        first = max(self.shifts, UNTOUCHED)
        return [*range(self.shifts), *range(first, first + self.shifts)]

    def cells(self) -> list[Cell]:
        """One cell a shift, its seeds together: first the doses, then the allocations."""
        shared = {"dimensions": self.dimensions, "seeds": list(range(self.seeds))}
        return [
            Cell(measure_dose if index < self.shifts else measure_allocation, {"index": index, **shared})
            for index in self.indices
        ]

    def table(self, results: Sequence[Any]) -> pd.DataFrame:
        """One row a shift: means over seeds at B*, ``sem`` beside, and the regrets or the gain."""
        rows = [
            {
                Column.FIGURE: NAME,
                Column.PANEL: f"shift={i}",
                Column.STAGE: SFT,
                Column.ESTIMATOR: MINIMISER,
                Column.FORM: "exact",
                **row,
            }
            for i, row in zip(self.indices, results, strict=True)
        ]
        return as_table(rows, Column)
