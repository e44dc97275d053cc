"""`datadose compare` on the command line: what it refuses before it reads anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command import run_main

COMPARE = ["compare", "--scores", "none", "--target", "none", "--methods", "rds", "--out", "out"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "budget: got none; allowed: either --budget N or --budgets"),
        (["--budget", "4", "--budgets", "4,8"], "budget: got --budget and --budgets"),
        (["--budgets", "64"], "budgets: got 64; allowed: at least two numbers of rows"),
        (["--budgets", "64,-1"], "budgets: got 64,-1"),
        (["--budgets", "64,64"], "budgets: got [64, 64]; allowed: numbers of rows, ascending"),
        (["--budgets", "64,16"], "budgets: got [64, 16]"),
        (["--budgets", "64,256", "--seeds", "1"], "seeds: got 1"),
        # All of it is fine but for the folder.
        (["--budgets", "64, 256"], "scores: got none; allowed: a folder that `datadose score` has written"),
    ],
)
def test_bad_options_are_one_line(
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_main([*COMPARE, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"datadose compare: error: {said}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
