"""Post-training in the study: supervised fine-tuning, training one symbol's embedding, and GRPO.

The loops are short and our own: the libraries' trainers take two to three times as long for a model of this
size (a GRPO step of 16 x 8 completions with TRL 1.16: 0.65 s on one core), and the study is hundreds of runs.
The losses are TRL's: mean cross-entropy over completion tokens; and for GRPO its default ``dapo`` loss with
one update a batch, where the importance ratio is 1 and nothing is clipped, rewards scaled by the group's
standard deviation, no KL term, normalised by the batch's number of completion tokens.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
            loss, rewards = sampled_loss(model, [examples[i] for i in next(batches)])
            mean_rewards.append(float(rewards.mean()))
            if loss is not None:
                loss.backward()  # type: ignore[no-untyped-call]
            _advance(optimiser, schedule)
    return mean_rewards


def sampled_loss(
    model: Any,
    examples: Sequence[Example],
    vocabulary: Mapping[str, int] = VOCABULARY,
    most: int = LENGTHS[-1] + 2,
) -> tuple[Tensor | None, Tensor]:
    """(the policy loss of a step, rewards (N GROUP,)): GROUP completions of each of N prompts, judged.

    The reward is 1 for the right text, else 0. The loss is that of :func:`grpo_loss`; ``vocabulary`` and
    ``most`` are those of :func:`sample`.
    """
    prompts = [prompt for prompt, _ in examples for _ in range(GROUP)]
    answers = [answer_ids(answer, vocabulary) for _, answer in examples for _ in range(GROUP)]
    sampled = sample(model, prompts, vocabulary, most)
    rewards = torch.tensor([float(ids == answer) for ids, answer in zip(sampled, answers, strict=True)])
    return grpo_loss(model, prompts, sampled, rewards, vocabulary), rewards


def grpo_loss(
    model: Any,
    prompts: Sequence[str],
    sampled: Sequence[list[int]],
    rewards: Tensor,
    vocabulary: Mapping[str, int] = VOCABULARY,
) -> Tensor | None:
    """The policy loss of groups of GROUP completions in a row; None if no group has two rewards.

    Completions without an advantage have no gradient and count only among the tokens; equal completions of a
    prompt pass through the model once, with the sum of their advantages.
    """
    groups = rewards.view(-1, GROUP)
    centred = groups - groups.mean(dim=1, keepdim=True)
    advantages = (centred / (groups.std(dim=1, keepdim=True) + _EPSILON)).flatten().tolist()
    used: defaultdict[tuple[str, tuple[int, ...]], float] = defaultdict(float)
    for prompt, ids, advantage in zip(prompts, sampled, advantages, strict=True):
        if advantage != 0:
            used[prompt, tuple(ids)] += advantage
    if not used:
        return None
    tokens = pad_rows([(token_ids(prompt, vocabulary), [*ids]) for prompt, ids in used])
    logits = model(input_ids=tokens.inputs, use_cache=False).logits
    nll = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), tokens.labels[:, 1:], ignore_index=IGNORED, reduction="none"
    )
    return (nll.sum(dim=1) * torch.tensor([*used.values()])).sum() / sum(len(ids) for ids in sampled)


@torch.no_grad()
def sample(
    model: Any,
    prompts: Sequence[str],
    vocabulary: Mapping[str, int] = VOCABULARY,
    most: int = LENGTHS[-1] + 2,
) -> list[list[int]]:
    """One completion a prompt at temperature 1, the end token included if it was reached.

    Every completion is drawn by itself, token by token; those that agree so far share a row of the model's
    batch, which is a group of samples of a sure model in a few rows.

    Args:
        model: the model.
        prompts: texts; the same one again for more of its completions.
        vocabulary: the model's.
        most: tokens of a completion.
    """
    from transformers import DynamicCache  # noqa: PLC0415

    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    tokens = _padded_left([token_ids(prompt, vocabulary) for prompt in places])
    mask = (tokens != VOCABULARY[PAD]).long()
    row = torch.tensor([places[prompt] for prompt in prompts])
    active = torch.arange(len(prompts))
    made = torch.full((len(prompts), most), VOCABULARY[END])
    cache = DynamicCache(config=model.config)
    for place in range(most):
        # Positions are relative in this model, so those of the padding may count.
        found = model(input_ids=tokens, attention_mask=mask, cache=cache, use_cache=True, logits_to_keep=1)
        drawn = torch.multinomial(found.logits[:, -1].softmax(dim=-1)[row], 1).squeeze(1)
        made[active, place] = drawn
        on = drawn != VOCABULARY[END]
        active = active[on]
        if len(active) == 0 or place == most - 1:
            break
        prefixes, row = torch.unique(row[on] * len(vocabulary) + drawn[on], return_inverse=True)
        parents, tokens = prefixes // len(vocabulary), (prefixes % len(vocabulary)).unsqueeze(1)
        cache.batch_select_indices(parents)
        mask = torch.cat([mask[parents], torch.ones_like(tokens)], dim=1)
    end = VOCABULARY[END]
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in made.tolist()]


def _padded_left(rows: Sequence[list[int]]) -> Tensor:
    longest = max(len(ids) for ids in rows)
    return torch.tensor([[VOCABULARY[PAD]] * (longest - len(ids)) + ids for ids in rows])


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
