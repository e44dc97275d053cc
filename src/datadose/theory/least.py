"""The least value of a function of one number, from a grid that found the valley."""

from __future__ import annotations

from collections.abc import Callable

import scipy

from datadose.shapes import Array, Float


def least_beside(
    function: Callable[[float], float], grid: Float[Array, " P"], at: int, precision: float
) -> tuple[float, float]:
    """(place, value) of the least value of ``function`` between the neighbours of one point of a grid.

    Args:
        function: smooth, with one valley between these neighbours.
        grid: rising places, shape (P,).
        at: the point's index; at an end of the grid one of the neighbours is the end itself.
        precision: how near to the least the place is to be.
    """
    ends = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    found = scipy.optimize.minimize_scalar(
        function, bounds=ends, method="bounded", options={"xatol": precision}
    )
    return float(found.x), float(found.fun)
