"""Rows to token ids, token for token as TRL's trainers make them, and what a chat template leaves out.

Strings are tokenised as they are, and an end token follows the completion. Messages, with all their keys, the
row's tools and the row's options for the template, go through the tokenizer's chat template. Reference:
``tokenize_fn`` of TRL's SFTTrainer and ``_tokenize_prompts`` of its GRPOTrainer (trl 1.16).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from datadose.errors import InputError, reject, require_choice, require_extra
from datadose.llm.cache import content_digest
from datadose.llm.left_out import Render, dropped, shared_length
from datadose.llm.pool import Message, Row, Text

LOSSES = ("last", "all")
"""Which tokens are scored: those of the completion, or those of all assistant turns."""

TEMPLATE_DATE = "2024-07-26"
"""The day that templates with a clock print, unless another is given: a fixed one, so that a loss is the same
on every day. Llama 3's templates print this one where they have no clock."""

IGNORED = -100
"""The label of a token that is not trained on."""

_TOKENIZER_OPTIONS = (
    *("add_generation_prompt", "conversation", "max_length", "padding", "return_assistant_tokens_mask"),
    *(
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "tokenize",
        "tokenizer_kwargs",
        "truncation",
    ),
)
"""Arguments of the tokenizer's method that are not the template's."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Token ids of a row: its context, and from ``start`` on what is scored."""

    ids: NDArray[np.int32]
    """The token ids, at four bytes each; Python's integers take ten times that."""
    start: int
    """The first scored token."""
    scored: NDArray[np.bool_] | None = None
    """Which tokens are scored, shape (length,); None: all from ``start`` on."""
    issue: str | None = None
    """What the chat template leaves out of the completion."""

    @property
    def prompt_ids(self) -> list[int]:
        """The token ids before the first scored token."""
        return cast("list[int]", self.ids[: self.start].tolist())

    @property
    def completion_ids(self) -> list[int]:
        """The token ids from the first scored token on."""
        return cast("list[int]", self.ids[self.start :].tolist())

    @property
    def length(self) -> int:
        """The number of all tokens."""
        return len(self.ids)

    @property
    def places(self) -> NDArray[np.intp]:
        """The positions of the scored tokens. The first token of all cannot be predicted."""
        if self.scored is None:
            return np.arange(max(self.start, 1), len(self.ids))
        return np.flatnonzero(self.scored[1:]) + 1

    @property
    def targets(self) -> int:
        """The number of scored tokens."""
        return len(self.places)

    @property
    def labels(self) -> list[int]:
        """The ids of scored tokens and IGNORED for others, as a trainer takes them."""
        scored = np.arange(self.length) >= self.start if self.scored is None else self.scored
        return cast("list[int]", np.where(scored, self.ids, IGNORED).tolist())


