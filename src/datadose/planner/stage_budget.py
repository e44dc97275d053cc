"""What a budget buys of each stage, and the search for the rows and times of the least error.

See :mod:`datadose.planner.schedule`. Rows and updates are real numbers in the search and whole ones in the
end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import scipy

from datadose.errors import reject
from datadose.shapes import Array
from datadose.theory.equivalent import Columns
from datadose.theory.least import least_beside
from datadose.theory.stopping import Stopping
from datadose.theory.time_search import flow_times
from datadose.theory.trained_operator import TrainedOperator
from datadose.theory.training_time import Request
from datadose.theory.weighted_test import WeightedTest

StageName: TypeAlias = Literal["sft", "outcome"]
Bought: TypeAlias = Literal["rows", "updates"]
_SHARES = (0.05, 0.2, 0.45, 0.7, 0.9)
"""Of the budget for SFT, where both stages are sought first."""
_STARTS = 2
_PER_DECADE = 4
_SETTLED = 1e-4
"""Of times whose errors differ by less than this share the earliest is taken."""
_ASIDE = (-1.6, 0.0, 1.6)
"""Around the best times of the stages alone, in log time, where those of both are sought first."""
_SIMPLEX = (0.07, 0.5, 0.5)
"""First steps of the search in the share and in the log times."""
_EVALUATIONS = 120
_CLOCKS = 12
_ROUNDS, _SAME, _ROUNDING = 100, 1e-9, 1e-12
_STEP = 1e-3
"""Of the rows or the updates, for their marginal value."""


@dataclass(frozen=True)
class ScheduledStage:
    """One stage of a schedule."""

    stage: StageName
    prompts: int
    """Rows of the stage: demonstrations of SFT, or target prompts."""
    time: float
    """Time of gradient flow on the stage's loss without its factor c_k."""
    steps: int
    """Steps of gradient descent at ``learning_rate`` that are nearly that time."""
    epochs: int
    """The number of ``steps`` again: a step takes all rows."""
    learning_rate: float
    predicted_error: float
    """Error / d on the target after the stage."""
    cost: float


@dataclass(frozen=True)
class NextUnit:
    """The stage in which the next unit of money lowers the error most."""

    stage: StageName
    buys: Bought
    gain: float
    """Decrease of the error / d for each further unit of money, negative nowhere."""


@dataclass(frozen=True)
class Rows:
    """What one stage takes: one kind of rows, their price, and the clock of training on them."""

    stage: StageName
    eta: float
    mixture: tuple[Columns, ...]
    """The columns of one row: their counts are shares that sum to 1."""
    copies: float
    """c_k."""
    most: int
    """The largest number of rows."""
    price: float
    update: float
    """The price of one optimiser step on all rows."""
    learning_rate: float | None
    """The learning rate; None for half of the largest stable one."""

    def request(self, rows: float) -> Request:
        """The fit of the stage to so many ``rows``."""
        return Request.on(self.eta, [replace(c, count=rows * c.count) for c in self.mixture], self.copies)

    @cached_property
    def times(self) -> Array:
        """Times from before anything has moved until everything has."""
        return flow_times(self.request(1.0), _PER_DECADE)

    def clock(self, rows: float) -> float:
        """The time of one update, learning rate times c_k.

        Raises InputError for a learning rate that is not stable.
        """
        largest = self.request(rows).largest_rate
        if self.learning_rate is not None and self.learning_rate >= largest:
            allowed = f"a number below {largest:.6g}, the largest stable one of the stage {self.stage}"
            reject("learning_rate", f"{self.learning_rate:g}", allowed)
        return self.copies * (largest / 2 if self.learning_rate is None else self.learning_rate)

    @cached_property
    def _clocks(self) -> tuple[Array, Array]:
        """The logarithms of the clock on numbers of rows: it is smooth, and the search uses many of them."""
        rows = np.geomspace(1.0, max(self.most, 2), _CLOCKS)
        if self.learning_rate is not None:
            return np.log(rows), np.full(_CLOCKS, math.log(self.learning_rate * self.copies))
        return np.log(rows), np.log([self.clock(B) for B in rows])

    def updates(self, rows: float, time: float) -> float:
        """The number of updates, not rounded, that a training ``time`` takes on so many ``rows``."""
        return max(1.0, time * math.exp(-np.interp(math.log(rows), *self._clocks)))

    def count(self, rows: float, time: float) -> int:
        """The least whole number of updates that take a training time on so many rows."""
        return max(1, math.ceil(time / self.clock(rows) * (1 - _SAME)))

    def cost(self, rows: float, time: float) -> float:
        """The price of so many rows and of the updates of a training ``time``."""
        return self.price * rows + (self.update * self.updates(rows, time) if self.update else 0.0)

    def affordable(self, money: float, time: float) -> float:
        """The most rows that ``money`` buys together with the updates of a training time; 0 if none.

        More rows have a larger stable step and so take fewer updates: the number is sought from the most on
        downwards.
        """
        rows = float(self.most)
        for _ in range(_ROUNDS):
            left = money - (self.update * self.updates(rows, time) if self.update else 0.0)
            paid = self.most if self.price == 0 and left >= 0 else min(self.most, left / (self.price or 1))
            if paid < 1:
                return 0.0
            if paid >= rows * (1 - _SAME):
                return float(paid)
            rows = float(paid)
        return rows


