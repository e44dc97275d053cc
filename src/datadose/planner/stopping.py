"""The best training time with the rows and the weights that it is for, and the same as steps and epochs.

Time t is that of gradient flow on (1/(2B)) sum_c w_c ||V Phi_c + eta Omega_c||_F^2, where B counts the rows
with a weight above zero. T steps of gradient descent at a learning rate gamma on the loss of chains of k + 1
steps, which has a factor c_k more, take the time gamma c_k T. A step uses every row once: epochs are steps.
With batches of b rows, drawn from all rows alike and with the weights in the loss, T updates at the same
learning rate take the same time on average, and are T b / B epochs. In batches drawn by share (a row of
source c in proportion to w_c, weight 1 in the loss) an update moves B / sum_c w_c B_c times as far, so the
learning rate times sum_c w_c B_c / B gives the same steps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from datadose.errors import reject
from datadose.planner.judged import Judged, enough_rows, errors_of
from datadose.planner.pool import Decided, Pool
from datadose.planner.timing import COARSE, TimedRows, choose_time, pulled, time_of
from datadose.shapes import Array, Float
from datadose.theory.sft import chain_weight
from datadose.theory.stopping import MOST_STEPS, Stopping

NEAR = 0.05
"""Times with an objective within this share of the least count as near-optimal."""
_A_LITTLE = 1e-3
"""The share of its largest eigenvalue that a source pulls where its first pull is judged."""
_TIE = 1e-9


@dataclass(frozen=True)
class TimePoint:
    """The errors / d after a time, of the curve that the best time was found on."""

    time: float
    objective: float
    predicted: float
    """The error / d on the target."""
    predicted_pretraining: float
    """The error / d on Sigma0."""


@dataclass(frozen=True, kw_only=True)
class Stopped(Judged):
    """Training to its best time."""

    time: float | None
    """The time of gradient flow; None, with a reason, where the error falls for as long as training lasts."""
    steps: int | None
    """The steps of gradient descent on all rows at ``learning_rate``; None without an end, and above 1e12."""
    epochs: int | None
    """The number of ``steps`` again: a step on all rows is an epoch (module docstring, also for batches)."""
    learning_rate: float | None
    """The learning rate of the plan, or half of the largest stable one; None where nothing is trained."""
    learning_rate_by_share: float | None
    """The learning rate at which as many updates take as long in batches drawn by share, with weight 1 in the
    loss. With equal weights it is the same rate.
    """
    error_of_steps: float | None
    """The error / d on the target after exactly so many steps, with the effect of rounding and step size."""
    near_optimal_time: tuple[float, float | None]
    """The range of times around the best with an objective within 5 percent; None: it has no end."""
    curve: tuple[TimePoint, ...]

    def to_json(self) -> dict[str, Any]:
        """The section of the document that `datadose plan --json` prints."""
        return {**asdict(self), "near_optimal_time": list(self.near_optimal_time)}


def choose_stopping(pool: Pool, *, tuned: bool, learning_rate: float | None) -> tuple[Stopped, Decided]:
    """The best training time of a pool, with the rows of each source and, if ``tuned``, their weights.

    Args:
        pool: the sources, the model before training and the goal.
        tuned: whether the weight of each source's rows in the loss is chosen as well; else all are 1.
        learning_rate: of the steps that are reported; None for half of the largest stable one.

    Raises InputError for a learning rate at which descent on the planned rows diverges.
    """
    found = choose_time(pool, tuned=tuned)
    decided = _decided(pool, found, tuned=tuned)
    top, needed = _ceiling(pool, tuned=tuned)
    alike = TimedRows(pool.all_alike, np.ones(len(pool.sources)), time_of(pool, pool.all_alike, None, COARSE))
    on_all = _decided(pool, alike, tuned=False)
    low, high = found.best.near(NEAR)
    curve = zip(found.best.grid, found.best.errors, *found.best.also, strict=True)
    return Stopped(
        **errors_of(pool, decided, on_all),
        **_steps(pool, decided, found.best.time, learning_rate),
        time=found.best.time,
        near_optimal_time=(low, None if np.isinf(high) else high),
        curve=tuple(TimePoint(*(float(x) for x in point)) for point in curve),
        ceiling=top,
        scarcity=decided.objective - top,
        prompts_within_10_percent=needed,
    ), decided


def _decided(pool: Pool, found: TimedRows, *, tuned: bool) -> Decided:
    best = found.best
    if best.time == 0:
        return pool.left_untouched(best.reason or "")
    stopping = Stopping() if best.time is None else Stopping(time=best.time)
    counts = np.where(found.weights > 0, found.counts, 0.0)
    decided = Decided(counts, found.weights, stopping, best.model, best.error, best.reason)
    return replace(decided, reasons=_reasons(pool, found)) if tuned else decided


def _reasons(pool: Pool, found: TimedRows) -> tuple[str, ...]:
    """Why a source has weight zero: what a little of it would do to the objective."""
    counts, weights, time = found.counts, found.weights, found.best.time
    if time is None or not (weights == 0).any():
        return tuple("" if w > 0 else _IDLE for w in weights)
    pulls = weights * time / counts[weights > 0].sum()
    base = pool.goal.objective.error(pulled(pool, counts, pulls))
    said = []
    for at, (w, columns) in enumerate(zip(weights, pool.columns, strict=True)):
        largest = float(np.abs(columns.second_moment).max())
        if w > 0 or largest == 0 or counts[at] == 0:
            said.append("" if w > 0 else "it has no rows" if counts[at] == 0 else "its covariance is zero")
            continue
        little = pulls + np.eye(len(weights))[at] * _A_LITTLE / (largest * counts[at])
        rise = pool.goal.objective.error(pulled(pool, counts, little)) - base
        said.append("any weight on it raises the error" if rise > _TIE * base else _IDLE)
    return tuple(said)


_IDLE = "the other sources already fit all that it shows: its weight changes nothing"


def _steps(pool: Pool, decided: Decided, time: float | None, learning_rate: float | None) -> dict[str, Any]:
    """The time as steps, the learning rate that they are for, and the error of exactly these steps."""
    names = ("steps", "epochs", "learning_rate", "learning_rate_by_share", "error_of_steps")
    if time == 0:
        error = pool.goal.target.error(pool.untouched)
        return dict(zip(names, (0, 0, learning_rate, learning_rate, error), strict=True))
    weights = decided.weights
    largest = pool.request(decided.counts, weights).largest_rate
    rate = largest / 2 if learning_rate is None else learning_rate
    if rate >= largest:
        allowed = f"a number below {largest:.6g}, the largest stable one on the planned rows"
        reject("learning_rate", f"{rate:g}", allowed)
    slower = float(weights @ decided.counts) / float(decided.counts[weights > 0].sum())
    count = np.inf if time is None else time / (rate * chain_weight(pool.eta, pool.chain_steps))
    if count > MOST_STEPS:
        return dict(zip(names, (None, None, rate, rate * slower, None), strict=True))
    steps = max(1, round(count))
    model = pool.trained(decided.counts, Stopping(steps=steps, learning_rate=rate), weights)
    told = (steps, steps, rate, rate * slower, pool.goal.target.error(model))
    return dict(zip(names, told, strict=True))


def _ceiling(pool: Pool, *, tuned: bool) -> tuple[float, int | None]:
    """The least objective of unlimited rows over all times, and the rows that come within a tenth of it.

    In the pool's proportions, or at the weights that are best with unlimited rows. With matrices of several
    sources the time is held at that of unlimited rows, which requires a few more rows.
    """
    test, shares = pool.goal.objective, pool.shares
    if tuned and len(shares) > 1:
        top, pulls = pool.unlimited_pulls
    else:
        top, time = pool.flow.ceiling(test, shares)
        pulls = np.where(np.isinf(time), 0.0, time) * shares
    weights = _weights(pulls, shares)

    def objective(total: float) -> float:
        rows = total * shares
        if pool.is_cheap or not pulls.any():
            return time_of(pool, rows, weights, COARSE).error
        return test.error(pulled(pool, rows, pulls / rows))

    return top, enough_rows(pool, top, objective)


def _weights(pulls: Array, shares: Float[Array, " K"]) -> Float[Array, " K"]:
    """Weights of the rows that pull so, the largest 1; all alike where none pulls."""
    by_row = pulls / shares
    return np.asarray(by_row / by_row.max() if by_row.any() else np.ones(len(shares)))
