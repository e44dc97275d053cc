"""The fourth moments of one row (w*, phi = S w*) of post-training data, exact at every d and n.

phi is not a Gaussian vector: it is the product of a Wishart matrix and w*. Yet given u = A^{1/2} w* all its
moments are polynomials in u, because the chi-square length c of sampling.md comes in whole powers, so that
those over w* ~ N(0, I) close as well (docs/derivations/one_pass.md). With Gaussian moments in their place
the noise of a single-row step is wrong by O(1/n + tr A^2/(tr A)^2).

Notation: prompts of length n and covariance A, s^2 the variance of the labels' noise (chains of one step),
T = tr A + s^2. Spectra (d,) and matrices (d, d) may be mixed. Nothing is divided by d.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datadose.covariance import (
    plus,
    product,
    trace,
    trace_product,
    transpose,
    wishart_second_moment,
)
from datadose.shapes import Array, Float, Operator


@dataclass(frozen=True)
class RowMoments:
    """Moments up to the fourth of (w*, phi) for one source of prompts."""

    A: Operator
    """Covariance of the inputs, symmetric PSD."""
    length: int
    """n >= 1, examples a prompt."""
    label_noise: float = 0.0
    """s^2 >= 0; phi is then S w* + (1/n) X eps."""
    answer_noise: float = 0.0
    """Variance >= 0 per dimension of noise in the answer, which is eta w* + noise."""

    @cached_property
    def second(self) -> Operator:
        """C = E[phi phi^T] = (1 + 1/n) A^2 + (T/n) A."""
        return wishart_second_moment(self.A, self.length) + (self.label_noise / self.length) * self.A

    @cached_property
    def total(self) -> float:
        """The number T = tr A + s^2."""
        return trace(self.A) + self.label_noise

    @cached_property
    def squared(self) -> Operator:
        """The product A^2."""
        return product(self.A, self.A)

    @cached_property
    def stretched(self) -> Operator:
        """G = T A + 2 A^2 = E[(||u||^2 + s^2) u u^T]."""
        return self.total * self.A + 2 * self.squared

    @property
    def length_moment(self) -> float:
        """E[(||u||^2 + s^2)^2] = T^2 + 2 tr A^2."""
        return self.total**2 + 2 * trace(self.squared)

    def quartic(self, X: Operator) -> Operator:
        """E[phi phi^T X phi phi^T] for a symmetric ``X``, (d,) or (d, d).

        (n+2)/n^3 times (n+1)(n+3) [tr(X A^2) A^2 + 2 A^2 X A^2] + (n+3) [tr(X G A) A + tr(X A) G A
        + 2 (G A X A + A X A G)] + (T^2 + 2 tr A^2) [tr(X A) A + 2 A X A].
        """
        n, A, A2 = self.length, self.A, self.squared
        GA = product(self.stretched, A)
        XA = product(X, A)
        AXA = product(A, XA)
        mixed = product(GA, XA)
        along = plus(trace_product(X, A2) * A2, 2 * product(A2, X, A2))
        between = plus(trace_product(X, GA) * A, trace(XA) * GA, 2 * plus(mixed, transpose(mixed)))
        across = plus(trace(XA) * A, 2 * AXA)
        parts = plus((n + 1) * (n + 3) * along, (n + 3) * between, self.length_moment * across)
        return (n + 2) / n**3 * parts

    def crossed(self, v: Operator) -> Operator:
        """E[(phi^T v^T w*) phi phi^T] for any operator ``v``, (d,) or (d, d); symmetric.

        (n+2)/n^2 times (n+1) A (tr K + 2 K) A + (T tr K + 2 tr(K A)) A + G v A + A v^T G, where
        K = (A v^T + v A)/2.
        """
        n, A = self.length, self.A
        vA = product(v, A)
        inner = product(A, vA, A)
        mixed = product(self.stretched, vA)
        along = plus(trace(vA) * self.squared, inner, transpose(inner))
        across = (self.total * trace(vA) + 2 * trace_product(vA, A)) * A
        return (n + 2) / n**2 * plus((n + 1) * along, across, mixed, transpose(mixed))

    @cached_property
    def answered(self) -> Operator:
        """E[||w*||^2 phi phi^T] = (d + 2) C - 2 (s^2/n) A."""
        return (len(self.A) + 2) * self.second - 2 * self.label_noise / self.length * self.A

    def weighted_by_residual(self, second: Operator, mean: Operator, eta: float) -> Operator:
        """E[||r||^2 phi phi^T] = E[g^T g] of one row's gradient g = r phi^T, r = V phi + eta w* + noise.

        Args:
            second: E[V^T V] of an operator V independent of the row.
            mean: E[V].
            eta: step of the chain of thought.
        """
        answers = plus(eta**2 * self.answered, self.answer_noise * len(self.A) * self.second)
        return plus(self.quartic(second), 2 * eta * self.crossed(mean), answers)


@dataclass(frozen=True)
class MixedRows:
    """Moments of a row that belongs to source c with probability p_c, by their definition, in any form."""

    rows: tuple[RowMoments, ...]
    shares: Float[Array, " K"]
    """p_c > 0, sum 1."""
    eta: float

    @cached_property
    def second(self) -> Operator:
        """The second moment C = sum_c p_c C_c of a row."""
        return _sum(p * row.second for p, row in zip(self.shares, self.rows, strict=True))

    @cached_property
    def cross(self) -> Operator:
        """The cross moment A = sum_c p_c A_c = E[w* phi^T] of a row."""
        return _sum(p * row.A for p, row in zip(self.shares, self.rows, strict=True))

    def gradient(self, mean: Operator) -> Operator:
        """E[r phi^T] = v C + eta A."""
        return plus(product(mean, self.second), self.eta * self.cross)

    def drift(self, second: Operator, mean: Operator) -> Operator:
        """E[V^T r phi^T] and its transpose: s C + C s + eta (v^T A + A v)."""
        half = plus(product(self.second, second), self.eta * product(self.cross, mean))
        return plus(half, transpose(half))

    def repeated(self, X: Operator) -> Operator:
        """E[phi phi^T X phi phi^T] over the mixture."""
        return _sum(p * row.quartic(X) for p, row in zip(self.shares, self.rows, strict=True))

    def square(self, second: Operator, mean: Operator, batch: int) -> Operator:
        """E[g^T g] of a batch's mean gradient g: 1 - 1/b of two rows that differ, 1/b of one twice."""
        crossed = product(self.second, transpose(mean), self.cross)
        differ = plus(
            product(self.second, second, self.second),
            self.eta * plus(crossed, transpose(crossed)),
            self.eta**2 * product(self.cross, self.cross),
        )
        same = _sum(
            p * row.weighted_by_residual(second, mean, self.eta)
            for p, row in zip(self.shares, self.rows, strict=True)
        )
        return plus((1 - 1 / batch) * differ, same / batch)


