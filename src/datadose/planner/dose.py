"""How much: the number of prompts that minimises the predicted error, on both sides of the peak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datadose.covariance import Array, rank, spectral_basis
from datadose.planner.error_model import ErrorModel
from datadose.planner.search import Unsolved
from datadose.theory.source import Source

COARSE = 24
"""Grid points where many doses are compared and none is shown."""
NEAR_OPTIMAL = 0.05
"""Errors within this fraction of the smallest count as near-optimal."""


@dataclass(frozen=True)
class Dose:
    """The best number of prompts and how much the exact number matters."""

    prompts: int
    error: float
    """Predicted error / d there."""
    error_before: float
    """The error / d at B = 0."""
    error_at_max: float | None
    """The error / d at the largest number allowed; None at the peak, where the mean is infinite."""
    near_optimal: tuple[int, int]
    """The range of B around the best one whose predicted error is within 5 percent of it."""
    best_below_peak: tuple[int, float] | None
    """The best (B, error) with fewer prompts than the data's rank, if B >= 1 fits there."""
    best_above_peak: tuple[int, float] | None
    """The best (B, error) with more, if ``max_prompts`` reaches there."""
    curve: tuple[tuple[int, float | None], ...]
    """(B, predicted error / d), None where the mean is infinite."""
    unsolved: int = 0
    """The number of B whose error could not be computed, and which the search left out."""


def find_dose(error: Callable[[int], float], max_prompts: int, peak: int, *, grid_points: int = 64) -> Dose:
    """The number of prompts with the least error, a global minimum over the integers 0..``max_prompts``.

    Every local minimum of a grid (even in log B, dense around the peak) that comes within a fifth of the
    best is refined to the integer.

    Args:
        error: predicted error / d at B prompts. It is smooth on either side of ``peak`` and infinite at it.
            Where it raises NoFixedPointError it counts as infinite.
        max_prompts: the largest B, >= 1.
        peak: the number of prompts at which the error is infinite, the rank of the data.
        grid_points: points of the grid over the whole range; half as many are added on each side of ``peak``.
    """
    seen: dict[int, float] = {}
    unsolved: set[int] = set()

    def at(B: int) -> float:
        if B not in seen:
            try:
                seen[B] = error(B)
            except Unsolved:
                seen[B] = np.inf
                unsolved.add(B)
        return seen[B]

    grid = _grid(max_prompts, peak, grid_points)
    values = np.array([at(B) for B in grid])
    lowest = values.min()
    for i, value in enumerate(values):
        left, right = values[max(i - 1, 0)], values[min(i + 1, len(grid) - 1)]
        if value <= min(left, right) and value <= 1.2 * lowest:
            _refine(at, grid[max(i - 1, 0)], grid[i], grid[min(i + 1, len(grid) - 1)])
    best = min(seen, key=lambda B: (seen[B], B))
    points = tuple((B, seen[B] if np.isfinite(seen[B]) else None) for B in grid)
    return Dose(
        best,
        seen[best],
        at(0),
        at(max_prompts) if np.isfinite(at(max_prompts)) else None,
        _near_optimal(at, best, max_prompts, peak),
        _best(seen, lambda B: 0 < B < peak),
        _best(seen, lambda B: B > peak),
        points,
        len(unsolved),
    )


def dose_of(model: ErrorModel, data: Array, length: int, max_prompts: int, grid_points: int = 64) -> Dose:
    """The best number of prompts of covariance ``data``, computed in its own eigenbasis.

    Args:
        model: the pretrained model and the target.
        data: covariance A of the prompts, a spectrum (d,) or a PSD matrix (d, d).
        length: prompt length n >= 1, in examples.
        max_prompts: the largest number of prompts, >= 1.
        grid_points: as in :func:`find_dose`.
    """
    spectrum, basis = spectral_basis(data)
    model = model if basis is None else model.rotated(basis)
    along, peak = model.along(model.columns(Source(spectrum, length, 1))), rank(spectrum)
    grid = _grid(max_prompts, peak, grid_points)
    at_once = dict(zip(grid, along.errors(grid).tolist(), strict=True))

    def error(B: int) -> float:
        return at_once[B] if B in at_once else float(along.errors([B])[0])

    return find_dose(error, max_prompts, peak, grid_points=grid_points)


def _grid(max_prompts: int, peak: int, points: int) -> list[int]:
    """0, ``max_prompts`` and numbers between them, even in log B and in the distance to the peak.

    The distance counts on either side: minima next to the peak are narrow.
    """
    pieces = [np.geomspace(1, max_prompts, points)]
    if peak > 2:
        pieces.append(peak - np.geomspace(1, peak - 1, points // 2))
    if max_prompts > peak > 0:
        pieces.append(peak + np.geomspace(1, max_prompts - peak, points // 2))
    rounded = np.unique(np.append(np.concatenate(pieces).round().astype(int), [0, max_prompts]))
    return [int(B) for B in rounded if 0 <= B <= max_prompts]


def _refine(at: Callable[[int], float], low: int, middle: int, high: int) -> None:
    """Golden-section search on integers for the minimum bracketed by low <= middle <= high."""
    while high - low > 2:
        if high - middle > middle - low:
            probe = middle + max(1, round(0.382 * (high - middle)))
            low, middle, high = (low, middle, probe) if at(middle) <= at(probe) else (middle, probe, high)
        else:
            probe = middle - max(1, round(0.382 * (middle - low)))
            low, middle, high = (probe, middle, high) if at(middle) <= at(probe) else (low, probe, middle)
    # At an end of the range the middle is an end too, and what lies between them has not been computed.
    for B in range(low, high + 1):
        at(B)


def _near_optimal(at: Callable[[int], float], best: int, max_prompts: int, peak: int) -> tuple[int, int]:
    """The ends of the interval around ``best`` with error within 5 percent, by doubling and bisection."""
    limit = (1 + NEAR_OPTIMAL) * at(best)
    # Doubling would leap over a narrow peak: the interval stays on the best's side of it.
    lowest = peak if best > peak else 0
    highest = min(peak, max_prompts) if best < peak else max_prompts
    ends = []
    for direction, room in ((-1, best - lowest), (1, highest - best)):
        inside, outside, step = 0, room + 1, 1
        while outside - inside > 1:
            reach = (inside + outside) // 2 if outside <= room else min(inside + step, room)
            if at(best + direction * reach) > limit:
                outside = reach
            else:
                inside, step = reach, 2 * step
        ends.append(best + direction * inside)
    return ends[0], ends[1]


def _best(seen: dict[int, float], allowed: Callable[[int], bool]) -> tuple[int, float] | None:
    inside = [B for B in seen if allowed(B) and np.isfinite(seen[B])]
    if not inside:
        return None
    best = min(inside, key=lambda B: (seen[B], B))
    return best, seen[best]
