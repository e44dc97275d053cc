"""Where a stage's batches come from: fixed prompts in epochs, or fresh ones at every step.

Everything random is a function of (seed, step), so a resumed run gets the same batches. Batches are drawn
on the CPU and moved to the model's device by the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Protocol

import numpy as np
import torch

from datadose.errors import reject, require_integer
from datadose.models import PromptBatch
from datadose.prompts import random_stream
from datadose.shapes import Operator


class Data(Protocol):
    """A source of batches."""

    @property
    def size(self) -> int | None:
        """The number of prompts in a batch; None means all of them."""

    @property
    def prompts(self) -> int | None:
        """The number B of fixed prompts; None for fresh prompts."""

    def batch(self, step: int) -> PromptBatch:
        """The batch of optimiser step ``step`` (from 0), which is a function of the step alone."""


@dataclass(frozen=True)
class FixedData:
    """Fixed prompts in every epoch, in a new order; with ``size`` None a batch holds all of them."""

    whole: PromptBatch
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size is not None:
            require_integer("batch", self.size, 1)
        if self.size is not None and self.size > self.whole.prompts:
            reject("batch", self.size, f"at most the number of prompts, {self.whole.prompts}")

    @property
    def prompts(self) -> int:
        """The number B of prompts."""
        return self.whole.prompts

    def batch(self, step: int) -> PromptBatch:
        """See :class:`Data`; the last batch of an epoch may be smaller."""
        if self.size is None or self.size == self.prompts:
            return self.whole
        epoch, place = divmod(step, -(-self.prompts // self.size))
        order = random_stream([self.seed, epoch], "order").permutation(self.prompts)
        chosen = torch.from_numpy(order[place * self.size : (place + 1) * self.size])
        return self.whole.take(chosen.to(self.whole.weights.device))


@dataclass(frozen=True)
class SideBySide:
    """Runs that train side by side on fixed prompts of their own, whose numbers B may differ.

    Args:
        each: the data of every run, with one run dimension of 1. All have one size of batch, of which B is a
            multiple, so that the batches of all runs have one shape at every step.

    Raises:
        InputError: no run, sizes that differ, or a B that is not a multiple of the size.
    """

    each: tuple[FixedData, ...]
    prompts: ClassVar[None] = None
    """No common number: epochs have no meaning."""

    def __post_init__(self) -> None:
        sizes = {data.size or data.prompts for data in self.each}
        if len(sizes) != 1:
            reject("batch", sorted(sizes), "one size for all runs, of which there is at least one")
        for data in self.each:
            if data.prompts % (data.size or data.prompts):
                reject("prompts", data.prompts, f"a multiple of the batch, {data.size}")

    @property
    def size(self) -> int:
        """Prompts of a run in a batch."""
        return self.each[0].size or self.each[0].prompts

    def batch(self, step: int) -> PromptBatch:
        """See :class:`Data`."""
        return PromptBatch.join([data.batch(step) for data in self.each], dim=0)


@dataclass(frozen=True)
class FreshData:
    """New prompts at every step: the population regime.

    ``covariance`` is one covariance, or a mixture of (weight, covariance) categories: each prompt then
    belongs to a category with probability proportional to its weight; a batch holds them by category.
    ``hold_inputs`` draws the inputs X themselves, for models that read more than S.
    """

    covariance: Operator | tuple[tuple[float, Operator], ...]
    length: int
    size: int
    seeds: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    hold_inputs: bool = False
    prompts: ClassVar[None] = None
    """No fixed number: epochs have no meaning."""

    def batch(self, step: int) -> PromptBatch:
        """See :class:`Data`."""
        if not isinstance(self.covariance, tuple):
            return self._draw(self.covariance, self.size, [(seed, step) for seed in self.seeds])
        runs = [self._mixed(self.covariance, seed, step) for seed in self.seeds]
        return PromptBatch.join(runs, dim=0)

    def _draw(self, covariance: Operator, size: int, seeds: Sequence[tuple[int, ...]]) -> PromptBatch:
        return PromptBatch.draw(
            covariance, self.length, size, seeds=seeds, dtype=self.dtype, hold_inputs=self.hold_inputs
        )

    def _mixed(self, categories: tuple[tuple[float, Operator], ...], seed: int, step: int) -> PromptBatch:
        """One run's batch: category sizes by a multinomial draw, then each category's prompts."""
        weights = np.array([weight for weight, _ in categories])
        sizes = random_stream([seed, step], "order").multinomial(self.size, weights / weights.sum())
        parts = [
            self._draw(covariance, int(size), [(seed, step, place)])
            for place, (size, (_, covariance)) in enumerate(zip(sizes, categories, strict=True))
            if size > 0
        ]
        return PromptBatch.join(parts, dim=1)


def keep_on(data: Data, device: torch.device) -> Data:
    """``data`` with prompts that are used repeatedly moved to ``device`` once."""
    return replace(data, whole=data.whole.to(device)) if isinstance(data, FixedData) else data


def split(batch: PromptBatch, parts: int) -> list[tuple[PromptBatch, float]]:
    """``batch`` in ``parts`` consecutive shares of its prompts, sizes as equal as can be, with weights.

    The weights are shares of B: the weighted sum of means over the shares is the mean over the batch.
    InputError if there are fewer prompts than parts.
    """
    B = batch.prompts
    if parts > B:
        reject("batch", B, f"at least a prompt for each of {parts} parts")
    if parts == 1:
        return [(batch, 1.0)]
    ends = [B * i // parts for i in range(parts + 1)]
    device = batch.weights.device
    return [
        (batch.take(torch.arange(low, high, device=device)), (high - low) / B) for low, high in pairwise(ends)
    ]