class SpectralRows(MixedRows):
    """The moments of the mixture where all A_c are spectra. For spectra (d,) the square costs O(K d)."""

    @cached_property
    def _factors(self) -> tuple[Array, Array, Array]:
        """U (d, 3 K), M (3 K, 3 K) and D (d,): E[phi phi^T diag(X) phi phi^T] = D X + U M U^T X."""
        K, d = len(self.rows), len(self.cross)
        U, M, D = np.empty((d, 3 * K)), np.zeros((3 * K, 3 * K)), np.zeros(d)
        for c, (p, row) in enumerate(zip(self.shares, self.rows, strict=True)):
            n, A = row.length, row.A
            own = slice(3 * c, 3 * c + 3)
            U[:, own] = np.stack([A, A**2, A**3], axis=1)
            # tr(X G A) = T tr(X A^2) + 2 tr(X A^3).
            cut = (n + 3) * np.array([0.0, row.total, 2.0])
            M[own, own] = np.array(
                [[row.length_moment, *cut[1:]], [cut[1], (n + 1) * (n + 3), 0], [cut[2], 0, 0]]
            )
            M[own, own] *= p * (n + 2) / n**3
            parts = (
                2 * (n + 1) * (n + 3) * A**4
                + 4 * (n + 3) * row.stretched * A**2
                + 2 * row.length_moment * A**2
            )
            D += p * (n + 2) / n**3 * parts
        return U, M, D

    @cached_property
    def _crossed(self) -> tuple[Array, Array]:
        """N (3 K, 3 K) and E (d,) of E[(phi^T v^T w*) phi phi^T] = E v + U N U^T v."""
        K, d = len(self.rows), len(self.cross)
        N, E = np.zeros((3 * K, 3 * K)), np.zeros(d)
        for c, (p, row) in enumerate(zip(self.shares, self.rows, strict=True)):
            n, A = row.length, row.A
            scale = p * (n + 2) / n**2
            N[3 * c, 3 * c : 3 * c + 2] = scale * row.total, 2 * scale
            N[3 * c + 1, 3 * c] = scale * (n + 1)
            E += scale * (2 * (n + 1) * A**3 + 2 * row.stretched * A)
        return N, E

    @cached_property
    def _answers(self) -> Array:
        """E[||eta w* + noise||^2 phi phi^T]."""
        zero = np.zeros_like(self.cross)
        return _sum(
            p * row.weighted_by_residual(zero, zero, self.eta)
            for p, row in zip(self.shares, self.rows, strict=True)
        )

    def repeated(self, X: Operator) -> Operator:
        """E[phi phi^T X phi phi^T] over the mixture for a spectrum ``X``; a matrix leaves the quick form."""
        if X.ndim == 2:
            return super().repeated(X)
        U, M, D = self._factors
        return np.asarray(D * X + U @ (M @ (X @ U)))

    def square(self, second: Operator, mean: Operator, batch: int) -> Operator:
        """E[g^T g] of a batch's mean gradient g; a start that is a matrix leaves the quick form."""
        if second.ndim == 2 or mean.ndim == 2:
            return super().square(second, mean, batch)
        U, M, D = self._factors
        N, E = self._crossed
        C, A, eta = self.second, self.cross, self.eta
        differ = C * C * second + 2 * eta * C * A * mean + (eta * A) ** 2
        inner = M @ (second @ U) + 2 * eta * (N @ (mean @ U))
        same = D * second + 2 * eta * E * mean + U @ inner + self._answers
        return (1 - 1 / batch) * differ + same / batch


def mixed_rows(rows: Iterable[RowMoments], shares: Float[Array, " K"], eta: float) -> MixedRows:
    """The mixture of ``rows`` with these shares, in the quick form where all covariances are spectra."""
    rows = tuple(rows)
    kind = SpectralRows if all(row.A.ndim == 1 for row in rows) else MixedRows
    return kind(rows, shares, eta)


def _sum(operators: Iterable[Operator]) -> Operator:
    return plus(*operators)
