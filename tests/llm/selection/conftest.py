"""Fewer permutations and components where a test is not about the shift."""

from __future__ import annotations

import pytest

from datadose.llm.selection import geometry


@pytest.fixture
def quick_geometry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "PERMUTATIONS", 19)
    monkeypatch.setattr(geometry, "DIMENSIONS", 8)
