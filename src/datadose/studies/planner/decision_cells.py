"""Random pools, the plan's decision on each, and the best of a grid of decisions, by drawing rows.

The rows of a seed are drawn once; every decision (rows, weights, time or penalty) is then one factorisation
and a filter. The best of the grid is chosen on half of the seeds, and both it and the plan are judged on the
other half, so that a smallest of noisy means is not mistaken for a best.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product as every
from typing import Any

import numpy as np

from datadose.covariance import dense, product
from datadose.planner import PoolSource
from datadose.planner.counts import rounded
from datadose.planner.goal import Goal, Stop
from datadose.planner.penalty import choose_penalty
from datadose.planner.pool import Decided, Pool
from datadose.planner.stopping import Stopped, choose_stopping
from datadose.shapes import Array, Float
from datadose.simulation.descent import simulate_descent
from datadose.simulation.mixtures import draw_source
from datadose.simulation.spectral import Factors, PostTest
from datadose.studies.training_time.shifts import between, power_law, random_delta
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping

CHAIN = 1
"""k of the chains of thought, as in a plan."""
SHARES = (0.0, 0.1, 1 / 3, 1.0)
"""Of each source's rows, with equal weights."""
LEVELS = (0.0, 0.003, 0.03, 0.3, 1.0)
"""Weights of a row, with tuned weights; the largest is 1."""
FEWER = (1 / 3, 1.0)
"""Shares of all rows that these are tried at."""
CAPPED = 0.2
"""Of the pools, on average: they may use only a share of their rows between the two that follow."""
LEAST_CAP, MOST_CAP = 0.05, 0.1
TILTS = {False: (0.0, 0.1, 0.25, 0.5, 1.0), True: (0.0, 0.1, 0.5, 1.0)}
"""Of each source's rows, in whose proportions a limit is split, with equal and with tuned weights."""
POINTS = 41
"""Times, and penalties, of the grid."""
DESCENTS = 300
"""The most steps that real descent is run for."""
_ZERO = 1e-12


def random_pool(dimension: int, seed: int) -> Pool:
    """Two or three sources, one of which misleads; every eighth pool is dense and smaller.

    Sigma0 and Delta are those of the random shifts of power laws; the good source has eta times the target's
    covariance, the misleading one another power law in random order, .1 to 10 times as large and with more
    rows; a third one, in two of three pools, is half and half, with noisy demonstrations. In every third pool
    only half of the rows may be taken; in every fifth the error on Sigma0 counts for .3. One pool in five,
    by the last draws of its seed, may take only 5 to 10 percent of its rows.
    """
    rng = np.random.default_rng([22, dimension, seed])
    is_dense = seed % 8 == 7
    d, eta = dimension // 2 if is_dense else dimension, float(rng.uniform(0.1, 0.9))
    n = round(d * between(rng, 0.5, 5))
    sigma0, delta = power_law(rng, d), random_delta(rng, d)
    target = sigma0 + delta
    wrong, other = (power_law(rng, d) * target.mean() * between(rng, 0.1, 10) for _ in range(2))
    kinds = [
        ("good", eta * target, between(rng, 0.2, 4), 0.0),
        ("misleading", eta * wrong, between(rng, 1, 20), 0.0),
        ("mixed", eta * (target + other) / 2, between(rng, 0.2, 4), 0.02),
    ]
    sources = []
    for name, covariance, rows, noise in kinds if seed % 3 else kinds[:2]:
        A = covariance
        if is_dense and name != "good":
            Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
            A = (Q * covariance) @ Q.T
            A = (A + A.T) / 2
        source = Source(dense(A) if is_dense else A, n, 0, demonstration_noise=noise)
        sources.append(PoolSource(name, source, max(2, round(d * rows))))
    total = sum(source.size for source in sources)
    goal = Goal.of(
        dense(target) if is_dense else target,
        dense(sigma0) if is_dense else sigma0,
        n,
        0.3 if seed % 5 == 4 else 0.0,
    )
    start = pretrained_operator(dense(sigma0) if is_dense else sigma0, n)
    most = total // 2 if seed % 3 == 2 else total
    if rng.random() < CAPPED:
        most = max(1, round(total * float(rng.uniform(LEAST_CAP, MOST_CAP))))
    return Pool.of(start, eta, sources, goal, most, CHAIN)


