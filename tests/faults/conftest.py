"""One small results folder, made once, for tests that damage copies of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers.command import run_main
from helpers.processes import SMALL


@pytest.fixture(scope="package")
def small_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`reproduce fig5`, not to be changed."""
    out = tmp_path_factory.mktemp("small") / "results"
    assert run_main([*map(str, SMALL), "--jobs", "1", "--out", str(out)]) == 0
    return out


@pytest.fixture
def results(small_results: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(small_results, tmp_path / "results"))