@dataclass(frozen=True)
class Chat:
    """How rows become token ids under one tokenizer.

    Args:
        tokenizer: of Hugging Face's transformers.
        name: what errors call the model.
        loss: ``last``: a row's completion is scored (TRL's ``completion_only_loss``); ``all``: all assistant
            turns of its conversation (``assistant_only_loss``), which takes a template that marks them, or
            one of those that TRL has such a version of. Rows of strings have one turn.
        date: what a template's clock shows, YYYY-MM-DD.

    Raises InputError for a value out of range, and for ``all`` with a template that cannot mark turns.
    """

    tokenizer: Any
    name: str
    loss: str = "last"
    date: str = TEMPLATE_DATE

    def __post_init__(self) -> None:
        check_chat(self.loss, self.date)
        _ = self.training_template

    @property
    def digest(self) -> str | None:
        """sha256 of all that decides what messages become: template, clock, loss; None without a template."""
        template = self.tokenizer.chat_template
        return (
            None if template is None else content_digest([template, self.training_template, *self._settings])
        )

    @property
    def tokenizer_digest(self) -> str:
        """sha256 of what decides on token ids: vocabulary, rules, chat template and its clock."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = self.tokenizer.get_vocab() if backend is None else backend.to_str()
        return content_digest([rules, self.digest])

    @property
    def _settings(self) -> list[str]:
        return [self.loss, self.date]

    @cached_property
    def training_template(self) -> str | None:
        """What TRL renders instead of the tokenizer's own template for ``all``; None for its own."""
        if self.loss == "last" or self.tokenizer.chat_template is None:
            return None
        require_extra("train", "trl")
        from trl.chat_template_utils import (  # noqa: PLC0415 - optional, and slow to import
            get_training_chat_template,
            has_generation_markers,
        )

        if has_generation_markers(self.tokenizer.chat_template):
            return None
        try:
            return get_training_chat_template(self.tokenizer)
        except ValueError as error:
            allowed = (
                f"last with {self.name}: its chat template does not mark the assistant's turns "
                "({% generation %}), and TRL has no version of it that does"
            )
            raise InputError("loss", self.loss, allowed) from error

    def encode(self, row: Row) -> Encoded:
        """Token ids of ``row``, and which are scored.

        The completion begins where the ids of prompt and completion leave those of the prompt alone.

        Raises InputError, field ``messages``, for messages that the template refuses.
        """
        if isinstance(row.prompt, str):
            end, completion = self.tokenizer.eos_token or "", row.completion_text
            prompt = self._ids(row.prompt)
            whole = self._ids(row.prompt + completion + (end if not completion.endswith(end) else ""))
            return Encoded(np.array(whole, dtype=np.int32), shared_length([prompt, whole]))
        render = self._renderer(row.tools, row.template_options)
        messages = [*row.prompt, *cast("list[Message]", row.completion)]
        text = render(messages)
        if self.loss == "all":
            return self._all_turns(messages, row, dropped(messages, len(row.prompt), text, None, render))
        opened = render(row.prompt, opening=True)
        prompt, whole = self._ids(opened, special=False), self._ids(text, special=False)
        issue = dropped(messages, len(row.prompt), text, opened, render)
        return Encoded(np.array(whole, dtype=np.int32), shared_length([prompt, whole]), issue=issue)

    def encode_prompt(
        self, prompt: Text, tools: list[Any] | None = None, options: dict[str, Any] | None = None
    ) -> list[int]:
        """Token ids of ``prompt``; of messages, with ``tools`` and the opening of the assistant's answer.

        ``options`` are the row's for the template. Raises InputError, field ``messages``, for messages that
        the template refuses.
        """
        if isinstance(prompt, str):
            return self._ids(prompt)
        # No tools at all where there are none: some templates introduce an empty list, and GRPOTrainer
        # passes none.
        render = self._renderer(tools or None, options or {})
        return self._ids(render(prompt, opening=True), special=False)

    def _all_turns(self, messages: list[Message], row: Row, issue: str | None) -> Encoded:
        options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
        found = self._apply(messages, {**self._options(row.tools, row.template_options), **options})
        scored = np.array(found["assistant_masks"], dtype=np.bool_)
        if not scored.any():
            _refuse(messages, "no token of an assistant's turn is marked")
        ids = np.array(found["input_ids"], dtype=np.int32)
        return Encoded(ids, int(scored.argmax()), scored, issue)

    def _ids(self, text: str, *, special: bool = True) -> list[int]:
        return cast("list[int]", self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def _renderer(self, tools: list[Any] | None, options: dict[str, Any]) -> Render:
        given = self._options(tools, options)

        def render(messages: list[Message], *, opening: bool = False) -> str:
            found = self._apply(messages, {**given, "add_generation_prompt": opening, "tokenize": False})
            return cast("str", found)

        return render

    def _options(self, tools: list[Any] | None, options: dict[str, Any]) -> dict[str, Any]:
        """The template's arguments: a row's options win, as with TRL."""
        for name in options:
            if name in _TOKENIZER_OPTIONS:
                reject("messages", f"chat_template_kwargs with {name}", "options of the chat template")
        return {"chat_template": self.training_template, "tools": tools, **options}

    def _apply(self, messages: list[Message], options: dict[str, Any]) -> Any:
        if self.tokenizer.chat_template is None:
            reject("model", self.name, "a tokenizer with a chat template, since the rows are messages")
        try:
            with clock(self.date):
                return self.tokenizer.apply_chat_template(messages, **options)
        except Exception as error:
            # A template is a program: besides refusing it can fail in any way on unexpected keys.
            return _refuse(messages, " ".join(str(error).split()) or type(error).__name__, error)


def check_chat(loss: str, date: str) -> None:
    """InputError for a ``loss`` that is none of LOSSES, or a ``date`` that is none."""
    require_choice("loss", loss, LOSSES)
    try:
        written = datetime.strptime(date, "%Y-%m-%d").strftime("%Y-%m-%d")
    except (TypeError, ValueError):
        written = None
    if written != date:
        reject("template-date", date, "a day as YYYY-MM-DD")


@contextmanager
def clock(date: str) -> Iterator[None]:
    """Chat templates that read the time (``strftime_now``) find midnight of ``date`` inside."""
    from transformers.utils import chat_template_utils  # noqa: PLC0415 - slow to import

    moment = datetime.fromisoformat(date)
    with patch.object(chat_template_utils, "datetime", SimpleNamespace(now=lambda: moment)):
        yield


def _refuse(messages: list[Message], why: str, error: Exception | None = None) -> Any:
    shown = json.dumps(messages, default=str)[:200]
    raise InputError("messages", shown, f"what the model's chat template takes ({why})") from error
