"""The command line: help, bad input, predict."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from datadose import Shift, simulate_error
from datadose.cli import main
from datadose.theory import predict_error
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
        ([*PREDICT, "--rho-shift", "3"], "unrecognized", "--rho-shift"),
        ([*PREDICT, "--form"], "--form", "expected one argument"),
        (PREDICT[:-2], "--prompts", "required"),
        (["reproduce", "fig9", "--preset", "smoke"], "target", "fig9"),
        (["reproduce", "fig5", "--preset", "huge"], "preset", "huge"),
        (["reproduce", "fig5", "--preset", "smoke", "--seeds", "1"], "seeds", "1"),
        (["reproduce", "fig5", "--preset", "smoke", "--seeds", "many"], "--seeds", "many"),
        (["reproduce", "fig5", "--preset", "smoke", "--jobs", "0"], "jobs", "0"),
        (["reproduce", "fig5", "--preset", "smoke", "--backend", "threads"], "backend", "threads"),
        (["reproduce", "fig5", "--preset", "smoke", "--address", "tcp://a:1"], "address", "tcp://a:1"),
        (with_option("--prompts", "0"), "prompts", "0"),
        (with_option("--prompts", "-3"), "prompts", "-3"),
        (with_option("--prompts", "abc"), "prompts", "abc"),
        ([*PREDICT, "7", "0"], "prompts", "0"),
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


# --- predict --------------------------------------------------------------------------------------------


def _predict_json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert main([*arguments, "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    rows: list[dict[str, Any]] = json.loads(shown.out)
    return rows


@pytest.mark.parametrize("form", ["exact", "first-order", "as-printed"])
def test_predict_json_is_the_theory(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts = [1, 10, 38, 42, 200]
    rows = _predict_json([*PREDICT[:-1], *map(str, counts), "--form", form], capsys)
    shift = Shift.two_block(40, 20, 0.1, 0.2, 0.1)
    assert [row["prompts"] for row in rows] == counts
    for row in rows:
        assert set(row) == {
            "prompts",
            "length",
            "form",
            "predicted",
            "simulated_mean",
            "simulated_sem",
            "seeds",
        }
        assert (row["length"], row["form"], row["seeds"]) == (40, form, 0)
        assert row["predicted"] == predict_error(shift, row["prompts"], 40, form=form)  # type: ignore[arg-type]
        assert row["simulated_mean"] is None
        assert row["simulated_sem"] is None


@pytest.mark.parametrize(
    ("interference", "form", "peak"),
    [
        ("0", "exact", 20),
        ("0", "first-order", 20),
        ("0.1", "exact", 40),
        ("0.1", "first-order", 40),
        ("0.1", "as-printed", 40),
    ],
)
def test_predict_at_the_peak_is_null_with_a_reason(
    interference: str, form: str, peak: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = with_option("--interference", interference)[:-1]
    counts = [str(peak + side) for side in (-2, -1, 0, 1, 2)]
    rows = _predict_json([*arguments, *counts, "--form", form], capsys)
    for row in rows[1:-1]:
        assert row["predicted"] is None
        assert f"within 1 of rank(A) = {peak}" in row["reason"]
    for row in (rows[0], rows[-1]):
        assert row["predicted"] > 0
        assert "reason" not in row


def test_predict_with_the_shortest_prompts_is_null_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """E ||phi||^{-2} is infinite for one or two examples: so is the mean where prompts are interpolated."""
    for length in ("1", "2", "3"):
        given = [*with_option("--length", length)[:-1], "1", "30", "42"]
        rows = _predict_json(given, capsys)
        assert [row["predicted"] is None for row in rows] == [length != "3", length != "3", False]
        if length != "3":
            assert "length <= 2 and 1 <= B <= rank(A) = 40" in rows[0]["reason"]


def test_predict_simulates_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    rows = _predict_json([*PREDICT, "40", "120", "--simulate", "4"], capsys)
    simulated = simulate_error(Shift.two_block(40, 20, 0.1, 0.2, 0.1), [5, 40, 120], 40, seeds=4)
    assert [row["simulated_mean"] for row in rows] == list(simulated.mean)
    assert [row["simulated_sem"] for row in rows] == list(simulated.sem)
    assert {row["seeds"] for row in rows} == {4}
    assert rows[1]["predicted"] is None


def test_one_simulated_seed_has_no_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    row = _predict_json([*PREDICT, "--simulate", "1"], capsys)[0]
    assert row["simulated_mean"] > 0
    assert row["simulated_sem"] is None
    assert row["seeds"] == 1


def test_predict_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PREDICT, "40"]) == 0
    shown = capsys.readouterr()
    expected = predict_error(Shift.two_block(40, 20, 0.1, 0.2, 0.1), 5, 40)
    assert f"{expected:.5g}" in shown.out
    assert shown.err == ""


def test_predict_json_in_a_real_process() -> None:
    done = run_datadose(*PREDICT, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["prompts"] == 5


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


def test_predict_with_the_finite_size_correction(capsys: pytest.CaptureFixture[str]) -> None:
    """d = 40, n = d, B = 20: 8.6 percent above the asymptotic form; refused within one prompt of the peak."""
    given = with_option("--prompts", "20", "41")
    plain = _predict_json(given, capsys)
    corrected = _predict_json([*given, "--finite-size"], capsys)
    assert 1.08 < corrected[0]["predicted"] / plain[0]["predicted"] < 1.09
    for rows in (plain, corrected):
        assert rows[1]["predicted"] is None
        assert "within 1 of rank(A) = 40" in rows[1]["reason"]
    assert run_main([*given, "--form", "first-order", "--finite-size"]) == 2
    assert "finite_size" in capsys.readouterr().err
