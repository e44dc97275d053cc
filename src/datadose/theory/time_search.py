"""The best training time: how long a stage should last for a test, and how near to it is near enough.

The error along gradient flow is a smooth function of log time, sought on a grid over all times at which some
direction moves, then refined. Time is that of :class:`datadose.theory.stopping.Stopping`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy
from numpy.typing import ArrayLike

from datadose.covariance import is_spectrum
from datadose.errors import require_integer, require_kind, require_number
from datadose.shapes import Array, Float, Operator
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
_COARSE, _WITHIN = 2, 7
"""Of the quick search along numbers of prompts: times a decade. Times between neighbours of the best."""
_FINE, _ROUGH = 0.1, 0.6
"""Three times as close as that in log time give the best one, by a parabola; roughly, in the quick search."""
_NARROW = 0.02
"""The same for two times and a line."""
UNSEEN = (
    "training changes nothing on the test: its covariance is zero, or zero wherever the prompts have data"
)


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
    """The times that the search evaluated, rising, shape (T,)."""
    errors: Array = field(repr=False)
    """The errors / d there, shape (T,)."""
    along: Callable[[Array], Array] = field(repr=False)
    """The errors / d at times (N,)."""
    also: Array = field(repr=False)
    """Errors / d along the grid on the further tests that were given, shape (tests, T)."""

    def at(self, time: float) -> float:
        """The error / d at a time >= 0."""
        return float(self.along(np.array([time]))[0])

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
        """The time between the two at which the error is ``bar``."""
        if np.isinf(inside):
            return outside
        if inside == 0:
            return float(scipy.optimize.brentq(lambda t: self.at(t) - bar, 0.0, outside, rtol=1e-4))
        first, last = float(np.log(inside)), float(np.log(outside))
        while True:
            x = np.linspace(first, last, _WITHIN + 2)
            y = self.along(np.exp(x)) - bar
            after = max(1, int(np.argmax(y > 0)))
            first, last = float(x[after - 1]), float(x[after])
            if abs(last - first) <= _NARROW:
                return float(np.exp(np.interp(0.0, y[after - 1 : after + 1], [first, last])))


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
    first sought; fewer cost less and may miss a minimum that is narrow. Tests in ``also`` are recorded
    along the grid. Raises InputError for a value out of range.
    """
    for one in (test, *also):
        require_kind("test", one, WeightedTest, "WeightedTest.of(target, length)")
    request = Request.of(eta, sources, weights, chain_steps)
    return best_time_of(request, start, test, per_decade, also)


def best_time_of(
    request: Request,
    start: TrainedOperator | Operator,
    test: WeightedTest,
    per_decade: int,
    also: Sequence[WeightedTest] = (),
) -> BestTime:
    """The result of :func:`best_time` for a ``request`` that holds the checked columns of its sources.

    The other arguments are those of :func:`best_time`.
    """
    fit = request.fit(start)

    def models(times: Array) -> list[TrainedOperator]:
        return fit.ends([Stopping(time=float(t)) for t in times])

    def along(times: Array) -> Array:
        return np.array([test.error(model) for model in models(times)])

    (untouched,), none = models(np.zeros(1)), np.zeros((1 + len(also), 0))
    grid = flow_times(request, require_integer("per_decade", per_decade, 1))
    if not len(grid):
        reason = "there are no prompts with data"
        return BestTime(0.0, test.error(untouched), untouched, reason, grid, none[0], along, none[1:])
    table = np.array([[one.error(model) for one in (test, *also)] for model in models(grid)]).T
    errors, others = table[0], table[1:]
    at = int(errors.argmin())
    base = test.error(untouched)
    if not any(test.sees(c.second_moment) for c in request.columns):
        return BestTime(0.0, base, untouched, UNSEEN, grid, errors, along, others)
    ended = _converged(fit)
    if ended is not None and test.error(ended) <= min(errors[at], base) * (1 + _TIE):
        reason = "the error falls for as long as training lasts"
        return BestTime(None, test.error(ended), ended, reason, grid, errors, along, others)
    if base <= errors[at] * (1 + _TIE):
        reason = "training raises the error from the start"
        return BestTime(0.0, base, untouched, reason, grid, errors, along, others)
    time = _lowest(lambda x: along(np.exp(x)), grid, errors, _FINE)
    (model,) = models(np.array([time]))
    return BestTime(time, test.error(model), model, None, grid, errors, along, others)


def _lowest(along: Callable[[Array], Array], times: Array, errors: Array, width: float) -> float:
    """The time of the least error near the least of ``errors``: that of a parabola between three times.

    ``along`` gives errors at log times, and the three are ``width`` apart in them, or less.
    """
    at = int(np.clip(errors.argmin(), 1, len(times) - 2))
    x, y = np.log(times[at - 1 : at + 2]), errors[at - 1 : at + 2]
    while x[2] - x[0] > width:
        x, y = _closer(along, x, y)
    bend = y[0] - 2 * y[1] + y[2]
    vertex = (
        x[1] + (x[1] - x[0]) * (y[0] - y[2]) / (2 * bend) if bend > 0 and y.argmin() == 1 else x[y.argmin()]
    )
    return float(np.exp(vertex))


def best_time_curve(
    start: TrainedOperator | Operator, eta: float, source: Source, test: WeightedTest, prompts: ArrayLike
) -> Float[Array, " P"]:
    """The error / d at the best time of each number of prompts B >= 0 of one source, shape (P,).

    A quick :func:`best_time`: the time is sought roughly, and the error is the one there. It is within
    1e-3 of that function's on the shifts of the tests.

    Args:
        start, eta, test: as in :func:`best_time`.
        source: covariance and length of the prompts, whose number is ignored.
        prompts: numbers of prompts B, shape (P,), each finite and >= 0.

    Raises InputError for a value out of range.
    """
    found = []
    for B in np.asarray(prompts, dtype=np.float64).tolist():
        request = Request.of(eta, [replace(source, prompts=B)], None, 0)
        found.append(_least(request, request.fit(start), test))
    return np.array(found)


def _least(request: Request, fit: Fit, test: WeightedTest) -> float:
    """The least error over times, by :func:`best_time_curve`."""

    def errors(x: Array) -> Array:
        return np.array(
            [test.error(model) for model in fit.ends([Stopping(time=t) for t in np.exp(x).tolist()])]
        )

    ended = _converged(fit)
    ends = [test.error(model) for model in (fit.ends([Stopping(time=0.0)])[0], ended) if model is not None]
    times = flow_times(request, _COARSE)
    if not len(times):
        return min(ends)
    found = errors(np.log(times))
    best = np.log([_lowest(errors, times, found, _ROUGH)])
    return min(*ends, float(found.min()), float(errors(best)[0]))


def _closer(
    errors: Callable[[Array], Array], x: Float[Array, " 3"], y: Float[Array, " 3"]
) -> tuple[Float[Array, " 3"], Float[Array, " 3"]]:
    """Three neighbouring times and errors, the middle one lowest, from times between three others."""
    inner = np.linspace(x[0], x[2], _WITHIN + 2)[1:-1]
    times, found = np.array([x[0], *inner, x[2]]), np.array([y[0], *errors(inner), y[2]])
    at = int(np.clip(found.argmin(), 1, len(times) - 2))
    return times[at - 1 : at + 2], found[at - 1 : at + 2]


def flow_times(request: Request, per_decade: int) -> Array:
    """Times of gradient flow from before the quickest direction moves until after the slowest one has moved.

    They rise, shape (T,), with ``per_decade`` >= 1 times a decade.
    """
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
