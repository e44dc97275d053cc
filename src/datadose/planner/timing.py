"""The best time of training on a pool, with the rows of each source or the weights of its rows.

In pulls a_c = t w_c / B a row of source c pulls the model for a time t at the weight w_c, and the error does
not depend on time, weights and rows otherwise. So time and weights are one search over the pulls. It starts
from the best penalty, which is explicit: of its weights the best time alone is within 1 percent of the best
time and weights (docs/derivations/planner.md), so where an error costs much (matrices) it is not refined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, minimize

from datadose.errors import InternalError
from datadose.planner.counts import rounded
from datadose.planner.equal_rows import choose_rows, subsets
from datadose.planner.pool import Pool
from datadose.planner.search import Best, run_search
from datadose.planner.tuned_rows import choose_weights
from datadose.shapes import Array, Float
from datadose.theory.stopping import Stopping
from datadose.theory.time_search import BestTime, best_time_of
from datadose.theory.trained_operator import TrainedOperator

COARSE, FINE = 2, 6
"""Times a decade while rows or weights are sought, and for the answer; with matrices the former are used."""
_DIFFERENCE = 1e-5
"""Step of the differences in the logarithms of pulls, and in the shares of rows."""
_LEAST, _MOST = -9.0, 16.0
"""Of log(a_c B_c tr C_c / d): nothing is fitted to the source, and all is."""
_LEARNT = 7.0
"""The same where all that counts is fitted, from which a search for pulls without bound begins."""
_IDLE = 1e-4
"""A source is left out where the objective rises by no more than this share of it."""
_LATE = 1e9
"""Times that represent convergence in a search, over the quickest direction's."""
_RIVALS = 8
"""Choices of rows, the best ones at their best penalties, that are compared at their best times."""
_FEWER = (0.5, 0.25, 0.1, 0.03)
"""Shares of all rows of one kind at which it is checked that no fewer rows are better."""


@dataclass(frozen=True)
class TimedRows:
    """Rows and weights with their best time."""

    counts: Float[Array, " K"]
    weights: Float[Array, " K"]
    best: BestTime = field(repr=False)


def choose_time(pool: Pool, *, tuned: bool) -> TimedRows:
    """The rows, the weights if ``tuned``, and the training time that together have the least objective.

    Without ``tuned`` every row has the weight 1. Times are those of gradient flow.
    """
    K = len(pool.sources)
    if K == 1:
        candidates = [pool.sizes, *(np.maximum(1.0, np.round(share * pool.sizes)) for share in _FEWER)]
        return _answer(pool, _best_of(pool, candidates), np.ones(1))
    if tuned:
        return _choose_weights(pool)
    counts = _choose_rows(pool)
    return _answer(pool, counts, (counts > 0).astype(np.float64))


def _choose_rows(pool: Pool) -> Float[Array, " K"]:
    """The rows of each source with the least objective at their best time, where every row counts alike."""
    cheap = pool.is_cheap
    if pool.has_pairs:
        candidates = subsets(pool)
    else:
        held = [rows.counts for rows in choose_rows(pool)]
        candidates = [*held[: _RIVALS if cheap else 1], pool.all_alike, *pool.known]
    counts = _best_of(pool, [c for c in candidates if c.any()])
    if cheap:
        counts = _best_of(pool, [counts, _refined_rows(pool, counts)])
    return counts


def time_of(
    pool: Pool, counts: Array, weights: Array | None, per_decade: int, *, also: bool = False
) -> BestTime:
    """The best time of training on given rows.

    Args:
        pool: the sources, the model before training and the goal.
        counts: rows of each source, (K,).
        weights: weight of a row of each source in the loss, (K,); 1 if None.
        per_decade: times a decade at which the minimum is first sought.
        also: whether the errors on the target and on Sigma0 are recorded along the search as well.
    """
    held = np.ones(len(counts)) if weights is None else weights
    return _time_of(pool, tuple(counts.tolist()), tuple(held.tolist()), per_decade, also)


@lru_cache(maxsize=_RIVALS * 4)
def _time_of(
    pool: Pool, counts: tuple[float, ...], weights: tuple[float, ...], per_decade: int, also: bool
) -> BestTime:
    goal = pool.goal
    tests = (goal.target, goal.pretraining) if also else ()
    return best_time_of(pool.request(counts, weights), pool.start, goal.objective, per_decade, tests)


def _best_of(pool: Pool, candidates: list[Array]) -> Float[Array, " K"]:
    """The rows with the least objective at their best times; the first of equals."""
    errors = [time_of(pool, c, (c > 0).astype(np.float64), COARSE).error for c in candidates]
    return candidates[int(np.argmin(np.array(errors).round(12)))]


def _answer(pool: Pool, counts: Array, weights: Array) -> TimedRows:
    found = time_of(pool, counts, weights, FINE if pool.is_cheap else COARSE, also=True)
    return TimedRows(counts, weights, found)


def pulled(pool: Pool, counts: Array, pulls: Array) -> TrainedOperator:
    """The model after training on ``counts`` rows with pulls a_c, (K,) each."""
    on = (pulls > 0) & (counts > 0)
    if not on.any():
        return pool.untouched
    largest = float(pulls[on].max())
    weights = np.where(on, pulls / largest, 0.0)
    return pool.trained(counts, Stopping(time=largest * float(counts[on].sum())), weights)


