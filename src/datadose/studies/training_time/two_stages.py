"""Penalised stages of training one after the other, on many penalties at once, for spectra.

The law of ``theory.trained`` at a penalty, in the effective penalty mu of each stage, in which nothing has to
be solved: with C, A the stage's second moment and covariance, R = 1 / (C + mu) and df2 = sum (C R)^2,

- E[V]     <- (mu E[V] - eta A) R
- P         = (mu^2 E[V^2] - 2 mu eta A E[V] + eta^2 A^2) R^2
- E[V^2]   <- P + C R^2 / (B - df2) * sum (C P + 2 eta A E[V'] + eta^2), the sum over all d directions.

A penalty lambda = mu (B - df1) >= 0 reaches mu if df1 = sum C R <= B; a smaller mu is taken for the smallest
that is reached, which is training to convergence. Directions with equal values are counted together, so a
study may search the penalties of two stages at thousands of places; tests set it against ``theory.trained``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datadose.covariance import wishart_second_moment
from datadose.shapes import Array
from datadose.theory.one_source import weights_below_peak
from datadose.theory.pretraining import pretrained_operator
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.training_time import trained_path

_PER_DECADE = 5
_BEYOND = 1e4
"""The grid of mu ends so far beyond the smallest and the largest C: converged, and untouched."""
_NEIGHBOURS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
_FINER = 8
"""Times so many penalties a decade where one stage alone is followed."""
_ROUNDS = 6
"""Of halving the grid around its best place: mu is then known to half a percent."""


@dataclass(frozen=True, eq=False)
class State:
    """Mean and second moment of a diagonal operator V by level, each (..., L)."""

    mean: Array
    second: Array

    def at(self, place: int) -> State:
        """One of states (M, L)."""
        return State(self.mean[place], self.second[place])


@dataclass(frozen=True, eq=False)
class Path:
    """The models (M, L) of a stage at ``places`` (M,): effective penalties, or times."""

    places: Array
    states: State


@dataclass(frozen=True, eq=False)
class Prompts:
    """A kind of prompts by level: covariance A, second moment C, and how many directions a level counts."""

    cross: Array
    moment: Array
    sizes: Array
    eta: float

    def degrees(self, mu: ArrayLike) -> tuple[Array, Array]:
        """df1 and df2 at mu > 0 (...)."""
        share = self.moment / (self.moment + np.asarray(mu)[..., None])
        return share @ self.sizes, share**2 @ self.sizes

    def converged(self, prompts: ArrayLike) -> Array:
        """The smallest mu that B = ``prompts`` reach: df1(mu) = B, 0 above the rank, infinite for B = 0."""
        B = np.asarray(prompts, dtype=np.float64)
        inside = self.moment > 0
        found = np.where(B > 0, 0.0, np.inf)
        below = (B > 0) & (self.sizes[inside].sum() > B)
        if below.any():
            found[below] = 1 / weights_below_peak(self.moment[inside], self.sizes[inside], B[below])
        return found

    def grid(self) -> Array:
        """Effective penalties (M,) from where everything is fitted to where nothing is."""
        C = self.moment[self.moment > 0]
        low, high = C.min() / _BEYOND, C.max() * _BEYOND
        return np.geomspace(low, high, int(_PER_DECADE * np.log10(high / low)) + 1)

    def _shares(self, prompts: Array, mu: Array) -> tuple[Array, Array, Array, Array]:
        """mu R, eta A R and C R^2, each (..., L), and B - df2 (...), infinite where nothing is trained."""
        mu = np.maximum(mu, self.converged(prompts))
        untouched = np.isinf(mu)
        still = untouched[..., None] | (self.moment == 0)
        finite = np.where(untouched, 1.0, mu)[..., None]
        R = np.where(still, 0.0, 1 / np.where(still, 1.0, self.moment + finite))
        kept = np.where(still, 1.0, finite * R)
        free = np.where(untouched, np.inf, prompts - (self.moment * R) ** 2 @ self.sizes)
        return kept, self.eta * self.cross * R, self.moment * R**2, free

    def train(self, state: State, prompts: ArrayLike, mu: ArrayLike) -> State:
        """The model after this stage: B = ``prompts``, ``mu`` (...) and ``state`` (..., L) broadcast."""
        B, mu = np.broadcast_arrays(np.asarray(prompts, np.float64), np.asarray(mu, np.float64))
        kept, pull, reach, free = self._shares(B, mu)
        mean = kept * state.mean - pull
        direct = kept**2 * state.second - 2 * kept * pull * state.mean + pull**2
        inside = self.moment * direct + 2 * self.eta * self.cross * mean + self.eta**2
        return State(mean, direct + reach * (inside @ self.sizes / free)[..., None])

    def before(self, test: ErrorForm, prompts: ArrayLike, mu: ArrayLike) -> ErrorForm:
        """``test`` after this stage, as a test of the model before it; B and mu broadcast to (...).

        The scatter counts C_c times kappa = tr(C R M R) / (B - df2) more, and its residual with it.
        """
        B, mu = np.broadcast_arrays(np.asarray(prompts, np.float64), np.asarray(mu, np.float64))
        kept, pull, reach, free = self._shares(B, mu)
        kappa = (reach @ (test.quadratic * self.sizes) / free)[..., None]
        quadratic = test.quadratic + kappa * self.moment
        linear = test.linear + kappa * self.eta * self.cross
        constant = (quadratic * pull**2 - 2 * linear * pull) @ self.sizes / self.sizes.sum()
        constant = test.constant + constant + kappa[..., 0] * self.eta**2
        return ErrorForm(quadratic * kept**2, linear * kept - quadratic * kept * pull, constant, self.sizes)

    @property
    def loss(self) -> ErrorForm:
        """Held-out loss a prompt, E ||V phi + eta w*||^2 / d; that of outcome supervision is the error."""
        return ErrorForm(self.moment, self.eta * self.cross, np.array(self.eta**2), self.sizes)


@dataclass(frozen=True, eq=False)
class ErrorForm:
    """An error / d by level: constant + sum (quadratic E[V^2] + 2 linear E[V]) / d.

    Prop 5.1 has quadratic = M = E[S^2], linear = Sigma and constant 1.
    """

    quadratic: Array
    linear: Array
    constant: Array
    sizes: Array

    def error(self, state: State) -> Array:
        """Error / d, (...)."""
        inside = self.quadratic * state.second + 2 * self.linear * state.mean
        return np.asarray(self.constant + inside @ self.sizes / self.sizes.sum())

    def errors(self, states: State) -> Array:
        """Errors / d (X, M1, M2) of states (X, M1, L) on forms (X, M2, L)."""
        weights = self.sizes / self.sizes.sum()
        quadratic = (self.quadratic * weights).swapaxes(-1, -2)
        linear = (2 * self.linear * weights).swapaxes(-1, -2)
        return np.asarray(self.constant[:, None, :] + states.second @ quadratic + states.mean @ linear)


@dataclass(frozen=True, eq=False)
class Setup:
    """A pretraining covariance, a target and the data of SFT, spectra (d,) in one basis, and eta and n."""

    kind: str
    sigma0: Array
    target: Array
    data: Array
    eta: float
    length: int
    """Of all prompts, in every stage and in the test."""

    @cached_property
    def _levels(self) -> tuple[NDArray[np.intp], Array]:
        """Where each level stands among the directions, and how many it counts."""
        stacked = np.stack([self.sigma0, self.target, self.data])
        _, first, sizes = np.unique(stacked, axis=1, return_index=True, return_counts=True)
        return first.astype(np.intp), sizes.astype(np.float64)

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.sigma0)

    @property
    def sizes(self) -> Array:
        """Directions of each level, (L,)."""
        return self._levels[1]

    def level(self, spectrum: Array) -> Array:
        """A spectrum (d,) by level, (L,)."""
        return np.asarray(spectrum[self._levels[0]])

    def _test(self, covariance: Array) -> ErrorForm:
        second = wishart_second_moment(covariance, self.length)
        return ErrorForm(self.level(second), self.level(covariance), np.ones(()), self.sizes)

    @cached_property
    def test(self) -> ErrorForm:
        """The test on the target."""
        return self._test(self.target)

    @cached_property
    def known(self) -> ErrorForm:
        """The test on Sigma0, the pretraining data."""
        return self._test(self.sigma0)

    @cached_property
    def sft(self) -> Prompts:
        """The prompts of SFT."""
        return self.prompts(self.data, self.eta)

    @cached_property
    def outcome(self) -> Prompts:
        """The prompts of outcome supervision at k = 1: those of the target."""
        return self.prompts(self.target, 1.0)

    def prompts(self, covariance: Array, eta: float, length: int | None = None) -> Prompts:
        """Prompts of any covariance (d,), constant on the levels; of the setting's length unless given."""
        second = wishart_second_moment(covariance, self.length if length is None else length)
        return Prompts(self.level(covariance), self.level(second), self.sizes, eta)

    @cached_property
    def start(self) -> State:
        """The model pretrained on unlimited prompts, -Gamma0^{-1}."""
        V = self.level(pretrained_operator(self.sigma0, self.length))
        return State(V, V**2)

    def states(self, models: Sequence[TrainedOperator]) -> State:
        """Models whose moments are spectra (d,), by level; (M, L)."""
        mean, second = ([self.level(x) for x in found] for found in _moments(models))
        return State(np.stack(mean), np.stack(second))


