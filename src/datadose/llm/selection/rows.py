"""A scored row as TRL reads it."""

from __future__ import annotations

from typing import Any, TypeAlias

Record: TypeAlias = dict[str, Any]
"""A scored row: its own columns and what `score` added."""

SET_ASIDE = ("messages", "conversations", "text", "input_ids", "labels")
"""Columns that TRL would train on instead of prompt and completion: left out."""


def split(row: Record) -> Record:
    """The row with ``prompt`` and ``completion`` and without the columns that TRL would prefer to them."""
    messages = row.get("messages")
    if row.get("prompt") is None and messages is not None:
        row = {**row, "prompt": messages[:-1], "completion": messages[-1:]}
    return {name: value for name, value in row.items() if name not in SET_ASIDE}
