"""Matrix operations that carry a complex step, for derivatives that are exact to rounding.

The helpers of :mod:`datadose.covariance` promise float64; these accept real and complex operands of either
form. f(x + i h).imag / h with h = 1e-30 is f'(x) with no subtraction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import diagonal as _diagonal
from datadose.covariance import plus as _plus
from datadose.covariance import product as _product
from datadose.covariance import transpose as _transpose

Either: TypeAlias = NDArray[Any]
"""A real or a complex array, a spectrum (d,) or a matrix (d, d)."""

STEP = 1e-30
"""Its square vanishes next to 1."""


# The same operations as on real matrices; only the promise of float64 is missing here.
product: Callable[..., Either] = _product
plus: Callable[..., Either] = _plus
transposed: Callable[[Either], Either] = _transpose


def trace_product(X: Either, Y: Either) -> complex:
    """The trace tr(X Y), of spectra or matrices."""
    if X.ndim != Y.ndim:
        X, Y = _diagonal(X), _diagonal(Y)
    return complex((X * (Y if Y.ndim == 1 else Y.T)).sum())


def weighted(weights: Either, matrices: Sequence[Either]) -> Either:
    """The sum over c of weight_c M_c."""
    return reduce(np.add, (x * M for x, M in zip(weights, matrices, strict=True)))
