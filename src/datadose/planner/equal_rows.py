"""How many rows of each source, and which penalty, where every row counts alike.

The error is a function of the numbers of rows and the penalty lambda. Its derivatives are exact: at fixed
lambda, B_c = rho_c (lambda + tau_c(rho)) makes the effective weights rho a function of the rows B, with the
M-matrix J = dB / drho, so that dErr/dB = (partial by B at fixed rho) + J^{-T} (partial by rho at fixed B).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, minimize

from datadose.planner.counts import rounded
from datadose.planner.pool import Pool
from datadose.planner.search import Best, Unsolved, run_search
from datadose.shapes import Array, Float
from datadose.theory.equal_weights import EqualWeights, best_equal_weights, effective_weights
from datadose.theory.equivalent import PeakError

_STARTS = 2
_MOST_SUBSETS = 16
_FEW = 1e-6
"""Rows of a source that is left out, at which the value of its first row is taken."""
_REACH = 16.0
"""How far in log lambda a search may move from its start."""
_HARDLY_ANY = 1e-6
"""The penalty from which the search starts where none is best, over the sum of the moments by direction."""


@dataclass(frozen=True)
class EqualRows:
    """The rows of each source and the penalty that belong together."""

    counts: Float[Array, " K"]
    """The rows of each source, whole numbers, (K,)."""
    ridge: float
    """lambda >= 0, infinite for the untouched model."""
    error: float


@lru_cache(maxsize=1)
def choose_rows(pool: Pool) -> list[EqualRows]:
    """The rows and the penalty with the least objective, at most ``max_prompts`` rows in all, and its rivals.

    After the best come all rows of subsets of the sources, from the best of these to the worst.

    All rows of every subset of the sources (of many sources: of each alone, of all, and of all but one), and
    rows that are known already, are compared at their best penalties; sequential quadratic programming runs
    from the best of them; the result is rounded. A better valley elsewhere cannot be excluded. Those of the
    last pool are remembered. Raises InputError for label noise with chains of several steps.
    """
    search = _Search(pool)
    starts = sorted((search.at(counts) for counts in subsets(pool)), key=lambda found: found.error)
    best = starts[0]
    for start in starts[:_STARTS]:
        if np.isfinite(start.ridge):
            best = min(best, search.at(search.descend(start)), key=lambda found: found.error)
    return [best, *starts]


def subsets(pool: Pool) -> list[Float[Array, " K"]]:
    """All rows of the sources in each subset, as many as allowed, in their proportions; and known rows."""
    K = len(pool.sources)
    groups = [group for size in range(1, K + 1) for group in combinations(range(K), size)]
    if len(groups) > _MOST_SUBSETS:
        groups = [group for group in groups if len(group) in (1, K - 1, K)]
    found = []
    for group in groups:
        inside = np.where(np.isin(np.arange(K), group), pool.sizes, 0.0)
        found.append(rounded(inside * min(1.0, pool.max_prompts / inside.sum())).astype(np.float64))
    return [*found, *pool.known]


def row_values(pool: Pool, counts: Float[Array, " K"], ridge: float) -> Float[Array, " K"]:
    """The decrease of the objective by one more row of each source at its best penalty ``ridge`` > 0, (K,).

    The penalty need not move (envelope theorem). Of a source without rows it is the value of the first.
    """
    return -_slopes(pool, np.maximum(counts, _FEW), ridge)[1]


def _slopes(pool: Pool, counts: Float[Array, " K"], ridge: float) -> tuple[float, Float[Array, " K"], float]:
    """The objective at ``counts`` > 0 and lambda = ``ridge``, and its derivatives by both."""
    sources, test = pool.effective(counts), pool.goal.objective
    unit = sources.unit**2
    model = sources.model(effective_weights(sources, ridge) * unit)
    gradient = model.gradient(test)
    by_weight = gradient.weights / unit
    J = np.diag(np.full(len(counts), ridge / unit)) + model.fitted_slopes
    pushed = np.linalg.solve(J.T, by_weight)
    return model.error(test), gradient.prompts + pushed, -float(pushed @ model.rho) / unit


@dataclass(frozen=True, eq=False)
class _Search:
    pool: Pool
    seen: dict[tuple[int, ...], EqualRows] = field(default_factory=dict)

    def at(self, counts: Float[Array, " K"]) -> EqualRows:
        """The best penalty for whole numbers of rows."""
        key = tuple(int(B) for B in counts)
        if key not in self.seen:
            try:
                found = best_equal_weights(self.pool.effective(counts), self.pool.goal.objective)
            except (PeakError, *Unsolved):
                found = EqualWeights(np.inf, np.inf, counts)
            self.seen[key] = EqualRows(counts, found.ridge, found.error)
        return self.seen[key]

    def descend(self, start: EqualRows) -> Float[Array, " K"]:
        """Whole numbers of rows next to where sequential quadratic programming ends."""
        sizes, best, origin = self.pool.sizes, Best(), np.log(start.ridge or self._hardly_any(start.counts))
        K = len(sizes)

        def objective(x: Array) -> tuple[float, Array]:
            counts, ridge = np.maximum(x[:-1], 0) * sizes, float(np.exp(x[-1]))
            value, by_row, by_ridge = _slopes(self.pool, np.maximum(counts, _FEW), ridge)
            if counts.sum() <= self.pool.max_prompts * (1 + 1e-9):
                best.see(value, counts)
            return value, np.append(by_row * sizes, by_ridge * ridge)

        first = np.append(start.counts / sizes, origin)
        room = LinearConstraint(np.append(sizes, 0.0) / self.pool.max_prompts, 0, 1)
        run_search(
            lambda: minimize(
                objective,
                first,
                jac=True,
                method="SLSQP",
                bounds=Bounds(
                    np.append(np.zeros(K), origin - _REACH), np.append(np.ones(K), origin + _REACH)
                ),
                constraints=[room] if self.pool.is_limited else [],
                options={"maxiter": 40, "ftol": 1e-9},
            )
        )
        if not best.moved:
            return start.counts
        found = np.minimum(rounded(best.place), sizes)
        return np.asarray(found, dtype=np.float64)

    def _hardly_any(self, counts: Float[Array, " K"]) -> float:
        """A penalty above 0 that changes little: the slopes need one, and rows alone then move."""
        sources = self.pool.effective(counts)
        return _HARDLY_ANY * float(sources.counts @ sources.sizes) / sources.dimension * sources.unit**2
