"""The two forms of a loss over rows, fitted by least squares: the theory's and a free power.

- ``scarcity``: L = c + G / (B - b) with c, G >= 0 and b below the smallest B, the theory's form of the least
  error over penalties (docs/derivations/effective_penalty.md): c is the ceiling that no number of rows
  passes, G the price of scarcity.
- ``power``: L = c + A B^-p with c, A >= 0 and p > 0.

Both are linear in c and the factor for a given b or p, so that one search over that number is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from datadose.covariance import Array

FORMS = ("scarcity", "power")
_ZOOMS, _COARSE, _FINE = 7, 100, 17

_Basis: TypeAlias = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Fitted:
    """A form fitted to R curves: L = c + factor x basis(B), the basis 1 at the smallest B."""

    form: str
    smallest: float
    ceiling: Array
    factor: Array
    place: Array
    """(R,): the smallest B minus b, or the exponent."""

    def losses(self, B: Array) -> Array:
        """(R, len(B))."""
        shape = _BASES[self.form](B / self.smallest, self.place[:, None])
        return np.asarray(self.ceiling[:, None] + self.factor[:, None] * shape)

    @property
    def straight(self) -> NDArray[np.bool_]:
        """(R,): whether the curve bends too little to be told from a line (in B, or in log B)."""
        low, high = _RANGES[self.form]
        return np.asarray(self.place > 0.99 * high if self.form == "scarcity" else self.place < 1.01 * low)

    @property
    def sudden(self) -> NDArray[np.bool_]:
        """(R,): whether the whole fall lies between the two smallest budgets."""
        low, high = _RANGES[self.form]
        return np.asarray(self.place < 1.01 * low if self.form == "scarcity" else self.place > 0.99 * high)

    @property
    def price(self) -> Array:
        """G or A; infinite for a straight curve."""
        scale = self.place * self.smallest if self.form == "scarcity" else self.smallest**self.place
        return np.where(self.straight, np.inf, self.factor * scale)

    @property
    def bend(self) -> float:
        """b or p, of the first curve."""
        place = float(self.place[0])
        return place if self.form == "power" else self.smallest * (1 - place)

    def rows_within(self, share: float) -> Array:
        """(R,) the least B >= the smallest with L(B) <= (1 + share) c; infinite where there is none."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.where(self.factor > 0, self.factor / (share * self.ceiling), 0.0)
            scarce = self.form == "scarcity"
            found = 1 + self.place * (ratio - 1) if scarce else ratio ** (1 / self.place)
        return np.asarray(self.smallest * np.maximum(found, 1.0))


def _scarce(x: Array, gap: Array) -> Array:
    """1 / (B - b) over its value at the smallest B; x and ``gap`` (smallest B - b) in units of that B."""
    return gap / (x - 1 + gap)


def _falling_power(x: Array, exponent: Array) -> Array:
    return np.asarray(x**-exponent)


_BASES: dict[str, _Basis] = {"scarcity": _scarce, "power": _falling_power}
_RANGES = {"scarcity": (1e-3, 1e5), "power": (1e-3, 20.0)}
"""Of the gap, in units of the smallest B, and of the exponent: beyond the ends the curve is straight (in B
and in log B), or a step right after the smallest B."""


def fit_curves(form: str, B: Array, curves: Array) -> Fitted:
    """Least squares of each of the ``curves`` (R, n): a search over b or p that closes in on the best."""
    x, basis = B / B[0], _BASES[form]
    low, high = np.log(_RANGES[form])
    every, grid = np.arange(len(curves)), np.linspace(low, high, _COARSE)[None]
    for _ in range(_ZOOMS):
        ceiling, factor, error = _least_squares(basis(x, np.exp(grid)[:, :, None]), curves)
        best, grid = error.argmin(axis=1), np.broadcast_to(grid, error.shape)
        ends = grid[every, np.maximum(best - 1, 0)], grid[every, np.minimum(best + 1, grid.shape[1] - 1)]
        kept = ceiling[every, best], factor[every, best], np.exp(grid[every, best])
        grid = np.linspace(*ends, _FINE, axis=1)
    return Fitted(form, float(B[0]), *kept)


def _least_squares(shape: Array, curves: Array) -> tuple[Array, Array, Array]:
    """c, factor >= 0 of L = c + factor x shape, and the squared error: all (R, places).

    Args:
        shape: (R or 1, places, n), the basis at each of the n budgets.
        curves: (R, n), losses >= 0.
    """
    y = curves[:, None, :]
    middle, mean = shape.mean(axis=2, keepdims=True), y.mean(axis=2, keepdims=True)
    spread = shape - middle
    factor = ((spread * (y - mean)).sum(axis=2) / (spread**2).sum(axis=2)).clip(min=0)
    ceiling = mean[:, :, 0] - factor * middle[:, :, 0]
    # Where the best ceiling is negative the best allowed one is 0: a convex function on a half plane.
    alone = (shape * y).sum(axis=2) / (shape**2).sum(axis=2)
    factor, ceiling = np.where(ceiling < 0, alone, factor), ceiling.clip(min=0)
    error = ((ceiling[:, :, None] + factor[:, :, None] * shape - y) ** 2).sum(axis=2)
    return ceiling, factor, error
