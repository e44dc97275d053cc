"""Matrix operations that carry a complex step, for derivatives that are exact to rounding.

The helpers of :mod:`datadose.covariance` promise float64; these accept real and complex operands of either
form. f(x + i h).imag / h with h = 1e-30 is f'(x) with no subtraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Complex: TypeAlias = NDArray[np.complex128]
Either: TypeAlias = NDArray[Any]

STEP = 1e-30
"""Its square vanishes next to 1."""


def product(*matrices: Either) -> Either:
    """The matrix product; forms may be mixed."""
    return reduce(_of_two, matrices)


def _of_two(X: Either, Y: Either) -> Either:
    if X.ndim == 1:
        return X * Y if Y.ndim == 1 else X[:, None] * Y
    return X * Y if Y.ndim == 1 else X @ Y


def plus(*matrices: Either) -> Either:
    """The sum; dense if any operand is."""
    if any(M.ndim == 2 for M in matrices):
        matrices = tuple(np.diag(M) if M.ndim == 1 else M for M in matrices)
    return reduce(np.add, matrices)


def trace_product(X: Either, Y: Either) -> complex:
    """tr(X Y)."""
    if X.ndim != Y.ndim:
        X, Y = (M if M.ndim == 1 else M.diagonal() for M in (X, Y))
    return complex((X * (Y if Y.ndim == 1 else Y.T)).sum())


def transposed(M: Either) -> Either:
    """The transpose, not conjugated."""
    return M if M.ndim == 1 else M.T


def weighted(weights: Either, matrices: Sequence[Either]) -> Either:
    """sum_c weight_c M_c."""
    return reduce(np.add, (x * M for x, M in zip(weights, matrices, strict=True)))
