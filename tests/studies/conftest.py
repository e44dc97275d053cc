"""What the tests of several studies share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny random model that stands for SmolLM2."""
    from datadose.studies.llm_study.base_model import make_base

    path = tmp_path_factory.mktemp("base") / "tiny"
    make_base("tiny", file=path)
    return path
