"""The simulated error after a training time, under a penalty, with weighted sources, stages and averages.

What the theory of training time predicts is measured here on drawn prompts: whole surfaces of (numbers of
prompts) x (stoppings) from one nested stream and one factorisation a number of prompts
(:mod:`datadose.simulation.spectral`), stages one after the other, and averages of models. The clock is that
of :class:`~datadose.theory.stopping.Stopping`: the loss is c_k/(2B) sum_c w_c ||V Phi_c + eta Omega_c||_F^2
with B the number of prompts whose weight is above 0; a time t of gradient flow leaves e^{-t x/B} of what
separates V from V* along an eigenvector of sum_c w_c Phi_c Phi_c^T with eigenvalue x, T steps of size gamma
leave (1 - gamma c_k x/B)^T, and a penalty lambda ||V - V0||_F^2 beside the plain sum lambda/(lambda + x).
Errors are those of Prop 5.1, divided by d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import dense, validate_operator
from datadose.errors import LARGEST_COUNT, reject, require_integer
from datadose.prompts import Seed
from datadose.shapes import Array, Float, Int, Matrix, Operator
from datadose.simulation.mixtures import seed_list
from datadose.simulation.spectral import PostTest, Regression
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping


@dataclass(frozen=True)
class TrainingErrors:
    """Simulated errors / d: one array of the same shape for each seed."""

    values: Float[Array, "seeds *shape tests"]
    """Seeds first, tests last; the axes between are named by the function that made it."""

    @property
    def mean(self) -> Float[Array, "*shape tests"]:
        """The mean error / d over seeds, of shape (*shape, tests)."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def sem(self) -> Float[Array, "*shape tests"]:
        """Standard error of the mean over seeds (NaN for one seed)."""
        if len(self.values) < 2:
            return np.full(self.values.shape[1:], np.nan)
        return np.asarray(self.values.std(axis=0, ddof=1) / np.sqrt(len(self.values)))


def simulate_training(
    V0: Operator,
    eta: float,
    sources: Sequence[Source],
    targets: Sequence[Operator],
    test_length: int,
    stoppings: Sequence[Stopping],
    *,
    counts: Sequence[int] | Sequence[Sequence[int]] | NDArray[np.int64] | None = None,
    weights: Sequence[float] | Float[Array, " K"] | None = None,
    chain_steps: int = 0,
    seeds: int | Sequence[int],
) -> TrainingErrors:
    """Simulated error / d at every numbers of prompts and every stopping; (seeds, G, S, targets).

    One seed draws one stream of prompts for each source, and a smaller number of prompts is the beginning
    of a larger one. Each of the G points costs one factorisation, O(d^3) or O(d B^2), and each further
    stopping O(d^2). Points whose counts grow along the grid share the sums over prompts.

    Args:
        V0: operator at which training starts, a spectrum (d,) or a matrix (d, d).
        eta: chain-of-thought step, in (0, 2).
        sources: where the prompts come from, K of them.
        targets: test covariances, such as [Sigma, Sigma0]; each a spectrum (d,) or a PSD matrix (d, d).
        test_length: length n >= 1 of the test prompts.
        stoppings: how long, or under which penalty, the model is trained; S of them.
        counts: numbers of prompts >= 0 at each of G points, shape (G, K), or (G,) for one source; one point
            with the sources' own numbers if not given.
        weights: w_c >= 0 of each source in the loss; 1 if not given. A source of weight 0 is left out of B.
        chain_steps: k of the chains of thought.
        seeds: a number of seeds (0, 1, ..) or the list of them.

    Where convergence has an infinite mean (close to a peak) the simulated error of a converged model means
    nothing. Raises InputError for a value out of range, and for a learning rate that diverges on the prompts
    drawn.
    """
    if not stoppings:
        reject("stoppings", "none", "at least one stopping")
    regression = Regression.of(eta, sources, weights, chain_steps)
    V0 = validate_operator("V0", V0, regression.dimension)
    tests = PostTest.all_of(targets, test_length, regression.dimension)
    grid = _grid(counts, sources)
    found = np.empty((len(chosen := seed_list(seeds)), len(grid), len(stoppings), len(tests)))
    for place, seed in enumerate(chosen):
        pool = regression.draw(grid.max(axis=0), seed=seed)
        for point, own in enumerate(grid):
            factors = pool.factors(own, V0)
            gains = np.array([factors.gains(stopping, regression.speed) for stopping in stoppings])
            for t, test in enumerate(tests):
                found[place, point, :, t] = factors.errors(V0, test, gains)
    return TrainingErrors(found)


