"""Which: the data covariance that minimises the exact error, by gradient, against the paper's allocation.

The paper (section 5.1) allocates A = eta (P Sigma0 P + Delta): right for long prompts and many of them. At
finite B and n the exact error is minimised here over the eigenvalues of A, in the paper's eigenbasis, under a
budget (on the trace or on the energy tr A^2), a floor that nobody can remove (interference) and a pool that
has examples in some directions only. Derivation: docs/derivations/planner.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from datadose.covariance import Array, diagonal
from datadose.errors import InputError, reject
from datadose.planner.dose import COARSE, Dose, dose_of
from datadose.planner.error_model import ErrorModel
from datadose.theory.asymptotics import Source
from datadose.theory.equivalent import PeakError
from datadose.theory.finite_size import finite_size_correction
from datadose.theory.sensitivity import sensitivity

Budget: TypeAlias = Literal["trace", "energy"]
BUDGETS: tuple[Budget, ...] = ("trace", "energy")
_ROUNDS = 3
_EFFECTIVE_RANK = 10
_NEGLIGIBLE = 1e-4
"""Free directions below this fraction of the largest are left out of the data, and of its rank."""


@dataclass(frozen=True)
class AllocationProblem:
    """What may be changed: eigenvalues a_i = floor_i + free_i, free_i > 0 where ``available``.

    Args:
        model: pretrained model and target, in the basis of the spectrum.
        length: prompt length n of the data.
        start: the allocation to improve on, shape (d,) (the paper's).
        floor: what stays whatever one collects, shape (d,).
        available: directions in which the pool has examples, shape (d,).
        budget: cap on tr A or tr A^2 (by ``kind``); at least what the floor takes.
    """

    model: ErrorModel
    length: int
    start: Array
    floor: Array
    available: NDArray[np.bool_]
    budget: float
    kind: Budget = "trace"

    def __post_init__(self) -> None:
        if self.kind not in BUDGETS:
            reject("budget", self.kind, " or ".join(BUDGETS))
        if not self.available.any():
            reject("available", "no direction", "at least one direction with examples")
        if spent(self.floor, self.kind) >= self.budget:
            needs = f"more than what the interference takes, {spent(self.floor, self.kind):.6g}"
            reject("budget", f"{self.budget:g}", needs)

    def spectrum(self, z: Array) -> Array:
        """a = floor + s e^z on available directions, s <= 1 such that the budget holds."""
        free = np.where(self.available, np.exp(z), 0.0)
        return np.asarray(self.floor + self._scale(free) * free)

    def _scale(self, free: Array) -> float:
        """The largest s <= 1 with floor + s free within the budget."""
        if self.kind == "trace":
            return float(min(1.0, (self.budget - self.floor.sum()) / free.sum()))
        a, b, c = (free**2).sum(), 2 * (free * self.floor).sum(), (self.floor**2).sum() - self.budget
        return float(min(1.0, (-b + np.sqrt(b * b - 4 * a * c)) / (2 * a)))

    def pull_back(self, z: Array, gradient: Array) -> Array:
        """The gradient in z of f(spectrum(z)) from the gradient in the spectrum."""
        free = np.where(self.available, np.exp(z), 0.0)
        s = self._scale(free)
        pulled = s * gradient * free
        if s < 1:
            # The budget binds: moving e^z moves the common factor s too.
            price = np.ones_like(free) if self.kind == "trace" else 2 * (self.floor + s * free)
            pulled -= (gradient @ free) * s * price * free / (price @ free)
        return pulled

    def value_and_gradient(self, a: Array, prompts: int) -> tuple[float, Array]:
        """Err / d and its gradient in the eigenvalues a, shape (d,)."""
        column = self.model.columns(Source(a, self.length, prompts))
        equivalent = self.model.equivalent([column], [prompts])
        error = equivalent.error(self.model.target, self.model.test_second_moment)
        found = sensitivity(equivalent, self.model.target, self.model.test_second_moment)
        n, G = self.length, diagonal(found.second_moments[0])
        by_moment = 2 * (1 + 1 / n) * a * G + a.sum() / n * G + (a @ G) / n
        return error, by_moment + diagonal(found.crosses[0])


@dataclass(frozen=True)
class Allocation:
    """The planner's allocation and the dose that goes with it."""

    spectrum: Array
    """Eigenvalues of A, shape (d,)."""
    dose: Dose


def spent(spectrum: Array, kind: Budget) -> float:
    """tr A or tr A^2."""
    return float(spectrum.sum() if kind == "trace" else (spectrum**2).sum())


def optimise_allocation(problem: AllocationProblem, max_prompts: int) -> Allocation:
    """Minimise the exact error over A and B in turns, from the best dose on either side of the peak.

    The error is not convex in A: what is found is a local minimum, never worse than ``start`` (if that keeps
    to the constraints). Each round is L-BFGS on log a at fixed B, then a new search over B. Data that crowd
    into too few directions for the asymptotics are refused: an effective rank (tr A)^2 / tr A^2 below 10, or
    an O(1/d) correction over a fifth of the error or larger than the gain.
    """
    best = Allocation(
        problem.start, dose_of(problem.model, problem.start, problem.length, max_prompts, COARSE)
    )
    corrected = best.dose.error + _correction(problem, best)
    sides = {
        max_prompts,
        *(side[0] for side in (best.dose.best_below_peak, best.dose.best_above_peak) if side),
    }
    for prompts in sorted(sides):
        spectrum, B = best.spectrum, prompts
        for _ in range(_ROUNDS):
            improved = _descend(problem, spectrum, B)
            if improved is None:
                break
            dose = dose_of(problem.model, improved, problem.length, max_prompts, COARSE)
            previous, spectrum, B = B, improved, dose.prompts
            candidate = Allocation(improved, dose)
            excess, effective_rank = (
                _correction(problem, candidate),
                improved.sum() ** 2 / (improved**2).sum(),
            )
            trusted = abs(excess) < dose.error / 5 and effective_rank >= _EFFECTIVE_RANK
            if trusted and dose.error + excess < corrected:
                best, corrected = candidate, dose.error + excess
            if B in (0, previous):
                break
    return best


def _correction(problem: AllocationProblem, allocation: Allocation) -> float:
    """The O(1/d) term of the error at its dose; infinite where it does not exist."""
    model, B = problem.model, allocation.dose.prompts
    column = model.columns(Source(allocation.spectrum, problem.length, B))
    equivalent = model.equivalent([column], [B])
    lengths = [problem.length] if B else []
    try:
        found = finite_size_correction(equivalent, model.eta, lengths, model.target, model.test_length)
    except PeakError:
        return np.inf
    return found.total


def _descend(problem: AllocationProblem, spectrum: Array, prompts: int) -> Array | None:
    """The spectrum after L-BFGS at fixed B, or None at a peak."""
    usable = problem.available
    free = np.maximum(spectrum - problem.floor, _NEGLIGIBLE * spectrum.max())
    z0 = np.where(usable, np.log(free), 0.0)

    def objective(z: Array) -> tuple[float, Array]:
        a = problem.spectrum(z)
        value, gradient = problem.value_and_gradient(a, prompts)
        return value, np.where(usable, problem.pull_back(z, gradient), 0.0)

    bounds = [(z - 12, z + 6) if use else (0.0, 0.0) for z, use in zip(z0, usable, strict=True)]
    try:
        found = minimize(objective, z0, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40})
    except (PeakError, InputError):
        return None
    a = problem.spectrum(np.asarray(found.x))
    negligible = usable & (a - problem.floor < _NEGLIGIBLE * a.max())
    return np.where(negligible, problem.floor, a)
