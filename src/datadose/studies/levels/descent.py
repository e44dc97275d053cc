"""Fine-tuning of a language model that is measured on its way: one run gives all its training lengths.

The rate is constant after its warm-up. A rate that falls to 0, as trainers have it, would make a run of 30
updates another thing than the first 30 of a run of 300; it is there for runs of one length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datadose.studies.token_study.model import IGNORED, Tokens
from datadose.studies.token_study.training import endless_batches

Outputs = Callable[[Tensor], Tensor]
"""The logits (N, T, vocabulary) of token ids (N, T)."""


@dataclass(frozen=True)
class Descent:
    """AdamW without decay, gradients clipped at norm 1, batches without replacement epoch after epoch.

    Args:
        rate: the learning rate after ``warmup`` updates.
        updates: numbers of updates at which the model is measured, increasing; 0 is the untouched model.
        batch: rows of a batch, or all rows where there are fewer.
        warmup: updates over which the rate rises linearly.
        falling: whether the rate then falls linearly to 0 at the last of ``updates``.
    """

    rate: float
    updates: tuple[int, ...]
    batch: int = 32
    warmup: int = 10
    falling: bool = False

    def factor(self, done: int) -> float:
        """What the rate is multiplied with after ``done`` updates."""
        return min(1.0, (done + 1) / self.warmup) * (1 - done / self.updates[-1] if self.falling else 1.0)

    def epochs(self, updates: int, rows: int) -> float:
        """How often a row was used, of ``rows``."""
        return updates * min(self.batch, rows) / rows


def descend(
    weights: Iterable[Any],
    loss: Callable[[NDArray[np.int64]], Tensor],
    rows: int,
    descent: Descent,
    seed: int,
    weights_of_rows: NDArray[np.float64] | None = None,
) -> Iterator[int]:
    """Train ``weights`` in place, and give the number of updates whenever it is one of ``descent.updates``.

    Args:
        weights: the tensors that are trained.
        loss: the mean loss of the rows with these numbers, (b,) of 0 to ``rows`` - 1.
        rows: the number of rows.
        descent: rate, batches and when to look.
        seed: of the order of rows.
        weights_of_rows: sampling weights, (``rows``,), with which batches are drawn with replacement; None:
            without replacement, epoch after epoch.
    """
    if weights_of_rows is None:
        batches = endless_batches(rows, min(descent.batch, rows), seed)
    else:
        batches = weighted_batches(weights_of_rows, descent.batch, seed)
    return follow(weights, loss, batches, descent)


def follow(
    weights: Iterable[Any],
    loss: Callable[[NDArray[np.int64]], Tensor],
    batches: Iterator[NDArray[np.int64]],
    descent: Descent,
) -> Iterator[int]:
    """Train ``weights`` in place on ``batches``, which have no end; else as :func:`descend`."""
    trained = list(weights)
    optimiser = torch.optim.AdamW(trained, lr=descent.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, descent.factor)
    done = 0
    for wanted in descent.updates:
        for _ in range(wanted - done):
            loss(next(batches)).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
        done = wanted
        yield done


def weighted_batches(weights: NDArray[np.float64], size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Batches without end of indices drawn with replacement, each in proportion to its weight."""
    rng = np.random.default_rng([seed, 2])
    shares = weights / weights.sum()
    while True:
        yield rng.choice(len(shares), size=size, p=shares)


def row_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy over each row's completion, summed over its tokens, and the number of these, (N,)."""
    nll = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
    )
    return nll.sum(dim=1), (labels[:, 1:] != IGNORED).sum(dim=1)


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean cross-entropy over completion tokens, nats, where a row of weight w counts as w copies of it."""
    nll, tokens = row_losses(logits, labels)
    return (weights * nll).sum() / (weights * tokens).sum()


@dataclass(frozen=True)
class Score:
    """Of some rows: mean cross-entropy a completion token, nats; shares of tokens and of rows that are right.

    A token is right if it is the most probable one given the right ones before it, a row if all its are.
    """

    loss: float
    tokens: float
    rows: float


@torch.no_grad()
def score_tokens(outputs: Outputs, tokens: Tokens, chunk: int = 256) -> Score:
    """The score of ``tokens``' completions, which the logits ``outputs`` predict."""
    found: list[Sequence[Tensor]] = []
    for start in range(0, len(tokens), chunk):
        part = tokens.at(slice(start, start + chunk))
        logits, labels = outputs(part.inputs), part.labels[:, 1:]
        hit, counts = logits[:, :-1].argmax(dim=-1) == labels, labels != IGNORED
        found.append(
            (*row_losses(logits, part.labels), (hit & counts).sum(dim=1), (hit | ~counts).all(dim=1))
        )
    nll, count, right, whole = (torch.cat(each).double() for each in zip(*found, strict=True))
    total = float(count.sum())
    return Score(float(nll.sum()) / total, float(right.sum()) / total, float(whole.mean()))
