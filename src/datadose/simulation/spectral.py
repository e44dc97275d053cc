"""Drawn rows of a regression, and what any spectral filter of them trains, for one factorisation.

With F the columns phi of all prompts, each times sqrt(w_c) of its source c, and Y the answers, scaled alike,
the thin singular value decomposition F = U s Q^T gives every stage of training that starts at V0 and applies
the filter h to the eigenvalues x = s^2 of F F^T = sum_c w_c Phi_c Phi_c^T:

    V = V0 + Z diag((1 - h(x)) / s) U^T,    Z = Y Q - V0 U diag(s).

Directions that no prompt has do not move. The factorisation comes from the smaller of the two Gram matrices,
and from F itself where that matrix is too badly conditioned to give the small singular values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import is_spectrum, product, range_basis, validate_covariance, wishart_second_moment
from datadose.errors import reject, require_integer, require_number
from datadose.prompts import Seed
from datadose.shapes import Array, Float, Int, Matrix, Operator
from datadose.simulation.mixtures import draw_source
from datadose.theory.post_test import quadratic_error
from datadose.theory.sft import chain_weight
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping

_ILL_CONDITIONED = 1e-7
"""A smaller ratio of eigenvalues of a Gram matrix leaves too few digits in the smallest ones."""


@dataclass(frozen=True)
class PostTest:
    """A test of Prop 5.1: covariance Sigma and E[S^2] of its prompts."""

    covariance: Operator
    second_moment: Operator

    @classmethod
    def all_of(cls, targets: Sequence[Operator], length: int, dimension: int) -> list[PostTest]:
        """The tests on ``targets`` with prompts of ``length``; InputError for one of another dimension."""
        n = require_integer("test_length", length, 1)
        if not isinstance(targets, (list, tuple)) or not targets:
            reject(
                "targets",
                "none" if isinstance(targets, (list, tuple)) else type(targets).__name__,
                "a list of at least one test covariance",
            )
        checked = [validate_covariance("targets", target, dimension) for target in targets]
        return [cls(Sigma, wishart_second_moment(Sigma, n)) for Sigma in checked]

    def error(self, V: Operator) -> float:
        """The error / d of the operator ``V``, (d, d), on this test (Prop 5.1)."""
        Sigma, M = self.covariance, self.second_moment
        if V.ndim != Sigma.ndim:
            V, Sigma, M = (np.diag(X) if is_spectrum(X) else X for X in (V, Sigma, M))
        return quadratic_error(V, Sigma, M)


@dataclass(frozen=True)
class Factors:
    """The thin factorisation of one pool of rows, relative to the operator V0 at which training starts."""

    singular: Float[Array, " k"]
    """s > 0."""
    left: Float[Array, "d k"]
    """U."""
    pull: Float[Array, "d k"]
    """Z = Y Q - V0 U diag(s): how far V0 is from the answers."""
    prompts: int
    """B, the number of prompts whose weight is above 0."""

    def gains(self, stopping: Stopping, speed: float) -> Float[Array, " k"]:
        """(1 - h(x)) / s at every eigenvalue x = s^2, h the filter of ``stopping`` and c_k its ``speed``.

        Raises InputError for a learning rate above the largest at which gradient descent on these prompts is
        stable.
        """
        s, B = self.singular, self.prompts
        if stopping.time is not None:
            return np.asarray(-np.expm1(-stopping.time * s**2 / B) / s)
        if stopping.steps is not None and stopping.learning_rate is not None:
            moved = stopping.learning_rate * speed * s**2 / B
            if len(s) and moved.max() >= 2:
                largest = 2 * B / (speed * float(s.max()) ** 2)
                reject(
                    "learning_rate",
                    stopping.learning_rate,
                    f"a number below {largest:.6g}, the largest stable one here",
                )
            return np.asarray(_descended(moved, stopping.steps) / s)
        if stopping.ridge is not None:
            return np.asarray(s / (stopping.ridge + s**2))
        return np.asarray(1 / s)

    def change(self, gains: Float[Array, " k"]) -> Matrix:
        """The change V - V0 of the operator, shape (d, d), for the ``gains`` of one filter."""
        return np.asarray((self.pull * gains) @ self.left.T)

    def errors(self, V0: Operator, test: PostTest, gains: Float[Array, "S k"]) -> Float[Array, " S"]:
        """Err / d of the trained operator for each row of ``gains``: O(d^2) a row after one O(d^2 k) product.

        The error is 1 + (2 tr(V Sigma) + tr(V M V^T)) / d, quadratic in V and so in the gains.
        """
        d, U, Z = len(self.left), self.left, self.pull
        MU = product(test.second_moment, U)
        linear = 2 * (Z * (product(test.covariance, U) + product(V0, MU))).sum(axis=0)
        quadratic = (Z.T @ Z) * (U.T @ MU)
        return np.asarray(test.error(V0) + (gains @ linear + ((gains @ quadratic) * gains).sum(axis=1)) / d)


def _descended(moved: Array, steps: int) -> Array:
    """1 - (1 - moved)^steps; small values keep their digits."""
    small = moved < 0.5
    found = 1 - (1 - moved) ** steps
    found[small] = -np.expm1(steps * np.log1p(-moved[small]))
    return np.asarray(found)


@dataclass
class _Grams:
    """F F^T and Y F^T of the prompts counted so far, in coordinates of the span."""

    counts: Int[NDArray[np.int64], " K"]
    inner: Array
    cross: Array


@dataclass(frozen=True)
class Regression:
    """What is trained on: the sources, their weights, eta and the length of the chains; checked."""

    eta: float
    sources: tuple[Source, ...]
    """The sources of weight above 0; their own numbers of prompts are not used."""
    places: Int[NDArray[np.int64], " K"]
    """The place of each among all sources given, which decides its stream."""
    weights: Float[Array, " K"]
    chain_steps: int
    dimension: int
    span: Array | Int[NDArray[np.int64], " r"]
    """What the sources span together: coordinates (r,) or an orthonormal basis (d, r)."""

    @classmethod
    def of(
        cls, eta: float, sources: Sequence[Source], weights: Sequence[float] | Array | None, chain_steps: int
    ) -> Regression:
        """The checked request to fit ``sources`` with these ``weights`` in the loss (1 if None).

        Raises InputError for no source, and for weights of another number or below 0.
        """
        require_number("eta", eta, 0, 2, open_ends=True)
        require_integer("chain_steps", chain_steps, 0)
        if not sources:
            reject("sources", "none", "at least one source")
        if weights is None:
            weights = np.ones(len(sources))
        if len(weights) != len(sources):
            reject("weights", f"{len(weights)} weights", f"one for each of the {len(sources)} sources")
        checked = np.array([require_number("weights", w, 0, np.inf) for w in weights])
        covariances = [validate_covariance("covariance", source.covariance) for source in sources]
        sizes = [len(C) for C in covariances]
        if len(set(sizes)) > 1:
            reject("sources", f"dimensions {sizes}", "one dimension")
        kept = np.flatnonzero(checked > 0)
        span = _common_span([covariances[int(c)] for c in kept], sizes[0])
        return cls(
            eta, tuple(sources[int(c)] for c in kept), kept, checked[kept], chain_steps, sizes[0], span
        )

    @cached_property
    def speed(self) -> float:
        """The weight c_k: a chain counts as so many copies of the one-step loss."""
        return chain_weight(self.eta, self.chain_steps)

    def draw(self, counts: Int[NDArray[np.int64], " all"], *, seed: Seed) -> Pool:
        """The first ``counts`` prompts of each of all sources under ``seed``."""
        folded = (seed,) if isinstance(seed, int) else tuple(seed)
        columns, answers = [], []
        for source, place, weight in zip(self.sources, self.places, self.weights, strict=True):
            B = int(counts[place])
            own = (*folded, int(place))
            F, Y = draw_source(replace(source, prompts=B), self.eta, self.chain_steps, seed=own)
            each = F.shape[1] // B if B else 1
            # A prompt's columns lie on the middle axis: the first prompts of a source are a slice.
            columns.append(np.sqrt(weight) * F.reshape(len(F), each, B))
            answers.append(np.sqrt(weight) * Y.reshape(len(Y), each, B))
        return Pool(self, columns, answers)


def _common_span(covariances: Sequence[Operator], dimension: int) -> Array | Int[NDArray[np.int64], " r"]:
    if all(is_spectrum(C) for C in covariances):
        return np.flatnonzero(np.any([np.zeros(dimension), *covariances], axis=0))
    bases = [range_basis(C) for C in covariances]
    if any(basis.shape[1] == dimension for basis in bases):
        return np.arange(dimension)
    left, singular, _ = np.linalg.svd(np.hstack(bases), full_matrices=False)
    return np.asarray(left[:, singular > dimension * np.finfo(np.float64).eps * singular[0]])


class Pool:
    """The rows that one seed drew, and their factorisation at any smaller numbers of prompts."""

    def __init__(self, regression: Regression, columns: list[Array], answers: list[Array]) -> None:
        """``columns`` and ``answers`` of each source, (d, columns a prompt, B), scaled by sqrt(w_c)."""
        self._places, self._dimension = regression.places, regression.dimension
        self._span, self._answers = regression.span, answers
        self._columns = [self._coordinates(F) for F in columns]
        self._rank = self._span.shape[-1]
        self._grams: _Grams | None = None

    def _coordinates(self, columns: Array) -> Array:
        """Columns (d, ..) in coordinates of the span (r, ..)."""
        if self._span.ndim == 1:
            return columns if len(self._span) == self._dimension else columns[self._span]
        return np.tensordot(self._span.T, columns, 1)

    def _embedded(self, left: Array) -> Array:
        """Coordinates (r, k) as columns in R^d."""
        if self._span.ndim > 1:
            return np.asarray(self._span @ left)
        found = np.zeros((self._dimension, left.shape[1]))
        found[self._span] = left
        return found

    def factors(self, counts: Int[NDArray[np.int64], " all"], V0: Operator) -> Factors:
        """The factorisation of the first ``counts`` prompts of each source, for a start at ``V0``.

        Cheapest where the counts of successive calls grow.
        """
        own = counts[self._places]
        rows = sum(F.shape[1] * int(B) for F, B in zip(self._columns, own, strict=True))
        if rows == 0 or self._rank == 0:
            empty = np.zeros((self._dimension, 0))
            return Factors(np.zeros(0), empty, empty, int(own.sum()))
        found = self._wide(own) if rows >= self._rank else self._narrow(own)
        coordinates, s, answered = self._svd(own) if found is None else found
        left = self._embedded(coordinates)
        return Factors(s, left, answered - product(V0, left) * s, int(own.sum()))

    def _stacked(self, own: NDArray[np.int64]) -> tuple[Array, Array]:
        """F on the span (r, N) and Y (d, N)."""
        F, Y = (
            np.hstack([X[:, :, :B].reshape(len(X), -1) for X, B in zip(blocks, own, strict=True)])
            for blocks in (self._columns, self._answers)
        )
        return F, Y

    def _wide(self, own: NDArray[np.int64]) -> tuple[Array, Array, Array] | None:
        """U, s and Y Q from F F^T; None where it is ill-conditioned."""
        grams = self._accumulated(own)
        x, left = np.linalg.eigh(grams.inner)
        if x[0] < _ILL_CONDITIONED * x[-1]:
            return None
        s = np.sqrt(x)
        return left, s, (grams.cross @ left) / s

    def _narrow(self, own: NDArray[np.int64]) -> tuple[Array, Array, Array] | None:
        """The same from F^T F."""
        F, Y = self._stacked(own)
        x, right = np.linalg.eigh(F.T @ F)
        if x[0] < _ILL_CONDITIONED * x[-1]:
            return None
        s = np.sqrt(x)
        return (F @ right) / s, s, Y @ right

    def _svd(self, own: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """The same from F itself; singular values at the rounding of the largest count as zero."""
        F, Y = self._stacked(own)
        left, s, right = np.linalg.svd(F, full_matrices=False)
        keep = s > s[0] * max(self._dimension, F.shape[1]) * np.finfo(np.float64).eps
        return left[:, keep], s[keep], Y @ right[keep].T

    def _accumulated(self, own: NDArray[np.int64]) -> _Grams:
        """The Gram matrices at ``own`` counts: those of the last call and what has been added since."""
        grams = self._grams
        if grams is None or (own < grams.counts).any():
            inner, cross = np.zeros((self._rank, self._rank)), np.zeros((self._dimension, self._rank))
            grams = _Grams(np.zeros_like(own), inner, cross)
        for F, Y, start, stop in zip(self._columns, self._answers, grams.counts, own, strict=True):
            if stop > start:
                new = F[:, :, start:stop].reshape(len(F), -1)
                grams.inner += new @ new.T
                grams.cross += Y[:, :, start:stop].reshape(len(Y), -1) @ new.T
        grams.counts = own.copy()
        self._grams = grams
        return grams
