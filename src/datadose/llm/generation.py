"""Completions sampled in batches: one prefill per prompt for all its samples, finished samples drop out.

Each sample has uniform numbers of its own, a function of the seed, the prompt and the sample's index alone,
and turns them into tokens by inverting the distribution function. So a sample does not depend on the batch it
is drawn in, except where rounding decides.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datadose.errors import reject, require_integer, require_number
from datadose.llm.cache import content_digest
from datadose.llm.language_model import LanguageModel, length_batches


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: ``samples`` of each prompt, 0 for none; temperature 0 is greedy."""

    samples: int = 0
    temperature: float = 1.0
    max_tokens: int = 256
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """What a sample depends on beside its prompt and its index: not on how many there are."""
        return {"temperature": self.temperature, "max_tokens": self.max_tokens, "seed": self.seed}

    def __post_init__(self) -> None:
        require_integer("samples", self.samples, 0)
        require_number("temperature", self.temperature, 0, math.inf)
        require_integer("max-tokens", self.max_tokens, 1)
        require_integer("seed", self.seed, 0)
        if self.temperature == 0 and self.samples > 1:
            reject("samples", self.samples, "1 at temperature 0, where all samples are the same")


@dataclass(frozen=True)
class Continuation:
    """Token ids after a prompt, with the end token if there is one."""

    ids: list[int]
    log_probability: float
    """Mean over its tokens of log p under the model (at temperature 1)."""
    finish: Literal["stop", "length"]
    """``length`` without an end token: cut by the limit of tokens or by the end of the context."""


def prompt_batches(
    model: LanguageModel,
    prompts: Sequence[int],
    sampling: Sampling,
    batch_tokens: int,
    *,
    first: int = 0,
    greedy: bool = True,
) -> list[list[int]]:
    """The places in ``prompts`` of the prompts of each batch, for :func:`continuations`.

    A batch's samples and greedy ones fit ``batch_tokens``. Prompts near the end of the context have room for
    fewer new tokens, and are batched by that room.

    Args:
        model: whose context limits the room.
        prompts: lengths of the prompts, in tokens.
        sampling: number of samples and largest number of new tokens.
        batch_tokens: the most padded tokens of a batch.
        first: the index of the first sample that is drawn.
        greedy: whether a greedy continuation is drawn as well.
    """
    rooms: dict[int, list[int]] = {}
    for index, length in enumerate(prompts):
        rooms.setdefault(min(sampling.max_tokens, model.context_length - length), []).append(index)
    batches = []
    streams = sampling.samples - first + greedy
    for room, members in sorted(rooms.items(), reverse=True):
        lengths = [streams * (prompts[i] + room) for i in members]
        batches += [[members[i] for i in batch] for batch in length_batches(lengths, batch_tokens)]
    return batches


@torch.inference_mode()
def continuations(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    batch_tokens: int,
    *,
    first: int = 0,
    greedy: bool = True,
) -> list[list[Continuation]]:
    """The samples of each prompt, and then its greedy continuation, all prompts in one batch.

    Continuations that do not fit ``batch_tokens`` together are drawn in turns.

    Args:
        model: the model that draws.
        prompts: token ids of each prompt.
        sampling: number of samples, temperature, largest number of new tokens, and seed.
        batch_tokens: the most padded tokens at a time.
        first: the index of the first sample, below ``sampling.samples``; the samples from there on are the
            same as in a call for all.
        greedy: whether the greedy continuation is drawn.
    """
    if not model.divisible:
        reject("model", model.name, "a model with an attention cache (else sample elsewhere)")
    longest = max(map(len, prompts))
    room = min(sampling.max_tokens, model.context_length - longest)
    streams = sampling.samples - first + greedy
    likeliest = torch.zeros(streams, dtype=torch.bool, device=model.device)
    likeliest[sampling.samples - first if sampling.temperature > 0 else 0 :] = True
    noise = torch.from_numpy(np.stack([_noise(ids, sampling)[first : first + streams] for ids in prompts]))
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
            likeliest[now].repeat(len(prompts)),
            sampling.temperature,
        )
        for place, continuation in enumerate(drawn):
            found[place // count].append(continuation)
    return found


def _prefill(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Any]:
    """Last hidden states (B, H), attention mask (B, L) and cache of prompts padded on the left.

    What all prompts begin with is computed once.
    """
    prefix, _, cache = model.shared_prefix(prompts)
    if prefix:
        cache.batch_repeat_interleave(len(prompts))
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
        log_p = torch.log_softmax(model.logits(states).nan_to_num(nan=-1e9), dim=-1)
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
            # Layers may be on several devices; indices from the host fit each.
            cache.batch_select_indices(kept.cpu())
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        states = model.hidden(chosen.unsqueeze(1), cache, mask)[:, -1]
    lengths = (tokens >= 0).sum(1)
    means = (log_probability / lengths).tolist()
    ended = torch.isin(tokens.gather(1, lengths.unsqueeze(1) - 1).squeeze(1), ends.cpu()).tolist()
    rows = zip(tokens.tolist(), lengths.tolist(), means, ended, strict=True)
    return [Continuation(ids[:length], mean, "stop" if end else "length") for ids, length, mean, end in rows]


def _draw(log_p: Tensor, noise: Tensor, greedy: Tensor, temperature: float) -> Tensor:
    """A token (n,) per row of ``log_p`` (n, V): the likeliest where ``greedy``, else by inversion."""
    likeliest = log_p.argmax(1)
    if greedy.all():
        return likeliest
    cumulated = torch.softmax(log_p / temperature, dim=-1).double().cumsum(1)
    # The right side: a token of probability zero is never reached.
    wanted = noise.unsqueeze(1) * cumulated[:, -1:]
    drawn = torch.searchsorted(cumulated, wanted, right=True).squeeze(1).clamp(max=log_p.shape[1] - 1)
    return torch.where(greedy, likeliest, drawn)


def _noise(prompt: Sequence[int], sampling: Sampling) -> np.ndarray[Any, Any]:
    """Uniform numbers (samples + 1, max_tokens) in [0, 1); the last row, for the greedy one, is not used."""
    rng = np.random.default_rng(int(content_digest([sampling.seed, list(prompt)]), 16))
    return rng.random((sampling.samples + 1, sampling.max_tokens))
