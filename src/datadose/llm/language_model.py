"""A Hugging Face causal language model with its tokenizer: token ids, losses, gradients' sketches.

Nothing here depends on how rows are batched, except for rounding.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datadose.errors import InputError, reject, require_extra
from datadose.llm.cache import content_digest
from datadose.llm.loading import context_length, ends, files_digest, load, place_of, quiet
from datadose.llm.pool import Row, Text
from datadose.llm.sketch import TensorSketch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BATCH_TOKENS = 4096
"""Padded tokens of a batch by default."""

_CPU_TOKENS = 1024
"""As many at most in a forward pass on a CPU, where larger activations leave the cache and are slower."""

_WORTH_SHARING = 8
"""Fewest tokens at the beginning of all prompts that are worth a pass of their own."""

_LOGITS = 2**23
"""Logits held at once (32 MB): the vocabulary times a slice of the completions' positions."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Token ids of a row: its context, and from ``start`` on what is scored."""

    ids: NDArray[np.int32]
    """At four bytes each; Python's integers take ten times that."""
    start: int

    @property
    def prompt_ids(self) -> list[int]:
        """The context."""
        return cast("list[int]", self.ids[: self.start].tolist())

    @property
    def completion_ids(self) -> list[int]:
        """What is scored."""
        return cast("list[int]", self.ids[self.start :].tolist())

    @property
    def length(self) -> int:
        """All tokens."""
        return len(self.ids)

    @property
    def targets(self) -> int:
        """Scored tokens: a completion without any prompt cannot have its first token predicted."""
        return len(self.ids) - max(self.start, 1)


