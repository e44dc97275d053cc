"""Stochastic gradient descent in V on drawn prompts: many epochs over few rows, or one pass over new ones.

The loss of a batch is the mean over its rows of w_c c_k ||V phi + eta w||^2 / 2 with W~ = I, so that batches
of all rows are gradient descent by the clock of :class:`~datadose.theory.stopping.Stopping`. An update of a
batch of b rows costs O(d^2 b) and changes V in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dgemm, dger

from datadose.covariance import dense, validate_operator
from datadose.errors import reject, require_integer, require_number
from datadose.prompts import random_stream
from datadose.shapes import Array, Float, Int, Operator
from datadose.simulation.mixtures import draw_source, seed_list, whole_prompts
from datadose.simulation.spectral import PostTest, Regression
from datadose.simulation.training import TrainingErrors
from datadose.theory.source import Source

_FRESH_ROWS = 2048
"""About so many fresh rows are drawn at a time; which ones depends on the batch size alone."""


def simulate_descent(
    V0: Operator,
    eta: float,
    sources: Sequence[Source],
    batch: int,
    learning_rate: float,
    updates: Sequence[int],
    targets: Sequence[Operator],
    test_length: int,
    *,
    fresh: bool = False,
    weights: Sequence[float] | Float[Array, " K"] | None = None,
    chain_steps: int = 0,
    seeds: int | Sequence[int],
) -> TrainingErrors:
    """Simulated error / d after the given numbers of updates; (seeds, updates, targets).

    With ``fresh`` False the sources' prompts are drawn once and used in epochs, each in a new order and cut
    into batches of ``batch`` (the last of an epoch may be smaller). With ``fresh`` True every row of every
    batch is new, from source c with probability B_c / B: one pass, for which the sources' numbers of prompts
    are their shares alone. More ``updates`` continue the same run.

    Args:
        V0: operator at which training starts, a spectrum (d,) or a matrix (d, d).
        eta: chain-of-thought step, in (0, 2).
        sources: where the prompts come from, with their numbers.
        batch: prompts b >= 1 in a batch; at most the number of all prompts, unless ``fresh``.
        learning_rate: step size gamma > 0, the same at all updates.
        updates: numbers of updates >= 0 after which the error is recorded, in any order.
        targets, test_length, weights, chain_steps, seeds: as in
            :func:`~datadose.simulation.training.simulate_training`.

    Raises InputError for a value out of range, and for a learning rate with which the run diverges.
    """
    regression = Regression.of(eta, sources, weights, chain_steps)
    V0 = validate_operator("V0", V0, regression.dimension)
    tests = PostTest.all_of(targets, test_length, regression.dimension)
    rate = require_number("learning_rate", learning_rate, 0, np.inf, open_ends=True) * regression.speed
    size = require_integer("batch", batch, 1)
    recorded = [require_integer("updates", count, 0) for count in updates]
    if not recorded:
        reject("updates", "none", "at least one number of updates")
    counts = np.array([whole_prompts(sources[place].prompts) for place in regression.places])
    total = int(counts.sum())
    if total == 0:
        reject("sources", "no prompts of a weight above 0", "at least one")
    if not fresh and size > total:
        reject("batch", batch, f"an integer in [1, {total}], the number of prompts")
    chosen = seed_list(seeds)
    found = np.empty((len(chosen), len(recorded), len(tests)))
    for place, seed in enumerate(chosen):
        batches = _fresh(regression, counts, size, seed) if fresh else _epochs(regression, counts, size, seed)
        found[place] = _run(V0, batches, rate, recorded, tests)
    return TrainingErrors(found)


def _run(
    V0: Operator,
    batches: Iterator[tuple[Array, Array]],
    rate: float,
    recorded: list[int],
    tests: list[PostTest],
) -> Array:
    """Errors (updates, tests) of one run."""
    V = np.asfortranarray(dense(V0).copy())
    found = np.empty((len(recorded), len(tests)))
    done = 0
    for place in np.argsort(recorded, kind="stable"):
        while done < recorded[place]:
            drawn = next(batches)
            F, Y = (X.reshape(-1, X.shape[-1]).T for X in drawn)
            with np.errstate(over="ignore", invalid="ignore"):
                step, residual = -rate / len(drawn[0]), V @ F - Y
                if F.shape[1] == 1:
                    V = dger(step, residual[:, 0], F[:, 0], a=V, overwrite_a=True)
                else:
                    V = dgemm(step, residual, F, beta=1.0, c=V, trans_b=True, overwrite_c=True)
            done += 1
        with np.errstate(over="ignore", invalid="ignore"):
            errors = [test.error(V) for test in tests]
        if not np.isfinite(errors).all():
            reject("learning_rate", f"one that diverges within {done} updates", "a smaller number")
        found[place] = errors
    return found


def _epochs(
    regression: Regression, counts: Int[NDArray[np.int64], " K"], size: int, seed: int
) -> Iterator[tuple[Array, Array]]:
    """Columns and answers (b, columns a prompt, d) of the batches of one run over fixed prompts."""
    columns, answers = _rows(regression, counts, (seed,))
    total, epoch = len(columns), 0
    while True:
        order = random_stream((seed, epoch), "order").permutation(total)
        for start in range(0, total, size):
            chosen = order[start : start + size]
            yield columns[chosen], answers[chosen]
        epoch += 1


def _fresh(
    regression: Regression, counts: Int[NDArray[np.int64], " K"], size: int, seed: int
) -> Iterator[tuple[Array, Array]]:
    """The same with new prompts in every batch."""
    together, part = max(1, _FRESH_ROWS // size), 0
    while True:
        stream = random_stream((seed, part), "order")
        origin = stream.choice(len(counts), size=together * size, p=counts / counts.sum())
        own = np.bincount(origin, minlength=len(counts))
        columns, answers = _rows(regression, own, (seed, part))
        # The rows lie source by source; each goes to the place that its source was drawn for.
        place = np.argsort(np.argsort(origin, kind="stable"), kind="stable")
        for start in range(0, together * size, size):
            chosen = place[start : start + size]
            yield columns[chosen], answers[chosen]
        part += 1


def _rows(
    regression: Regression, counts: Int[NDArray[np.int64], " K"], seed: tuple[int, ...]
) -> tuple[Array, Array]:
    """Columns and answers (B, columns a prompt, d) of all sources, scaled by the roots of their weights.

    A prompt of one column beside prompts of two gets a second one of zeros, which changes nothing.
    """
    blocks = []
    for source, place, weight, B in zip(
        regression.sources, regression.places, regression.weights, counts, strict=True
    ):
        if B == 0:
            continue
        drawn = draw_source(
            replace(source, prompts=int(B)), regression.eta, regression.chain_steps, seed=(*seed, int(place))
        )
        blocks.append([np.sqrt(weight) * X.reshape(len(X), -1, int(B)).T for X in drawn])
    most = max(F.shape[1] for F, _ in blocks)
    columns, answers = (
        np.concatenate([np.pad(b[i], [(0, 0), (0, most - b[i].shape[1]), (0, 0)]) for b in blocks])
        for i in range(2)
    )
    return columns, answers