def _grid(counts: object, sources: Sequence[Source]) -> Int[NDArray[np.int64], "G K"]:
    """``counts`` as an integer array (G, K), or InputError."""
    K = len(sources)
    field = "prompts" if counts is None else "counts"
    allowed = f"whole numbers >= 0 of shape (G, {K})" + (" or (G,)" if K == 1 else "")
    given = np.array([[source.prompts for source in sources]] if counts is None else counts)
    if K == 1 and given.ndim == 1:
        given = given[:, None]
    if given.ndim != 2 or given.shape[1] != K or len(given) == 0:
        reject(field, f"shape {given.shape}", allowed)
    numbers = given.dtype.kind in "iuf" and np.isfinite(given).all()
    if not numbers or (given % 1 != 0).any() or given.min() < 0 or given.max() > LARGEST_COUNT:
        reject(field, given.ravel().tolist(), allowed)
    return given.astype(np.int64)


def train_operator(
    V0: Operator,
    eta: float,
    sources: Sequence[Source],
    stopping: Stopping,
    *,
    weights: Sequence[float] | Float[Array, " K"] | None = None,
    chain_steps: int = 0,
    seed: Seed,
) -> Matrix:
    """The operator V itself, (d, d), that one seed trains on the sources' own numbers of prompts.

    Arguments, errors and prompts are those of :func:`simulate_training`.
    """
    regression = Regression.of(eta, sources, weights, chain_steps)
    V0 = validate_operator("V0", V0, regression.dimension)
    own = _grid(None, sources)[0]
    factors = regression.draw(own, seed=seed).factors(own, V0)
    return dense(V0) + factors.change(factors.gains(stopping, regression.speed))


@dataclass(frozen=True)
class TrainingStage:
    """One stage of training: on which rows, for how long."""

    eta: float
    """Chain-of-thought step; 1 is pretraining on finitely many prompts, and outcome supervision at k = 1."""
    sources: Sequence[Source]
    """The sources of prompts, with their own numbers of prompts."""
    stopping: Stopping = Stopping()  # noqa: RUF009
    """The end of the training; convergence unless given."""
    weights: Sequence[float] | None = None
    """w_c >= 0 of each source; 1 unless given."""
    chain_steps: int = 0
    """k of the chains of thought."""


def simulate_stages(
    V0: Operator,
    stages: Sequence[TrainingStage],
    targets: Sequence[Operator],
    test_length: int,
    *,
    seeds: int | Sequence[int],
) -> TrainingErrors:
    """Simulated error / d after each stage, each from the model of the one before; (seeds, stages, targets).

    Each stage draws prompts of its own. Pretraining on B prompts of Sigma0 is the stage
    ``TrainingStage(1.0, [Source(Sigma0, n, B)])`` from V0 = 0; outcome supervision with one thinking step is
    a stage of eta = 1 on prompts of the target. Other arguments and errors: :func:`simulate_training`.
    """
    if not stages:
        reject("stages", "none", "at least one stage")
    V0 = validate_operator("V0", V0)
    tests = PostTest.all_of(targets, test_length, len(V0))
    chosen = seed_list(seeds)
    found = np.empty((len(chosen), len(stages), len(tests)))
    for place, seed in enumerate(chosen):
        V: Operator = V0
        for number, stage in enumerate(stages):
            V = _trained(V, stage, (seed, number))
            found[place, number] = [test.error(V) for test in tests]
    return TrainingErrors(found)


def simulate_average(
    V0: Operator,
    stage: TrainingStage,
    models: int,
    targets: Sequence[Operator],
    test_length: int,
    *,
    seeds: int | Sequence[int],
) -> TrainingErrors:
    """Simulated error / d of the mean weights of the first 1, 2, .. M models; (seeds, M, targets).

    All models start at V0, and each is trained by ``stage`` on prompts of its own: M disjoint sets. Other
    arguments and errors: :func:`simulate_training`.
    """
    M = require_integer("models", models, 1)
    V0 = validate_operator("V0", V0)
    tests = PostTest.all_of(targets, test_length, len(V0))
    chosen = seed_list(seeds)
    found = np.empty((len(chosen), M, len(tests)))
    for place, seed in enumerate(chosen):
        total = np.zeros((len(V0), len(V0)))
        for number in range(M):
            total += _trained(V0, stage, (seed, number))
            found[place, number] = [test.error(total / (number + 1)) for test in tests]
    return TrainingErrors(found)


def _trained(V0: Operator, stage: TrainingStage, seed: tuple[int, ...]) -> Matrix:
    options = {"weights": stage.weights, "chain_steps": stage.chain_steps, "seed": seed}
    return train_operator(V0, stage.eta, stage.sources, stage.stopping, **options)  # type: ignore[arg-type]
