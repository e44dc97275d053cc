"""Training for a time on unlimited rows: only the mean of the loss matters, and the operator is fixed.

With pulls a_c = t p_c w_c (time t, share p_c of source c among the rows, weight w_c of its rows in the loss),
C = sum_c a_c C_c and A = sum_c a_c A_c, gradient flow from V0 ends at V = V0 e^{-C} - eta A (1 - e^{-C}) / C.
The least error over the pulls is the ceiling of the training time: no number of rows, at any time
and any weights, has a smaller one; over one common factor of given shares it is that of those proportions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from datadose.covariance import dense, is_spectrum, product
from datadose.errors import reject, require_number
from datadose.shapes import Array, Operator
from datadose.theory.columns import Columns
from datadose.theory.least import least_beside
from datadose.theory.source import Source
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.weighted_test import WeightedTest

_PER_DECADE = 6
_NOTHING, _ALL = -12.0, 21.0
"""Of log(a_c times the largest eigenvalue of C_c): nothing is fitted to the source, and all is."""
_QUICK, _SLOW, _TIE = 1e-3, 1e9, 1e-9
"""Factors of shares over the largest eigenvalue: from where nothing has moved to where all that moves has."""


@dataclass(frozen=True)
class UnlimitedFlow:
    """Gradient flow from V0 on unlimited rows of K sources."""

    start: Operator
    eta: float
    moments: Array
    """What source c adds to C by unit of its pull, (K, d) or (K, d, d)."""
    crosses: Array
    """A_c, in the same form."""

    @classmethod
    def of(
        cls, start: Operator, eta: float, sources: Sequence[Source], *, chain_steps: int = 0
    ) -> UnlimitedFlow:
        """The flow; the sources' numbers of prompts are ignored.

        Args:
            start: V0, a spectrum (d,) or a matrix (d, d).
            eta: chain-of-thought step, in (0, 2).
            sources: K >= 1 sources of one dimension.
            chain_steps: k >= 0 of the chains of thought; it matters where labels are noisy.

        Raises InputError for values out of range and sources of different dimensions.
        """
        require_number("eta", eta, 0, 2, open_ends=True)
        columns = [source.columns(eta, chain_steps) for source in sources]
        sizes = [len(c.cross) for c in columns]
        if len(set(sizes)) != 1 or sizes[0] != len(start):
            reject("sources", f"dimensions {sizes}", f"at least one, of dimension {len(start)}")
        moments, crosses = [_moment(c) for c in columns], [c.cross for c in columns]
        if not all(is_spectrum(X) for X in (*moments, *crosses)):
            moments, crosses = [dense(X) for X in moments], [dense(X) for X in crosses]
        return cls(start, eta, np.stack(moments), np.stack(crosses))

    def trained(self, pulls: ArrayLike) -> TrainedOperator:
        """The model at pulls a_c >= 0, shape (K,); nothing about it is random."""
        a = np.asarray(pulls, dtype=np.float64)
        C, A = np.tensordot(a, self.moments, axes=1), np.tensordot(a, self.crosses, axes=1)
        if is_spectrum(C):
            kept, moved = np.exp(-C), _moved(C)
        else:
            values, vectors = np.linalg.eigh(C)
            values = np.maximum(values, 0.0)
            kept, moved = ((vectors * x) @ vectors.T for x in (np.exp(-values), _moved(values)))
        V = product(self.start, kept)
        fitted = -self.eta * product(A, moved)
        return TrainedOperator.fixed(dense(V) + dense(fitted) if V.ndim != fitted.ndim else V + fitted)

    def ceiling(self, test: WeightedTest, shares: ArrayLike) -> tuple[float, float]:
        """(error / d, time): the least error on ``test`` over all times, with rows in the ``shares`` (K,).

        The time is infinite where the error falls for as long as training lasts. The shares are multiplied by
        the time as they are: they need not sum to 1.
        """
        p = np.asarray(shares, dtype=np.float64)
        largest = np.abs(np.tensordot(p, self.moments, axes=1)).max()
        untouched = test.error(self.trained(np.zeros(len(p))))
        if largest == 0:
            return untouched, 0.0

        def error(x: float) -> float:
            return test.error(self.trained(np.exp(x) * p))

        count = int(np.log10(_SLOW / _QUICK) * _PER_DECADE) + 1
        grid = np.log(np.geomspace(_QUICK, _SLOW, count) / largest)
        values = np.array([error(x) for x in grid])
        at = int(values.argmin())
        if untouched <= values[at]:
            return untouched, 0.0
        if values[-1] <= values[at] * (1 + _TIE):
            return float(values[-1]), float("inf")
        place, least = least_beside(error, grid, at, 1e-6)
        return least, float(np.exp(place))

    def best_pulls(self, test: WeightedTest) -> tuple[float, Array]:
        """(error / d, pulls): the least error on ``test`` over all times and weights, and a_c >= 0, (K,).

        Searched from each source alone and from all of them; a better valley cannot be excluded.
        """
        K = len(self.moments)
        size = np.abs(self.moments.reshape(K, -1)).max(axis=1)
        known = [(test.error(self.trained(np.zeros(K))), np.zeros(K))]
        starts = [np.eye(K)[at] for at in range(K) if size[at] > 0] + [1.0 * (size > 0)]
        scale = np.where(size > 0, size, 1.0)

        def pulls(x: Array) -> Array:
            return np.where(x > _NOTHING, np.exp(x), 0.0) / scale

        def error(x: Array) -> float:
            return test.error(self.trained(pulls(x)))

        bounds = [(_NOTHING, _NOTHING if s == 0 else _ALL) for s in size]
        for shares in starts:
            _, time = self.ceiling(test, shares / scale)
            with np.errstate(divide="ignore", invalid="ignore"):
                first = np.clip(np.nan_to_num(np.log(shares * time), nan=_NOTHING), *np.array(bounds).T)
            found = scipy.optimize.minimize(error, first, method="L-BFGS-B", bounds=bounds)
            ends = (first, found.x, np.where(found.x < _NOTHING + 1, _NOTHING, found.x))
            known += [(error(x), pulls(x)) for x in ends]
        return min(known, key=lambda pair: pair[0])


def _moment(columns: Columns) -> Array:
    """C_c, and what noisy labels add to the mean of a prompt's two conditions."""
    if columns.pair is None:
        return columns.second_moment
    return np.asarray(columns.second_moment + columns.pair.weights[1, 1] * columns.pair.second_moment)


def _moved(x: Array) -> Array:
    """(1 - e^{-x}) / x, 1 at 0."""
    return np.asarray(np.where(x > 0, -np.expm1(-x) / np.where(x > 0, x, 1.0), 1.0))
