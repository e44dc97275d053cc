"""The best training time: how long a stage should last for a test, and how near to it is near enough.

The error along gradient flow is a smooth function of log time, sought on a grid over all times at which some
direction moves, then refined. Time is that of :class:`datadose.theory.stopping.Stopping`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy

from datadose.covariance import is_spectrum
from datadose.errors import require_integer, require_kind, require_number
from datadose.shapes import Array, Operator
from datadose.theory.equivalent import PeakError
from datadose.theory.source import Source
from datadose.theory.stopping import Stopping
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.training_time import Fit, Request
from datadose.theory.weighted_test import WeightedTest

_PER_DECADE = 6
_EARLY, _LATE = 1e-3, 1e3
"""Times over the quickest direction's, and over the slowest's, at which nothing and everything has moved."""
_SLOWEST = 1e-6
"""Directions whose second moment is below this share of the largest do not extend the search."""
_TIE = 1e-9


@dataclass(frozen=True)
class BestTime:
    """The best time of a stage, with the model that it gives."""

    time: float | None
    """Gradient-flow time t >= 0; None if the best is not to stop. 0 if the best is not to train."""
    error: float
    """Error / d on the test at that time."""
    model: TrainedOperator = field(repr=False)
    reason: str | None
    """Why ``time`` is None or 0."""
    grid: Array = field(repr=False)
    """The times at which the search looked, rising, shape (T,)."""
    errors: Array = field(repr=False)
    """The errors / d there, shape (T,)."""
    at: Callable[[float], float] = field(repr=False)
    """The error / d at a time."""
    also: Array = field(repr=False)
    """Errors / d along the grid on the further tests that were given, shape (tests, T)."""

    def near(self, share: float) -> tuple[float, float]:
        """The ends of the range of times around the best one whose error is within ``share`` > 0 of its own.

        0 and infinity where the error never leaves that range on a side. Raises InputError for a share that
        is not above 0.
        """
        bar = (1 + require_number("share", share, 0, np.inf, open_ends=True)) * self.error
        best = np.inf if self.time is None else self.time
        worse = self.errors > bar
        below, above = self.grid[worse & (self.grid < best)], self.grid[worse & (self.grid > best)]
        inside = self.grid[~worse]
        low = self._crossing(below[-1], min([best, *inside[inside > below[-1]]]), bar) if len(below) else 0.0
        high = (
            self._crossing(above[0], max([best, *inside[inside < above[0]]]), bar) if len(above) else np.inf
        )
        return low, float(high)

    def _crossing(self, outside: float, inside: float, bar: float) -> float:
        if np.isinf(inside):
            return outside
        if inside == 0:
            return float(scipy.optimize.brentq(lambda t: self.at(t) - bar, 0.0, outside, rtol=1e-4))
        ends = np.log([outside, inside])
        return float(
            np.exp(scipy.optimize.brentq(lambda x: self.at(float(np.exp(x))) - bar, *ends, xtol=1e-4))
        )


def best_time(
    start: TrainedOperator | Operator,
    eta: float,
    sources: Sequence[Source],
    test: WeightedTest,
    *,
    weights: Sequence[float] | Array | None = None,
    chain_steps: int = 0,
    per_decade: int = _PER_DECADE,
    also: Sequence[WeightedTest] = (),
) -> BestTime:
    """The time of gradient flow with the least error on ``test``; arguments as in :func:`trained`.

    The test may weigh the error on Sigma0 against that on the target. Steps of gradient descent follow as
    time / (learning_rate c_k). ``per_decade`` >= 1 is the number of times a decade at which the minimum is
    first looked for; fewer cost less and may miss a minimum that is narrow. Tests in ``also`` are recorded
    along the grid. Raises InputError for a value out of range.
    """
    for one in (test, *also):
        require_kind("test", one, WeightedTest, "WeightedTest.of(target, length)")
    request = Request.of(eta, sources, weights, chain_steps)
    fit = request.fit(start)

    def models(times: Array) -> list[TrainedOperator]:
        return fit.ends([Stopping(time=float(t)) for t in times])

    def error(time: float) -> float:
        return test.error(models(np.array([time]))[0])

    (untouched,), none = models(np.zeros(1)), np.zeros((1 + len(also), 0))
    grid = _times(request, require_integer("per_decade", per_decade, 1))
    if not len(grid):
        reason = "there are no prompts with data"
        return BestTime(0.0, test.error(untouched), untouched, reason, grid, none[0], error, none[1:])
    table = np.array([[one.error(model) for one in (test, *also)] for model in models(grid)]).T
    errors, others = table[0], table[1:]
    at = int(errors.argmin())
    base = test.error(untouched)
    ended = _converged(fit)
    if ended is not None and test.error(ended) <= min(errors[at], base) * (1 + _TIE):
        reason = "the error falls for as long as training lasts"
        return BestTime(None, test.error(ended), ended, reason, grid, errors, error, others)
    if base <= errors[at] * (1 + _TIE):
        reason = "training raises the error from the start"
        return BestTime(0.0, base, untouched, reason, grid, errors, error, others)
    low, high = np.log(grid[max(at - 1, 0)]), np.log(grid[min(at + 1, len(grid) - 1)])

    found = scipy.optimize.minimize_scalar(
        lambda x: error(float(np.exp(x))), bounds=(low, high), method="bounded", options={"xatol": 1e-3}
    )
    time = float(np.exp(found.x)) if found.fun < errors[at] else float(grid[at])
    (model,) = models(np.array([time]))
    return BestTime(time, test.error(model), model, None, grid, errors, error, others)


def _times(request: Request, per_decade: int) -> Array:
    """Times from before the quickest direction moves until after the slowest one has."""
    spectra = [
        c.weight * c.count / request.prompts * (C if is_spectrum(C) else np.linalg.eigvalsh(C))
        for c in request.columns
        for C in (c.second_moment,)
    ]
    if not spectra:
        return np.zeros(0)
    top = sum(float(s.max()) for s in spectra)
    bottom = max(min(float(s[s > 0].min()) for s in spectra), _SLOWEST * top)
    first, last = np.log10(_EARLY / top), np.log10(_LATE / bottom)
    return np.asarray(np.logspace(first, last, int(np.ceil((last - first) * per_decade)) + 1))


def _converged(fit: Fit) -> TrainedOperator | None:
    """The converged model, if its mean error is finite."""
    try:
        return fit.ends([Stopping()])[0]
    except PeakError:
        return None