@dataclass(frozen=True, eq=False)
class Tuned:
    """The best penalties of two stages at each of X places, and the error / d; all (X,)."""

    error: Array
    first: Array
    second: Array


def best_penalties(
    start: State,
    first: Prompts,
    first_count: ArrayLike,
    second: Prompts,
    second_count: ArrayLike,
    test: ErrorForm,
) -> Tuned:
    """The penalties of two stages that give the least error, at each of X pairs of numbers of prompts.

    Sought on a grid of both penalties together and then on ever finer ones around its best place.

    Args:
        start: the model before, (L,).
        first: prompts of the first stage, ``first_count`` (X,) of them; 0 leaves the stage out.
        second: prompts of the second stage, ``second_count`` (X,).
        test: what the error is measured on.
    """
    B1, B2 = np.broadcast_arrays(
        np.atleast_1d(np.asarray(first_count, np.float64)),
        np.atleast_1d(np.asarray(second_count, np.float64)),
    )
    rows = np.arange(len(B1))
    with np.errstate(divide="ignore"):
        lowest = np.log(first.converged(B1)), np.log(second.converged(B2))
    u1, u2 = (np.broadcast_to(np.log(p.grid()), (len(B1), len(p.grid()))) for p in (first, second))
    steps = u1[0, 1] - u1[0, 0], u2[0, 1] - u2[0, 0]
    for attempt in range(_ROUNDS + 1):
        after = second.before(test, B2[:, None], np.exp(u2))
        errors = after.errors(first.train(start, B1[:, None], np.exp(u1)))
        i, j = np.unravel_index(errors.reshape(len(B1), -1).argmin(axis=1), errors.shape[1:])
        best = np.maximum(u1[rows, i], lowest[0]), np.maximum(u2[rows, j], lowest[1])
        wide = [step * 2.0**-attempt * _NEIGHBOURS for step in steps]
        # What is left out stays so: its penalty is infinite everywhere.
        u1, u2 = (np.where(np.isinf(u), 0, u)[:, None] + w for u, w in zip(best, wide, strict=True))
    return Tuned(errors[rows, i, j], np.exp(best[0]), np.exp(best[1]))


