"""The command line: help, bad input, what a command loads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.command import (
    COMMANDS,
    PATIENCE,
    PREDICT,
    argv,
    environment,
    run_datadose,
    run_main,
    with_option,
)

# --- help and bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=["datadose", *COMMANDS])
def test_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main([*command, "--help"]) == 0
    shown = capsys.readouterr()
    assert re.search(r"example: datadose \w+", shown.out)
    assert shown.err == ""


def test_the_help_of_datadose_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    run_main(["--help"])
    shown = capsys.readouterr().out
    assert all(re.search(rf"^\s+{name}\b", shown, re.MULTILINE) for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["--version"]) == 0
    assert re.fullmatch(r"datadose \d+\.\d+\S*\n", capsys.readouterr().out)


def _assert_one_line(error: str, *parts: str) -> None:
    assert error.endswith("\n"), error
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    missing = [part for part in parts if part not in error]
    assert not missing, f"{missing} not in {error!r}"


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ([], "COMMAND", "required"),
        (["dose"], "COMMAND", "dose"),
        ([*PREDICT, "--rho-shift", "3"], "unknown option", "--rho-shift"),
        ([*PREDICT, "--form"], "--form", "expected one argument"),
        (PREDICT[:-2], "--prompts", "required"),
        (["reproduce", "fig9", "--preset", "smoke"], "target", "fig9"),
        (["reproduce", "fig5", "--preset", "huge"], "preset", "huge"),
        (["reproduce", "fig5", "--preset", "smoke", "--seeds", "1"], "seeds", "1"),
        (["reproduce", "fig5", "--preset", "smoke", "--seeds", "many"], "--seeds", "many"),
        (["reproduce", "fig5", "--preset", "smoke", "--jobs", "0"], "jobs", "0"),
        (["reproduce", "fig5", "--preset", "smoke", "--backend", "threads"], "backend", "threads"),
        (["reproduce", "fig5", "--preset", "smoke", "--address", "tcp://a:1"], "address", "tcp://a:1"),
        (with_option("--prompts", "-3"), "prompts", "-3"),
        (with_option("--prompts", "abc"), "prompts", "abc"),
        ([*PREDICT, "7", "-1"], "prompts", "-1"),
        (with_option("--length", "0"), "length", "0"),
        (with_option("--length", "2.5"), "length", "2.5"),
        (with_option("--eta", "0"), "eta", "0"),
        (with_option("--eta", "2"), "eta", "2"),
        (with_option("--eta", "nan"), "eta", "nan"),
        (with_option("--dimension", "0"), "dimension", "0"),
        (with_option("--shifted", "41"), "shifted", "41"),
        (with_option("--shifted", "-1"), "shifted", "-1"),
        (with_option("--interference", "-1"), "interference", "-1"),
        (with_option("--interference", "inf"), "interference", "inf"),
        (with_option("--rho", "nan"), "rho", "nan"),
        (with_option("--rho", "-0.1"), "rho", "-0.1"),
        (with_option("--form", "nonsense"), "form", "nonsense"),
        ([*with_option("--interference", "0"), "--form", "as-printed"], "interference", "as-printed"),
        (with_option("--simulate", "0"), "simulate", "0"),
        (with_option("--simulate", "-2"), "simulate", "-2"),
    ],
    ids=lambda value: "_".join(value)[-40:] if isinstance(value, list) else value,
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    field: str,
    value: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The line names the field and the value; nothing is printed or written elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert run_main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    _assert_one_line(shown.err, field, value)
    assert not list(tmp_path.iterdir())


def test_an_unknown_target_beside_all_is_rejected(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_main(["reproduce", "all", "fig9", "--preset", "smoke", "--out", str(tmp_path)]) == 2
    _assert_one_line(capsys.readouterr().err, "target", "fig9")


def test_bad_input_from_a_shell(tmp_path: Path) -> None:
    """The same through a real process: exit code, empty stdout, one line."""
    done = run_datadose(*with_option("--eta", "3"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    _assert_one_line(done.stderr, "eta", "3", "(0, 2)")


@pytest.mark.parametrize("inside", ["", "below"])
def test_out_that_is_a_file(inside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    out = taken / inside if inside else taken
    assert run_main(["reproduce", "fig5", "--preset", "smoke", "--out", str(out)]) == 2
    _assert_one_line(capsys.readouterr().err, "out", "taken")
    assert taken.read_text() == "mine"


def test_claims_of_a_folder_without_a_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path)[-30:]
    assert run_main(["claims", "--out", str(tmp_path)]) == 2
    _assert_one_line(capsys.readouterr().err, "out", folder[-10:])


@pytest.mark.parametrize("json_", [[], ["--json"]], ids=["table", "json"])
def test_malformed_ledger_names_the_line(
    json_: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("claims.json").write_text('[\n  {"id": 1,\n  ]\n')
    assert run_main(["claims", "--out", ".", *json_]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    _assert_one_line(shown.err, "claims.json", "line 3")


@pytest.mark.parametrize(
    "content",
    [b'{"id": "thm-4.1"}', b'[{"id": "thm-4.1"}]', b'["thm-4.1"]', b"3", b"\xff\xfe\x00", b'[{"id": NaN}]'],
    ids=["object", "missing keys", "strings", "number", "not text", "NaN"],
)
def test_well_formed_json_that_is_no_ledger(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hand-edited or foreign claims.json is bad input, not a traceback."""
    monkeypatch.chdir(tmp_path)
    Path("claims.json").write_bytes(content)
    assert run_main(["claims", "--out", "."]) == 2
    _assert_one_line(capsys.readouterr().err, "claims.json")


# --- what a command loads ------------------------------------------------------------------------------

HEAVY = ("scipy.stats", "pandas", "matplotlib", "torch")


def _imported(arguments: list[str]) -> set[str]:
    """Which slow libraries a command imports, in a process of its own."""
    code = (
        "import sys; from datadose.cli import main; code = main(sys.argv[1:]); "
        f"print(code, *({{*{HEAVY}, 'scipy.optimize'}} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    code, *names = done.stderr.split()
    assert code == "0", done.stderr
    return set(names)


@pytest.mark.parametrize("form", ["exact", "first-order", "as-printed"])
def test_predict_loads_nothing_heavy(form: str) -> None:
    """Of the slow libraries only the printed form, which solves an equation, needs one."""
    expected = {"scipy.optimize"} if form == "as-printed" else set()
    assert _imported([*PREDICT, "--json", "--form", form]) <= expected


def test_plan_and_claims_load_neither_torch_nor_pandas(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(
        "sigma0: [0.1, 1.0]\ndelta: [1.0, 0.0]\nlength: 20\neta: 0.2\nmax_prompts: 20\ninterference: 0.1\n"
    )
    (tmp_path / "claims.json").write_text("[]")
    assert not {*HEAVY} & _imported(["plan", str(tmp_path / "plan.yaml"), "--json"])
    assert not {*HEAVY} & _imported(["claims", "--out", str(tmp_path)])


@pytest.mark.parametrize("json_", [[], ["--json"]], ids=["table", "json"])
def test_a_reader_that_left_is_no_error(json_: list[str]) -> None:
    """`datadose predict ... | head` ends quietly with exit code 0."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            argv(*PREDICT, *json_),
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=environment(),
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")
