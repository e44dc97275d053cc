"""Which: the data covariance that minimises the exact error, by gradient, against the paper's allocation.

The paper (section 5.1) allocates A = eta (P Sigma0 P + Delta): right for long prompts and many of them. At
finite B and n the exact error is minimised here over the eigenvalues of A, in the paper's eigenbasis, under a
budget (on the trace or on the energy tr A^2), a floor that cannot be removed (interference) and a pool that
has examples in some directions only. Derivation: docs/derivations/planner.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from datadose.covariance import RELATIVE_ZERO, Array, diagonal, product, spectral_basis, transpose
from datadose.errors import reject, require_choice, require_number
from datadose.planner.dose import COARSE, Dose, dose_of
from datadose.planner.error_model import ErrorModel
from datadose.planner.search import Best, SearchRecord, run_search
from datadose.shift import Shift
from datadose.theory.equivalent import Equivalent, PeakError
from datadose.theory.finite_size import finite_size_correction
from datadose.theory.sensitivity import sensitivity
from datadose.theory.source import Source

Budget: TypeAlias = Literal["trace", "energy"]
BUDGETS: tuple[Budget, ...] = ("trace", "energy")
WORTHWHILE = 1e-3
"""A relative gain below this is not reported: rounding gives one where the paper's allocation is best."""
_ROUNDS = 3
_EFFECTIVE_RANK = 10
_ITERATIONS = 40
_SETTLED = 1e-6
"""A step of a descent, or a round, that improves the error by less than this fraction is the last."""
_SHARES = (1.0, 0.75, 0.5, 0.25)
_DOWN, _UP = 12.0, 6.0
"""How far log a and the log of the budget's share may move in a descent."""
_NEGLIGIBLE = 1e-4
"""Free directions below this fraction of the largest are left out of the data, and of its rank."""


@dataclass(frozen=True)
class AllocationProblem:
    """What may be changed: eigenvalues a_i = floor_i + free_i, free_i > 0 where ``available``.

    Args:
        model: pretrained model and target, in the basis of the spectrum.
        length: prompt length n of the data.
        start: the allocation to improve on, shape (d,) (the paper's).
        floor: the part of the data that stays in any case, shape (d,).
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
        require_choice("budget", self.kind, BUDGETS)
        if not self.available.any():
            reject("available", "no direction", "at least one direction with examples")
        if spent(self.floor, self.kind) >= self.budget:
            needs = f"more than what the interference takes, {spent(self.floor, self.kind):.6g}"
            reject("budget", f"{self.budget:g}", needs)

    def spectrum(self, x: Array) -> Array:
        """a = floor + e^x_d s(z) e^z on available directions, for x = (z, x_d) of shape (d + 1,), x_d <= 0.

        s(z) e^z uses the whole budget, so x_d <= 0 keeps to it: the log of the share of it that is used.
        """
        free = self._free(x)
        return np.asarray(self.floor + np.exp(x[-1]) * self._scale(free) * free)

    def coordinates(self, spectrum: Array) -> Array:
        """x with spectrum(x) = ``spectrum``; the largest share of it within the budget if it costs more."""
        free = np.maximum(spectrum - self.floor, _NEGLIGIBLE * spectrum.max())
        z = np.where(self.available, np.log(free), 0.0)
        return np.append(z, min(0.0, -np.log(self._scale(np.where(self.available, free, 0.0)))))

    def between(self, start: Array, end: Array, share: float) -> Array:
        """The spectrum this share of the way from ``start`` to ``end`` in log a."""
        x, y = self.coordinates(start), self.coordinates(end)
        return end if share == 1 else self.spectrum((1 - share) * x + share * y)

    def _free(self, x: Array) -> Array:
        # Only ratios matter: the largest of them is one, which cannot overflow.
        z = np.where(self.available, x[:-1], -np.inf)
        return np.asarray(np.exp(z - z.max()))

    def _scale(self, free: Array) -> float:
        """The s with which floor + s free costs the budget."""
        if self.kind == "trace":
            return float((self.budget - self.floor.sum()) / free.sum())
        a, b, c = (free**2).sum(), (free * self.floor).sum(), (self.floor**2).sum() - self.budget
        return float(-c / (b + np.sqrt(b * b - a * c)))

    def pull_back(self, x: Array, gradient: Array) -> Array:
        """The gradient in x, shape (d + 1,), of f(spectrum(x)) from the gradient in the spectrum."""
        free = self._free(x)
        full = self._scale(free) * free
        price = np.ones_like(free) if self.kind == "trace" else 2 * (self.floor + full)
        used = np.exp(x[-1]) * full
        slope = gradient @ used
        # Moving e^z moves the common factor too, such that the cost stays: price . d(full) = 0.
        return np.append(gradient * used - slope * price * full / (price @ full), slope)

    def equivalent(self, a: Array, prompts: int) -> Equivalent:
        """The deterministic equivalent on ``prompts`` prompts with eigenvalues a of the data, shape (d,)."""
        return self.model.equivalent([self.model.columns(Source(a, self.length, prompts))], [prompts])

    def value_and_gradient(self, a: Array, prompts: int) -> tuple[float, Array]:
        """The error / d on ``prompts`` prompts, and its gradient in the eigenvalues a, shape (d,)."""
        equivalent = self.equivalent(a, prompts)
        error = equivalent.error(self.model.target, self.model.test_second_moment)
        found = sensitivity(equivalent, self.model.target, self.model.test_second_moment)
        n, G = self.length, diagonal(found.second_moments[0])
        by_moment = 2 * (1 + 1 / n) * a * G + a.sum() / n * G + (a @ G) / n
        return error, by_moment + diagonal(found.crosses[0])


@dataclass(frozen=True)
class Allocation:
    """The planner's allocation, its best dose, and how the search for it went."""

    spectrum: Array
    """Eigenvalues of A, shape (d,)."""
    dose: Dose
    gain: float
    """1 - error / error of ``start`` at its best dose, both to order 1/d."""
    start_error: float
    """Err / d of ``start`` at its best dose."""
    search: SearchRecord


