"""Training with a measurement of the model after given numbers of updates, for any loss on chosen rows.

The optimisers, rates and orders of the rows are those of :mod:`datadose.stages`; what is added is a weight
for each row in the loss, and a measurement of the model on its way. The rate is constant, so one after 100
updates of a run of 3,000 is a run of 100.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from datadose.prompts import random_stream
from datadose.shapes import Int
from datadose.stages.optimisation import Optimisation, Optimiser

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Trajectory:
    """An optimiser at a constant rate, and when the model is measured.

    Args:
        optimiser: "gd" with all rows in every batch, "sgd", "adam" or "adamw".
        learning_rate: > 0.
        batch: rows of an update, at most all of them; None for all.
        updates: numbers of updates >= 0 after which the model is measured, ascending.
        clip: the largest norm of a gradient, None for any.
    """

    optimiser: Optimiser
    learning_rate: float
    batch: int | None
    updates: tuple[int, ...]
    clip: float | None = None

    def size(self, rows: int) -> int:
        """Rows of an update with ``rows`` of them."""
        return rows if self.batch is None else min(self.batch, rows)

    def epochs(self, rows: int, updates: int) -> float:
        """How often a row was used on average."""
        return updates * self.size(rows) / rows


def batch_rows(rows: int, size: int, seed: int, update: int) -> Int[Tensor, " b"]:
    """The rows of an update: those of :class:`~datadose.stages.data.FixedData`."""
    if size == rows:
        return torch.arange(rows)
    epoch, place = divmod(update, -(-rows // size))
    order = random_stream([seed, epoch], "order").permutation(rows)
    return torch.from_numpy(order[place * size : (place + 1) * size])


def follow(
    model: nn.Module,
    trajectory: Trajectory,
    rows: int,
    seed: int,
    loss: Callable[[Int[Tensor, " b"]], Tensor],
    look: Callable[[], Seen],
) -> list[tuple[int, float, Seen]]:
    """Train ``model`` in place; (updates, epochs, what ``look`` returned) for each number of updates.

    Args:
        model: what moves.
        trajectory: the optimiser and the numbers of updates.
        rows: how many rows there are.
        seed: of their order.
        loss: of the rows with these numbers, a scalar that the model's parameters differentiate.
        look: measures the model as it is.
    """
    how = Optimisation(trajectory.optimiser, trajectory.learning_rate, steps=trajectory.updates[-1])
    optimiser, size = how.build(model), trajectory.size(rows)
    found: list[tuple[int, float, Seen]] = []
    for update in range(trajectory.updates[-1] + 1):
        if update in trajectory.updates:
            with torch.no_grad():
                found.append((update, trajectory.epochs(rows, update), look()))
        if update == trajectory.updates[-1]:
            break
        optimiser.zero_grad(set_to_none=True)
        backward: Any = torch.autograd.backward
        backward(loss(batch_rows(rows, size, seed, update)))
        if trajectory.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), trajectory.clip)
        optimiser.step()
    return found
