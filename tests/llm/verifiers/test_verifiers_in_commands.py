"""``score`` and ``posttrain`` with verifiers that hang, print and meet unfinished thoughts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datadose.llm.posttrain import PosttrainConfig, posttrain
from helpers.command import run_main

Write = Callable[..., Path]
ROWS: list[dict[str, Any]] = [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(4)]
CHECKS = """
import time

def check(text, row):
    print("noise")
    if text == "hang":
        time.sleep(1000)
    return text.strip() == row["answer"]
"""


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a verifier in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "noisy_checks", raising=False)
    (tmp_path / "noisy_checks.py").write_text(CHECKS)
    return "noisy_checks:check"


def test_score_counts_what_hangs_and_what_broke_off_and_prints_json_alone(
    tiny_llama: Path, write_rows: Write, tmp_path: Path, checks: str, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = [["1", "hang"], ["<think>maybe 2", "2"], ["<think>3</think>3", "x"], ["4", "4"]]
    given = write_rows(
        [{"id": f"row-{i + 1}", "completions": found} for i, found in enumerate(texts)], "given.jsonl"
    )
    pool = write_rows([{**row, "answer": row["completion"]} for row in ROWS])
    base = ["score", "--model", str(tiny_llama), "--pool", str(pool), "--completions", str(given), "--json"]
    found = {}
    for verifier, processes in ((checks, "1"), (checks, "3"), ("number", "1")):
        out = tmp_path / f"{verifier.partition(':')[0]}-{processes}"
        options = ["--verifier", verifier, "--verifier-timeout", "1", "--verifier-processes", processes]
        assert run_main([*base, *options, "--out", str(out)]) == 0
        manifest = json.loads(capfd.readouterr().out)
        assert manifest["unfinished"] == 1
        assert manifest["verifier_timeout"] == 1
        lines = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
        assert [line["unfinished"] for line in lines] == [0, 1, 0, 0]
        assert manifest["issues"] == {}
        passed = [line["pass_rate_passed"] for line in lines]
        found[verifier, processes] = manifest["incomplete"], passed, lines
    hanging = {"verifier failed": 1}
    assert found[checks, "1"] == found[checks, "3"]
    assert found[checks, "1"][:2] == (hanging, [1, 1, 0, 2])
    assert found[checks, "1"][2][0]["incomplete"] == "verifier failed: no verdict within 1 s"
    assert found["number", "1"][:2] == ({}, [1, 1, 1, 2])


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_time_limit_that_is_none_is_refused_in_one_line(
    seconds: str, tiny_llama: Path, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "score",
        "--model",
        str(tiny_llama),
        "--pool",
        str(write_rows(ROWS)),
        "--out",
        str(tmp_path / "o"),
    ]
    assert run_main([*command, "--verifier", "exact", f"--verifier-timeout={seconds}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "verifier-timeout" in error


@pytest.mark.long
def test_rl_counts_what_hangs_and_what_broke_off(
    tiny_llama: Path, write_rows: Write, tmp_path: Path, checks: str
) -> None:
    (tmp_path / "noisy_checks.py").write_text(
        "import time\ndef check(text, row):\n    print('noise')\n    time.sleep(1000)\n"
    )
    config = PosttrainConfig(
        "rl", steps=1, batch=4, samples=2, max_tokens=3, lora_rank=2, verifier_timeout=0.2
    )
    result = posttrain(tiny_llama, write_rows(ROWS), tmp_path / "out", config=config, verifier=checks)
    assert result["verifier_errors"] == {"verifier failed: no verdict within 0.2 s": 4}
    assert result["unfinished"] == 0
    assert [entry["reward"] for entry in result["history"]] == [0]
