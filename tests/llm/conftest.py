"""The tiny model of these tests, and rows for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers.tiny_llama import make_model

if TYPE_CHECKING:
    from datadose.llm.language_model import LanguageModel

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Llama with a chat template."""
    return make_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LanguageModel:
    """The same, loaded."""
    from datadose.llm.language_model import LanguageModel

    return LanguageModel.load(tiny_llama)


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """``write_rows(rows, name)`` writes a JSONL file and returns its path."""

    def write(rows: list[dict[str, Any]], name: str = "pool.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: the same rounding whatever else runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between tries at a server, and no key for it."""
    from datadose.llm import endpoint

    monkeypatch.setattr(endpoint, "_PAUSE", 0.01)
    monkeypatch.setattr(endpoint, "_LONGEST_PAUSE", 0.05)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
