"""Post-training in the study: supervised fine-tuning, training one symbol's embedding, and GRPO.

The loops are short and our own: the libraries' trainers take two to three times as long for a model of this
size (a GRPO step of 16 x 8 completions with TRL 1.16: 0.65 s on one core), and the study is hundreds of runs.
The losses are TRL's: mean cross-entropy over completion tokens; and for GRPO its default ``dapo`` loss with
one update a batch, where the importance ratio is 1 and nothing is clipped, rewards scaled by the group's
standard deviation, no KL term, normalised by the batch's number of completion tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datadose.studies.token_study.language import FRESH, LENGTHS, Example
from datadose.studies.token_study.model import (
    END,
    IGNORED,
    PAD,
    VOCABULARY,
    answer_ids,
    completion_loss,
    encode,
    pad_rows,
    token_ids,
    warm_up_and_down,
)

GROUP = 8
"""Completions a prompt."""
_EPSILON = 1e-4
"""TRL's addition to the standard deviation of a group's rewards."""


@dataclass(frozen=True)
class TokenOptimisation:
    """AdamW steps of a batch size, warmed up and then linearly down to 0."""

    steps: int
    rate: float
    batch: int = 32

    @property
    def warmup(self) -> int:
        """A tenth of the steps, at most 10."""
        return max(1, min(10, self.steps // 10))


def fine_tune(
    model: Any,
    examples: Sequence[Example],
    optimisation: TokenOptimisation,
    seed: int,
    replay: Sequence[Example] = (),
    share: float = 0.0,
) -> None:
    """Fine-tune every weight of ``model`` in place; a ``share`` of each batch comes from ``replay``."""
    tokens = encode([*examples, *replay])
    mixed = round(share * optimisation.batch)
    own = endless_batches(len(examples), min(optimisation.batch - mixed, len(examples)), seed)
    other = (
        endless_batches(len(replay), mixed, seed + 1) if mixed else itertools.repeat(np.zeros(0, dtype=int))
    )
    optimiser, schedule = _optimiser(list(model.parameters()), optimisation)
    for _ in range(optimisation.steps):
        rows = np.concatenate([next(own), next(other) + len(examples)])
        completion_loss(model, tokens.at(rows)).backward()  # type: ignore[no-untyped-call]
        _advance(optimiser, schedule)


def train_symbol(model: Any, examples: Sequence[Example], optimisation: TokenOptimisation, seed: int) -> None:
    """Train the embedding of FRESH alone, in place, from the mean of all symbols' embeddings."""
    tokens = encode(examples)
    for weight in model.parameters():
        weight.requires_grad_(False)
    table = model.get_input_embeddings().weight
    place = VOCABULARY[FRESH]
    fresh = table.mean(dim=0).clone().requires_grad_(True)
    optimiser, schedule = _optimiser([fresh], optimisation)
    size = min(optimisation.batch, len(tokens))
    batches = endless_batches(len(tokens), size, seed)
    for _ in range(optimisation.steps):
        batch = tokens.at(next(batches))
        inputs = torch.where((batch.inputs == place).unsqueeze(-1), fresh, table[batch.inputs])
        completion_loss(model, batch, inputs).backward()  # type: ignore[no-untyped-call]
        _advance(optimiser, schedule)
    with torch.no_grad():
        table[place] = fresh


def grpo(model: Any, examples: Sequence[Example], optimisation: TokenOptimisation, seed: int) -> list[float]:
    """GRPO with reward 1 for the right text, in place; ``batch`` counts prompts. Returns mean rewards."""
    optimiser, schedule = _optimiser(list(model.parameters()), optimisation)
    batches = endless_batches(len(examples), min(optimisation.batch, len(examples)), seed)
    mean_rewards = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(optimisation.steps):
            prompts, answers = zip(
                *(examples[i] for i in np.repeat(next(batches), GROUP).tolist()), strict=True
            )
            sampled = sample(model, prompts)
            rewards = torch.tensor([float(s == answer_ids(a)) for s, a in zip(sampled, answers, strict=True)])
            mean_rewards.append(float(rewards.mean()))
            loss = grpo_loss(model, prompts, sampled, rewards)
            if loss is not None:
                loss.backward()  # type: ignore[no-untyped-call]
            _advance(optimiser, schedule)
    return mean_rewards


def grpo_loss(
    model: Any, prompts: Sequence[str], sampled: Sequence[list[int]], rewards: Tensor
) -> Tensor | None:
    """The policy loss of groups of GROUP completions in a row; None if no group has two rewards.

    Completions without an advantage have no gradient and count only among the tokens.
    """
    groups = rewards.view(-1, GROUP)
    centred = groups - groups.mean(dim=1, keepdim=True)
    advantages = (centred / (groups.std(dim=1, keepdim=True) + _EPSILON)).flatten()
    used = advantages.nonzero().flatten()
    if len(used) == 0:
        return None
    tokens = pad_rows([(token_ids(prompts[i]), sampled[i]) for i in used.tolist()])
    logits = model(input_ids=tokens.inputs, use_cache=False).logits
    nll = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), tokens.labels[:, 1:], ignore_index=IGNORED, reduction="none"
    )
    return (nll.sum(dim=1) * advantages[used]).sum() / sum(len(s) for s in sampled)


def sample(model: Any, prompts: Sequence[str]) -> list[list[int]]:
    """One completion a prompt at temperature 1, the end token included if it was reached."""
    longest = max(len(p) for p in prompts)
    inputs = torch.full((len(prompts), longest), VOCABULARY[PAD])
    for i, prompt in enumerate(prompts):
        inputs[i, longest - len(prompt) :] = torch.tensor(token_ids(prompt))
    with torch.no_grad():
        made = model.generate(
            input_ids=inputs,
            attention_mask=(inputs != VOCABULARY[PAD]).long(),
            max_new_tokens=LENGTHS[-1] + 2,
            do_sample=True,
            top_k=0,
        )[:, longest:].tolist()
    end = VOCABULARY[END]
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in made]


def endless_batches(count: int, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Batches of indices without end, every epoch in an order of its own; epochs run into each other."""
    rng = np.random.default_rng([seed, 2])
    left = rng.permutation(count)
    while True:
        while len(left) < size:
            left = np.concatenate([left, rng.permutation(count)])
        yield left[:size]
        left = left[size:]


def _optimiser(weights: list[Any], optimisation: TokenOptimisation) -> tuple[Any, Any]:
    optimiser = torch.optim.AdamW(weights, lr=optimisation.rate, weight_decay=0.0)
    return optimiser, warm_up_and_down(optimiser, optimisation.warmup, optimisation.steps)


def _advance(optimiser: Any, schedule: Any) -> None:
    torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
    optimiser.step()
    optimiser.zero_grad()
    schedule.step()
