"""A scored row as trainers take it."""

from __future__ import annotations

from datadose.llm.pool.row import Columns

_SET_ASIDE = ("messages", "conversations", "text", "input_ids", "labels")
"""Columns that TRL would train on instead of prompt and completion."""

CHOSEN = "best_completion"
"""The column of the number (from 0) of the completion that represents a row with several."""


def for_trl(row: Columns) -> Columns:
    """The row with one completion, and without the columns that TRL would prefer to it."""
    found = {name: value for name, value in row.items() if name not in _SET_ASIDE}
    completion = found.get("completion")
    if isinstance(completion, list) and completion and not isinstance(completion[0], dict):
        found["completion"] = completion[row.get(CHOSEN) or 0]
    return found
