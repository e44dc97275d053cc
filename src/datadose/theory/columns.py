"""Sources of columns of the regression: their numbers and second moments, in both forms.

Source c contributes B_c columns (w, phi) with E[phi phi^T] = C_c, E[w phi^T] = A_c, E[w w^T] = I. Noisy
labels make a prompt impose a second condition V h = 0 (:class:`Pair`): one more feature, with the same count.

Which directions a source spans is decided by A_c: C_c holds squares of A_c's eigenvalues, so an eigenvalue
that counts in A_c may be far below rounding in C_c. With matrices the second moments are used through roots
F_a, F_a F_a^T = C_a, whose small columns keep their digits (:class:`Modes`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import RELATIVE_ZERO, dense, diagonal, is_spectrum, rotated, spectral_basis
from datadose.shapes import Array, Float, Int, Matrix, Operator
from datadose.theory.peaks import rank_of

FINITE_MEAN = 1.0
"""The mean over finite prompts is infinite at this distance to a peak and nearer."""
ALL_SMALL = 4.0
"""With no more examples on the only direction that is spanned, all prompts are small together too often."""
SHORT = 2
"""Prompts of one feature are short with so many examples or fewer; each further feature takes one more."""
_LARGEST_UNIT = 2.0**40
_SAME = 1e-10
"""Relative difference at which modes no longer describe a second moment that was replaced."""


@dataclass(frozen=True)
class Pair:
    """The second condition V h = 0 that label noise makes each prompt of a source impose (k >= 1)."""

    second_moment: Operator
    """C_h = E[h h^T]."""
    weights: Float[Array, "2 2"]
    """O (2, 2), positive definite, O_00 = 1: the loss is sum_ab O_ab <r_a, r_b>, r = (V phi + eta w, V h)."""
    determinant: float
    """det O, more exact than the entries give it where they are nearly equal (small eta)."""

    def weighted(self, weight: float) -> Pair:
        """The pair with ``weight`` times O."""
        return (
            self
            if weight == 1
            else Pair(self.second_moment, weight * self.weights, weight**2 * self.determinant)
        )

    @property
    def inverse(self) -> Float[Array, "2 2"]:
        """P = O^{-1}; infinite where the determinant vanishes."""
        (a, b), (_, c) = self.weights
        with np.errstate(divide="ignore"):
            return np.asarray(np.array([[c, -b], [-b, a]]) / np.float64(self.determinant))

    def gain(self, theta: Float[Array, "2"]) -> Float[Array, "2 2"]:
        """G = (O^{-1} + diag(theta))^{-1}, (2, 2), in sums of positive terms."""
        (a, b), (_, c) = self.weights
        u, v = theta
        return np.array([[a + v * self.determinant, b], [b, c + u * self.determinant]]) / self._over(theta)

    def noise_gain(self, theta: Float[Array, "2"]) -> Float[Array, "2"]:
        """The diagonal of G O^{-1} G, the same."""
        (a, _), (_, c) = self.weights
        u, v = theta
        numerators = [a + v * self.determinant * (2 + v * c), c + u * self.determinant * (2 + u * a)]
        return np.array(numerators) / self._over(theta) ** 2

    def _over(self, theta: Array) -> float:
        """det(I + diag(theta) O)."""
        u, v = theta
        return float(1 + u * self.weights[0, 0] + v * self.weights[1, 1] + u * v * self.determinant)


@dataclass(frozen=True)
class Modes:
    """The eigenvectors that C_c, A_c and C_h share on their range, and their eigenvalues, each > 0."""

    vectors: Float[Array, "d r"]
    """(d, r), orthonormal."""
    cross: Float[Array, " r"]
    """The eigenvalues of A_c, shape (r,)."""
    moments: tuple[Float[Array, " r"], ...]
    """The eigenvalues of C_c, and of C_h of a pair, shape (r,) each."""


@dataclass(frozen=True)
class Columns:
    """One source of columns: their number B_c (real, >= 0) and second moments, all in one form."""

    count: float
    second_moment: Operator
    """C_c = E[phi phi^T]."""
    cross: Operator
    """A_c = E[w phi^T], symmetric."""
    noise: float = 0.0
    """Variance per dimension of the noise in the answers -eta w."""
    pair: Pair | None = None
    length: float = np.inf
    """Length of the prompts: where short ones are interpolated the mean error is infinite."""
    modes: Modes | None = field(default=None, repr=False)
    """The modes of matrices that come from one covariance; ignored where a matrix has been replaced since."""
    weight: float = 1.0
    """Weight w_c > 0 of a prompt in the loss; it matters where prompts are not interpolated."""

    @property
    def directions(self) -> int:
        """How many directions one prompt spans: as many as it has features, and no more than examples."""
        return int(min(self.length, len(self.moments)))

    @property
    def is_short(self) -> bool:
        """Whether the prompts are so short that interpolating one has an infinite mean error.

        Given w a prompt's features are its inputs times an n x m Gaussian matrix (m features), whose smallest
        singular value has an inverse second moment if n >= m + 2.
        """
        return self.length < SHORT + len(self.moments)

    @property
    def moments(self) -> tuple[Operator, ...]:
        """C_c, and C_h of a pair."""
        return (self.second_moment, *(() if self.pair is None else (self.pair.second_moment,)))

    @cached_property
    def shared(self) -> Modes | None:
        """``modes`` if they are those of the matrices: a vector that misses no direction decides."""
        if self.modes is None or is_spectrum(self.cross) or len(self.modes.moments) != len(self.moments):
            return None
        probe = np.cos(np.arange(len(self.cross)))
        inside = self.modes.vectors.T @ probe
        eigenvalues = (self.modes.cross, *self.modes.moments)
        for M, values in zip((self.cross, *self.moments), eigenvalues, strict=True):
            if np.abs(M @ probe - self.modes.vectors @ (values * inside)).max() > _SAME * np.abs(M).max():
                return None
        return self.modes

    @cached_property
    def span(self) -> Array:
        """The range of C_c: a 0/1 spectrum, or an orthonormal basis (d, r).

        That of A_c, whose eigenvalues C_c squares, or that of C_c if it is larger.
        """
        if self.shared is not None:
            return self.shared.vectors
        return max((_range(M) for M in (self.cross, self.second_moment)), key=rank_of)

    @cached_property
    def roots(self) -> tuple[Array, ...]:
        """F_a with F_a F_a^T = C_a for each feature: a spectrum, or a matrix (d, r)."""
        if is_spectrum(self.second_moment):
            return tuple(np.sqrt(self.span * C) for C in self.moments)
        if self.shared is not None:
            return tuple(self.shared.vectors * np.sqrt(values) for values in self.shared.moments)
        return tuple(_root(C, self.span) for C in self.moments)

    def scaled(self, unit: float) -> Columns:
        """The columns with covariances in the given unit: A_c / unit, C_c / unit^2."""
        modes = self.modes
        if modes is not None:
            modes = Modes(modes.vectors, modes.cross / unit, tuple(C / unit**2 for C in modes.moments))
        return self.changed(lambda C: C / unit**2, lambda A: A / unit, modes)

    def dense(self) -> Columns:
        """The columns with matrices (d, d) as moments."""
        if not is_spectrum(self.cross):
            return self
        inside, vectors = self.span > 0, np.eye(len(self.cross))
        modes = Modes(vectors[:, inside], self.cross[inside], tuple(C[inside] for C in self.moments))
        return self.changed(dense, dense, modes)

    def in_own_basis(self) -> tuple[Columns, Matrix | None]:
        """The columns as spectra and the basis (d, d) that A_c and C_c share; spectra have none.

        They are those of one covariance, without a pair.
        """
        A, basis = spectral_basis(self.cross)
        if basis is None:
            return self, None
        moment = np.zeros(len(A))
        if self.shared is None:
            moment = diagonal(rotated(self.second_moment, basis)).copy()
        else:
            moment[A > 0] = self.shared.moments[0]
        return replace(self, second_moment=moment, cross=A, modes=None), basis

    def rotated(self, basis: Float[Array, "d d"]) -> Columns:
        """The columns in the orthonormal ``basis``, (d, d)."""

        def turned(M: Array) -> Array:
            return rotated(M, basis)

        return self.changed(turned, turned, None)

    def changed(
        self, moment: Callable[[Array], Array], cross: Callable[[Array], Array], modes: Modes | None
    ) -> Columns:
        """The columns with ``moment`` of C_c and C_h, ``cross`` of A_c, and ``modes``."""
        pair = self.pair and replace(self.pair, second_moment=moment(self.pair.second_moment))
        C, A = moment(self.second_moment), cross(self.cross)
        return replace(self, second_moment=C, cross=A, pair=pair, modes=modes)


def unit_of(columns: Sequence[Columns]) -> float:
    """A power of two near the size of the covariances; 1 unless they are far from 1."""
    largest = max((float(np.abs(c.second_moment).max()) for c in columns), default=1.0) ** 0.5
    if largest == 0 or 1 / _LARGEST_UNIT < largest < _LARGEST_UNIT:
        return 1.0
    return float(2.0 ** np.round(np.log2(largest)))


def _range(M: Array) -> Array:
    if is_spectrum(M):
        return np.where(np.abs(M) > RELATIVE_ZERO * np.abs(M).max(), 1.0, 0.0)
    values, vectors = np.linalg.eigh(M)
    return np.asarray(vectors[:, np.abs(values) > RELATIVE_ZERO * np.abs(values).max()])


def _root(C: Array, span: Array) -> Array:
    values, vectors = np.linalg.eigh(span.T @ C @ span)
    return np.asarray(span @ (vectors * np.sqrt(np.maximum(values, 0.0))))


@dataclass(frozen=True)
class Features:
    """All features of all sources, in order: each source's phi, then its h if it has pairs."""

    counts: Float[Array, " F"]
    moments: tuple[Operator, ...]
    roots: tuple[Array, ...]
    first: Int[NDArray[np.int64], " K"]
    """The place of each source's phi."""
    pairs: dict[int, Pair]
    """O times the weight of the source, by the place of the pair's phi."""
    heavy: Float[Array, " F"]
    """The weight of each feature's source."""

    @classmethod
    def of(cls, sources: Sequence[Columns]) -> Features:
        """The features of sources in one form."""
        sizes = [len(c.moments) for c in sources]
        first = np.cumsum([0, *sizes])[:-1]
        return cls(
            np.repeat([float(c.count) for c in sources], sizes),
            tuple(C for c in sources for C in c.moments),
            tuple(F for c in sources for F in c.roots),
            first.astype(np.int64),
            {
                int(place): c.pair.weighted(c.weight)
                for place, c in zip(first, sources, strict=True)
                if c.pair is not None
            },
            np.repeat([c.weight for c in sources], sizes),
        )

    def subset(self, chosen: NDArray[np.bool_]) -> Features:
        """The chosen features; pairs stay whole."""
        place = np.cumsum(chosen) - 1
        return Features(
            self.counts[chosen],
            tuple(compress(self.moments, chosen)),
            tuple(compress(self.roots, chosen)),
            place[self.first[chosen[self.first]]],
            {int(place[at]): pair for at, pair in self.pairs.items() if chosen[at]},
            self.heavy[chosen],
        )

    def gain(self, theta: Float[Array, " F"]) -> Float[Array, "F F"]:
        """G = (O^{-1} / w + diag(theta))^{-1}, block diagonal (F, F); a lone feature has O = 1."""
        found = np.diag(self.heavy / (1 + self.heavy * theta))
        for at, pair in self.pairs.items():
            own = slice(at, at + 2)
            found[own, own] = pair.gain(theta[own])
        return found