def spent(spectrum: Array, kind: Budget) -> float:
    """The cost of a spectrum (d,): tr A for the kind "trace", tr A^2 for "energy"."""
    return float(spectrum.sum() if kind == "trace" else (spectrum**2).sum())


def optimise_allocation(problem: AllocationProblem, max_prompts: int) -> Allocation:
    """Minimise the exact error over A and B in turns, from the best dose on either side of the peak.

    The error is not convex in A. The result is a local minimum, never worse than ``start`` (if that keeps to
    the constraints). Each round is L-BFGS on log a and the share of the budget at fixed B, then a new search
    over B. Data that crowd into too few directions for the asymptotics are refused: an effective rank
    (tr A)^2 / tr A^2 below 10, an O(1/d) correction over a fifth of the error, or a gain of which corrections
    are more than half. Of a refused improvement the part of the way (in log a) is taken that is not refused.
    ``search`` of the result counts the descents, and those that did not move or were refused.

    Args:
        problem: the eigenvalues that may change, their floor and the budget.
        max_prompts: the largest number of prompts B, >= 1.
    """
    start = best = _candidate(problem, problem.start, max_prompts)
    record = SearchRecord()
    for prompts in _starting_prompts(best.dose, max_prompts):
        spectrum, B = best.spectrum, prompts
        for _ in range(_ROUNDS):
            improved, went = _descend(problem, spectrum, B)
            record += went
            if improved is None:
                break
            previous, before, at_first = B, best.spectrum, best
            for share in _SHARES:
                found = _candidate(problem, problem.between(before, improved, share), max_prompts)
                if share == 1:
                    spectrum, B = found.spectrum, found.dose.prompts
                if found.corrected >= best.corrected:
                    break
                if found.is_trusted(start):
                    best = found
                    break
                record += SearchRecord(refused=1)
            if B in (0, previous) or best is at_first:
                break
    gain = max(0.0, 1 - best.corrected / start.corrected)
    return Allocation(best.spectrum, best.dose, gain, start.dose.error, record)


@dataclass(frozen=True)
class Candidate:
    """An allocation at its best dose, with the O(1/d) correction to the error there."""

    spectrum: Array
    dose: Dose
    excess: float

    @property
    def corrected(self) -> float:
        """The error to order 1/d."""
        return self.dose.error + self.excess

    def is_trusted(self, start: Candidate) -> bool:
        """Whether the asymptotics hold well enough here, and for the gain over ``start``."""
        a, gain = self.spectrum, start.dose.error - self.dose.error
        wide = a.sum() ** 2 / (a**2).sum() >= _EFFECTIVE_RANK
        return wide and abs(self.excess) < self.dose.error / 5 and abs(self.excess - start.excess) < gain / 2


def _starting_prompts(dose: Dose, max_prompts: int) -> list[int]:
    """The best B on either side of the peak, more than the best B, and the most prompts allowed."""
    sides = [side[0] for side in (dose.best_below_peak, dose.best_above_peak) if side]
    more = min(max_prompts, round(1.5 * dose.prompts))
    return sorted({*sides, more, max_prompts} - {0})


