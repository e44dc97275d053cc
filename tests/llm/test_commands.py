"""score, select and posttrain on the command line: from a pool to an adapter, and one-line errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from datadose.cli.llm import _THRESHOLDS
from datadose.llm.selection import SelectionConfig
from helpers.command import run_main


def addition(a: int, b: int) -> dict[str, Any]:
    return {
        "id": f"{a}+{b}",
        "prompt": [{"role": "user", "content": f"{a} + {b} = ?"}],
        "completion": [{"role": "assistant", "content": str(a + b)}],
        "answer": str(a + b),
        "digits": len(str(a)),
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def shown_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_from_a_pool_to_an_adapter(
    tiny_llama: Path, tmp_path: Path, write_rows: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The promised commands and files, with one JSON document on stdout and nothing else."""
    rows = [addition(a, b) for a in range(7, 19) for b in range(11, 21)]
    pool, target = write_rows(rows[:100]), write_rows(rows[100:], "target.jsonl")
    scores, out = tmp_path / "scores", tmp_path / "selected"
    model = ["--model", str(tiny_llama)]
    capsys.readouterr()
    scoring = [
        "score",
        *model,
        "--pool",
        str(pool),
        "--out",
        str(scores),
        "--samples",
        "2",
        "--max-tokens",
        "4",
    ]
    assert run_main([*scoring, "--verifier", "exact", "--json"]) == 0
    assert shown_json(capsys)["rows"] == 100
    chosen = ["select", "--scores", str(scores), "--target", str(target), "--out", str(out)]
    assert run_main([*chosen, "--sft-size", "12", "--rl-size", "20", "--unaligned", "0", "--json"]) == 0
    assert shown_json(capsys)["sizes"]["sft"] == 12
    for name, count in (("sft", 12), ("control_sft", 12), ("rl", 20), ("control_rl", 20)):
        found = read_lines(out / f"{name}.jsonl")
        assert len(found) == count
        assert all(
            {"nll", "pass_rate", "pass_rate_total", "pass_rate_passed", "digits"} <= set(r) for r in found
        )
    for stage, extra in (("sft", []), ("rl", ["--verifier", "exact", "--samples", "2", "--max-tokens", "4"])):
        command = ["posttrain", *model, "--data", str(out / f"{stage}.jsonl"), "--stage", stage]
        place = tmp_path / stage
        options = ["--out", str(place), "--steps", "2", "--batch", "2", "--lora-rank", "4", *extra, "--json"]
        assert run_main([*command, *options]) == 0
        assert len(shown_json(capsys)["history"]) == 2
        assert (place / "adapter" / "adapter_model.safetensors").is_file()


def test_a_target_file_is_measured_once(
    tiny_llama: Path, tmp_path: Path, write_rows: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [addition(a, b) for a in range(7, 15) for b in range(11, 21)]
    pool, target = write_rows(rows[:60]), write_rows(rows[60:], "target.jsonl")
    scores = tmp_path / "scores"
    assert run_main(["score", "--model", str(tiny_llama), "--pool", str(pool), "--out", str(scores)]) == 0
    command = [
        "select",
        "--scores",
        str(scores),
        "--target",
        str(target),
        "--rl-size",
        "0",
        "--sft-size",
        "5",
    ]
    for place, said in (("first", True), ("second", False)):
        capsys.readouterr()
        assert run_main([*command, "--unaligned", "0", "--out", str(tmp_path / place)]) == 0
        assert ("target: measuring" in capsys.readouterr().err) is said
    first, second = (tmp_path / place / "sft.jsonl" for place in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_the_help_states_the_thresholds_of_the_code() -> None:
    defaults = {f.name: f.default for f in fields(SelectionConfig)}
    shown = {name: float(text.rsplit("(", 1)[1].rstrip(")")) for name, text in _THRESHOLDS.items()}
    assert shown == {name: defaults[name] for name in _THRESHOLDS}


GOOD = {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("rows", "options", "parts"),
    [
        ([{"prompt": "a"}], [], ("pool: got", "line 1", "no completion")),
        ([GOOD], ["--samples", "2"], ("verifier: got none", "last-number")),
        ([GOOD], ["--samples", "2", "--verifier", "no.such:thing"], ("verifier: got no.such:thing",)),
        ([GOOD], ["--samples", "-1"], ("samples: got -1", ">= 0")),
        ([GOOD], ["--dtype", "int3"], ("dtype: got int3", "float32")),
    ],
)
def test_bad_input_to_score_is_one_line(
    tiny_llama: Path,
    tmp_path: Path,
    write_rows: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    rows: list[dict[str, Any]],
    options: list[str],
    parts: tuple[str, ...],
) -> None:
    command = [
        "score",
        "--model",
        str(tiny_llama),
        "--pool",
        str(write_rows(rows)),
        "--out",
        str(tmp_path / "out"),
    ]
    assert run_main([*command, *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(part in error for part in parts), error


def test_bad_sizes_and_folders_to_select_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["select", "--scores", str(tmp_path), "--target", str(tmp_path), "--out", str(tmp_path / "out")]
    for options, part in ((["--sft-size", "many"], "sft-size: got many"), ([], "rows.jsonl is missing")):
        assert run_main([*command, *options]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert part in error
