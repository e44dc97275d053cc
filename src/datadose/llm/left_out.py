"""What never reaches a trainer's tokens: parts of a completion that a chat template drops, unread columns.

Whether a template drops something is decided by rendering, never by the template's name: every value of the
completion must occur in the rendered text (white space aside, and as JSON where a template writes JSON), and
a message without one of its parts must give another text than with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from datadose.errors import InputError
from datadose.llm.pool import Message, Row

KIND = "template drops part of the completion"
"""The beginning of the issue of a row."""

_THOUGHT = re.compile(r"</?think(?:ing)?>")
_REASONING = ("reasoning_content", "thinking", "reasoning")
"""A message's thoughts; transformers hands the first of them to the template under the other names too."""

_SYSTEM = ("system", "system_prompt")
"""Columns for the text of a system message, which no trainer reads."""


class Render(Protocol):
    """Messages to text by a template; with ``opening``, that of the assistant's answer follows."""

    def __call__(self, messages: list[Message], *, opening: bool = False) -> str: ...


def dropped(
    messages: list[Message], start: int, text: str, prompt_text: str | None, render: Render
) -> str | None:
    """The issue of a conversation of which ``text`` lacks something; None if all is there.

    Args:
        messages: the conversation.
        start: how many of them are the prompt.
        text: what the template makes of them.
        prompt_text: what it makes of the prompt, with the opening of the answer; None if the assistant's
            messages in the prompt are scored too.
        render: the template.
    """
    places = list(range(start, len(messages)))
    if prompt_text is None:
        places = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    shown = _squeezed(text if prompt_text is None else text[shared_length([prompt_text, text]) :])
    lost = [(i, part, value) for i in places for part, value in _values(messages[i]) if not _in(value, shown)]
    if lost and prompt_text is not None:
        # What the opening begins already (a thought) is part of the completion here.
        shown = _squeezed(text[shared_length([_rendered(render, messages[:start]) or "", text]) :])
        lost = [one for one in lost if not _in(one[2], shown)]
    lost += [(i, part, messages[i][part]) for i in places for part in _unused(messages, i, text, render)]
    if not lost:
        return None
    parts = ", ".join(dict.fromkeys(part for _, part, _ in lost))
    first = json.dumps(lost[0][2], ensure_ascii=False)[:80]
    return f"{KIND}: {parts} of message {lost[0][0] + 1}: {first}"


def unread_columns(row: Row) -> list[str]:
    """Columns of a row that have content and that no trainer reads.

    A system column beside a prompt without its text; tools and options for a chat template beside a prompt
    that is a string, which does not go through the template.
    """
    if row.issue is not None:
        return []
    said = _squeezed(row.prompt if isinstance(row.prompt, str) else json.dumps(row.prompt))
    system = {name: row.columns.get(name) for name in _SYSTEM}
    found = [
        name
        for name, value in system.items()
        if isinstance(value, str) and value.strip() and not _in(value, said)
    ]
    if isinstance(row.prompt, str):
        found += ["tools"] if row.tools else []
        found += ["chat_template_kwargs"] if row.template_options else []
    return found


def unread_sentences(unread: Mapping[str, int]) -> list[str]:
    """A sentence on each of the columns that :func:`unread_columns` has found."""
    return [
        f"the column {name} of {count} rows is not scored: trainers do not read it with such a prompt"
        for name, count in unread.items()
    ]


def _values(message: Message) -> Iterator[tuple[str, Any]]:
    """The content of a message by its keys: texts, and names, keys and values of its calls."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        value = part.get("text") if isinstance(part, dict) else part
        if isinstance(value, str):
            yield "content", value
    for name in _REASONING:
        if isinstance(message.get(name), str):
            yield name, message[name]
            break
    for call in message.get("tool_calls") or []:
        function = call.get("function", call) if isinstance(call, dict) else {"name": call}
        for value in _leaves([function[name] for name in ("name", "arguments") if name in function]):
            yield "tool_calls", value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _leaves(inner)
    elif isinstance(value, str) or not isinstance(value, Iterable):
        yield value
    else:
        for inner in value:
            yield from _leaves(inner)


def _in(value: Any, shown: str) -> bool:
    """Whether ``shown`` (squeezed) has ``value`` as it is, as JSON, or but for the tags of a thought."""
    forms = [str(value), json.dumps(value, ensure_ascii=False), json.dumps(value)]
    if isinstance(value, str):
        forms[1:] = [form[1:-1] for form in forms[1:]]
    if any(_squeezed(form) in shown for form in forms):
        return True
    pieces = _THOUGHT.split(value) if isinstance(value, str) else []
    return len(pieces) > 1 and all(_squeezed(piece) in shown for piece in pieces)


def _unused(messages: list[Message], place: int, text: str, render: Render) -> Iterator[str]:
    """Parts of a message without which the text is the same, where it has more than content."""
    message = messages[place]
    thoughts = [name for name in _REASONING if message.get(name)]
    calls = ["tool_calls"] if message.get("tool_calls") else []
    if not thoughts and not calls:
        return
    content = message.get("content")
    said = ["content"] if isinstance(content, str) and content.strip() else []
    for part in filter(None, (thoughts, calls, said)):
        without = {key: value for key, value in message.items() if key not in part}
        # Templates count on a content.
        without.setdefault("content", "")
        if _rendered(render, [*messages[:place], without, *messages[place + 1 :]]) == text:
            yield part[0]


def _rendered(render: Render, messages: list[Message]) -> str | None:
    try:
        return render(messages)
    except InputError:
        return None


def shared_length(sequences: Sequence[Any]) -> int:
    """How many tokens all ``sequences`` begin with, lists of them; or how many characters, texts."""
    # Whatever all begin with, the least and the greatest in dictionary order do.
    low, high = min(sequences), max(sequences)
    if high[: len(low)] == low:
        return len(low)
    return next(place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)


def _squeezed(text: str) -> str:
    return "".join(text.split())
