"""score, select and posttrain on the command line: from a pool to an adapter, and one-line errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from datadose.cli.llm import _THRESHOLDS
from datadose.llm.selection import SelectionConfig
from helpers.command import run_main
from helpers.synthetic import make


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


def test_a_target_file_is_measured_once_wherever_the_command_runs(
    tiny_llama: Path,
    tmp_path: Path,
    write_rows: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The model was named from another folder; scores of another pool or model do not replace these."""
    rows = [addition(a, b) for a in range(7, 15) for b in range(11, 21)]
    pool, target = write_rows(rows[:60]), write_rows(rows[60:], "target.jsonl")
    scores = tmp_path / "scores"
    monkeypatch.chdir(tiny_llama.parent)
    scoring = ["score", "--model", tiny_llama.name, "--out", str(scores), "--pool"]
    assert run_main([*scoring, str(pool)]) == 0
    before = (scores / "rows.jsonl").read_bytes()
    assert run_main([*scoring, str(target)]) == 2
    assert f"out: got {scores} with the scores of pool {pool}" in capsys.readouterr().err
    assert (scores / "rows.jsonl").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rows.jsonl").write_bytes(before)
    assert (
        run_main(["score", "--model", tiny_llama.name, "--pool", str(pool), "--out", str(tmp_path / "mine")])
        == 2
    )
    monkeypatch.chdir(tmp_path)
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
        told = capsys.readouterr().err
        assert ("was measured with" in told) is said
        assert "unaligned: not used, it is a threshold of --method filters" in told
    assert (
        run_main([*command, "--unaligned", "0", "--method", "filters", "--out", str(tmp_path / "third")]) == 0
    )
    assert "not used" not in capsys.readouterr().err
    first, second = (tmp_path / place / "sft.jsonl" for place in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_the_help_states_the_thresholds_of_the_code() -> None:
    defaults = {f.name: f.default for f in fields(SelectionConfig)}
    shown = {name: float(text.rsplit("(", 1)[1].rstrip(")")) for name, text in _THRESHOLDS.items()}
    assert shown == {name: defaults[name] for name in _THRESHOLDS}


def test_an_rl_set_alone_needs_no_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it says is on stdout; nothing is measured, and a reference that is not used is said to be so."""
    make(200, 0).saved(tmp_path / "scores")
    out = tmp_path / "out"
    command = ["select", "--scores", str(tmp_path / "scores"), "--out", str(out), "--sft-size", "0"]
    assert run_main([*command, "--group", "4", "--reference", str(tmp_path / "none")]) == 0
    shown = capsys.readouterr()
    assert "SFT set 0 rows, RL set" in shown.out
    assert "a group of 4 is mixed with a chance below 0.5" in shown.out
    assert f"--data {out / 'rl.jsonl'} --stage rl --verifier VERIFIER --samples 4" in shown.out
    assert f"--data {out / 'control_rl.jsonl'}" in shown.out
    assert "reference: not used" in shown.err
    assert len(read_lines(out / "rl.jsonl")) == len(read_lines(out / "control_rl.jsonl")) > 0
    assert not (out / "sft.jsonl").exists()
    assert run_main([*command[:-2], "--sft-size", "5"]) == 2
    assert "target: got none; allowed: examples of the target" in capsys.readouterr().err


GOOD = {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("rows", "options", "parts"),
    [
        ([{"prompt": "a"}], [], ("pool: got", "line 1", "no completion")),
        ([GOOD], ["--samples", "2"], ("verifier: got none", "number")),
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


def run_posttrain(*options: object) -> int:
    return run_main(["posttrain", *map(str, options)])


def test_a_mixture_that_is_measured_and_the_average_of_two_runs(
    tiny_llama: Path, tmp_path: Path, write_rows: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [addition(a, 3) for a in range(20)]
    clean, web = write_rows(rows[:6], "clean.jsonl"), write_rows(rows[6:12], "web=1.jsonl")
    target, known = write_rows(rows[12:16], "target.jsonl"), write_rows(rows[16:], "known.jsonl")
    training = ("--model", tiny_llama, "--stage", "sft", "--steps", 4, "--batch", 2, "--lora-rank", 2)
    measured = ("--validation", target, "--keep", known, "--keep-weight", 0.2, "--evaluate-every", 2)
    mix = ("--mix", f"{clean}=3", f"{web}=1")
    outs = [tmp_path / "first", tmp_path / "second"]
    assert run_posttrain(*training, *mix, *measured, "--patience", 3, "--out", outs[0], "--json") == 0
    result = shown_json(capsys)
    assert [one["share"] for one in result["mix"]] == [0.75, 0.25]
    assert sum(one["drawn"] for one in result["mix"]) == 8
    assert [record["step"] for record in result["evaluations"]] == [0, 2, 4]
    assert (outs[0] / "curve.png").is_file()
    assert run_posttrain(*training, *mix, *measured, "--seed", 1, "--out", outs[1]) == 0
    assert re.search(r"^4 steps; kept are the (untouched )?weights", capsys.readouterr().err, re.MULTILINE)
    mean = tmp_path / "mean"
    assert run_posttrain("--average", *outs, "--out", mean, "--json") == 0
    assert shown_json(capsys)["runs"] == [str(out) for out in outs]
    assert (mean / "adapter" / "adapter_model.safetensors").is_file()


TRAINING = ("--model", "{model}", "--stage", "sft")
MEASURED = ("--validation", "{rows}", "--keep-weight", "0.5")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--data", "{rows}", "--stage", "sft"),
            "model: got none; allowed: --model with a value; only --average needs none",
        ),
        (("--model", "{model}", "--data", "{rows}"), "stage: got none"),
        (TRAINING, "data: got none; allowed: either --data FILE or --mix FILE=SHARE"),
        ((*TRAINING, "--data", "{rows}", "--mix", "{rows}=1"), "data: got --data and --mix; allowed: either"),
        ((*TRAINING, "--mix", "{rows}"), "mix: got {rows}; allowed: FILE=SHARE"),
        ((*TRAINING, "--mix", "{rows}=1", "{rows}=2"), "mix: got {rows} and {rows}; allowed: each file once"),
        (
            (*TRAINING, "--data", "{rows}", "--keep", "{rows}"),
            "keep: got {rows}; allowed: none without",
        ),
        ((*TRAINING, "--data", "{rows}", "--patience", "2"), "patience: got 2; allowed: none without"),
        ((*TRAINING, "--data", "{rows}", *MEASURED), "keep_weight: got 0.5; allowed: none without a file"),
        (
            (*TRAINING, "--data", "{rows}", "--validation", "{rows}"),
            "validation: got {rows}, line 1: the",
        ),
        (("--average", "{model}"), "average: got {model}; allowed: at least two runs"),
        (("--average", "{model}", "{rows}"), "average: got {model}; allowed: the folder of a run that"),
        (("--average", "a", "b", "--steps", "3"), "steps: got 3; allowed: none with --average"),
    ],
)
def test_bad_input_to_posttrain_is_one_line(
    options: tuple[str, ...],
    said: str,
    tiny_llama: Path,
    tmp_path: Path,
    write_rows: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"model": tiny_llama, "rows": write_rows([addition(1, 2)])}
    capsys.readouterr()
    assert run_posttrain(*(o.format(**names) for o in options), "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said.format(**names) in error
    assert not (tmp_path / "out").exists()


def test_an_interrupt_of_a_measured_run_says_that_it_can_go_on(
    tiny_llama: Path,
    tmp_path: Path,
    write_rows: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from datadose.llm import evaluation

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "write_curve", interrupt)
    data, target = write_rows([addition(1, 2)]), write_rows([addition(2, 2)], "target.jsonl")
    options = ("--model", tiny_llama, "--stage", "sft", "--data", data, "--batch", 1, "--validation", target)
    assert run_posttrain(*options, "--out", tmp_path / "out") == 130
    assert "interrupted; checkpoints are kept" in capsys.readouterr().err


def test_rows_that_fail_the_verifier_are_counted_when_they_are_scored(
    tiny_llama: Path, tmp_path: Path, write_rows: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [addition(a, 11) for a in range(7, 12)]
    for row in rows[:2]:
        row["completion"][0]["content"] = "1"
    pool = write_rows(rows)
    command = ["score", "--model", str(tiny_llama), "--pool", str(pool), "--verifier", "number"]
    for place, (options, said) in enumerate((([], 2), (["--columns", "answer=digits"], 3))):
        assert run_main([*command, "--out", str(tmp_path / str(place)), *options]) == 0
        assert f"{said} completions of the pool fail the verifier" in capsys.readouterr().err
    right = ["--pool", str(write_rows(rows[2:], "right.jsonl")), "--out", str(tmp_path / "right")]
    assert run_main(["score", "--model", str(tiny_llama), "--verifier", "number", *right]) == 0
    assert "fail the verifier" not in capsys.readouterr().err
