"""Shares of categories that minimise the mean or the worst error of several ends: the search.

Sequential quadratic programming over the simplex within a budget, with derivatives in closed form; the worst
error is minimised by its epigraph (min t with t >= every error). :mod:`datadose.planner.pretraining` states
what the shares and the ends are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.optimize import minimize

from datadose.covariance import Array
from datadose.planner.search import Best, SearchRecord, run_search
from datadose.shapes import Float
from datadose.theory.equivalent import PeakError
from datadose.theory.finite_pretraining import FinitePretraining
from datadose.theory.pretraining import PretrainingMixture
from datadose.theory.start_gradient import ErrorFromStart

Objective: TypeAlias = Literal["mean", "worst"]
OBJECTIVES: tuple[Objective, ...] = ("mean", "worst")
LEAST_SHARE = 1e-3
"""The least share, in a search, of a category that alone contains some direction."""
_TOWARDS = 0.7
"""How far a start lies from the balanced mixture towards a category."""
_DESCENTS = 3
"""So many of the starts are improved, the balanced mixture and the best others."""
_ITERATIONS = 60
_SETTLED = 1e-8
_ROUNDING = 1e-9
_NONE = 1e-7
"""A smaller share is none, where none is no worse."""


@dataclass(frozen=True, eq=False)
class SharesProblem:
    """Shares of J categories to be chosen for L ends, by the mean or the worst of their errors."""

    pretraining: PretrainingMixture | FinitePretraining
    ends: tuple[ErrorFromStart, ...]
    """Post-training and test of every shift."""
    weights: Float[Array, " L"]
    costs: Float[Array, " J"]
    budget: float | None
    objective: Objective

    def errors(self, shares: Array) -> tuple[Float[Array, " L"], Float[Array, "L J"]]:
        """The error / d after every shift, and its derivatives by the shares (others shrink in proportion).

        Raises InputError for shares that are not a mixture, PeakError where an error is infinite.
        """
        start = self.pretraining.start(shares)
        found = [end.best(start) for end in self.ends]
        slopes = [self.pretraining.slopes(shares, one.mean, one.second_moment) for one in found]
        return np.array([one.error for one in found]), np.array(slopes)

    def value(self, errors: Array) -> float:
        """The mean or the worst of ``errors`` (L,)."""
        return float(self.weights @ errors if self.objective == "mean" else errors.max())

    @property
    def balanced(self) -> Float[Array, " J"]:
        """The equal shares 1 / J, (J,)."""
        return np.full(self.pretraining.size, 1 / self.pretraining.size)

    @cached_property
    def floor(self) -> Float[Array, " J"]:
        """The least shares in a search: 0, but for categories that alone contain some direction."""
        J = self.pretraining.size
        alone = np.array([J > 1 and self._misses_without(j) for j in range(J)])
        least = np.where(alone, min(LEAST_SHARE, 0.5 / J), 0.0)
        if self.budget is None:
            return least
        cheapest = int(self.costs.argmin())
        dearer = float(least @ (self.costs - self.costs[cheapest]))
        spare = self.budget - self.costs[cheapest]
        return least * min(1.0, 0.5 * spare / dearer) if dearer > 0 else least

    def _misses_without(self, j: int) -> bool:
        """Whether all other categories contain less than all categories do."""
        others = np.ones(self.pretraining.size)
        others[j] = 0.0
        everything = self.pretraining.sees_everything(np.ones(self.pretraining.size))
        return everything and not self.pretraining.sees_everything(others)

    def affordable(self, shares: Array) -> Float[Array, " J"]:
        """The ``shares`` above the floor, moved towards the cheapest category until within the budget."""
        spare = np.maximum(shares - self.floor, 0.0)
        kept: Array = self.floor + (1 - self.floor.sum()) * spare / spare.sum()
        cost = float(kept @ self.costs)
        if self.budget is None or cost <= self.budget:
            return kept
        end = self.floor.copy()
        end[int(self.costs.argmin())] += 1 - self.floor.sum()
        least = float(end @ self.costs)
        moved = min(1.0, (cost - self.budget) / (cost - least)) if cost > least else 1.0
        return np.asarray((1 - moved) * kept + moved * end)

    def allowed(self, shares: Array) -> bool:
        """Whether the mean cost of a prompt at ``shares`` is within the budget."""
        return self.budget is None or float(shares @ self.costs) <= self.budget * (1 + _ROUNDING)

    def solve(self) -> tuple[Float[Array, " J"], Float[Array, " L"], SearchRecord]:
        """The best shares found, the errors that they lead to, and how the search went.

        Never worse than equal shares and than each category alone, where the budget allows them. Raises
        PeakError where no mixture that was tried has finite errors.
        """
        corners, record = list(np.eye(self.pretraining.size)), SearchRecord()
        candidates = [s for s in (self.balanced, *corners, self.affordable(self.balanced)) if self.allowed(s)]
        for start in self._starts():
            descent = _Descent(self, start)
            record += descent.run()
            if np.isfinite(descent.best.value):
                candidates.append(descent.best.place)
        best, errors, least = candidates[0], np.zeros(0), np.inf
        for shares in candidates:
            found = self._known(shares)
            if found is not None and self.value(found) < least * (1 - _ROUNDING):
                best, errors, least = shares, found, self.value(found)
        if not len(errors):
            errors = self.errors(best)[0]
        return (*self._without_traces(best, errors), record)

    def _starts(self) -> list[Float[Array, " J"]]:
        """The balanced mixture, and the best of those on the way to a single category."""
        J = self.pretraining.size
        if J == 1:
            return []
        first = self.affordable(self.balanced)
        others = [self.affordable((1 - _TOWARDS) * self.balanced + _TOWARDS * one) for one in np.eye(J)]
        known = [(found, s) for s in others if (found := self._known(s)) is not None]
        known.sort(key=lambda pair: self.value(pair[0]))
        return [first, *(s for _, s in known[: _DESCENTS - 1])]

    def _known(self, shares: Array) -> Float[Array, " L"] | None:
        try:
            return self.errors(shares)[0]
        except PeakError:
            return None

    def _without_traces(self, shares: Array, errors: Array) -> tuple[Array, Array]:
        """The same without shares that are rounding, where that is allowed and no worse."""
        kept = np.where(shares < _NONE, 0.0, shares)
        kept = kept / kept.sum()
        if (kept == shares).all() or not self.allowed(kept):
            return shares, errors
        found = self._known(kept)
        if found is None or self.value(found) > self.value(errors) * (1 + _ROUNDING):
            return shares, errors
        return kept, found


class _Descent:
    """One run of sequential quadratic programming from ``start``."""

    def __init__(self, problem: SharesProblem, start: Float[Array, " J"]) -> None:
        self.problem, self.start, self.best = problem, start, Best()
        self._place: Array = np.zeros(0)
        self._errors: Array = np.zeros(0)
        self._slopes: Array = np.zeros(0)

    def run(self) -> SearchRecord:
        """Improve ``best`` until no step does."""
        record = run_search(self._minimise)
        return record if self.best.moved else replace(record, unmoved=1)

    def _at(self, x: Array) -> tuple[Array, Array]:
        """Errors and slopes at the shares of ``x``, which the optimiser takes to be rounded ones."""
        shares = np.clip(x[: self.problem.pretraining.size], 0.0, None)
        if not np.array_equal(shares, self._place):
            self._errors, self._slopes = self.problem.errors(shares)
            self._place = shares
            inside = shares / shares.sum()
            if (inside >= self.problem.floor * (1 - _ROUNDING)).all() and self.problem.allowed(inside):
                self.best.see(self.problem.value(self._errors), inside)
        return self._errors, self._slopes

    def _minimise(self) -> Any:
        J, mean = self.problem.pretraining.size, self.problem.objective == "mean"
        scale = self.problem.value(self._at(self.start)[0])
        limits = [(float(low), 1.0) for low in self.problem.floor]
        constraints = [self._constraint("eq", lambda x: x[:J].sum() - 1, lambda x: _row(np.ones(J), x))]
        costs, budget, weights = self.problem.costs, self.problem.budget, self.problem.weights
        if budget is not None:
            paid = costs / budget
            constraints.append(self._constraint("ineq", lambda x: 1 - paid @ x[:J], lambda x: _row(-paid, x)))
        options = {"maxiter": _ITERATIONS, "ftol": _SETTLED}
        if mean:
            return minimize(
                lambda x: (weights @ self._at(x)[0] / scale, weights @ self._at(x)[1] / scale),
                self.start,
                jac=True,
                method="SLSQP",
                bounds=limits,
                constraints=constraints,
                options=options,
            )
        constraints.append(
            self._constraint(
                "ineq",
                lambda x: x[-1] - self._at(x)[0] / scale,
                lambda x: np.hstack([-self._at(x)[1] / scale, np.ones((len(self.problem.ends), 1))]),
            )
        )
        last = np.append(np.zeros(J), 1.0)
        return minimize(
            lambda x: (x[-1], last),
            np.append(self.start, 1.0),
            jac=True,
            method="SLSQP",
            bounds=[*limits, (None, None)],
            constraints=constraints,
            options=options,
        )

    @staticmethod
    def _constraint(kind: str, fun: Callable[[Array], Any], jac: Callable[[Array], Array]) -> dict[str, Any]:
        return {"type": kind, "fun": fun, "jac": jac}


def _row(slopes: Array, x: Array) -> Array:
    """``slopes`` by the shares, and 0 by what else ``x`` holds."""
    return np.append(slopes, np.zeros(len(x) - len(slopes)))