def cap(pool: Pool) -> float:
    """The share of all rows that may be taken, in (0, 1]."""
    return min(1.0, pool.max_prompts / float(pool.owned.sum()))


@dataclass(frozen=True, eq=False)
class DrawnRows:
    """The rows of a pool that one seed drew."""

    pool: Pool
    seed: int

    @cached_property
    def _rows(self) -> list[tuple[Array, Array]]:
        found = []
        for place, (source, size) in enumerate(zip(self.pool.sources, self.pool.sizes, strict=True)):
            own = replace(source, prompts=float(size))
            found.append(draw_source(own, self.pool.eta, CHAIN, seed=(self.seed, place)))
        return found

    @cached_property
    def _test(self) -> PostTest:
        form = self.pool.goal.objective
        return PostTest(form.target, form.second_moment)

    @cached_property
    def _grams(self) -> dict[tuple[int, int], tuple[Array, Array]]:
        return {}

    def _gram(self, place: int, rows: int) -> tuple[Array, Array]:
        """Phi Phi^T and Y Phi^T of the first rows of a source."""
        if (place, rows) not in self._grams:
            F, Y = (X[:, :rows] for X in self._rows[place])
            self._grams[place, rows] = (F @ F.T, Y @ F.T)
        return self._grams[place, rows]

    def errors(
        self, counts: Float[Array, " K"], weights: Float[Array, " K"], stoppings: list[Stopping]
    ) -> Float[Array, " S"]:
        """The objective / d of training on these rows with these weights, under each stopping."""
        used = [at for at in range(len(counts)) if counts[at] > 0 and weights[at] > 0]
        V0 = self.pool.start
        base = self._test.error(V0)
        if not used:
            return np.full(len(stoppings), base)
        parts = [self._gram(at, int(counts[at])) for at in used]
        inner, cross = (
            sum((weights[at] * part[k] for at, part in zip(used, parts, strict=True)), np.zeros(()))
            for k in (0, 1)
        )
        x, left = np.linalg.eigh(inner)
        kept = x > _ZERO * x[-1]
        s, U = np.sqrt(x[kept]), left[:, kept]
        total = int(sum(counts[at] for at in used))
        factors = Factors(s, U, np.asarray((cross @ U) / s - product(V0, U) * s), total)
        gains = np.array([np.zeros(len(s)) if t.is_untrained else factors.gains(t, 1.0) for t in stoppings])
        return factors.errors(V0, self._test, gains)


def decisions(pool: Pool, *, tuned: bool) -> Iterator[tuple[Array, Array]]:
    """Rows and weights of the grid, (K,) each."""
    K = len(pool.sources)
    split = splits(pool, TILTS[tuned]) if pool.is_limited else []
    if not tuned:
        shared = [np.round(np.array(shares) * pool.sizes) for shares in every(SHARES, repeat=K)]
        fewer = [np.floor(share * counts) for share in FEWER for counts in split]
        for counts in [*shared, pool.all_alike, *fewer]:
            if 0 < counts.sum() <= pool.max_prompts:
                yield counts, np.ones(K)
        return
    levels = [np.array(weights) for weights in every(LEVELS, repeat=K) if max(weights) == 1.0]
    yield from every((np.round(share * pool.all_alike) for share in FEWER), levels)
    for counts, weights in every(split, levels):
        # Under a limit no row is taken for weight zero, and no weight counts without rows.
        if ((weights > 0) == (counts > 0)).all():
            yield counts, weights


