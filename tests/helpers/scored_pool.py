"""The pool of the scoring tests, and a way to stop a run between two batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datadose.llm.score_config import ScoreConfig
from datadose.llm.scores import FILES, SAMPLES

Write = Callable[..., Path]


def chat(question: str, label: str, **columns: Any) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": label}],
        **columns,
    }


ROWS = [chat(f"what is {i}+{i * i}?", str(i + i * i), level=i % 3) for i in range(12)]
"""Twelve rows of slightly different lengths."""

SETTINGS = ScoreConfig(samples=3, max_tokens=6, batch_tokens=150)
"""Small enough batches for several of each kind."""
SAMPLED: dict[str, Any] = {"config": SETTINGS, "verifier": "number"}


def bytes_of(folder: Path) -> dict[str, bytes]:
    names = [name for name in (*FILES, SAMPLES) if (folder / name).is_file()]
    return {name: (folder / name).read_bytes() for name in names}


class KilledError(Exception):
    """Stands for a kill between two batches."""


def killed_after(target: Any, name: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``target.name`` work ``calls`` times, then fail."""
    original, done = getattr(target, name), [0]

    def act(*values: Any, **options: Any) -> Any:
        done[0] += 1
        if done[0] > calls:
            raise KilledError
        return original(*values, **options)

    monkeypatch.setattr(target, name, act)
