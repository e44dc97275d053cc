"""Who draws completions: the loaded model itself (here), or a server (:mod:`datadose.llm.endpoint`)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from datadose.llm.cache import content_digest
from datadose.llm.chat import Encoded
from datadose.llm.generation import Sampling, continuations, prompt_batches
from datadose.llm.language_model import LanguageModel
from datadose.llm.pool import Row
from datadose.llm.sample_store import OWN, Drawn

Keep: TypeAlias = Callable[[Mapping[str, Sequence[Drawn]]], None]
"""Called with completions of prompts by the prompts' keys, as soon as they are there. Those of one call are
kept together or not at all: what is drawn in one batch is drawn again in the same one."""


@dataclass(frozen=True)
class Request:
    """A request to an engine for one prompt."""

    key: str
    """The key of the prompt, which the engine's ``key`` returns."""
    tokens: int
    """Length of the prompt."""
    place: int
    """Index of a row with this prompt."""
    indices: tuple[int, ...]
    """Which samples; ``OWN`` is the greedy completion."""


class Engine(Protocol):
    """Draws completions of prompts. A sample is a function of settings, prompt and index, up to rounding."""

    name: str
    settings: dict[str, Any]
    """All that a sample depends on beside its prompt and its index."""

    def key(self, row: Row) -> tuple[str, int] | None:
        """The prompt's key (64 hexadecimal digits) and its length in tokens; None if there is no room."""

    def draw(self, requests: Sequence[Request], rows: Sequence[Row], keep: Keep) -> None:
        """Draw all ``requests``, whose places are those of ``rows``, in any order.

        ``keep`` gets every index of every request once, in one call or in several.
        """


class ModelEngine:
    """The loaded model draws, in batches of ``batch_tokens`` padded tokens; ``conditions`` names all else."""

    name = "hf"

    def __init__(
        self, model: LanguageModel, sampling: Sampling, batch_tokens: int, conditions: dict[str, Any]
    ) -> None:
        self.model, self.sampling, self.batch_tokens = model, sampling, batch_tokens
        self.settings = {**conditions, **sampling.settings(), "engine": self.name}

    def key(self, row: Row) -> tuple[str, int] | None:
        """A digest of the prompt's token ids, and their number; None if the context has no room."""
        ids = self.model.prompt_ids(row)
        return (content_digest(ids), len(ids)) if len(ids) < self.model.context_length else None

    def draw(self, requests: Sequence[Request], rows: Sequence[Row], keep: Keep) -> None:
        """Draw batch by batch; the requests of a batch are for the same samples."""
        groups: dict[tuple[int, int, bool], list[Request]] = defaultdict(list)
        for one in requests:
            samples = [index for index in one.indices if index != OWN]
            first, end = (min(samples), max(samples) + 1) if samples else (0, 0)
            groups[first, end, OWN in one.indices].append(one)
        for (first, end, greedy), members in sorted(groups.items(), key=lambda group: group[0]):
            sampling, lengths = replace(self.sampling, samples=end), [one.tokens for one in members]
            batches = prompt_batches(
                self.model, lengths, sampling, self.batch_tokens, first=first, greedy=greedy
            )
            for batch in batches:
                prompts = [self.model.prompt_ids(rows[members[i].place]) for i in batch]
                found = sample_batch(
                    self.model, prompts, sampling, self.batch_tokens, first=first, greedy=greedy
                )
                keep({members[i].key: drawn for i, drawn in zip(batch, found, strict=True)})


def sample_batch(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    batch_tokens: int,
    *,
    first: int = 0,
    greedy: bool = True,
) -> list[list[Drawn]]:
    """Completions of ``prompts`` (token ids) in one batch, as :func:`continuations` gives them."""
    indices = [*range(first, sampling.samples), *([OWN] if greedy else [])]
    return [
        [
            Drawn(
                index,
                model.decode(one.ids),
                one.finish,
                math.exp(one.log_probability) if index == OWN else None,
            )
            for index, one in zip(indices, row, strict=True)
        ]
        for row in continuations(model, prompts, sampling, batch_tokens, first=first, greedy=greedy)
    ]


def confidences(
    model: LanguageModel, prompts: Sequence[Sequence[int]], own: Sequence[Drawn]
) -> list[float | None]:
    """The ``confidence`` that ``model`` has in greedy completions ``own`` of ``prompts`` that others drew.

    The texts are tokenised anew, with the end token after those that were not cut. None where that gives no
    token, or does not fit the context.
    """
    found: list[float | None] = [None] * len(own)
    encoded: dict[int, Encoded] = {}
    for place, (prompt, one) in enumerate(zip(prompts, own, strict=True)):
        ids = model.tokenizer(one.text or "", add_special_tokens=False)["input_ids"]
        ids += [model.eos_ids[0]] if one.finish == "stop" and model.eos_ids else []
        if ids and len(prompt) and len(prompt) + len(ids) <= model.context_length:
            encoded[place] = Encoded(np.array([*prompt, *ids], dtype=np.int32), len(prompt))
    if encoded:
        for place, nll in zip(encoded, model.measure(list(encoded.values())).nll.tolist(), strict=True):
            found[place] = math.exp(-nll) if math.isfinite(nll) else None
    return found
