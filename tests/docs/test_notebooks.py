"""The notebooks run, show what they hold, and stand on the site with their outputs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from helpers.pages import RELATIVE, Step, differences
from helpers.site_builder import DOCS

sys.path.insert(0, str(DOCS / "_ext"))
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
TRAINED = "select_data_for_a_model"
"""Its decimals come from training a toy: another CPU's rounding moves them at will."""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path.stem != "theory_in_ten_minutes"))
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)
def test_a_notebook_shows_what_it_holds(path: Path, tmp_path: Path) -> None:
    from notebooks import execute, plain

    notebook = json.loads(path.read_text())
    kept = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    compared = 0
    for place, (cell, shown) in enumerate(zip(kept, execute(notebook, tmp_path), strict=True)):
        pictures = [
            [("image/png" in one.get("data", {})) for one in found] for found in (cell["outputs"], shown)
        ]
        assert pictures[0] == pictures[1]
        held, printed = ("".join(map(plain, found)) for found in (cell["outputs"], shown))
        if path.stem != TRAINED:
            assert differences(Step("python", "".join(cell["source"]), held, place), printed, RELATIVE) == ""
        compared += bool(held)
    assert compared >= 4


def test_notebooks_are_small_and_on_the_site(site: Path) -> None:
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        assert path.stat().st_size < 150_000
        page = (site / "notebooks" / f"{path.stem}.html").read_text()
        assert "data:image/png" in page
        assert "nbformat" not in page
