"""Which column has which role: the layouts that data sets come in, recognised by their columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datadose.errors import reject
from datadose.llm.pool.messages import parsed, read_messages, speak
from datadose.llm.pool.row import BadRowError, Columns, Message, Text, malformed
from datadose.llm.pool.values import kind_of

ROLES = ("prompt", "completion", "messages", "answer", "tools", "id")
"""Roles that ``--columns`` may give to a column."""

COLUMNS = (
    "prompt and completion (two strings or two lists of messages), messages, another known layout "
    "(docs/how_to/bring_your_data.md), or --columns prompt=NAME,completion=NAME"
)

ANSWERS = ("answer", "reward_model.ground_truth", "final_answer", "expected_answer", "ground_truth")
"""Where the final answer may stand: the first of them that is not the completion itself."""


@dataclass(frozen=True)
class Layout:
    """A layout: its name, and the column of each role (``a.b`` is the key ``b`` of the column ``a``)."""

    name: str
    roles: dict[str, str]
    chat: bool = False
    """Whether strings become messages of a user and an assistant."""
    derive: bool = False
    """Whether the completion's last final form (boxed, or after ####) is the answer, where none is given."""

    @property
    def has_completion(self) -> bool:
        """Whether rows of this layout have a completion."""
        return "completion" in self.roles or "messages" in self.roles

    @property
    def key(self) -> str:
        """The role that the prompt is read from."""
        return "messages" if "messages" in self.roles else "prompt"

    def fits(self, columns: Columns) -> bool:
        """Whether the row has what the layout needs."""
        for role, column in self.roles.items():
            value = value_at(columns, column) if role != "input" else True
            # Many files leave the solution empty where only the answer is known.
            if value is None or (self.chat and value == ""):
                return False
        return True

    def form(self, columns: Columns) -> str:
        """The form that the row takes: ``messages`` or ``strings``."""
        if self.chat or self.key == "messages":
            return "messages"
        prompt, completion = (
            value_at(columns, self.roles.get(role, "")) for role in ("prompt", "completion")
        )
        plain = not isinstance(completion, list) or (bool(completion) and isinstance(completion[0], str))
        return "strings" if isinstance(prompt, str) and plain else "messages"


def _pair(prompt: str, completion: str) -> Layout:
    chat, name = prompt != "prompt", f"{prompt}/{completion}"
    return Layout(name, {"prompt": prompt, "completion": completion}, chat, completion != "completion")


LAYOUTS: tuple[Layout, ...] = (
    Layout("prompt/completion", {"prompt": "prompt", "completion": "completion"}),
    Layout("messages", {"messages": "messages"}),
    Layout("ShareGPT", {"messages": "conversations"}, chat=True),
    Layout("Alpaca", {"prompt": "instruction", "input": "input", "completion": "output"}, chat=True),
    *(
        _pair(*names)
        for names in (
            ("problem", "solution"),
            ("question", "solution"),
            ("question", "answer"),
            ("question", "response"),
            ("problem", "answer"),
            ("query", "response"),
            ("instruction", "response"),
            ("prompt", "response"),
            ("prompt", "solution"),
        )
    ),
    Layout("verl", {"prompt": "prompt", "reward": "reward_model"}),
    *(
        Layout(f"{name} only", {"prompt": name}, name != "prompt")
        for name in ("prompt", "question", "problem")
    ),
)
"""The layouts, the first that fits a row first; those of prompts alone at the end."""