def splits(pool: Pool, tilts: Sequence[float]) -> list[Float[Array, " K"]]:
    """Whole numbers of rows of each source, (K,) each: as many as allowed, or all that the proportions leave.

    The proportions are those of ``tilts`` in [0, 1], one a source and the largest 1, of the source's rows, of
    which no more count than may be taken in all.
    """
    found = []
    for tilt in every(tilts, repeat=len(pool.sources)):
        if max(tilt) == 1.0:
            rows = np.array(tilt) * pool.sizes
            share = min(1.0, pool.max_prompts / rows.sum())
            found.append(rounded(share * rows).astype(np.float64))
    return found


def stoppings(pool: Pool, counts: Array, weights: Array, stop: Stop) -> list[Stopping]:
    """Times, or penalties, from where nothing is fitted to where all is; convergence and no training too."""
    moments = [float(np.abs(c.second_moment).max()) for c in pool.columns]
    rows = weights * counts
    top = float(rows @ moments)
    total = float(counts[weights > 0].sum())
    ends = [Stopping(), Stopping(time=0.0)]
    if top == 0:
        return ends
    reach = np.geomspace(1e-2, 1e6, POINTS)
    if stop == "best":
        return [*(Stopping(time=float(t)) for t in reach * total / top), *ends]
    return [*(Stopping(ridge=float(x)) for x in top / reach), *ends]


def measure_pool(dimension: int, seed: int, stop: Stop, tuned: bool, seeds: list[int]) -> list[list[Any]]:
    """Cell: one row of sizes, forecast, simulated errors and regret of a pool's decision."""
    pool = random_pool(dimension, seed)
    if stop == "best":
        found, decided = choose_stopping(pool, tuned=tuned, learning_rate=None)
    else:
        found, decided = choose_penalty(pool, tuned=tuned)  # type: ignore[assignment]
    drawn = [DrawnRows(pool, s) for s in seeds]
    weights = decided.weights
    own = np.array([rows.errors(decided.counts, weights, [decided.stopping])[0] for rows in drawn])
    half = len(seeds) // 2
    best, best_error = own, np.inf
    for counts, tried in decisions(pool, tuned=tuned):
        ends = stoppings(pool, counts, tried, stop)
        errors = np.array([rows.errors(counts, tried, ends) for rows in drawn])
        at = int(errors[:half].mean(axis=0).argmin())
        if errors[:half, at].mean() < best_error:
            best, best_error = errors[:, at], float(errors[:half, at].mean())
    regret = own[half:] / best[half:].mean() - 1
    gap = own[half:] - best[half:]
    untouched = pool.goal.objective.error(pool.untouched)
    descended = (
        _descended(pool, decided, found, seeds[:half]) if isinstance(found, Stopped) else [None, None, None]
    )
    return [
        [
            len(pool.sources),
            int(pool.sources[0].covariance.ndim == 2),
            cap(pool),
            found.objective,
            float(own.mean()),
            _sem(own),
            float(regret.mean()),
            _sem(gap) / float(best[half:].mean()),
            untouched,
            *descended,
        ]
    ]


def _sem(values: Array) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)


def _descended(pool: Pool, decided: Decided, found: Stopped, seeds: list[int]) -> list[float | None]:
    """(forecast, simulated, its standard error) on the target, of real descent for the plan's steps."""
    if not found.steps or found.steps > DESCENTS or found.learning_rate is None:
        return [None, None, None]
    errors = simulate_descent(
        pool.start,
        pool.eta,
        pool.taking(decided.counts),
        found.prompts,
        found.learning_rate,
        [found.steps],
        [_target(pool)],
        pool.sources[0].length,
        weights=decided.weights.tolist(),
        chain_steps=CHAIN,
        seeds=seeds,
    ).values[:, 0, 0]
    return [found.error_of_steps, float(errors.mean()), _sem(errors)]


def _target(pool: Pool) -> Array:
    return np.asarray(pool.goal.target.target)
