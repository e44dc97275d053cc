"""The study's language model: a small Llama with one token a character, pretraining and what is measured.

Loss and accuracy are on the completion and the end token alone, given the prompt, in every stage. A
completion is right if every token of it is the most probable one given the right ones before it: that is the
same as greedy decoding giving exactly this text, and needs one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datadose.errors import require_extra
from datadose.files import whole_folder
from datadose.llm.loading import quiet
from datadose.studies.characters import character_tokenizer
from datadose.studies.token_study.language import (
    FAMILIES,
    FRESH,
    LETTERS,
    MARK,
    Example,
    draw_examples,
    mixture,
)

PAD, END = "<pad>", "<eos>"


def vocabulary_of(characters: Iterable[str]) -> dict[str, int]:
    """The padding token (0), the end token (1) and ``characters``, numbered."""
    return {token: i for i, token in enumerate([PAD, END, *characters])}


VOCABULARY = vocabulary_of([*LETTERS, *FAMILIES, FRESH, MARK, ":", "="])
CONTEXT = 64
IGNORED = -100
"""Label of positions without loss."""


@dataclass(frozen=True)
class DecoderShape:
    """Shape of the decoder; the default has 0.6 million parameters."""

    width: int = 128
    layers: int = 3
    heads: int = 4
    hidden: int = 344


@dataclass(frozen=True)
class TokenPretraining:
    """How a model is made: share of T, size, steps of Muon (matrices) and AdamW (the rest), seed."""

    target_share: float
    size: DecoderShape = DecoderShape()
    steps: int = 1000
    batch: int = 128
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    warmup: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Tokens:
    """Texts as tokens, right-padded: inputs and labels (N, T), labels IGNORED outside the completion."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def at(self, index: Tensor | NDArray[Any] | slice) -> Tokens:
        """These rows, without columns that are padding in all of them."""
        inputs, labels = self.inputs[index], self.labels[index]
        longest = int((inputs != VOCABULARY[PAD]).sum(dim=1).max())
        return Tokens(inputs[:, :longest], labels[:, :longest])


def token_ids(text: str, vocabulary: Mapping[str, int] = VOCABULARY) -> list[int]:
    """The tokens of a text, one a character."""
    return [vocabulary[character] for character in text]


def answer_ids(completion: str, vocabulary: Mapping[str, int] = VOCABULARY) -> list[int]:
    """The tokens of a completion with the end token."""
    return [*token_ids(completion, vocabulary), vocabulary[END]]


def encode(examples: Sequence[Example], vocabulary: Mapping[str, int] = VOCABULARY) -> Tokens:
    """Prompts and completions with the end token, as training and scoring use them."""
    return pad_rows([(token_ids(p, vocabulary), answer_ids(c, vocabulary)) for p, c in examples])


def pad_rows(rows: Sequence[tuple[list[int], list[int]]]) -> Tokens:
    """Token ids of prompts and completions as one batch."""
    longest = max(len(prompt) + len(completion) for prompt, completion in rows)
    inputs = torch.full((len(rows), longest), VOCABULARY[PAD])
    labels = torch.full((len(rows), longest), IGNORED)
    for i, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion)
        inputs[i, :end] = torch.tensor([*prompt, *completion])
        labels[i, len(prompt) : end] = torch.tensor(completion)
    return Tokens(inputs, labels)


def new_tokenizer(vocabulary: Mapping[str, int] = VOCABULARY) -> Any:
    """The tokenizer of a vocabulary."""
    return character_tokenizer(vocabulary, pad=PAD, end=END, unknown=PAD, model_max_length=CONTEXT)


def new_model(size: DecoderShape, seed: int, vocabulary: Mapping[str, int] = VOCABULARY) -> Any:
    """An untrained decoder with its own output layer, so that a symbol's embedding moves inputs alone."""
    require_extra("llm", "transformers")
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=size.width,
        intermediate_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        pad_token_id=vocabulary[PAD],
        eos_token_id=vocabulary[END],
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def load_model(path: str | Path) -> Any:
    """The model saved in a folder, in float32."""
    require_extra("llm", "transformers")
    from transformers import LlamaForCausalLM  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    return LlamaForCausalLM.from_pretrained(str(path), local_files_only=True)


def warm_up_and_down(optimiser: Any, warmup: int, steps: int) -> Any:
    """The schedule that raises the rate over ``warmup`` steps and lowers it linearly to 0."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / warmup) * (1 - step / steps)
    )


def completion_loss(model: Any, tokens: Tokens, embedded: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over completion tokens, nats, a scalar; ``embedded`` are the inputs if given."""
    inputs = {"input_ids": tokens.inputs} if embedded is None else {"inputs_embeds": embedded}
    logits = model(**inputs, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens.labels[:, 1:].flatten(), ignore_index=IGNORED
    )


def right(model: Any, tokens: Tokens, chunk: int = 512) -> NDArray[np.bool_]:
    """Whether greedy decoding gives each row's completion, (N,)."""
    found = []
    with torch.no_grad():
        for start in range(0, len(tokens), chunk):
            part = tokens.at(slice(start, start + chunk))
            best = model(input_ids=part.inputs, use_cache=False).logits[:, :-1].argmax(dim=-1)
            labels = part.labels[:, 1:]
            found.append(((best == labels) | (labels == IGNORED)).all(dim=1).numpy())
    return np.concatenate(found)


def pretrain(pretraining: TokenPretraining, *, file: Path) -> None:
    """Cell: the model with its tokenizer, in a folder."""

    def batch(step: int) -> list[Example]:
        rng = np.random.default_rng([pretraining.seed, 1, step])
        return draw_examples(rng, pretraining.batch, mixture(pretraining.target_share))

    train_new(pretraining, batch, VOCABULARY, file)


def train_new(
    how: TokenPretraining, batch: Callable[[int], list[Example]], vocabulary: Mapping[str, int], file: Path
) -> None:
    """Train a new model on what ``batch`` gives for each step, and save it with its tokenizer."""
    torch.set_num_threads(1)
    model = new_model(how.size, how.seed, vocabulary)
    model.train()
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    optimisers: list[Any] = [
        torch.optim.Muon(matrices, lr=how.muon_rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=how.adam_rate, weight_decay=0.0),
    ]
    schedules = [warm_up_and_down(o, how.warmup, how.steps) for o in optimisers]
    for step in range(how.steps):
        for loss in _batch_losses(model, batch(step), vocabulary):
            loss.backward()  # type: ignore[no-untyped-call]
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
    with quiet(), whole_folder(file) as folder:
        model.save_pretrained(str(folder))
        new_tokenizer(vocabulary).save_pretrained(str(folder))


def _batch_losses(
    model: Any, examples: list[Example], vocabulary: Mapping[str, int], parts: int = 4
) -> Iterator[Tensor]:
    """The step's batch in parts of similar length (less padding); their sum is the mean loss."""
    examples.sort(key=lambda e: len(e[0]))
    tokens = encode(examples, vocabulary)
    total = int((tokens.labels != IGNORED).sum())
    for rows in np.array_split(np.arange(len(examples)), parts):
        part = tokens.at(rows)
        yield completion_loss(model, part) * (int((part.labels != IGNORED).sum()) / total)