def parse_columns(text: str) -> dict[str, str]:
    """The columns by role in a text such as ``prompt=question,completion=solution``.

    Raises InputError for a text of another form.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        role, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column or role not in ROLES or role in found:
            reject("columns", text, f"ROLE=COLUMN,... with each of {', '.join(ROLES)} at most once")
        found[role] = column
    if "messages" in found and found.keys() & {"prompt", "completion"}:
        reject("columns", text, "either messages, or prompt and completion")
    if "completion" in found and "prompt" not in found:
        reject("columns", text, "a prompt beside the completion")
    return found


def layouts_for(roles: Mapping[str, str]) -> tuple[Layout, ...]:
    """The layouts that a row may have once some ``roles`` are given."""
    own = {role: column for role, column in roles.items() if role in ("prompt", "completion", "messages")}
    return (Layout("given", own, derive=True),) if own else LAYOUTS


def value_at(columns: Columns, path: str) -> Any:
    """The column ``path``, or the value at ``a.b.c`` inside the column ``a``; None where there is none."""
    if path in columns or "." not in path:
        return columns.get(path)
    value: Any = columns
    for name in path.split("."):
        value = parsed(value)
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def split(columns: Columns, layout: Layout, *, chat: bool) -> tuple[Text, tuple[Text, ...]]:
    """The prompt and the completions of a row.

    Args:
        columns: the row as it was read.
        layout: which column has which role.
        chat: whether strings become messages, which is so if most rows of the file are messages.

    Raises BadRowError for a row that does not have the layout's form.
    """
    as_chat = chat or layout.chat
    name = layout.roles[layout.key]
    value = value_at(columns, name)
    if layout.key == "messages":
        messages = _with_system(read_messages(value, name), columns, layout)
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            malformed(name, "at least two messages, the last one of the assistant")
        return messages[:-1], (messages[-1:],)
    prompt = _prompt(value, name, columns, layout)
    completions = _completions(columns, layout) if "completion" in layout.roles else []
    if as_chat or isinstance(prompt, list) or any(isinstance(one, list) for one in completions):
        prompt = _with_system(speak("user", prompt), columns, layout) if isinstance(prompt, str) else prompt
        completions = [speak("assistant", one) if isinstance(one, str) else one for one in completions]
    return prompt, tuple(completions)


def _prompt(value: Any, name: str, columns: Columns, layout: Layout) -> Text:
    if value is None:
        raise BadRowError("no prompt", f"no {name}", COLUMNS)
    if not isinstance(value, str):
        _check_text(value, name)
        return read_messages(value, name)
    more = columns.get(layout.roles.get("input", ""))
    text = f"{value}\n{more}" if isinstance(more, str) and more.strip() else value
    if not text.strip():
        raise BadRowError("empty prompt", f"empty {name}", "a prompt with text")
    return text


def _completions(columns: Columns, layout: Layout) -> list[Text]:
    """The completions of a row: a string, messages, or a list of either."""
    name = layout.roles["completion"]
    value = value_at(columns, name)
    if layout.derive and isinstance(value, (int, float)):
        value = str(value)
    if value is None or value == []:
        raise BadRowError("no completion", f"no {name}", COLUMNS)
    if not isinstance(value, list) or isinstance(value[0], dict):
        value = [value]  # messages are one completion
    found: list[Text] = []
    for one in value:
        if isinstance(one, str):
            found.append(one)
            continue
        _check_text(one, name)
        messages = read_messages(one, name)
        if messages[-1]["role"] != "assistant":
            malformed(name, "messages, the last one of the assistant")
        found.append(messages)
    return found


def _check_text(value: Any, name: str) -> None:
    if not isinstance(value, list):
        raise BadRowError("another type", f"column {name} is {kind_of(value)}", "a string, or messages")


def _with_system(messages: list[Message], columns: Columns, layout: Layout) -> list[Message]:
    """With the column ``system`` of a layout that is converted: trainers of the others do not read it."""
    system = columns.get("system")
    if layout.chat and isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
        return [*speak("system", system), *messages]
    return messages


def find_answer(columns: Columns, places: Sequence[str]) -> Any:
    """The first answer in the columns or paths ``places``; None if there is none."""
    found = (value_at(columns, place) for place in places)
    return next((value for value in found if value is not None), None)


def final_form(text: str) -> str | None:
    """What the last \\boxed{...} of ``text`` holds, else what follows the last ####; None without either."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start >= 0:
        start, depth = text.index("{", start) + 1, 1
        for place in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                return text[start:place].strip()
    found = re.findall(r"####\s*(.+)", text)
    return found[-1].strip() if found else None
