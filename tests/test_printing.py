"""What a user named is printed: no markup, no escape sequences, no formulas. And a stdout that ends."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import datadose.progress
from datadose.cli.common import print_table
from datadose.printing import muted, note, printable
from datadose.progress import cell_progress, step_progress
from helpers.command import PREDICT, argv, environment, run_main

pytestmark = pytest.mark.long

NAMES = ["[crowd]", "[/red]x", "[bold]a[/bold]", "a[/b]", ":smile:", "$\\frac{", "<b>x</b>", "{0}%s", "\\[x]"]
CLAIM = {"id": "a", "statement": "b", "value": 1.0, "threshold": 2.0, "verdict": "holds"}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(f"title {name}", ["source", "id", "prompts"], [[name, name, name]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == f"title {name}"
    assert any(line.count(name) == 3 for line in lines)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_titles_of_progress_are_printed_as_they_are(
    name: str, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=120, color_system=None)
    monkeypatch.setattr(datadose.progress, "Console", lambda **_: console)
    with cell_progress(name, 2) as advance:
        advance()
        advance()
    with step_progress() as report:
        report(name, 1, 1)
    assert name in shown.getvalue() + capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain ünïcode 数", "plain ünïcode 数"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\x07\x00", "a\\x07\\x00"),
        ("\ud800", "\\ud800"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("left\u202eright", "left\\u202eright"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(given: str, shown: str) -> None:
    assert printable(given) == shown


def _write_plan(folder: Path, name: str) -> Path:
    path = folder / "plan.yaml"
    source = json.dumps({"name": name, "covariance": [1, 1, 1], "size": 20})
    other = json.dumps({"name": f"{name} too", "covariance": [1, 0.5, 0], "size": 20})
    path.write_text(
        "sigma0: [0.1, 0.5, 1.0]\ndelta: [1.0, 0.0, 0.0]\nlength: 60\neta: 0.2\nmax_prompts: 20\n"
        f"sources: [{source}, {other}]\n"
    )
    return path


@pytest.mark.parametrize("name", ["[crowd]", "[/red]x", "$\\frac{", "\x1b[31mred"])
def test_a_plan_of_sources_with_such_names(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the table, and in the picture, where a dollar would begin a formula."""
    path = _write_plan(tmp_path, name)
    assert run_main(["plan", str(path), "--plot", str(tmp_path / "[x].png")]) == 0
    shown = capsys.readouterr().out
    assert printable(name) in shown
    assert "\x1b" not in shown
    assert (tmp_path / "[x].png").is_file()
    assert run_main(["plan", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sources"][0]["name"] == name


def test_a_ledger_with_such_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a[/b]"
    out.mkdir(parents=True)
    claims = [{**CLAIM, "id": name, "statement": f"{name} and {name}"} for name in NAMES]
    (out / "claims.json").write_text(json.dumps(claims))
    assert run_main(["claims", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in NAMES)


def test_on_a_narrow_terminal_a_row_is_a_block_of_whole_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    header = ["id", "statement", "value", "threshold", "verdict"]
    print_table("a ledger", header, [["thm-4.1", "The error never rises with more data", "1", "2", "holds"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["a ledger", "", "id: thm-4.1"]
    assert "statement: The error" in lines
    assert max(map(len, lines)) <= 20
    monkeypatch.setenv("COLUMNS", "80")
    print_table("a ledger", header, [["thm-4.1", "The error never rises with more data", "1", "2", "holds"]])
    assert "│ thm-4.1 │ The error" in capsys.readouterr().out


def test_a_title_is_as_wide_as_the_terminal_and_heads_break_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    title = "a title that is far wider than the table below it, yet not than the terminal"
    print_table(title, ["stage", "error"], [["sft", "0.5"]])
    assert capsys.readouterr().out.splitlines()[0] == title
    heads = ["source", "rows", "weight", "share of a batch", "worth of one more", "by cost", "buy next"]
    row = ["experts", "150", "0.012567", "0.013156", "2.3912e-05", "4.7824e-06", "0"]
    print_table("mixture", heads, [row])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "│ experts │" in shown
    assert "4.7824e-06" in shown
    assert {word for head in heads for word in head.split()} <= set(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


# --- stdout ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("json_", [[], ["--json"]], ids=["table", "json"])
def test_a_stdout_that_is_full_is_one_line(json_: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            argv(*PREDICT, *json_),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=environment(),
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "standard output: No space left on device" in done.stderr


@pytest.mark.parametrize(("more", "code"), [([], 0), (["--json"], 0), (["--rho=-1"], 2)])
def test_a_closed_stdout_changes_no_exit_code(more: list[str], code: int, tmp_path: Path) -> None:
    """`datadose ... >&-` works and fails as it would."""
    done = subprocess.run(
        ["bash", "-c", '"$@" >&-', "bash", *argv(*PREDICT, *more)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment(),
    )
    assert done.returncode == code
    assert done.stderr.count("\n") == (code == 2)


def test_python_dash_m_datadose_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "datadose", *PREDICT, "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment(),
    )
    assert json.loads(done.stdout)[0]["prompts"] == 5


def test_running_out_of_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 7.28 TiB")

    monkeypatch.setattr("datadose.theory.asymptotics.predict_error", fail)
    assert run_main(PREDICT) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interrupt_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("datadose.theory.asymptotics.predict_error", stop)
    monkeypatch.setattr("datadose.strict.read_text", stop)
    assert run_main(PREDICT) == 130
    assert "interrupted; run the same command again" in capsys.readouterr().err
    assert run_main(["train", str(tmp_path / "c.yaml")]) == 130
    assert "with --resume" in capsys.readouterr().err


def test_a_muted_step_says_nothing_and_the_next_one_does(capsys: pytest.CaptureFixture[str]) -> None:
    with muted():
        note("inside")
        with muted():
            note("deeper")
        note("still inside")
    with pytest.raises(KeyError), muted():
        raise KeyError
    note("outside")
    assert capsys.readouterr().err == "outside\n"
