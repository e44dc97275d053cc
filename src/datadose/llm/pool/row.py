"""A row of a pool: a prompt, its completions, and everything else that its file holds about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypeAlias

from datadose.llm.cache import content_digest

Message: TypeAlias = dict[str, Any]
"""A message of a conversation: ``role``, ``content`` (None beside tool calls) and all its other keys."""
Text: TypeAlias = str | list[Message]
"""A string, or the messages of a conversation."""
Columns: TypeAlias = dict[str, Any]
"""A row by the names of its columns."""


class BadRowError(ValueError):
    """A fault of one row: its kind in two or three words, what was found, and what is allowed."""

    def __init__(self, kind: str, found: str, allowed: str) -> None:
        self.kind, self.found, self.allowed = kind, " ".join(found.split()), allowed
        super().__init__(f"{kind}: {self.found}; allowed: {allowed}")


def malformed(found: str, allowed: str) -> NoReturn:
    """Raise the BadRowError of a row whose form is wrong: ``found`` instead of what is ``allowed``."""
    raise BadRowError("malformed row", found, allowed)


@dataclass(frozen=True)
class Row:
    """One example. ``line`` counts from 1: the line of a JSONL file, else the row, within its shard."""

    id: str
    prompt: Text
    completions: tuple[Text, ...]
    """The answers to the prompt, in the file's order; none in a row of prompts alone, or with an issue."""
    columns: Columns
    """The row as it was read, with ``prompt``, ``completion``, ``answer`` and ``tools`` under these names."""
    line: int
    issue: str | None = None
    """Why the row cannot be used, with its place; ``prompt`` and ``completions`` are empty then."""
    tools: list[dict[str, Any]] | None = None
    """The tools that may be called, as the template gets them."""
    template_options: dict[str, Any] = field(default_factory=dict)
    """The row's ``chat_template_kwargs``."""
    place: str = ""
    """The place of the row, in words: ``line 3``, or ``b.jsonl, row 3``."""
    answer_derived: bool = False
    """Whether the answer is the final form of the row's own completion, which it cannot judge then."""

    @property
    def has_completion(self) -> bool:
        """Whether there is an answer to learn from."""
        return bool(self.completions)

    @property
    def completion(self) -> Text:
        """The first completion; an empty string without any."""
        return self.completions[0] if self.completions else ""

    @property
    def question(self) -> str:
        """What deduplication compares: the whole prompt with its tools, case and white space folded."""
        if isinstance(self.prompt, str):
            text = self.prompt
        elif len(self.prompt) == 1 and self.prompt[0].keys() <= {"role", "content"}:
            text = text_of(self.prompt)
        else:
            text = " ".join(map(_spoken, self.prompt))
        if self.tools:
            text += f" {json.dumps(self.tools, sort_keys=True)}"
        return " ".join(text.split()).casefold()

    @property
    def completion_text(self) -> str:
        """The first completion's text without its message's frame; empty without any."""
        return text_of(self.completion)

    @property
    def answer(self) -> str:
        """The value of the column ``answer`` if there is one, else the completion's text."""
        answer = self.columns.get("answer")
        return self.completion_text if answer is None else answer_text(answer)

    @property
    def key(self) -> str:
        """A digest (64 hexadecimal digits) of all that the model reads: equal content, equal key."""
        return content_digest([self.prompt, self.completions, self.tools, self.template_options])

    def with_completion(self, index: int) -> Row:
        """The row with its completion number ``index`` (from 0) alone."""
        return replace(self, completions=(self.completions[index],))


def answer_text(answer: Any) -> str:
    """What a verifier is given for the value of a column ``answer``; empty for None."""
    if answer is None:
        return ""
    return json.dumps(answer, ensure_ascii=False) if isinstance(answer, (dict, list)) else str(answer)


def text_of(text: Text) -> str:
    """The words of a completion: a string itself, of messages the content of the last one."""
    return text if isinstance(text, str) else str(text[-1].get("content") or "")


def is_blank(text: Text) -> bool:
    """Whether a completion has no content: no text and, in its last message, no call or thought either."""
    if isinstance(text, str):
        return not text.strip()
    other = {name: value for name, value in text[-1].items() if name not in ("role", "content", "name")}
    return not text_of(text).strip() and not any(other.values())


def _spoken(message: Message) -> str:
    """A message with its role and its other keys."""
    other = {name: value for name, value in message.items() if name not in ("role", "content")}
    rest = f" {json.dumps(other, sort_keys=True)}" if other else ""
    return f"{message['role']}: {message.get('content') or ''}{rest}"