def _candidate(problem: AllocationProblem, spectrum: Array, max_prompts: int) -> Candidate:
    """``spectrum`` at its best dose; its excess is infinite where the O(1/d) correction does not exist."""
    model = problem.model
    dose = dose_of(model, spectrum, problem.length, max_prompts, COARSE)
    equivalent, lengths = problem.equivalent(spectrum, dose.prompts), [problem.length] if dose.prompts else []
    try:
        found = finite_size_correction(equivalent, model.eta, lengths, model.target, model.test_length)
    except PeakError:
        return Candidate(spectrum, dose, np.inf)
    return Candidate(spectrum, dose, found.total)


def _descend(problem: AllocationProblem, spectrum: Array, prompts: int) -> tuple[Array | None, SearchRecord]:
    """The spectrum after L-BFGS at fixed B (None where it did not improve), and how that went."""
    x0, best = problem.coordinates(spectrum), Best()

    def objective(x: Array) -> tuple[float, Array]:
        a = problem.spectrum(x)
        value, gradient = problem.value_and_gradient(a, prompts)
        best.see(value, x)
        return value, np.where(free, problem.pull_back(x, gradient), 0.0)

    free = np.append(problem.available, True)
    low, high = np.where(free, x0 - _DOWN, x0), np.where(free, x0 + _UP, x0)
    high[-1] = 0.0
    record = run_search(
        lambda: minimize(
            objective,
            x0,
            jac=True,
            method="L-BFGS-B",
            bounds=np.stack([low, high], axis=1),
            options={"maxiter": _ITERATIONS, "ftol": _SETTLED},
        )
    )
    if not best.moved:
        return None, replace(record, unmoved=1)
    a = problem.spectrum(best.place)
    negligible = problem.available & (a - problem.floor < _NEGLIGIBLE * a.max())
    return np.where(negligible, problem.floor, a), record


@dataclass(frozen=True)
class BetterAllocation:
    """The allocation that the planner would collect instead, under the budget."""

    allocation: Array
    """Covariance, in the form of the shift."""
    prompts: int
    predicted_error: float
    budget: float
    kind: Budget
    gain: float
    """The share of the error that the better data remove, to order 1/d: 0 where nothing better was found."""
    search: SearchRecord
    """How the search for it went: descents, those that did not move, failed or were refused."""


def better_allocation(
    shift: Shift,
    model: ErrorModel,
    length: int,
    max_prompts: int,
    dose: Dose,
    budget: tuple[Budget, float] | None = None,
) -> BetterAllocation | None:
    """The allocation to collect instead of ``shift.data``, whose ``dose`` is known.

    Minimises the exact error over the eigenvalues on the shift's directions within ``budget`` (the cost of
    ``shift.data`` unless given); the data outside them are the floor. ``model`` is in the basis of ``shift``.
    None where ``shift.data`` have nothing on the shift's directions: their cost leaves nothing to move.
    """
    kind, cap = budget or ("trace", None)
    basis, start, floor, inside = allocation_basis(shift)
    model = model if basis is None else model.rotated(basis)
    cap = spent(start, kind) if cap is None else require_number("budget", cap, 0, np.inf, open_ends=True)
    if budget is None and spent(floor, kind) >= cap:
        return None
    problem = AllocationProblem(model, length, start, floor, inside, cap, kind)
    found = optimise_allocation(problem, max_prompts)
    allocation = found.spectrum
    if basis is not None:
        allocation = product(basis, product(allocation, transpose(basis)))
        allocation = (allocation + allocation.T) / 2
    # The start is shift.data but for what that mixes between the shift and the rest.
    gain = max(0.0, 1 - (1 - found.gain) * found.start_error / dose.error)
    return BetterAllocation(allocation, found.dose.prompts, found.dose.error, cap, kind, gain, found.search)


def allocation_basis(shift: Shift) -> tuple[Array | None, Array, Array, NDArray[np.bool_]]:
    """(basis, eigenvalues of A, floor, which are the shift's): A's part on range(Delta), then its rest.

    What A mixes between the two is left out; the paper's allocation mixes nothing.
    """
    values, basis = spectral_basis(shift.delta)
    inside, spectrum = values > 0, shift.data
    if basis is not None:
        parts = basis[:, inside], basis[:, ~inside]
        found = [np.linalg.eigh(part.T @ shift.data @ part) for part in parts]
        spectrum = np.clip(np.concatenate([own for own, _ in found]), 0, None)
        spectrum[spectrum < RELATIVE_ZERO * spectrum.max()] = 0.0
        basis = np.hstack([part @ turn for part, (_, turn) in zip(parts, found, strict=True)])
        inside = np.arange(shift.dimension) < inside.sum()
    return basis, spectrum, np.where(inside, 0.0, spectrum), inside
