"""Completions sampled in batches: one prefill per prompt for all its samples, finished samples drop out.

Each sample has uniform numbers of its own, a function of the seed, the prompt and the sample's index alone,
and turns them into tokens by inverting the distribution function. So a sample does not depend on the batch it
is drawn in, except where rounding decides.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from datadose.errors import reject
from datadose.llm.cache import content_digest

if TYPE_CHECKING:
    from datadose.llm.language_model import LanguageModel


@dataclass(frozen=True)
class Continuation:
    """Token ids after a prompt, with the end token if there is one."""

    ids: list[int]
    log_probability: float
    """Mean over its tokens of log p under the model (at temperature 1)."""


@torch.inference_mode()
def continuations(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    samples: int,
    temperature: float,
    max_tokens: int,
    seed: int,
    batch_tokens: int,
) -> list[list[Continuation]]:
    """Per prompt (token ids) ``samples`` continuations, then the greedy one, all prompts in one batch.

    Temperature 0 makes all of them greedy. Continuations that do not fit ``batch_tokens`` together are drawn
    in turns.
    """
    if not model.divisible:
        reject("model", model.name, "a model with an attention cache (else sample elsewhere)")
    longest = max(map(len, prompts))
    room = min(max_tokens, model.context_length - longest)
    streams = samples + 1
    greedy = torch.zeros(streams, dtype=torch.bool, device=model.device)
    greedy[samples if temperature > 0 else 0 :] = True
    noise = torch.from_numpy(np.stack([_noise(seed, ids, samples, max_tokens) for ids in prompts]))
    noise = noise[..., :room].to(model.device)
    states, mask, cache = _prefill(model, prompts)
    found: list[list[Continuation]] = [[] for _ in prompts]
    turn = max(1, batch_tokens // (len(prompts) * (longest + room)))
    for start in range(0, streams, turn):
        now = slice(start, min(start + turn, streams))
        last = now.stop == streams
        owned = cache if last else copy.deepcopy(cache)
        count = now.stop - now.start
        owned.batch_repeat_interleave(count)
        drawn = _decode(
            model,
            states.repeat_interleave(count, 0),
            mask.repeat_interleave(count, 0),
            owned,
            noise[:, now].flatten(0, 1),
            greedy[now].repeat(len(prompts)),
            temperature,
        )
        for place, continuation in enumerate(drawn):
            found[place // count].append(continuation)
    return found


def _prefill(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Any]:
    """Last hidden states (B, H), attention mask (B, L) and cache of prompts padded on the left.

    What all prompts begin with is computed once.
    """
    prefix, _, cache = model.shared_prefix(prompts)
    rest = [list(ids[prefix:]) for ids in prompts]
    longest = max(map(len, rest))
    ids = torch.tensor([[0] * (longest - len(r)) + r for r in rest], device=model.device)
    mask = torch.tensor(
        [[1] * prefix + [0] * (longest - len(r)) + [1] * len(r) for r in rest], device=model.device
    )
    hidden = model.hidden(ids, cache, mask)
    return hidden[:, -1], mask, cache


def _decode(
    model: LanguageModel,
    states: Tensor,
    mask: Tensor,
    cache: Any,
    noise: Tensor,
    greedy: Tensor,
    temperature: float,
) -> list[Continuation]:
    """Continue n sequences with last states (n, H) by at most T tokens, with ``noise`` (n, T) in [0, 1)."""
    count, room = noise.shape
    tokens = torch.full((count, room), -1)
    log_probability = torch.zeros(count, dtype=torch.float64)
    ends = torch.tensor(model.eos_ids, device=model.device)
    alive = torch.arange(count, device=model.device)
    for step in range(room):
        log_p = torch.log_softmax(model.head(states).float().nan_to_num(nan=-1e9), dim=-1)
        chosen = _draw(log_p, noise[alive, step], greedy[alive], temperature)
        places = alive.cpu()
        tokens[places, step] = chosen.cpu()
        log_probability[places] += log_p.gather(1, chosen.unsqueeze(1)).squeeze(1).double().cpu()
        going = ~torch.isin(chosen, ends)
        if step == room - 1 or not going.any():
            break
        if not going.all():
            kept = going.nonzero().squeeze(1)
            alive, chosen, mask = alive[kept], chosen[kept], mask[kept]
            cache.batch_select_indices(kept)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        states = model.hidden(chosen.unsqueeze(1), cache, mask)[:, -1]
    lengths = (tokens >= 0).sum(1)
    means = (log_probability / lengths).tolist()
    rows = zip(tokens.tolist(), lengths.tolist(), means, strict=True)
    return [Continuation(ids[:length], mean) for ids, length, mean in rows]


def _draw(log_p: Tensor, noise: Tensor, greedy: Tensor, temperature: float) -> Tensor:
    """A token (n,) per row of ``log_p`` (n, V): the likeliest where ``greedy``, else by inversion."""
    likeliest = log_p.argmax(1)
    if greedy.all():
        return likeliest
    cumulated = torch.softmax(log_p / temperature, dim=-1).double().cumsum(1)
    # The right side: a token of probability zero is never met.
    wanted = noise.unsqueeze(1) * cumulated[:, -1:]
    drawn = torch.searchsorted(cumulated, wanted, right=True).squeeze(1).clamp(max=log_p.shape[1] - 1)
    return torch.where(greedy, likeliest, drawn)


def _noise(seed: int, prompt: Sequence[int], samples: int, max_tokens: int) -> np.ndarray[Any, Any]:
    """Uniform numbers (samples + 1, max_tokens) in [0, 1); the last row, for the greedy one, is not used."""
    return np.random.default_rng(int(content_digest([seed, list(prompt)]), 16)).random(
        (samples + 1, max_tokens)
    )
