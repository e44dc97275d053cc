"""Stochastic descent on fresh batches, every row new: its exact error after any number of updates.

An update draws b rows, source c with probability p_c = w_c B_c / sum_e w_e B_e, and moves V by -gamma times
the gradient of (c_k/2) times the batch's mean of ||V phi + eta w*||^2. The new rows are independent of V, so
the mean v = E[V] and the second moment s = E[V^T V] close, with no limit taken: exact at every d, n and b
(docs/derivations/one_pass.md). With g = gamma c_k, C = sum_c p_c C_c, A = sum_c p_c A_c and the gradient
G = (1/b) sum r phi^T:

    v' = v - g (v C + eta A),
    s' = s - g (s C + C s + eta (v^T A + A v)) + g^2 E[G^T G].

The map of s is self-adjoint, s -> s - g (L s) + g^2 W s with L s = C s + s C and W s the mean of
(1/b^2) sum phi phi^T s phi phi^T. So the largest step at which s stays bounded is 1 / max eig of
L^{-1/2} W L^{-1/2} (over c_k), and what is left of the noise after infinitely many updates solves one
positive definite system. Spectra take O(K d) an update, matrices O(K d^3). Only errors are
divided by d.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, repeat

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, cg, eigsh

from datadose.covariance import (
    identity_like,
    plus,
    product,
    rotated,
    spectral_basis,
    trace_product,
    transpose,
    validate_covariance,
    wishart_second_moment,
)
from datadose.errors import InternalError, reject, require_integer, require_number
from datadose.shapes import Array, Bool, Float, Operator
from datadose.theory.row_moments import MixedRows, RowMoments, mixed_rows
from datadose.theory.sft import chain_weight
from datadose.theory.source import Source
from datadose.theory.trained_operator import TrainedOperator

_SMALL = 1024
"""Up to this size a linear map is written out as a matrix."""
_RESIDUAL = 1e-12
"""Relative residual at which the noise that stays counts as found."""


@dataclass(frozen=True)
class OnePass:
    """Stochastic descent with fresh batches of ``batch`` rows of a mixture of sources; from :meth:`of`."""

    rows: MixedRows
    batch: int
    """b >= 1, rows an update."""
    chain_weight: float
    """c_k."""

    @classmethod
    def of(
        cls,
        sources: Sequence[Source],
        eta: float,
        *,
        batch: int = 1,
        rates: Sequence[float] | None = None,
        chain_steps: int = 0,
    ) -> OnePass:
        """The descent on rows of these sources.

        Args:
            sources: where rows come from. Of ``prompts`` only the proportions matter: rows never run out.
            eta: step of the demonstrated chains of thought, in (0, 2).
            batch: number b >= 1 of new rows an update, drawn independently.
            rates: >= 0, shape (K,): how many times as often a row of source c is drawn; all 1 if not given.
                Weights in the loss, as in ``trained``, are another thing: they multiply a row's gradient.
            chain_steps: k >= 0; chains have k + 1 steps.

        Raises InputError for values out of range, for sources of different sizes, for no rows to draw, and
        for noisy labels in chains of more than one step, for which the moments are not derived.
        """
        sources = list(sources)
        chosen = [1.0] * len(sources) if rates is None else list(rates)
        if len(chosen) != len(sources):
            reject("rates", f"{len(chosen)} rates", f"{len(sources)}, one for each source")
        batch, scale = require_integer("batch", batch, 1), chain_weight(eta, chain_steps)
        drawn: list[float] = []
        rows: list[RowMoments] = []
        for source, given in zip(sources, chosen, strict=True):
            w = require_number("rates", given, 0, np.inf) * require_number(
                "prompts", source.prompts, 0, np.inf
            )
            dimension = len(rows[0].A) if rows else None
            row = _row(source, dimension, scale, chain_steps)
            if w > 0:
                drawn.append(w)
                rows.append(row)
        if not rows:
            reject("sources", "no rows to draw", "a source with prompts and a rate above 0")
        return cls(mixed_rows(rows, np.array(drawn) / sum(drawn), eta), batch, scale)

    @cached_property
    def _noise_map(self) -> _NoiseMap:
        return _NoiseMap.of(self.rows, self.batch)

    @cached_property
    def largest_step(self) -> float:
        """The learning rate below which E[V^T V] stays bounded over any number of updates, and only there.

        It is smaller than 2 / (c_k max eig C), below which E[V] converges, and tends to it as b grows.
        """
        return 1 / (self.chain_weight * self._noise_map.largest)

    def path(
        self,
        start: TrainedOperator | Operator,
        learning_rate: float,
        updates: Sequence[int],
        *,
        decay: bool = False,
    ) -> list[TrainedOperator]:
        """Mean and second moment of the model after each of ``updates``.

        Args:
            start: the model before, random (independent of the new rows) or an operator V0.
            learning_rate: step gamma on the mean loss of a batch, in (0, largest_step).
            updates: numbers of updates >= 0, in any order.
            decay: the step falls linearly, gamma (1 - j/T) at update j = 0, .. T - 1, where T is the largest
                of ``updates``; the others are then on the way there. If False it is constant.

        Returns:
            The model for each entry of ``updates``; its scatter is the noise of the steps.

        Raises InputError for values out of range, naming the largest stable step.
        """
        counts = [require_integer("updates", T, 0) for T in updates]
        known, last = self._start(start), max(counts, default=0)
        steps = self._steps(learning_rate, last if decay else None)
        walk = self._walk(known, steps)
        wanted = {*counts}
        kept = {T: state for T, state in enumerate(islice(walk, last + 1)) if T in wanted}
        return [kept[T].trained(known) for T in counts]

    def errors(
        self,
        start: TrainedOperator | Operator,
        learning_rate: float,
        updates: Sequence[int],
        target: Operator,
        test_length: int,
        *,
        decay: bool = False,
    ) -> Float[Array, " T"]:
        """Mean test error / d (Prop 5.1) after each of ``updates``. Arguments as of :meth:`path`.

        ``target`` is the test covariance, (d,) or (d, d), ``test_length`` the length of the test prompts.
        """
        counts = [require_integer("updates", T, 0) for T in updates]
        known, last = self._start(start), max(counts, default=0)
        Sigma = validate_covariance("target", target, len(known.mean))
        M = wishart_second_moment(Sigma, require_integer("test_length", test_length, 1))
        walk = islice(self._walk(known, self._steps(learning_rate, last if decay else None)), last + 1)
        wanted = {*counts}
        found = {
            T: 1 + (2 * trace_product(state.mean, Sigma) + trace_product(state.second, M)) / len(Sigma)
            for T, state in enumerate(walk)
            if T in wanted
        }
        return np.array([found[T] for T in counts])

    def best(
        self,
        start: TrainedOperator | Operator,
        learning_rate: float,
        at_most: int,
        target: Operator,
        test_length: int,
    ) -> tuple[int, float]:
        """The number of updates in 0 .. ``at_most`` with the least error at a constant step, and that error.

        Other arguments, and errors raised, as of :meth:`errors`.
        """
        every = range(require_integer("at_most", at_most, 0) + 1)
        errors = self.errors(start, learning_rate, every, target, test_length)
        T = int(errors.argmin())
        return T, float(errors[T])

    def limit(self, start: TrainedOperator | Operator, learning_rate: float) -> TrainedOperator:
        """The model after infinitely many updates at a constant step: V_inf and the noise that never settles.

        The mean is the population's minimiser on the rows' directions and the start's off them; the scatter X
        solves L X - g W X = g E[G^T G] at the minimiser. Arguments and errors as of :meth:`path`.
        """
        known = self._start(start)
        [g] = islice(self._steps(learning_rate, None), 1)
        values, basis = spectral_basis(self.rows.second)
        inverted = np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)
        missed = np.where(values > 0, 0.0, 1.0)
        if basis is not None:
            inverted, missed = (basis * inverted) @ basis.T, (basis * missed) @ basis.T
        fitted = -self.rows.eta * product(self.rows.cross, inverted)
        square = product(transpose(fitted), fitted)
        # Where the mean gradient vanishes only the part of one row, taken twice, is left of E[G^T G].
        scatter = self._noise_map.settled(g, self.rows.square(square, fitted, self.batch))
        kept = product(known.mean, missed)
        mixed = product(transpose(fitted), kept)
        second = plus(square, mixed, transpose(mixed), product(missed, known.second_moment, missed), scatter)
        return TrainedOperator(plus(fitted, kept), second, scatter)

    def _start(self, start: TrainedOperator | Operator) -> TrainedOperator:
        known = start if isinstance(start, TrainedOperator) else TrainedOperator.fixed(start)
        d = len(self.rows.cross)
        if len(known.mean) != d:
            reject("start", f"an operator on R^{len(known.mean)}", f"one on R^{d}, where the rows are")
        return known

    def _steps(self, learning_rate: float, horizon: int | None) -> Iterator[float]:
        """gamma c_k of each update."""
        gamma = require_number("learning_rate", learning_rate, 0, np.inf, open_ends=True)
        if gamma >= self.largest_step:
            allowed = (
                f"a number below {self.largest_step:.6g}, the largest stable step at batches of {self.batch}"
            )
            reject("learning_rate", f"{gamma:g}", allowed)
        g = gamma * self.chain_weight
        return repeat(g) if horizon is None else (g * (1 - j / horizon) for j in range(horizon))

    def _walk(self, start: TrainedOperator, steps: Iterator[float]) -> Iterator[_State]:
        rows, one = self.rows, identity_like(self.rows.second)
        state = _State(start.mean, start.second_moment, one, np.zeros_like(start.mean))
        yield state
        for g in steps:
            v, s = state.mean, state.second
            move, shrink = g * rows.gradient(v), one - g * rows.second
            s = plus(s, -g * rows.drift(s, v), g**2 * rows.square(s, v, self.batch))
            # The moments hold for symmetric s; an asymmetry from rounding would grow.
            s = (s + transpose(s)) / 2
            taught = plus(product(state.taught, shrink), -g * rows.eta * rows.cross)
            state = _State(plus(v, -move), s, product(state.kept, shrink), taught)
            yield state


def _row(source: Source, dimension: int | None, scale: float, chain_steps: int) -> RowMoments:
    A = validate_covariance("covariance", source.covariance, dimension)
    n = require_integer("length", source.length, 1)
    label = require_number("label_noise", source.label_noise, 0, np.inf)
    if label > 0 and chain_steps > 0:
        reject(
            "label_noise", f"{label:g} with chain_steps = {chain_steps}", "0, or chain_steps = 0, in one pass"
        )
    answer = require_number("demonstration_noise", source.demonstration_noise, 0, np.inf) / scale
    return RowMoments(A, n, label, answer)


@dataclass(frozen=True)
class _State:
    """The model after some updates: in the mean, V = V0 kept + taught for a given start V0."""

    mean: Operator
    second: Operator
    kept: Operator
    taught: Operator

    def trained(self, start: TrainedOperator) -> TrainedOperator:
        """With the part of the second moment that the mean over the rows would not have."""
        mixed = product(transpose(self.taught), product(start.mean, self.kept))
        of_start = product(self.kept, start.second_moment, self.kept)
        without = plus(of_start, mixed, transpose(mixed), product(transpose(self.taught), self.taught))
        return TrainedOperator(self.mean, self.second, plus(self.second, -without))


@dataclass(frozen=True)
class _NoiseMap:
    """L^{-1/2} W L^{-1/2} on the directions that the rows have, in the eigenbasis of C.

    For spectra a diagonal X stays one, and by symmetry under flips of sign the largest eigenvalue is found
    there.
    """

    rows: MixedRows
    batch: int
    basis: Float[Array, "d r"] | None
    """Eigenvectors of C with a positive eigenvalue; None for spectra."""
    inside: Bool[NDArray[np.bool_], " d"]
    """Which eigenvalues of C are positive."""
    roots: Array
    """sqrt(c_i + c_j), (r, r); for spectra sqrt(2 c_i), (r,)."""

    @classmethod
    def of(cls, rows: MixedRows, batch: int) -> _NoiseMap:
        """The map for these rows."""
        values, vectors = spectral_basis(rows.second)
        inside = values > 0
        c = values[inside]
        if vectors is None:
            return cls(rows, batch, None, inside, np.sqrt(2 * c))
        return cls(rows, batch, vectors[:, inside], inside, np.sqrt(c[:, None] + c))

    def _inner(self, X: Operator) -> Array:
        return np.asarray(X[self.inside] if self.basis is None else rotated(X, self.basis))

    def _outer(self, x: Array) -> Operator:
        if self.basis is not None:
            return np.asarray(self.basis @ x @ self.basis.T)
        full = np.zeros(len(self.inside))
        full[self.inside] = x
        return full

    def _apply(self, flat: Array) -> Array:
        x = flat.reshape(self.roots.shape) / self.roots
        X = self._outer((x + x.T) / 2)
        C = self.rows.second
        W = plus((1 - 1 / self.batch) * product(C, X, C), self.rows.repeated(X) / self.batch)
        return np.asarray((self._inner(W) / self.roots).reshape(-1))

    @cached_property
    def _operator(self) -> Array | LinearOperator:
        size = self.roots.size
        if size <= _SMALL or self.roots.ndim == 1:
            return np.stack([self._apply(e) for e in np.eye(size)], axis=1)
        return LinearOperator((size, size), matvec=self._apply, dtype=np.float64)

    @cached_property
    def largest(self) -> float:
        """The largest eigenvalue; it has a non-negative eigenvector, as the map keeps the cone of PSD X."""
        operator = self._operator
        if isinstance(operator, np.ndarray):
            return float(np.linalg.eigvalsh((operator + operator.T) / 2)[-1])
        first = np.eye(len(self.roots)).reshape(-1)
        return float(eigsh(operator, k=1, which="LA", v0=first, return_eigenvectors=False)[0])

    def settled(self, g: float, square: Operator) -> Operator:
        """X with L X - g W X = g ``square``."""
        wanted = (g * self._inner(square) / self.roots).reshape(-1)
        operator = self._operator
        if isinstance(operator, np.ndarray):
            found = np.linalg.solve(np.eye(len(wanted)) - g * (operator + operator.T) / 2, wanted)
        else:
            whole = LinearOperator(operator.shape, matvec=lambda y: y - g * (operator @ y), dtype=np.float64)
            found, fault = cg(whole, wanted, rtol=_RESIDUAL, maxiter=10 * len(wanted))
            if fault:
                message = f"the noise that stays was not found (conjugate gradients returned {fault})"
                raise InternalError(message)
        x = found.reshape(self.roots.shape) / self.roots
        return self._outer((x + x.T) / 2)
