"""Differences over paired seeds: their Student interval, and the smallest that so many seeds detect.

A difference is *detected* if its two-sided Student interval leaves out zero. Before a run, a pilot on other
seeds gives the spread of the paired differences; :func:`detectable_difference` is then what the run can see,
and :func:`required_seeds` how many seeds a difference of a given size needs.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from datadose.errors import reject, require_integer, require_number
from datadose.shapes import Array

CONFIDENCE: Final = 0.95
"""Of every interval over seeds."""
_MOST_SEEDS = 10_000
_NODES = 400
"""Of the mean over the sample's standard deviation; SciPy's noncentral t is NaN in its tails."""


@cache
def _quadrature() -> tuple[Array, Array]:
    """Nodes and weights of the mean over a probability in (0, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return (nodes + 1) / 2, weights / 2


def mean_interval(values: ArrayLike, *, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Compute the mean of ``values`` and its two-sided Student interval.

    Args:
        values: one number a seed, shape (K,), K >= 1.
        confidence: of the interval, in (0, 1).

    Returns:
        Mean, lower and upper end; the ends are infinite for one seed.
    """
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("-inf"), float("inf")
    quantile = stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    half = float(quantile * values.std(ddof=1) / len(values) ** 0.5)
    return mean, mean - half, mean + half


def pooled_spread(differences: ArrayLike) -> float:
    """Compute the root mean square over comparisons of the standard deviation over seeds.

    A pilot has few seeds and several comparisons: together they give the spread with more degrees of freedom
    than one comparison has.

    Args:
        differences: paired differences, shape (M comparisons, K seeds) or (K,), K >= 2, finite.

    Returns:
        The standard deviation of a paired difference, > 0.

    Raises:
        InputError: fewer than two seeds, a number that is not finite, or differences without any spread.
    """
    array = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    if array.ndim != 2 or array.shape[1] < 2 or not np.isfinite(array).all():
        reject("differences", f"shape {array.shape}", "finite numbers of at least two seeds")
    spread = float(np.sqrt(array.var(axis=1, ddof=1).mean()))
    if spread == 0:
        reject("differences", "the same number for all seeds", "numbers that differ")
    return spread


def detectable_difference(spread: float, seeds: int, *, power: float = 0.8, level: float = 0.05) -> float:
    """Compute the smallest mean difference that a paired Student test detects with probability ``power``.

    The test's power, a noncentral t probability, is solved for the difference. The usual sum of quantiles,
    (t_{1-level/2} + t_{power}) spread / sqrt(seeds), is 5 percent less at 3 seeds and .1 percent at 10.

    Args:
        spread: standard deviation of one paired difference, > 0, in any unit.
        seeds: number K >= 2 of paired seeds.
        power: probability in (level, 1) with which the difference is to be detected.
        level: of the two-sided test, in (0, 1): the probability of detecting a difference that is not there.

    Returns:
        The difference, > 0, in the unit of ``spread``.

    Raises:
        InputError: an argument out of its range.
    """
    sd = require_number("spread", spread, 0, np.inf, open_ends=True)
    K = require_integer("seeds", seeds, 2, _MOST_SEEDS)
    level = require_number("level", level, 0, 1, open_ends=True)
    power = require_number("power", power, level, 1, open_ends=True)
    freedom = K - 1
    edge = stats.t.ppf(1 - level / 2, freedom)
    nodes, weights = _quadrature()
    scale = np.sqrt(stats.chi2.ppf(nodes, freedom) / freedom)

    def missing(shift: float) -> float:
        detected = special.ndtr(shift - edge * scale) + special.ndtr(-shift - edge * scale)
        return float(weights @ detected) - power

    most = 1.0
    while missing(most) < 0:
        most *= 2
    return float(optimize.brentq(missing, 0.0, most) * sd / K**0.5)


def required_seeds(spread: float, difference: float, *, power: float = 0.8, level: float = 0.05) -> int:
    """Compute the fewest paired seeds that detect ``difference`` with probability ``power``.

    Args:
        spread: standard deviation of one paired difference, > 0.
        difference: the mean difference to detect, > 0, in the same unit.
        power: probability in (level, 1).
        level: of the two-sided test, in (0, 1).

    Returns:
        The number of seeds, from 2 on.

    Raises:
        InputError: an argument out of its range, or a difference that 10,000 seeds would not detect.
    """
    wanted = require_number("difference", difference, 0, np.inf, open_ends=True)
    few, many = 2, 2

    def detects(seeds: int) -> bool:
        return detectable_difference(spread, seeds, power=power, level=level) <= wanted

    while not detects(many):
        few, many = many + 1, 2 * many
        if many > _MOST_SEEDS:
            reject("difference", difference, f"one that {_MOST_SEEDS} seeds of spread {spread:g} detect")
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if detects(middle) else (middle + 1, many)
    return many
