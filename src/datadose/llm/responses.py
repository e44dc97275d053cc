"""The form of OpenAI's answers, as servers send them and as batch files keep them."""

from __future__ import annotations

from typing import Any

from datadose.printing import shortened

_LONGEST = 200
"""Characters of an error that are shown."""


def choices_of(body: Any) -> list[tuple[str, str | None]]:
    """Text and finish of each choice in an answer, in the order of their indices; none where it has no such.

    The text is ``message.content`` or ``text``; "" where the content is null (all of it was a thought or a
    call that the server set apart). The finish is ``length`` for a text that was cut by the limit of tokens,
    ``stop`` for any other, and None where the server does not report it.
    """
    choices = body.get("choices") if isinstance(body, dict) else None
    found = []
    for place, choice in enumerate(choices if isinstance(choices, list) else []):
        if not isinstance(choice, dict):
            continue
        message = choice.get("message")
        if not isinstance(message, dict) and "text" not in choice:
            continue
        text = message.get("content") if isinstance(message, dict) else choice["text"]
        index, reason = choice.get("index", place), choice.get("finish_reason")
        finish = None if reason is None else "length" if reason == "length" else "stop"
        if text is None or isinstance(text, str):
            # Half a character, which some tokenisers leave at a cut, cannot be written.
            whole = (text or "").encode(errors="replace").decode()
            found.append((index if isinstance(index, int) else place, whole, finish))
    return [(text, finish) for _, text, finish in sorted(found, key=lambda one: one[0])]


def message_of(body: Any, text: str = "") -> str:
    """The message of an error, in one line: ``error.message``, ``message`` or ``detail``, else ``text``."""
    found: Any = None
    if isinstance(body, dict):
        error = body.get("error")
        found = error.get("message") if isinstance(error, dict) else error
        found = found or body.get("message") or body.get("detail")
    return shortened(" ".join(str(found or text).split()) or "no reason given", _LONGEST)
