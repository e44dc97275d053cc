"""A basis in which sources of very different effective weights keep their digits.

In I + sum_c rho_c C_c a large rho_c leaves rounding of its own size in the directions that source c does not
show, where the other terms are small. In a basis that takes the sources from the largest on, each by the
eigenvectors of what it adds to those before it, a source is exactly 0 beyond its own directions, so the
matrix is large where its rows are large alone: scaled to a unit diagonal it is well-conditioned, and its
inverse is known to rounding row by row (Demmel and Veselic, 1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import RELATIVE_ZERO, diagonal
from datadose.shapes import Array, Float
from datadose.theory.columns import Columns

APART = 1e3
"""Sources whose sizes differ by less share a place in the order, as do all that are smaller than this."""


def sizes_of(columns: Sequence[Columns], weights: Float[Array, " K"]) -> Float[Array, " K"]:
    """rho_c times the largest diagonal entry of C_c, (K,), of K sources, matrices, with ``weights`` rho_c."""
    largest = [float(diagonal(c.second_moment).max()) for c in columns]
    return np.asarray(weights * np.array(largest))


def order_of(columns: Sequence[Columns], weights: Float[Array, " K"]) -> tuple[int, ...]:
    """The sources with prompts from the largest on; those of like sizes, and all small ones, as they come.

    Arguments as in :func:`sizes_of`.
    """
    places = np.floor(np.log(np.maximum(sizes_of(columns, weights), 1.0)) / np.log(APART))
    held = [at for at, c in enumerate(columns) if c.count > 0] or list(range(len(columns)))
    return tuple(sorted(held, key=lambda at: -places[at]))


def graded(columns: Sequence[Columns], order: Sequence[int]) -> tuple[tuple[Columns, ...], Array]:
    """The columns in the basis of the module docstring, and the basis (d, d), orthonormal.

    Args:
        columns: K sources, matrices.
        order: places of the sources that are taken, the largest first. The others are turned as they are.
    """
    d = len(columns[0].cross)
    basis, ends = np.eye(d), {}
    filled = 0
    for at in order:
        c, rest = columns[at], basis[:, filled:]
        left, new = np.eye(d - filled), d - filled
        if c.span.shape[1] < d:
            left, values, _ = np.linalg.svd(rest.T @ c.span)
            new = int((values**2 > RELATIVE_ZERO).sum())
        block = rest @ left[:, :new]
        turn = np.linalg.eigh(block.T @ c.second_moment @ block)[1][:, ::-1]
        basis = np.hstack([basis[:, :filled], block @ turn, rest @ left[:, new:]])
        filled += new
        ends[at] = filled

    def within(end: int, M: Array) -> Array:
        found = basis.T @ M @ basis
        found[end:], found[:, end:] = 0.0, 0.0
        return np.asarray((found + found.T) / 2)

    def turned(at: int, c: Columns) -> Columns:
        def change(M: Array) -> Array:
            return within(ends.get(at, d), M)

        return c.changed(change, change, None)

    return tuple(turned(at, c) for at, c in enumerate(columns)), basis


def graded_inverse(M: NDArray[Any]) -> NDArray[Any]:
    """The inverse of a symmetric M (.., d, d) whose rows may differ by many orders."""
    size = 1 / np.sqrt(np.abs(np.diagonal(M, axis1=-2, axis2=-1)))
    scale = size[..., :, None] * size[..., None, :]
    found = np.linalg.inv(M * scale) * scale
    return np.asarray((found + found.swapaxes(-1, -2)) / 2)
