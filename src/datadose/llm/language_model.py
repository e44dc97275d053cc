"""A Hugging Face causal language model with its tokenizer: token ids, losses, gradients' sketches.

Nothing here depends on how rows are batched, except for rounding.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datadose.errors import InputError, reject, require_choice, require_extra
from datadose.llm.chat import Chat, Encoded
from datadose.llm.left_out import shared_length
from datadose.llm.loading import context_length, ends, files_digest, load, place_of, quiet
from datadose.llm.output import Output, find_output
from datadose.llm.pool import Row, Text
from datadose.llm.sketch import TensorSketch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"
BATCH_TOKENS = 4096
"""Padded tokens of a batch by default."""

_CPU_TOKENS = 384
"""As many at most in a forward pass on a CPU, where larger activations leave the cache and are slower."""

_WORTH_SHARING = 8
"""Fewest tokens at the beginning of all prompts that justify a pass of their own."""

_LOGITS = 2**23
"""Logits held at once (32 MB): the vocabulary times a slice of the completions' positions."""


@dataclass(frozen=True)
class Losses:
    """What forward passes find for B rows; NaN where nothing was measured."""

    nll: NDArray[np.float64]
    """(B,), mean nats per completion token."""
    embeddings: NDArray[np.float32]
    """(B, H), last layer's hidden state, mean over the n tokens of the row with weights 1, 2, ..., n."""
    sketches: NDArray[np.float32]
    """(B, D), sketch of the gradient of the summed NLL with respect to the output weights; (B, 0) without."""


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
    chat: Chat
    """How rows become token ids."""
    output: Output = field(default_factory=Output)
    """How logits follow from the output layer."""

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        dtype: str = AUTO,
        device: str | None = None,
        device_map: str | dict[str, Any] | None = None,
        allow_pickle_weights: bool = False,
    ) -> LanguageModel:
        """The model in a folder, or of that name on the Hugging Face Hub, in evaluation mode.

        Args:
            name: folder or name; an adapter's is merged into its base model.
            dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto``: the checkpoint's own on a GPU, float32
                on a CPU, where others are slow.
            device: CUDA if there is one, else the CPU.
            device_map: ``auto`` spreads a model that is larger than a device over all there are, and over
                the host's memory and disk; or where each module goes, as accelerate takes it. In place of
                ``device``.
            allow_pickle_weights: read weights from ``.bin`` files too, which are pickles.

        Raises InputError: no such model, no tokenizer, weights missing or pickled, or logits that are not the
        output layer applied to the last hidden state, scaled or capped as :class:`Output` describes.
        """
        require_extra("llm", "transformers")
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = weights_type(dtype, device)
        if device_map is not None:
            require_extra("train", "accelerate")
        pickles = allow_pickle_weights
        with quiet():
            model, tokenizer, folder = load(
                str(name), kind, device_map=device_map, allow_pickle_weights=pickles
            )
            if device_map is None:
                try:
                    model.to(device)
                except (RuntimeError, AssertionError) as error:
                    raise InputError("device", device, f"a device of this machine ({error})") from error
        model.eval()
        model.requires_grad_(False)
        place, digest, eos = place_of(name), files_digest(folder), ends(model, tokenizer)
        found = cls(model, tokenizer, place, digest, context_length(model), eos, Chat(tokenizer, place))
        return replace(found, output=found._find_output())

    def with_chat(self, loss: str, date: str) -> LanguageModel:
        """The model with rows scored at ``loss`` under a template's clock at ``date``.

        See :class:`~datadose.llm.chat.Chat`, also for what is raised.
        """
        return replace(self, chat=Chat(self.tokenizer, self.name, loss, date))

    @property
    def device(self) -> torch.device:
        """The device on which the model's first layer computes."""
        found = cast("torch.device", self.model.device)
        if found.type == "meta":
            # Weights that are kept elsewhere are nowhere until they are used.
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return found

    @property
    def dtype(self) -> str:
        """The name of the weights' type."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def hidden_size(self) -> int:
        """The width H of the last hidden state."""
        return int(self.head.weight.shape[1])

    @property
    def vocabulary_size(self) -> int:
        """The number V of rows of the output weights."""
        return int(self.head.weight.shape[0])

    @property
    def tokenizer_digest(self) -> str:
        """sha256 of what decides on token ids: vocabulary, rules, chat template and its clock."""
        return self.chat.tokenizer_digest

    @property
    def template_digest(self) -> str | None:
        """sha256 of what decides what messages become; None without a chat template."""
        return self.chat.digest

    def encode(self, row: Row) -> Encoded:
        """Token ids of ``row`` as TRL trains on them; see :meth:`Chat.encode`."""
        return self.chat.encode(row)

    def encode_prompt(
        self, prompt: Text, tools: list[Any] | None = None, options: dict[str, Any] | None = None
    ) -> list[int]:
        """Token ids of ``prompt`` as TRL samples from it; see :meth:`Chat.encode_prompt`."""
        return self.chat.encode_prompt(prompt, tools, options)

    def prompt_ids(self, row: Row) -> list[int]:
        """Token ids of the row's prompt, with its tools and template options, as TRL samples from it."""
        return self.encode_prompt(row.prompt, row.tools, row.template_options)

    def without_prompt(self, row: Encoded) -> Encoded:
        """The scored part of ``row`` alone, after the token that begins a text, or else one that ends it.

        Where the tokenizer has neither, the first token of the completion is not scored.
        """
        begins = self.tokenizer.bos_token_id
        opening = [begins] if begins is not None else list(self.eos_ids[:1])
        return Encoded(np.array([*opening, *row.ids[row.places].tolist()], dtype=np.int32), len(opening))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` without special tokens."""
        return cast("str", self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @property
    def head(self) -> Any:
        """The output layer, (..., H) to (..., V)."""
        return self.model.get_output_embeddings()

    def logits(self, states: Tensor) -> Tensor:
        """Logits (..., V), float32, of last hidden states (..., H)."""
        return self.output.logits(self.head(states)).to(self.device)

    def loss_batches(self, lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
        """Indices of rows to :meth:`measure` together: at most ``batch_tokens`` padded tokens."""
        return length_batches(lengths, batch_tokens)

    @torch.inference_mode()
    def measure(self, batch: Sequence[Encoded], sketch: TensorSketch | None = None) -> Losses:
        """The losses, embeddings and sketches of ``batch`` (:class:`Losses`); each row has a target.

        The common beginning of all prompts (a chat template's opening) is computed once, and the output layer
        is applied at the completions' positions only. On a CPU they go through the model in several passes.
        Without ``sketch`` the sketches have no columns.
        """
        # The token before the first target must be in each row's own part: its state predicts.
        prefix, opening, cache = self.shared_prefix([row.prompt_ids for row in batch])
        rest = [row.length - prefix for row in batch]
        limit = _CPU_TOKENS if self.device.type == "cpu" else len(rest) * max(rest)
        passes = length_batches(rest, limit)
        found = [self._pass([batch[i] for i in part], prefix, copy.deepcopy(cache)) for part in passes]
        sums, states, targets = (torch.cat(parts) for parts in zip(*found, strict=True))
        order = torch.tensor([i for part in passes for i in part], device=self.device)
        counts = torch.tensor([row.targets for row in batch], device=self.device)
        rows = torch.repeat_interleave(order, counts[order])
        nll, sketches = self._losses(states, targets, rows, len(batch), sketch)
        lengths = torch.tensor(rest, device=self.device).unsqueeze(1) + prefix
        weight = lengths * (lengths + 1) / 2
        means = torch.empty_like(sums).index_copy_(0, order, sums + opening) / weight
        return Losses((nll / counts).cpu().numpy(), means.cpu().numpy(), sketches.cpu().numpy())

    def _pass(self, batch: Sequence[Encoded], prefix: int, cache: Any) -> tuple[Tensor, Tensor, Tensor]:
        """One forward pass over what follows the first ``prefix`` tokens of each row, which ``cache`` holds.

        Returns the sums (B, H) of the rows' hidden states, each times its position from 1, float32, the
        states (T, H) that predict a target, and the T targets, row by row. Rows are padded at the end, where
        causal attention never looks from a real token: no mask is needed.
        """
        if prefix:
            cache.batch_repeat_interleave(len(batch))
        rest = [row.ids[prefix:].tolist() for row in batch]
        longest = max(map(len, rest))
        ids = torch.tensor([r + [0] * (longest - len(r)) for r in rest], device=self.device)
        lengths = torch.tensor([len(r) for r in rest], device=self.device)
        rows = torch.from_numpy(np.repeat(np.arange(len(batch)), [row.targets for row in batch]))
        places = torch.from_numpy(np.concatenate([row.places for row in batch]) - prefix)
        rows, places = rows.to(self.device), places.to(self.device)
        hidden = self.hidden(ids, cache)
        real = torch.arange(longest, device=self.device) < lengths.unsqueeze(1)
        sums = _sums_by_position(torch.where(real.unsqueeze(-1), hidden, 0), prefix)
        # Position j predicts the token at j + 1.
        return sums, hidden[rows, places - 1], ids[rows, places]

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
        """How many tokens all ``prompts`` begin with, the sum (1, H) of their states, each times its position
        from 1, and a cache of one row.

        At least one token of each prompt is left out of it. Without enough to share, (0, 0.0, empty cache).
        """
        cache = self._new_cache()
        shortest = min(map(len, prompts))
        shared = min(shared_length(prompts), shortest - 1)
        if len(prompts) == 1 or shared < _WORTH_SHARING or not self.divisible:
            return 0, 0.0, cache
        hidden = self.hidden(torch.tensor([prompts[0][:shared]], device=self.device), cache)
        return shared, _sums_by_position(hidden, 0), cache

    def hidden(self, ids: Tensor, cache: Any, mask: Tensor | None = None) -> Tensor:
        """Last hidden states (B, T, H) of ``ids`` (B, T) that follow what ``cache`` holds, and enter it.

        ``mask`` (B, cached + T) is 0 at padding; positions are counted without it.
        """
        positions: dict[str, Any] = {}
        if mask is not None:
            counted = (mask.cumsum(1) - 1).clamp(min=0)
            positions = {"attention_mask": mask, "position_ids": counted[:, -ids.shape[1] :]}
        found = self.model.base_model(input_ids=ids, use_cache=True, **{self._cache_name: cache}, **positions)
        # With the model on several devices, the last layer is elsewhere than the first.
        return cast("Tensor", found.last_hidden_state.to(self.device))

    def _new_cache(self) -> Any:
        from transformers import DynamicCache  # noqa: PLC0415 - slow to import

        return DynamicCache(config=self.model.config)

    def _losses(
        self, h: Tensor, targets: Tensor, rows: Tensor, count: int, sketch: TensorSketch | None
    ) -> tuple[Tensor, Tensor]:
        """Summed NLL (count,) float64, and sketches, of tokens with states h (T, H), a slice at a time."""
        nll = torch.zeros(count, dtype=torch.float64, device=h.device)
        spectra = []
        size = max(1, _LOGITS // self.vocabulary_size)
        for start in range(0, len(h), size):
            part, wanted, owner = (x[start : start + size] for x in (h, targets, rows))
            logits = self.logits(part)
            log_p = torch.log_softmax(logits, dim=-1)
            nll.index_add_(0, owner, -log_p.gather(1, wanted.unsqueeze(1)).squeeze(1).double())
            if sketch is not None:
                slope = self.output.slope(logits)
                spectra.append(sketch.spectrum(part.float(), log_p.exp_(), wanted, slope))
        return nll, sketch.total(torch.cat(spectra), rows, count) if sketch else torch.empty(count, 0)

    @torch.inference_mode()
    def _find_output(self) -> Output:
        """How logits follow from the output layer; InputError if in no known way, which we would miss."""
        ids = torch.arange(min(4, self.vocabulary_size), device=self.device).unsqueeze(0)
        try:
            logits = self.model(input_ids=ids, use_cache=False).logits
            states = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            x = self.head(states).to(logits.device)
        except Exception as error:
            # Anybody's configuration may load and then fit nothing.
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError("model", self.name, f"a model that can be run ({detail})") from error
        found = find_output(self.model.config.get_text_config(), x, logits)
        if found is None:
            allowed = "a model whose logits are its output layer at the last hidden state, scaled or capped"
            reject("model", self.name, allowed)
        return found


def _sums_by_position(hidden: Tensor, before: int) -> Tensor:
    """The sums (B, H), float32, of states (B, T, H), each times its position: ``before`` + 1, + 2, ..."""
    places = torch.arange(before + 1, before + 1 + hidden.shape[1], device=hidden.device)
    return torch.einsum("bth,t->bh", hidden.float(), places.float())


def weights_type(dtype: str, device: str) -> torch.dtype | str:
    """The type that weights are read in, or ``auto`` for the checkpoint's own.

    Raises InputError for a ``dtype`` that is neither ``auto`` nor one of DTYPES.
    """
    if dtype == AUTO:
        return torch.float32 if device.startswith("cpu") else AUTO
    require_choice("dtype", dtype, [AUTO, *DTYPES])
    return DTYPES[dtype]


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
