"""Random problems for the properties: sources of every size, range, scale, length and noise.

Every problem is a function of its seed. ``DATADOSE_PROPERTY_EXAMPLES`` multiplies the number of seeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from datadose.covariance import rotated
from datadose.shift import Shift
from datadose.theory import Source, mixture_error, pretrained_operator

FACTOR = float(os.environ.get("DATADOSE_PROPERTY_EXAMPLES", "1"))
ROUNDING = float(np.finfo(np.float64).eps)

Array = np.ndarray


def examples(count: int) -> pytest.MarkDecorator:
    """The argument ``seed`` of a property: 0 .. count - 1, or more."""
    return pytest.mark.parametrize("seed", range(max(1, round(count * FACTOR))))


@dataclass(frozen=True, eq=False)
class Problem:
    """The arguments of ``mixture_error``: all matrices are spectra, or all are dense."""

    V0: Array
    eta: float
    sources: tuple[Source, ...]
    target: Array
    test_length: int
    chain_steps: int

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.target)

    def error(self, *, finite_size: bool = False) -> float:
        """What ``mixture_error`` makes of it."""
        return mixture_error(
            self.V0,
            self.eta,
            self.sources,
            self.target,
            self.test_length,
            chain_steps=self.chain_steps,
            finite_size=finite_size,
        )

    def mapped(self, change: Callable[[Array], Array]) -> Problem:
        """The same with every matrix changed."""
        sources = tuple(replace(s, covariance=change(s.covariance)) for s in self.sources)
        return replace(self, V0=change(self.V0), sources=sources, target=change(self.target))

    def turned(self, basis: Array) -> Problem:
        """The same problem in another orthonormal basis, dense."""
        return self.mapped(lambda M: rotated(M, basis))

    def scaled(self, scale: float) -> Problem:
        """All covariances times ``scale``: V0 is the inverse of one, and so are the variances of labels."""
        sources = tuple(
            replace(s, covariance=scale * s.covariance, label_noise=scale * s.label_noise)
            for s in self.sources
        )
        return replace(self, V0=self.V0 / scale, sources=sources, target=scale * self.target)

    def with_counts(self, counts: object) -> Problem:
        """The same sources with other numbers of prompts."""
        pairs = zip(self.sources, np.asarray(counts, dtype=float), strict=True)
        return replace(self, sources=tuple(replace(s, prompts=float(B)) for s, B in pairs))

    @property
    def counts(self) -> Array:
        """B_c, shape (K,)."""
        return np.array([s.prompts for s in self.sources], dtype=float)


def random_basis(rng: np.random.Generator, d: int) -> Array:
    """A uniformly random orthonormal basis."""
    return np.linalg.qr(rng.standard_normal((d, d)))[0]


def tangled(problem: Problem, rng: np.random.Generator) -> Problem:
    """Every matrix in a basis of its own: nothing commutes any more."""
    return problem.mapped(lambda M: rotated(M, random_basis(rng, problem.dimension)))


# --- where the mean error exists ------------------------------------------------------------------------


def _rank_of_sets(covariances: list[Array]) -> Callable[[Array], int]:
    """The dimension of what a set of sources spans together."""
    if all(C.ndim == 1 for C in covariances):
        supports = [C > 0 for C in covariances]

        def counted(chosen: Array) -> int:
            seen = [support for support, kept in zip(supports, chosen, strict=True) if kept]
            return int(np.any(seen, axis=0).sum())

        return counted
    bases = []
    for C in covariances:
        values, vectors = np.linalg.eigh(C)
        bases.append(vectors[:, values > 1e-10 * values[-1]])

    def rank(chosen: Array) -> int:
        spans = [basis for basis, kept in zip(bases, chosen, strict=True) if kept]
        return int(np.linalg.matrix_rank(np.hstack(spans), tol=1e-6)) if spans else 0

    return rank


def lead_and_short(problem: Problem) -> tuple[float, float]:
    """By how many columns the over-determined sources lead every other set, and interpolated short prompts.

    By comparing all sets of sources: the over-determined set is the one with the largest excess of columns
    over the rank that it spans. The inverse second moment of a Gaussian matrix exists if its sides differ by
    more than 1, so the mean error is infinite where the lead is at most 1. For one prompt alone it is
    E ||phi||^{-2}, which is infinite for n <= 2 (with noisy labels and k >= 1 its two columns are an n x 2
    Gaussian matrix: n <= 3), where at least one such prompt is interpolated.
    """
    used = [s for s in problem.sources if s.prompts > 0 and s.covariance.any()]
    paired = [s.label_noise > 0 and problem.chain_steps > 0 for s in used]
    twice = [two and s.length > 1 for s, two in zip(used, paired, strict=True)]
    columns = np.array([s.prompts * (2 if both else 1) for s, both in zip(used, twice, strict=True)])
    sets = [np.array(chosen, dtype=bool) for chosen in product([False, True], repeat=len(used))]
    rank = _rank_of_sets([s.covariance for s in used])
    ranks = np.array([rank(chosen) for chosen in sets])
    excess = np.array([columns[chosen].sum() for chosen in sets]) - ranks
    # Among equals the larger set.
    best = max(range(len(sets)), key=lambda i: (excess[i], int(sets[i].sum())))
    others = excess[ranks != ranks[best]]
    lead = float(excess[best] - others.max()) if len(others) else np.inf
    below = zip(used, paired, sets[best], strict=True)
    short = sum(s.prompts for s, two, above in below if not above and s.length <= (3 if two else 2))
    return lead, short


def is_infinite(problem: Problem) -> bool:
    """Whether the mean error over finite prompts is infinite."""
    lead, short = lead_and_short(problem)
    return lead <= 1 or short >= 1 or all_small(problem)


def all_small(problem: Problem) -> bool:
    """On a direction that only sources of rank 1 span the mean needs more than four examples in all.

    Each prompt there is a chi-square of its length times a vector, and V* is large where all are small.
    """
    used = [s for s in problem.sources if s.prompts > 0 and s.covariance.any()]
    lone = {tuple(s.covariance > 0) for s in used if (s.covariance > 0).sum() == 1}
    for place in lone:
        there = [s for s in used if (s.covariance[np.array(place)] > 0).any()]
        alone = all(tuple(s.covariance > 0) == place for s in there)
        if alone and sum(s.length * s.prompts for s in there) <= 4:
            return True
    return False


def is_clearly_finite(problem: Problem) -> bool:
    """Whether it is finite and stays so if the numbers change a little, and sources are split or merged."""
    lead, short = lead_and_short(problem)
    return lead > 1.01 and short < 0.5


# --- the draws ------------------------------------------------------------------------------------------


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A positive number, even in its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def log_integer(rng: np.random.Generator, low: int, high: int) -> int:
    """The same, rounded."""
    return round(log_uniform(rng, low, high))


def spectrum(rng: np.random.Generator, d: int, *, condition: float = 1e8, full: bool = False) -> Array:
    """Eigenvalues that are flat, in blocks or spread over up to ``condition``, on a random range."""
    span = rng.choice([0.0, 0.5, 1.0]) * np.log10(condition)
    values = 10.0 ** (-span * rng.random(d))
    if rng.random() < 0.3:
        values = values[rng.integers(0, min(d, 3), d)]
    inside = np.ones(d, dtype=bool)
    if not full and rng.random() < 0.6:
        start, size = rng.integers(0, d), rng.integers(1, d + 1)
        inside = np.roll(np.arange(d) < size, start)
    values = np.where(inside, values, 0.0)
    return values / values.max()


def _prompts(rng: np.random.Generator, rank: int) -> float:
    kind = rng.random()
    if kind < 0.1:
        return 0.0
    if kind < 0.15:
        return log_uniform(rng, 1e4, 1e12)
    around = rank * log_uniform(rng, 0.05, 20)
    return around if kind < 0.5 else float(round(around))


def _source(rng: np.random.Generator, d: int, eta: float, noisy: bool) -> Source:
    covariance = spectrum(rng, d) * 10.0 ** (rng.uniform(-4, 4) if rng.random() < 0.5 else 0.0)
    noise = {}
    if noisy and rng.random() < 0.6:
        noise["label_noise"] = float(covariance.sum() * 10.0 ** rng.uniform(-3, 2))
    if noisy and rng.random() < 0.6:
        noise["demonstration_noise"] = float(eta**2 * 10.0 ** rng.uniform(-3, 2))
    prompts = _prompts(rng, int((covariance > 0).sum()))
    return Source(covariance, log_integer(rng, 1, 100_000), prompts, **noise)


def _start(rng: np.random.Generator, d: int) -> Array:
    kind = rng.random()
    if kind < 0.1:
        return np.zeros(d)
    if kind < 0.5:
        return pretrained_operator(spectrum(rng, d, full=True), log_integer(rng, 1, 100_000))
    return -rng.uniform(0.1, 2.0, d)


def _draw(rng: np.random.Generator, largest: int, most_sources: int) -> Problem:
    d = log_integer(rng, 1, largest)
    eta = float(rng.choice([log_uniform(rng, 1e-6, 1e-2), rng.uniform(0.01, 1.0), rng.uniform(1.0, 1.99)]))
    noisy = bool(rng.random() < 0.4)
    sources = tuple(_source(rng, d, eta, noisy) for _ in range(rng.integers(1, most_sources + 1)))
    V0 = _start(rng, d)
    # What V* is made of: with Sigma its inverse all terms of the error count.
    sizes = [np.median(np.abs(V0)), *(eta / s.covariance.max() for s in sources)]
    scale = log_uniform(rng, 0.1, 10) / float(rng.choice([size for size in sizes if size > 0]))
    target = spectrum(rng, d, condition=1e4) * scale
    steps = int(rng.integers(0, 6)) if noisy else 0
    return Problem(V0, eta, sources, target, log_integer(rng, 1, 100_000), steps)


@cache
def any_problem(seed: int, largest: int = 200, most_sources: int = 6) -> Problem:
    """Spectra; the mean may be infinite."""
    return _draw(np.random.default_rng([1, seed, largest, most_sources]), largest, most_sources)


@cache
def finite_problem(seed: int, largest: int = 200, most_sources: int = 6) -> Problem:
    """Spectra; some source has prompts, and the mean is finite."""
    rng = np.random.default_rng([2, seed, largest, most_sources])
    while True:
        found = _draw(rng, largest, most_sources)
        if found.counts.any() and is_clearly_finite(found):
            return found


@cache
def plain_problem(seed: int, largest: int = 60) -> Problem:
    """Spectra whose error is determined when they become dense matrices too.

    V0 and Sigma are of condition 1e2 at most: dense matrices keep eigenvalues to within rounding of the
    largest only, and with more of a spread most errors would drown in that. The sources' go up to 1e8.
    """
    rng = np.random.default_rng([3, seed, largest])
    while True:
        found = _draw(rng, largest, 4)
        d = found.dimension
        scale = log_uniform(rng, 0.1, 10)
        found = replace(
            found,
            V0=-rng.uniform(0.1, 2.0, d),
            target=spectrum(rng, d, condition=1e2, full=True) * scale,
        )
        if found.counts.any() and is_clearly_finite(found):
            return found


@cache
def random_shift(seed: int, largest: int = 200, condition: float = 1e8) -> tuple[Shift, int]:
    """A shift of spectra and a prompt length: data as the paper allocates them, or any other.

    ``condition`` is the largest of Sigma0; matrices leave little of an error where it is over 1e2.
    """
    rng = np.random.default_rng([4, seed, largest])
    d = log_integer(rng, 2, largest)
    sigma0 = spectrum(rng, d, condition=condition, full=True) * log_uniform(rng, 0.1, 10)
    delta = spectrum(rng, d, condition=1e2) * log_uniform(rng, 0.1, 10)
    eta = float(rng.choice([rng.uniform(0.05, 1.0), rng.uniform(1.0, 1.9), log_uniform(rng, 1e-4, 0.05)]))
    if rng.random() < 0.5:
        shift = Shift.aligned(sigma0, delta, eta, float(rng.choice([0.0, log_uniform(rng, 1e-6, 1)])))
    else:
        shift = Shift(sigma0, delta, spectrum(rng, d) * log_uniform(rng, 1e-3, 1e3), eta)
    return shift, log_integer(rng, 3, 10_000)


def turned_shift(shift: Shift, basis: Array) -> Shift:
    """The same shift in another orthonormal basis, dense."""
    sigma0, delta, data = (rotated(M, basis) for M in (shift.sigma0, shift.delta, shift.data))
    return Shift((sigma0 + sigma0.T) / 2, (delta + delta.T) / 2, (data + data.T) / 2, shift.eta)


# --- how well floating point determines an error --------------------------------------------------------


def _shaken(problem: Problem, rng: np.random.Generator, size: float) -> Problem:
    """Every number off by a relative ``size``; every matrix by as much of its largest eigenvalue.

    Ranks stay: zeros of spectra are kept, and matrices are cut to their largest eigenvalues.
    """

    def shake(M: Array) -> Array:
        if M.ndim == 1:
            return M * (1 + size * rng.standard_normal(len(M)))
        noise = rng.standard_normal(M.shape) / np.sqrt(2 * len(M))
        values, vectors = np.linalg.eigh(M)
        largest = np.abs(values).max()
        rank = int((np.abs(values) > 1e-10 * largest).sum())
        values, vectors = np.linalg.eigh(M + size * largest * (noise + noise.T))
        kept = np.argsort(-np.abs(values))[:rank]
        return np.asarray((vectors[:, kept] * values[kept]) @ vectors[:, kept].T)

    moved = problem.mapped(shake)
    counts = problem.counts * (1 + size * rng.standard_normal(len(problem.sources)))
    eta = min(problem.eta * (1 + size * rng.standard_normal()), 1.999)
    return replace(moved.with_counts(counts), eta=float(eta))


def tolerance(problem: Problem) -> float:
    """By how much, relative to the error, rounding may change it.

    For spectra a thousand roundings of every number, as many as a few sums of up to 200 terms leave: the
    largest of three changes under random relative changes of 1e-7, brought to that size. For matrices the
    largest of three changes under a hundred roundings themselves, relative to the largest eigenvalue: a few
    products and decompositions. So it is large next to a peak, where terms cancel, and where a matrix has
    eigenvalues 1e-8 of the largest, of which (and of whose directions) floating point keeps little.
    """
    matrices = problem.target.ndim == 2
    rng, error, size = np.random.default_rng(0), problem.error(), 1e2 * ROUNDING if matrices else 1e-7
    change = max(abs(_shaken(problem, rng, size).error() / error - 1) for _ in range(3))
    return 1e-11 + change * (1 if matrices else 1e3 * ROUNDING / size)
