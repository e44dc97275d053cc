"""Messages in common forms, converted to those that chat templates take."""

from __future__ import annotations

import json
from typing import Any

from datadose.llm.pool.row import Message, malformed
from datadose.llm.pool.values import without_nulls

ALLOWED = "a list of messages {role, content}, both strings"

_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
"""Roles by the names that ShareGPT's files have for them."""

_SPEAKS = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
"""Keys beside which a message needs no content."""


def read_messages(value: Any, name: str) -> list[Message]:
    """The messages in the column ``name``: all their keys, but for those of null, which Arrow fills in.

    ``from`` and ``value`` (ShareGPT) become ``role`` and ``content``; a content that is a list of parts
    becomes its text. JSON text of a list is read. Raises BadRowError for anything else.
    """
    value = parsed(value)
    if not isinstance(value, list) or not value:
        malformed(f"{name} is {'empty' if value == [] else type(value).__name__}", ALLOWED)
    return [_message(one, name) for one in value]


def parsed(value: Any) -> Any:
    """The list or object in a JSON text (as CSV files hold them); any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def speak(role: str, text: str) -> list[Message]:
    """A list of one message of ``role`` with ``text``."""
    return [{"role": role, "content": text}]


def _message(value: Any, name: str) -> Message:
    if not isinstance(value, dict):
        malformed(f"{name} has {_shown(value)}", ALLOWED)
    message: Message = without_nulls(value)
    if "from" in message and "role" not in message:
        speaker = message.pop("from")
        if speaker not in _SPEAKERS:
            malformed(f"{name} has a message from {_shown(speaker)}", f"from {', '.join(_SPEAKERS)}")
        text = message.pop("value", None)
        message = {"role": _SPEAKERS[speaker], "content": text, **message}
    if not isinstance(message.get("role"), str):
        malformed(f"{name} has {_shown(value)}", ALLOWED)
    content = message.get("content")
    if content is None and any(message.get(key) for key in _SPEAKS):
        # Absent or null in the file: templates test whether it is none.
        return {"role": message["role"], "content": None, **message}
    if isinstance(content, list):
        message["content"] = "".join(_part(part, name) for part in content)
    elif not isinstance(content, str):
        malformed(f"{name} has {_shown(value)}", ALLOWED)
    return message


def _part(part: Any, name: str) -> str:
    """The text of a part of a content."""
    text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part
    if not isinstance(text, str):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        malformed(f"{name} has a part of type {kind}", "contents that are text, or parts {type: text, text}")
    return text


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:80]
