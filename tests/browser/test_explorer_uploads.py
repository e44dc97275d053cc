"""Uploads in a real browser: a plan with its downloads, and what is said of files that give none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser.conftest import OpenPage
from datadose import Shift, plan
from helpers.explorer_page import GOOD, SMALL, TIMEOUT, changed, choose


@pytest.fixture
def uploaded(explorer: str, open_page: OpenPage) -> Iterator[Any]:
    page = open_page(f"{explorer}/your-spectra?{SMALL}")
    page.wait_for_selector("#upload input[type=file]", state="attached")
    return page


def test_an_upload_gives_a_plan_and_its_downloads(uploaded: Any, tmp_path: Path) -> None:
    (tmp_path / "shift.yaml").write_text(GOOD + "interference: 0.02\n")
    np.save(tmp_path / "sigma0.npy", np.repeat([0.1, 1.0], [20, 40]))
    choose(uploaded, tmp_path / "shift.yaml", tmp_path / "sigma0.npy")
    uploaded.wait_for_selector("#upload-plan .sentence", timeout=TIMEOUT)
    expected = plan(Shift.two_block(60, 20, 0.1, 0.2, 0.02), length=60, max_prompts=120)
    assert uploaded.inner_text("#upload-plan .sentence").lower() == expected.recommendation.lower() + "."
    with uploaded.expect_download() as one:
        uploaded.get_by_text("The plan (JSON)").click()
    document = json.loads(Path(one.value.path()).read_text())
    assert document == json.loads(json.dumps(expected.to_json()))
    with uploaded.expect_download() as two:
        uploaded.get_by_text("The picture (PNG)").click()
    assert Path(two.value.path()).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (
            "shift.yaml",
            GOOD + "interference: 0.02\n",
            r"sigma0: got sigma0.npy; allowed: the name of",
        ),
        ("shift.yaml", GOOD.replace("eta: 0.2", "eta: 7"), r"eta: got 7(\.0)?; allowed"),
        ("shift.yaml", "a: [1,\n b", r"config: got shift.yaml, line \d+; allowed"),
        ("shift.yaml", "", r"allowed: 1 to [\d,]+ bytes"),
        ("shift.txt", "hello", r"file: got shift.txt; allowed: a SHIFT.yaml"),
        ("sigma0.npy", "not an array", r"file: got sigma0.npy; allowed: an array"),
    ],
)
def test_a_bad_upload_gives_a_message_and_the_page_lives_on(
    uploaded: Any, tmp_path: Path, name: str, content: str, complaint: str
) -> None:
    (tmp_path / name).write_text(content)
    choose(uploaded, tmp_path / name)
    said = changed(uploaded, "#upload-complaint", "")
    assert re.search(complaint, said), said
    (tmp_path / "shift.yaml").write_text(
        GOOD.replace("sigma0.npy", "{blocks: [[0.1, 20], [1, 40]]}") + "interference: 0.02\n"
    )
    choose(uploaded, tmp_path / "shift.yaml")
    uploaded.wait_for_selector("#upload-plan .sentence", timeout=TIMEOUT)
    assert uploaded.inner_text("#upload-complaint") == ""