Steps: TypeAlias = tuple[tuple[Rows, float, float], ...]
"""Stages in order, with their rows and times."""


@dataclass(frozen=True)
class Budget:
    """A model, the rows that each stage can take, what may be spent, and what the plans are judged by."""

    start: TrainedOperator
    sft: Rows
    outcome: Rows
    total: float
    objective: WeightedTest
    target: WeightedTest

    def train(self, steps: Steps) -> list[TrainedOperator]:
        """The model after each stage; one without rows leaves it."""
        found, model = [], self.start
        for kind, rows, time in steps:
            if rows > 0:
                (model,) = kind.request(rows).fit(model).ends([Stopping(time=time)])
            found.append(model)
        return found

    def error(self, steps: Steps) -> float:
        """The objective / d after the last stage, which is minimised."""
        return self.objective.error(self.train(steps)[-1] if steps else self.start)

    def alone(self, kind: Rows) -> Steps:
        """The best time of one stage, with all the rows that the budget buys then.

        No step where its rows show nothing.
        """
        if not len(kind.times):
            return ()

        def at(log_time: float) -> Steps:
            time = math.exp(log_time)
            return ((kind, kind.affordable(self.total, time), time),)

        places = np.log(kind.times)
        errors = np.array([self.error(at(x)) for x in places])
        best = int((errors <= errors.min() * (1 + _SETTLED)).argmax())
        place, least = least_beside(lambda x: self.error(at(x)), places, best, 1e-3)
        return at(place if least < errors[best] * (1 - _SETTLED) else places[best])

    def both(self, sft: Steps, outcome: Steps) -> Steps:
        """The best share of the budget for SFT and the best times, from those of the stages alone."""
        if not (sft and outcome):
            return sft or outcome

        def at(place: Array) -> Steps:
            share = float(np.clip(place[0], 0, 1))
            first, second = np.exp(place[1:]).tolist()
            rows = self.sft.affordable(share * self.total, first)
            beside = self.outcome.affordable((1 - share) * self.total, second)
            return (self.sft, rows, first), (self.outcome, beside, second)

        centres = [math.log(steps[0][2]) for steps in (sft, outcome)]
        bounds = [(0.0, 1.0), *((np.log(k.times[0]), np.log(k.times[-1])) for k in (self.sft, self.outcome))]
        starts = [
            np.clip([share, centres[0] + x, centres[1] + y], *np.transpose(bounds))
            for share in _SHARES
            for x in _ASIDE
            for y in _ASIDE
        ]
        errors = [self.error(at(place)) for place in starts]
        # The best start of each share, of which the best are refined.
        per_share = [
            min(range(i, i + len(_ASIDE) ** 2), key=errors.__getitem__)
            for i in range(0, len(starts), len(_ASIDE) ** 2)
        ]
        chosen = sorted(per_share, key=errors.__getitem__)[:_STARTS]
        found = [
            scipy.optimize.minimize(
                lambda place: self.error(at(place)),
                starts[i],
                method="Nelder-Mead",
                bounds=bounds,
                options={
                    "initial_simplex": starts[i] + np.vstack([np.zeros(3), np.diag(_SIMPLEX)]),
                    "xatol": 3e-3,
                    "fatol": 1e-5 * errors[i],
                    "maxfev": _EVALUATIONS,
                },
            )
            for i in chosen
        ]
        return at(min(found, key=lambda one: float(one.fun)).x)

    def whole(self, steps: Steps) -> Steps:
        """The stages in whole rows and, where updates have a price, whole updates, within the budget.

        The number of updates is the best real number rounded up or down, whichever gives the smaller error.
        The rest of the budget is spent on rows.
        """
        roundings: list[Steps] = [()]
        for kind, rows, time in steps:
            roundings = [(*before, *one) for before in roundings for one in _roundings(kind, rows, time)]
        paid = [one for one in roundings if self._left(one) >= -_ROUNDING * self.total]
        return min((self._spent(one) for one in paid), key=self.error)

    def _left(self, steps: Steps) -> float:
        """What whole rows and updates leave of the budget."""
        spent = (kind.price * rows + kind.update * kind.count(rows, time) for kind, rows, time in steps)
        return self.total - sum(spent)

    def _spent(self, steps: Steps) -> Steps:
        """``steps`` with as many rows more as what they leave of the budget buys, in their order."""
        left, found = self._left(steps), []
        for kind, rows, time in steps:
            more = min(kind.most - rows, max(0, _floor(left / kind.price))) if kind.price else 0.0
            # More rows have a larger stable step: the time takes no more updates.
            left -= kind.price * more
            found.append((kind, rows + more, time))
        return tuple(found)

    def told(self, steps: Steps) -> tuple[ScheduledStage, ...]:
        """The stages as they are reported."""
        found = []
        for (kind, rows, time), model in zip(steps, self.train(steps), strict=True):
            count = kind.count(rows, time)
            found.append(
                ScheduledStage(
                    kind.stage,
                    int(rows),
                    time,
                    count,
                    count,
                    time / (kind.copies * count),
                    self.target.error(model),
                    kind.price * rows + kind.update * count,
                )
            )
        return tuple(found)

    def next_unit(self, steps: Steps) -> NextUnit | None:
        """The best use of a further unit of money at the plan of real numbers, by central differences.

        Rows and updates of the best plan have the same value there; updates are reported where no rows can be
        bought.
        """
        found: list[tuple[float, Rows, Bought]] = []
        for place, (kind, rows, time) in enumerate(steps):
            if rows == 0:
                continue

            def moved(rows: float, time: float, place: int = place, kind: Rows = kind) -> tuple[float, float]:
                changed = (*steps[:place], (kind, rows, time), *steps[place + 1 :])
                return self.error(changed), kind.cost(rows, time)

            if kind.price and rows < kind.most:
                gain = _gain(*(moved(rows * (1 + x), time) for x in (-_STEP, _STEP)))
                found.append((gain, kind, "rows"))
            elif kind.update:
                gain = _gain(*(moved(rows, time * (1 + x)) for x in (-_STEP, _STEP)))
                found.append((gain, kind, "updates"))
        if not found:
            return None
        gain, kind, buys = max(found, key=lambda one: one[0])
        return NextUnit(kind.stage, buys, gain) if gain > 0 else None