@dataclass(frozen=True)
class Losses:
    """What forward passes find for B rows; NaN where nothing was measured."""

    nll: NDArray[np.float64]
    """(B,), mean nats per completion token."""
    embeddings: NDArray[np.float32]
    """(B, H), last layer's hidden state, mean over all tokens of the row."""
    sketches: NDArray[np.float32]
    """(B, D), sketch of the gradient of the summed NLL with respect to the output weights; (B, 0) without."""

    @classmethod
    def empty(cls, rows: int, hidden: int, sketch: int) -> Losses:
        """Nothing measured yet, to be filled in place.

        Small arrays of each row, made between the large ones of a forward pass, would keep the memory of
        those.
        """
        vectors = [np.full((rows, size), np.nan, dtype=np.float32) for size in (hidden, sketch)]
        return cls(np.full(rows, np.nan), *vectors)

    def at(self, places: NDArray[np.int64]) -> Losses:
        """Those of some rows."""
        return Losses(self.nll[places], self.embeddings[places], self.sketches[places])


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model; use :meth:`load`."""

    model: Any
    tokenizer: Any
    name: str
    digest: str
    """sha256 of the configuration and the weights' files."""
    context_length: int
    eos_ids: tuple[int, ...]
    """Tokens that end a completion."""

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        dtype: Literal["float32", "bfloat16"] | str = "float32",
        device: str | None = None,
        allow_pickle_weights: bool = False,
    ) -> LanguageModel:
        """The model in a folder, or of that name on the Hugging Face Hub, in evaluation mode.

        ``device`` is CUDA if there is one, else the CPU. Weights in ``.bin`` files, which are pickles, are
        read only with ``allow_pickle_weights``. Raises InputError: no such model, no tokenizer, weights
        missing or pickled, or logits that are not the output layer applied to the last hidden state.
        """
        require_extra("llm", "transformers")
        if dtype not in DTYPES:
            reject("dtype", dtype, " or ".join(DTYPES))
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        pickles = allow_pickle_weights
        with quiet():
            model, tokenizer, folder = load(str(name), DTYPES[dtype], allow_pickle_weights=pickles)
            try:
                model.to(device)
            except (RuntimeError, AssertionError) as error:
                raise InputError("device", device, f"a device of this machine ({error})") from error
        model.eval()
        model.requires_grad_(False)
        place, digest, eos = place_of(name), files_digest(folder), ends(model, tokenizer)
        found = cls(model, tokenizer, place, digest, context_length(model), eos)
        found._check_head()
        return found

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return cast("torch.device", self.model.device)

    @property
    def dtype(self) -> str:
        """Name of the weights' type."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.head.weight.shape[1])

    @property
    def vocabulary_size(self) -> int:
        """V, rows of the output weights."""
        return int(self.head.weight.shape[0])

    @property
    def tokenizer_digest(self) -> str:
        """sha256 of what decides on token ids: vocabulary, rules and chat template."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = self.tokenizer.get_vocab() if backend is None else backend.to_str()
        return content_digest([rules, self.tokenizer.chat_template])

    @property
    def template_digest(self) -> str | None:
        """sha256 of the chat template; None without one."""
        template = self.tokenizer.chat_template
        return None if template is None else content_digest(template)

    def encode(self, row: Row) -> Encoded:
        """Token ids of ``row`` as TRL trains on them.

        Messages go through the chat template; a plain string completion ends with the end token. The
        completion begins where the ids of prompt and completion leave those of the prompt alone.
        """
        prompt = self.encode_prompt(row.prompt)
        if isinstance(row.prompt, str):
            end = self.tokenizer.eos_token or ""
            completion = row.completion_text
            whole = self._ids(row.prompt + completion + (end if not completion.endswith(end) else ""))
        else:
            whole = self._chat_ids([*row.prompt, *cast("list[dict[str, Any]]", row.completion)], False)
        return Encoded(np.array(whole, dtype=np.int32), _shared([prompt, whole]))

    def encode_prompt(self, prompt: Text) -> list[int]:
        """Token ids of ``prompt``; of messages, with the opening of the assistant's answer."""
        return self._ids(prompt) if isinstance(prompt, str) else self._chat_ids(prompt, True)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` without special tokens."""
        return cast("str", self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @property
    def head(self) -> Any:
        """The output layer, (..., H) to logits (..., V)."""
        return self.model.get_output_embeddings()

    def loss_batches(self, lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
        """Indices of rows to :meth:`measure` together: at most ``batch_tokens`` padded tokens."""
        limit = min(batch_tokens, _CPU_TOKENS) if self.device.type == "cpu" else batch_tokens
        return length_batches(lengths, limit)

    @torch.inference_mode()
    def measure(self, batch: Sequence[Encoded], sketch: TensorSketch | None = None) -> Losses:
        """One forward pass over ``batch``, each row with at least one target; see :class:`Losses`.

        Rows are padded at the end, where causal attention never looks from a real token: no mask is needed.
        What all prompts begin with (a chat template's opening) is computed once, and the output layer is
        applied at the completions' positions only.
        """
        # The token before the first target must be in each row's own part: its state predicts.
        prefix, opening, cache = self.shared_prefix([row.prompt_ids for row in batch])
        rest = [row.ids[prefix:].tolist() for row in batch]
        longest = max(map(len, rest))
        ids = torch.tensor([r + [0] * (longest - len(r)) for r in rest], device=self.device)
        lengths = torch.tensor([len(r) for r in rest], device=self.device)
        counts = torch.tensor([row.targets for row in batch], device=self.device)
        rows = torch.repeat_interleave(torch.arange(len(batch), device=self.device), counts)
        # Position j predicts the token at j + 1: a completion's targets are the last ones of its row.
        starts = torch.repeat_interleave(lengths - torch.cumsum(counts, 0), counts)
        positions = starts + torch.arange(len(rows), device=self.device)
        hidden = self.hidden(ids, cache)
        states, targets = hidden[rows, positions - 1], ids[rows, positions]
        nll, sketches = self._losses(states, targets, rows, len(batch), sketch)
        real = torch.arange(longest, device=self.device) < lengths.unsqueeze(1)
        sums = torch.where(real.unsqueeze(-1), hidden, 0).sum(1, dtype=torch.float32) + opening
        return Losses(
            (nll / counts).cpu().numpy(),
            (sums / (lengths.unsqueeze(1) + prefix)).cpu().numpy(),
            sketches.cpu().numpy(),
        )

    @cached_property
    def divisible(self) -> bool:
        """Whether the model's cache is keys and values alone, whose rows can be repeated and dropped."""
        from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer  # noqa: PLC0415

        kinds = (DynamicLayer, DynamicSlidingWindowLayer)
        return all(type(layer) in kinds for layer in self._new_cache().layers)

    @cached_property
    def _cache_name(self) -> str:
        """What the model calls its cache; the name changed within version 5 of transformers."""
        names = inspect.signature(self.model.base_model.forward).parameters
        return "cache" if "cache" in names else "past_key_values"

    def shared_prefix(self, prompts: Sequence[Sequence[int]]) -> tuple[int, Tensor | float, Any]:
        """How many tokens all ``prompts`` begin with, the sum (1, H) of their states, and a cache of them.

        At least one token of each prompt is left out of it. Without enough to share, (0, 0.0, empty cache).
        """
        cache = self._new_cache()
        shortest = min(map(len, prompts))
        shared = min(_shared(prompts), shortest - 1)
        if len(prompts) == 1 or shared < _WORTH_SHARING or not self.divisible:
            return 0, 0.0, cache
        hidden = self.hidden(torch.tensor([prompts[0][:shared]], device=self.device), cache)
        cache.batch_repeat_interleave(len(prompts))
        return shared, hidden.sum(1, dtype=torch.float32), cache

    def hidden(self, ids: Tensor, cache: Any, mask: Tensor | None = None) -> Tensor:
        """Last hidden states (B, T, H) of ``ids`` (B, T) that follow what ``cache`` holds, and enter it.

        ``mask`` (B, cached + T) is 0 at padding; positions are counted without it.
        """
        positions: dict[str, Any] = {}
        if mask is not None:
            counted = (mask.cumsum(1) - 1).clamp(min=0)
            positions = {"attention_mask": mask, "position_ids": counted[:, -ids.shape[1] :]}
        found = self.model.base_model(input_ids=ids, use_cache=True, **{self._cache_name: cache}, **positions)
        return cast("Tensor", found.last_hidden_state)

    def _new_cache(self) -> Any:
        from transformers import DynamicCache  # noqa: PLC0415 - slow to import

        return DynamicCache(config=self.model.config)

    def _ids(self, text: str) -> list[int]:
        return cast("list[int]", self.tokenizer(text)["input_ids"])

    def _chat_ids(self, messages: list[dict[str, Any]], opening: bool) -> list[int]:
        from jinja2 import TemplateError  # noqa: PLC0415

        if self.tokenizer.chat_template is None:
            reject("model", self.name, "a tokenizer with a chat template, since the rows are messages")
        try:
            text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=opening, tokenize=False)
        except TemplateError as error:
            shown = json.dumps(messages)[:200]
            raise InputError("messages", shown, f"what the model's chat template takes ({error})") from error
        return cast("list[int]", self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _losses(
        self, h: Tensor, targets: Tensor, rows: Tensor, count: int, sketch: TensorSketch | None
    ) -> tuple[Tensor, Tensor]:
        """Summed NLL (count,) float64, and sketches, of tokens with states h (T, H), a slice at a time."""
        nll = torch.zeros(count, dtype=torch.float64, device=h.device)
        spectra = []
        size = max(1, _LOGITS // self.vocabulary_size)
        for start in range(0, len(h), size):
            part, wanted, owner = (x[start : start + size] for x in (h, targets, rows))
            log_p = torch.log_softmax(self.head(part).float(), dim=-1)
            nll.index_add_(0, owner, -log_p.gather(1, wanted.unsqueeze(1)).squeeze(1).double())
            if sketch is not None:
                spectra.append(sketch.spectrum(part.float(), log_p.exp_(), wanted))
        return nll, sketch.total(torch.cat(spectra), rows, count) if sketch else torch.empty(count, 0)

    @torch.inference_mode()
    def _check_head(self) -> None:
        """InputError if logits are more than the output layer (scaled, capped), which we would miss."""
        ids = torch.arange(min(4, self.vocabulary_size), device=self.device).unsqueeze(0)
        try:
            logits = self.model(input_ids=ids, use_cache=False).logits.float()
            ours = self.head(self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state).float()
        except Exception as error:
            # Anybody's configuration may load and then fit nothing.
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError("model", self.name, f"a model that can be run ({detail})") from error
        if not torch.allclose(ours, logits, rtol=1e-2, atol=1e-2, equal_nan=True):
            reject("model", self.name, "a model whose logits are its output layer at the last hidden state")


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices into ``lengths``, grouped so that a batch padded to its longest row fits ``batch_tokens``.

    Longest rows first: a batch too large for the memory fails at the start, and the time left is not
    underestimated. A row longer than ``batch_tokens`` is a batch of its own. Equal lengths keep their order.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


def _shared(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all ``sequences`` begin with."""
    # Whatever all begin with, the least and the greatest in dictionary order do.
    ordered = sorted(map(list, sequences))
    low, high = ordered[0], ordered[-1]
    pairs = enumerate(zip(low, high, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(low), len(high)))
