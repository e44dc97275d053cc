"""Properties make a great many small calls: their shapes, which other tests have checked, are not checked again."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _unchecked(any_shape: None) -> None:
    """Enforcing shapes would nearly double the time of these tests."""
