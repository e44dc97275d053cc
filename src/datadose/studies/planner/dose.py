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
from scipy.linalg import expm

from datadose.covariance import Array
from datadose.planner import Plan, plan
from datadose.shift import Shift
from datadose.simulation.curves import sft_error_curve
from datadose.studies.study import Preset
from datadose.studies.training import insight_row, insight_table
from datadose.sweep import Cell

NAME = "planner"
EXTRA = (
    "dimension",
    "data_rank",
    "dense",
    "eta",
    "max_prompts",
    "sem",
    "best_prompts",
    "best_error",
    "regret",
    "held_out_regret",
    "held_out_sem",
    "better_prompts",
    "better_predicted",
    "better_error",
    "predicted_gain",
    "gain",
    "gain_sem",
)
_STREAM = 7001
"""The stream of the shifts: apart from those of prompts under the same seed."""
_GAIN = 1e-9
UNTOUCHED = 56
"""The first shift that had no part in choosing the planner's rule of refusal."""


@dataclass(frozen=True)
class Problem:
    """A shift with the paper's allocation, the prompt length and the largest B."""

    shift: Shift
    length: int
    max_prompts: int
    interference: float
    is_dense: bool


def random_shift(index: int, dimensions: tuple[int, int] = (60, 120)) -> Problem:
    """The random shift of this index, a pure function of it.

    Log-normal spectra of Sigma0 (rarer by a factor of .03 to .5 on the shift) and of Delta, which has rank
    .1 d to .6 d; every fourth shift is dense, with Delta turned against Sigma0 by a random rotation of
    random size.
    """
    rng = np.random.default_rng(np.random.SeedSequence(index, spawn_key=(_STREAM,)))

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    d = int(rng.integers(dimensions[0], dimensions[1] + 1))
    inside = np.arange(d) < max(1, round(rng.uniform(0.1, 0.6) * d))
    sigma0: Array = np.exp(0.5 * rng.standard_normal(d)) * np.where(inside, log_uniform(0.03, 0.5), 1.0)
    delta: Array = np.where(inside, log_uniform(0.3, 2.0) * np.exp(0.5 * rng.standard_normal(d)), 0.0)
    interference = 0.0 if rng.random() < 0.3 else log_uniform(0.003, 0.3)
    eta, length = rng.uniform(0.1, 0.5), max(1, round(log_uniform(0.5, 6.0) * d))
    is_dense = index % 4 == 3
    if is_dense:
        common = np.linalg.qr(rng.standard_normal((d, d)))[0]
        G = rng.standard_normal((d, d))
        turned = common @ expm(rng.uniform(0.1, 1.5) * (G - G.T) / np.linalg.norm(G - G.T, 2))
        sigma0, delta = _rotated(sigma0, common), _rotated(delta, turned)
    return Problem(Shift.aligned(sigma0, delta, eta, interference), length, 4 * d, interference, is_dense)


def _rotated(spectrum: Array, basis: Array) -> Array:
    matrix = (basis * spectrum) @ basis.T
    return np.asarray((matrix + matrix.T) / 2)


def measure_dose(index: int, dimensions: tuple[int, int], seeds: list[int]) -> dict[str, Any]:
    """Cell: the plan of a random shift and the simulated errors of every number of prompts, a row."""
    problem = random_shift(index, dimensions)
    found = plan(problem.shift, length=problem.length, max_prompts=problem.max_prompts)
    curves = _simulated(problem.shift, problem.max_prompts, problem, index, seeds)
    chosen, mean = curves[:, found.prompts], curves.mean(axis=0)
    best, held_out = int(mean.argmin()), _held_out(curves)
    return {
        **_described(problem, found, chosen),
        "best_prompts": best,
        "best_error": float(mean[best]),
        "regret": float(chosen.mean() / mean[best] - 1),
        "held_out_regret": float(chosen.mean() / held_out.mean() - 1),
        "held_out_sem": _ratio_sem(chosen, held_out),
    }


def measure_allocation(index: int, dimensions: tuple[int, int], seeds: list[int]) -> dict[str, Any]:
    """Cell: the planner's allocation at its own B against the paper's at B*, over paired seeds, a row."""
    problem = random_shift(index, dimensions)
    base = problem.shift
    found = plan(base, length=problem.length, max_prompts=problem.max_prompts)
    chosen = _simulated(base, found.prompts, problem, index, seeds)[:, -1]
    row, better = _described(problem, found, chosen), found.better
    if better is None or better.gain < _GAIN:
        return {
            **row,
            "better_prompts": found.prompts,
            "better_predicted": found.predicted_error,
            "better_error": float(chosen.mean()),
            "predicted_gain": 0.0,
            "gain": 0.0,
            "gain_sem": 0.0,
        }
    shift = Shift(base.sigma0, base.delta, better.allocation, base.eta)
    errors = _simulated(shift, better.prompts, problem, index, seeds)[:, -1]
    return {
        **row,
        "better_prompts": better.prompts,
        "better_predicted": better.predicted_error,
        "better_error": float(errors.mean()),
        "predicted_gain": better.gain,
        "gain": float(1 - errors.mean() / chosen.mean()),
        "gain_sem": _ratio_sem(errors, chosen),
    }


def _simulated(shift: Shift, prompts: int, problem: Problem, index: int, seeds: list[int]) -> Array:
    """Simulated errors / d at every B up to ``prompts``, shape (seeds, prompts + 1)."""
    streams = [1000 * index + seed for seed in seeds]
    return np.array([sft_error_curve(shift, prompts, problem.length, seed=s) for s in streams])


def _described(problem: Problem, found: Plan, chosen: Array) -> dict[str, Any]:
    """The columns of either study: the shift, its planned dose, and the errors simulated there."""
    return {
        "prompts": found.prompts,
        "length": problem.length,
        "interference": problem.interference,
        "error": float(chosen.mean()),
        "predicted": found.predicted_error,
        "dimension": problem.shift.dimension,
        "data_rank": problem.shift.data_rank,
        "dense": int(problem.is_dense),
        "eta": problem.shift.eta,
        "max_prompts": problem.max_prompts,
        "sem": _sem(chosen),
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
            insight_row(NAME, f"shift={i}", stage="sft", estimator="minimiser", form="exact", **row)
            for i, row in zip(self.indices, results, strict=True)
        ]
        return insight_table(rows, EXTRA)
