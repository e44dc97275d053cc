"""Fine-tuning of SmolLM2 by LoRA at equal tokens and equal updates, and exact losses, without padding.

The rows of a batch stand one behind the other as one sequence, each with positions from 0 on, so that none
sees another. An update takes rows, epoch after epoch in orders of their own, until all updates together have
had their tokens (prompts and completions): whatever rows an arm has, after s updates it has trained on
s * ``tokens`` tokens, up to a part of one row. Products of matrices are in bfloat16 where the configuration
has it, everything else and all weights in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datadose.llm.chat import Encoded
from datadose.llm.language_model import LanguageModel

_PASS_TOKENS = 256
"""Tokens of a pass that only measures, about: more no longer saves time."""


@dataclass(frozen=True)
class Training:
    """How every arm is trained: AdamW without decay, gradients clipped at norm 1.

    Args:
        rate: the learning rate after ``warmup`` updates, constant from then on.
        updates: numbers of updates at which the model is measured, increasing.
        tokens: of an update, prompts and completions: eight rows of the pool's mean length.
        warmup: updates over which the rate rises linearly.
        rank: of the adapter on all linear layers, alpha twice as large.
        bfloat16: whether products of matrices are in bfloat16.
    """

    rate: float
    updates: tuple[int, ...]
    tokens: int = 208
    warmup: int = 3
    rank: int = 8
    bfloat16: bool = True


@dataclass(frozen=True)
class Losses:
    """Of some rows: what their completions cost, exactly.

    Args:
        loss: mean cross-entropy a completion token, nats.
        probability: mean probability of the whole completion, with its line's end.
    """

    loss: float
    probability: float


def load_lines(base: Path, **options: Any) -> LanguageModel:
    """The model of a folder, for rows of one line each: a line's end, not its end token, ends a completion.

    So the tokens that are scored are those that are trained on and measured. ``options`` are those of
    :meth:`LanguageModel.load`.
    """
    model = LanguageModel.load(base, **options)
    model.tokenizer.eos_token = "\n"
    return model


def token_batches(lengths: Sequence[int], tokens: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Batches of rows without end, so that the first s of them have s * ``tokens`` tokens, up to one row.

    Args:
        lengths: tokens of each row.
        tokens: of a batch, on average; a batch has one row at least.
        seed: of the order of rows, a new one each epoch.
    """
    rng = np.random.default_rng([seed, 2])
    order: list[int] = []
    had, due = 0, 0
    while True:
        due += tokens
        batch: list[int] = []
        while had < due or not batch:
            order = order or rng.permutation(len(lengths)).tolist()
            batch.append(order.pop())
            had += lengths[batch[-1]]
        yield np.array(batch)


def completion_nll(model: LanguageModel, rows: Sequence[Encoded], *, bfloat16: bool) -> tuple[Tensor, Tensor]:
    """The NLL (nats) of each row's completion and the number of its tokens, (N,), with gradients."""
    ids = torch.from_numpy(np.concatenate([row.ids for row in rows]).astype(np.int64))
    positions = torch.cat([torch.arange(row.length) for row in rows])
    starts = np.cumsum([0, *(row.length for row in rows[:-1])])
    places = torch.from_numpy(np.concatenate([at + row.places for at, row in zip(starts, rows, strict=True)]))
    counts = torch.tensor([row.targets for row in rows])
    owners = torch.repeat_interleave(torch.arange(len(rows)), counts)
    # Positions that begin again are how transformers knows several rows of one sequence apart.
    # A context for each pass: it keeps bfloat16 copies of trained weights until it ends.
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        hidden = model.model.base_model(
            input_ids=ids[None], position_ids=positions[None], use_cache=False
        ).last_hidden_state[0]
        logits = model.model.get_output_embeddings()(hidden[places - 1])
    nll = torch.nn.functional.cross_entropy(logits.float(), ids[places], reduction="none")
    return torch.zeros(len(rows)).index_add(0, owners, nll), counts


def mean_loss(model: LanguageModel, rows: Sequence[Encoded], *, bfloat16: bool) -> Tensor:
    """Mean cross-entropy a completion token, nats."""
    nll, counts = completion_nll(model, rows, bfloat16=bfloat16)
    return nll.sum() / counts.sum()


@torch.no_grad()
def measure(model: LanguageModel, rows: Sequence[Encoded], *, bfloat16: bool) -> Losses:
    """Loss and probability of ``rows``' completions."""
    ends = np.cumsum([row.length for row in rows])
    parts = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(ends // _PASS_TOKENS)) + 1)
    found = [completion_nll(model, [rows[i] for i in part], bfloat16=bfloat16) for part in parts]
    nll, counts = (torch.cat(each).double() for each in zip(*found, strict=True))
    return Losses(float(nll.sum() / counts.sum()), float((-nll).exp().mean()))
