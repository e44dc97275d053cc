"""Properties make very many small calls: their shapes, which other tests check, are not checked here."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _unchecked(any_shape: None) -> None:
    """Enforcing shapes would nearly double the time of these tests."""