def _pull(pool: Pool, counts: Array, weights: Array, time: float | None) -> Array:
    """The pull of a row at weight 1."""
    if time is None:
        top = max(float(np.max(np.abs(c.second_moment))) for c in pool.columns)
        time = _LATE / top
    return np.asarray(weights * time / counts[weights > 0].sum())


def _descended(
    value: Callable[[Array], float], first: Array, low: Array, high: Array, room: LinearConstraint | None
) -> Array:
    """The best place that sequential quadratic programming by differences finds; ``first`` if none is."""
    best = Best()

    def seen(x: Array) -> float:
        inside = np.clip(x, low, high)
        try:
            found = value(inside)
        except InternalError as error:
            raise np.linalg.LinAlgError from error
        if room is None or (room.A @ inside <= room.ub + 1e-9).all():
            best.see(found, inside)
        return found

    run_search(
        lambda: minimize(
            seen,
            first,
            method="SLSQP",
            bounds=Bounds(low, high),
            constraints=[] if room is None else [room],
            options={"maxiter": 25, "ftol": 1e-7, "eps": _DIFFERENCE},
        )
    )
    return best.place if best.moved else first


def _refined_rows(pool: Pool, counts: Array) -> Float[Array, " K"]:
    """Rows next to ``counts`` that are better with a time of their own, whole numbers."""
    sizes, test = pool.sizes, pool.goal.objective
    base = test.error(pool.untouched)
    start = time_of(pool, counts, (counts > 0).astype(np.float64), COARSE)
    if start.time == 0:
        return counts
    origin = np.log(_pull(pool, counts, np.ones(len(sizes)), start.time).max())

    def value(x: Array) -> float:
        rows = np.where(x[:-1] * sizes > _DIFFERENCE, x[:-1] * sizes, 0.0)
        pulls = np.where(rows > 0, np.exp(x[-1]), 0.0)
        return test.error(pulled(pool, rows, pulls)) / base

    K = len(sizes)
    later = 0.0 if start.time is None else -_LEAST
    low, high = np.append(np.zeros(K), origin + _LEAST), np.append(np.ones(K), origin + later)
    room = LinearConstraint(np.append(sizes, 0.0) / pool.max_prompts, 0, 1) if pool.is_limited else None
    found = _descended(value, np.append(counts / sizes, origin), low, high, room)
    rows = np.minimum(rounded(found[:-1] * sizes), sizes).astype(np.float64)
    return rows if rows.any() else counts


def _choose_weights(pool: Pool) -> TimedRows:
    """From the weights of the best penalty, and from the pulls that are best on unlimited rows."""
    test = pool.goal.objective
    counts, weights, time = _first_weights(pool)
    if not pool.is_cheap:
        return _answer(pool, counts, weights)
    by_pull = np.array([float(np.sum(c.second_moment)) for c in pool.columns]) / len(pool.start)
    size = counts * by_pull
    used = size > 0
    if not used.any():
        return _answer(pool, counts, weights)
    base = test.error(pool.untouched)

    def pulls(x: Array) -> Array:
        found = np.zeros(len(size))
        found[used] = np.where(x > _LEAST, np.exp(x), 0.0) / size[used]
        return found

    def value(x: Array) -> float:
        return test.error(pulled(pool, counts, pulls(x))) / base

    low, high = np.full(used.sum(), _LEAST), np.full(used.sum(), _MOST)
    starts = [] if time == 0 else [(_pull(pool, counts, weights, time) * size, _MOST)]
    starts.append((pool.unlimited_pulls[1] * by_pull, _LEARNT))
    tries = [_answer(pool, counts, weights)]
    for start, most in starts:
        with np.errstate(divide="ignore"):
            first = np.clip(np.log(start[used]), _LEAST, most)
        found = pulls(_descended(value, first, low, high, None))
        if found.any():
            refined = _without_idle(pool, counts, found)
            tries.append(_answer(pool, counts, refined / refined.max()))
    return min(tries, key=lambda tried: tried.best.error * (1 + _IDLE * (tried.weights > 0).sum()))


def _first_weights(pool: Pool) -> tuple[Float[Array, " K"], Float[Array, " K"], float | None]:
    """Rows, weights and their best time, from which the weights are sought.

    Those of the best penalty; all alike where it is not explicit or uses no row. Where they choose the rows
    badly, those that are best at equal weights.
    """
    counts, weights = pool.all_alike, np.ones(len(pool.sources))
    if not pool.has_pairs:
        counts, held = choose_weights(pool)
        weights = held.weights if held.weights.any() else weights
    start = time_of(pool, counts, weights, COARSE)
    if not (pool.is_limited or pool.has_pairs):
        return counts, weights, start.time
    # Rows that suit a penalty need not suit a time, and noisy labels have no explicit penalty.
    rows = _choose_rows(pool)
    alike = time_of(pool, rows, (rows > 0).astype(np.float64), COARSE)
    if start.error <= alike.error:
        return counts, weights, start.time
    return rows, (rows > 0).astype(np.float64), alike.time


def _without_idle(pool: Pool, counts: Array, pulls: Array) -> Array:
    """``pulls`` without the sources that nothing is lost without, those that pull least first."""
    error = pool.goal.objective.error(pulled(pool, counts, pulls))
    for at in np.argsort(pulls * counts):
        less = np.where(np.arange(len(pulls)) == at, 0.0, pulls)
        if less.any() and pool.goal.objective.error(pulled(pool, counts, less)) <= error * (1 + _IDLE):
            pulls = less
    return pulls