def best_penalty(start: State, prompts: Prompts, count: ArrayLike, test: ErrorForm) -> Tuned:
    """The best penalty of one stage at each of X numbers of prompts; ``second`` is infinite (left out)."""
    counts = np.atleast_1d(np.asarray(count, np.float64))
    return best_penalties(start, prompts, counts, prompts, np.zeros(len(counts)), test)


def _moments(models: Sequence[TrainedOperator]) -> tuple[list[Array], list[Array]]:
    return [m.mean for m in models], [m.second_moment for m in models]


def after_best_penalty(states: State, prompts: Prompts, count: float, test: ErrorForm) -> Array:
    """The least error / d over the penalties of a stage that follows, for each of the states (M, L); (M,)."""
    mu = _finer(prompts.grid())
    after = prompts.before(test, np.full((1, 1), count), mu[None])
    return np.asarray(after.errors(State(states.mean[None], states.second[None]))[0].min(axis=1))


def penalty_path(setting: Setup, prompts: Prompts, count: float, start: State | None = None) -> Path:
    """A stage at all its penalties, from the smallest that ``count`` prompts reach to the largest."""
    mu = np.unique(np.maximum(_finer(prompts.grid()), prompts.converged(count)))
    return Path(mu, prompts.train(setting.start if start is None else start, count, mu))


def time_path(setting: Setup, count: float, places: int, prompts: Prompts | None = None) -> Path:
    """A stage stopped at ``places`` times of gradient flow, from an untouched model to a converged one.

    It is SFT unless ``prompts`` are those of the setting's outcome supervision.
    """
    prompts = setting.sft if prompts is None else prompts
    C = prompts.moment[prompts.moment > 0]
    times = np.geomspace(1e-2 / C.max(), 1e3 / C.min(), places)
    start = pretrained_operator(setting.sigma0, setting.length)
    covariance = setting.target if prompts is setting.outcome else setting.data
    source = Source(covariance, setting.length, count)
    models = trained_path(start, prompts.eta, [source], [Stopping(time=float(t)) for t in times])
    return Path(times, setting.states(models))


def _finer(grid: Array) -> Array:
    return np.geomspace(grid[0], grid[-1], _FINER * (len(grid) - 1) + 1)