def _floor(x: float) -> int:
    """The largest whole number up to ``x``, but for rounding."""
    return math.floor(x * (1 + _ROUNDING))


def _roundings(kind: Rows, rows: float, time: float) -> list[Steps]:
    """Whole rows of one stage and their time, for the money of real ones; no step for less than one row."""
    B = min(_floor(rows), kind.most)
    if B < 1:
        return [()]
    if not kind.update:
        return [((kind, float(B), time),)]
    money, real = kind.cost(rows, time), time / kind.clock(B)
    # The search has the clock by interpolation, which must not buy an update more than there is money for.
    fewer = min(math.floor(real * (1 + _SAME)), _floor(money / kind.update))
    found: list[Steps] = []
    for count in sorted({max(1, fewer), max(1, math.ceil(real * (1 - _SAME)))}):
        left = money - kind.update * count
        paid = min(kind.most, _floor(left / kind.price)) if kind.price else kind.most
        if paid >= 1:
            found.append(((kind, float(paid), min(time, count * kind.clock(paid))),))
    return found or [()]


def _gain(below: tuple[float, float], above: tuple[float, float]) -> float:
    """The decrease of the error for each unit of cost between two (error, cost); 0 where the cost stays."""
    return (below[0] - above[0]) / (above[1] - below[1]) if above[1] > below[1] else 0.0
