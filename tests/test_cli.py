"""The command line as users and scripts meet it: exit codes, streams, files, interruptions."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datadose import Shift, simulate_error
from datadose.cli import main
from datadose.theory import predict_error

BLOCK = ["--dimension", "40", "--shifted", "20", "--rho", "0.1", "--eta", "0.2"]
PREDICT = ["predict", *BLOCK, "--interference", "0.1", "--length", "40", "--prompts", "5"]
COMMANDS = ("reproduce", "predict", "claims")
COLUMNS = (
    "figure panel stage model prompts length steps interference seed error predicted diverged".split()  # noqa: SIM905
)
CLAIM_KEYS = "id paper statement setting statistic threshold value interval seeds verdict note".split()  # noqa: SIM905


def _environment() -> dict[str, str]:
    # No byte code: under a file-size limit Python would leave truncated files beside the sources.
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _argv(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "datadose.cli", *map(str, arguments)]


def _datadose(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _argv(*arguments),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=_environment(),
        **options,
    )


def _main(arguments: list[str]) -> int:
    """The exit code, whether main returns it or argparse raises it."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


def _with(option: str, *values: str) -> list[str]:
    """A good `predict` command with one option given these values."""
    arguments = list(PREDICT)
    if option in arguments:
        arguments[arguments.index(option) + 1] = values[0]
        return arguments
    return [*arguments, option, *values]


# --- help and bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=["datadose", *COMMANDS])
def test_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _main([*command, "--help"]) == 0
    shown = capsys.readouterr()
    assert re.search(r"example: datadose \w+", shown.out)
    assert shown.err == ""


def test_the_help_of_datadose_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    _main(["--help"])
    shown = capsys.readouterr().out
    assert all(re.search(rf"^\s+{name}\b", shown, re.MULTILINE) for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(["--version"]) == 0
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
        (_with("--prompts", "0"), "prompts", "0"),
        (_with("--prompts", "-3"), "prompts", "-3"),
        (_with("--prompts", "abc"), "prompts", "abc"),
        ([*PREDICT, "7", "0"], "prompts", "0"),
        (_with("--length", "0"), "length", "0"),
        (_with("--length", "2.5"), "length", "2.5"),
        (_with("--eta", "0"), "eta", "0"),
        (_with("--eta", "2"), "eta", "2"),
        (_with("--eta", "nan"), "eta", "nan"),
        (_with("--dimension", "0"), "dimension", "0"),
        (_with("--shifted", "41"), "shifted", "41"),
        (_with("--shifted", "-1"), "shifted", "-1"),
        (_with("--interference", "-1"), "interference", "-1"),
        (_with("--interference", "inf"), "interference", "inf"),
        (_with("--rho", "nan"), "rho", "nan"),
        (_with("--rho", "-0.1"), "rho", "-0.1"),
        (_with("--form", "nonsense"), "form", "nonsense"),
        ([*_with("--interference", "0"), "--form", "as-printed"], "interference", "as-printed"),
        (_with("--simulate", "0"), "simulate", "0"),
        (_with("--simulate", "-2"), "simulate", "-2"),
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
    assert _main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    _assert_one_line(shown.err, field, value)
    assert not list(tmp_path.iterdir())


def test_an_unknown_target_beside_all_is_rejected(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datadose.reproduction.TARGETS", {})
    assert _main(["reproduce", "all", "fig9", "--preset", "smoke", "--out", str(tmp_path)]) == 2
    _assert_one_line(capsys.readouterr().err, "target", "fig9")


def test_bad_input_from_a_shell(tmp_path: Path) -> None:
    """The same through a real process: exit code, empty stdout, one line."""
    done = _datadose(*_with("--eta", "3"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    _assert_one_line(done.stderr, "eta", "3", "(0, 2)")


@pytest.mark.parametrize("inside", ["", "below"])
def test_out_that_is_a_file(inside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    out = taken / inside if inside else taken
    assert _main(["reproduce", "fig5", "--preset", "smoke", "--out", str(out)]) == 2
    _assert_one_line(capsys.readouterr().err, "out", "taken")
    assert taken.read_text() == "mine"


def test_claims_of_a_folder_without_a_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path)[-30:]
    assert _main(["claims", "--out", str(tmp_path)]) == 2
    _assert_one_line(capsys.readouterr().err, "out", folder[-10:])


@pytest.mark.parametrize("json_", [[], ["--json"]], ids=["table", "json"])
def test_malformed_ledger_names_the_line(
    json_: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("claims.json").write_text('[\n  {"id": 1,\n  ]\n')
    assert _main(["claims", "--out", ".", *json_]) == 2
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
    assert _main(["claims", "--out", "."]) == 2
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
    counts = [1, 10, 39, 41, 200]
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
    arguments = _with("--interference", interference)[:-1]
    rows = _predict_json([*arguments, str(peak - 1), str(peak), str(peak + 1), "--form", form], capsys)
    assert rows[1]["predicted"] is None
    assert str(peak) in rows[1]["reason"]
    for row in (rows[0], rows[2]):
        assert row["predicted"] > 0
        assert "reason" not in row


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
    done = _datadose(*PREDICT, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["prompts"] == 5


def test_predict_loads_nothing_heavy() -> None:
    """Without --simulate neither torch nor matplotlib nor pandas is imported."""
    code = (
        "import sys; from datadose.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'matplotlib', 'pandas'} & set(sys.modules); "
        "print(code, sorted(heavy), file=sys.stderr)"
    )
    for form in ("exact", "first-order", "as-printed"):
        done = subprocess.run(
            [sys.executable, "-c", code, *PREDICT, "--json", "--form", form],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=_environment(),
        )
        assert done.stderr.split("\n")[0] == "0 []"


@pytest.mark.parametrize("json_", [[], ["--json"]], ids=["table", "json"])
def test_a_reader_that_left_is_no_error(json_: list[str]) -> None:
    """`datadose predict ... | head` ends quietly with exit code 0."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            _argv(*PREDICT, *json_),
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            env=_environment(),
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


# --- reproduce ------------------------------------------------------------------------------------------


def test_datadose_reproduce_stays_a_function() -> None:
    """Importing the submodule of the same name, as the first use does, must not take its place."""
    code = (
        "import datadose; first = datadose.reproduce; second = datadose.reproduce; "
        "print(callable(first), callable(second))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["True", "True"]


SEEDS = 20
FIGURE_5 = ["reproduce", "fig5", "--preset", "smoke", "--seeds", SEEDS]
THEOREMS = ["reproduce", "claims", "--preset", "smoke"]


@pytest.fixture(scope="module")
def figure_5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uninterrupted `reproduce fig5`."""
    out = tmp_path_factory.mktemp("fig5") / "made" / "here"
    done = _datadose(*FIGURE_5, "--jobs", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "report.html" in done.stderr
    return out


@pytest.fixture(scope="module")
def theorems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uninterrupted `reproduce claims`."""
    out = tmp_path_factory.mktemp("claims")
    done = _datadose(*THEOREMS, "--jobs", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_figure_files(figure_5: Path) -> None:
    names = {path.name for path in figure_5.iterdir() if not path.name.startswith(".")}
    assert names == {"fig5.png", "fig5.svg", "fig5.csv", "fig5.json", "report.html"}
    assert (figure_5 / "fig5.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(figure_5 / "fig5.csv")
    assert list(table.columns)[: len(COLUMNS)] == COLUMNS
    assert set(table["figure"]) == {"fig5"}
    assert set(table["stage"]) <= {"sft", "outcome", "rl"}
    assert set(table["model"]) == {"theory", "lsa"}
    assert table["seed"].nunique() == SEEDS
    assert np.isfinite(table.loc[table["model"] == "lsa", "error"]).all()
    saved = json.loads((figure_5 / "fig5.json").read_text())
    assert saved["seeds"] == saved["config"]["seeds"] == SEEDS
    assert saved["preset"] == "smoke"
    assert saved["command"].startswith("datadose reproduce fig5 --preset smoke")
    assert {"datadose", "python", "numpy", "scipy"} <= set(saved["versions"])


def test_claims_files(theorems: Path) -> None:
    names = {path.name for path in theorems.iterdir() if not path.name.startswith(".")}
    assert names == {
        "claims.json",
        "report.html",
        *(f"{stem}.{kind}" for stem in ("theorems", "insight1") for kind in ("csv", "json")),
    }
    table = pd.read_csv(theorems / "insight1.csv")
    assert list(table.columns)[: len(COLUMNS)] == COLUMNS
    claims = json.loads((theorems / "claims.json").read_text())
    for claim in claims:
        assert list(claim)[: len(CLAIM_KEYS)] == CLAIM_KEYS
        assert claim["verdict"] in {"holds", "fails", "mixed", "not run"}
    judged = {claim["id"]: claim["verdict"] for claim in claims}
    assert judged["thm-4.2-iterates"] == "holds"
    assert judged["fig-1-peak-clean"] == "not run"


def test_claims_command(theorems: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = json.loads((theorems / "claims.json").read_text())
    assert main(["claims", "--out", str(theorems), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == saved
    assert main(["claims", "--out", str(theorems)]) == 0
    shown = capsys.readouterr().out
    assert f"{len(saved)} claims" in shown
    assert "holds" in shown


def _interrupt(arguments: list[object], signal_: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Start a run in its own process group, wait for its first progress line and signal the group."""
    process = subprocess.Popen(
        _argv(*arguments), stderr=subprocess.PIPE, text=True, env=_environment(), start_new_session=True
    )
    assert process.stderr is not None
    before = ""
    for line in process.stderr:
        before += line
        if "cells" in line:
            break
    os.killpg(process.pid, signal_)
    try:
        _, after = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, "", before + after)


def _cached(out: Path) -> set[Path]:
    return set((out / ".cache").rglob("output.pkl"))


@pytest.mark.parametrize(
    ("target", "signal_", "jobs"),
    [("fig5", signal.SIGINT, 1), ("fig5", signal.SIGKILL, 2), ("claims", signal.SIGINT, 2)],
)
def test_interrupted_run_continues_to_the_same_bytes(
    target: str, signal_: signal.Signals, jobs: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Ctrl-C or SIGKILL (workers included) at the first progress line, a quarter of the way."""
    reference: Path = request.getfixturevalue("figure_5" if target == "fig5" else "theorems")
    arguments = FIGURE_5 if target == "fig5" else THEOREMS
    first_table = "fig5.csv" if target == "fig5" else "theorems.csv"
    stopped = _interrupt([*arguments, "--jobs", jobs, "--out", tmp_path], signal_)
    if signal_ == signal.SIGINT:
        assert stopped.returncode == 130
        last = stopped.stderr.strip().splitlines()[-1]
        assert "interrupted" in last
        assert "run the same command again" in last
        assert "Traceback" not in stopped.stderr
    else:
        assert stopped.returncode == -signal.SIGKILL
    assert not (tmp_path / first_table).exists(), "the run ended before the signal"
    kept = {path: path.stat().st_mtime_ns for path in _cached(tmp_path)}
    # A kill may fall between a cell's result and its progress line, never the other way round.
    assert len(kept) >= 5
    done = _datadose(*arguments, "--jobs", 1, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished cells were computed again"
    for table in reference.glob("*.csv"):
        assert (tmp_path / table.name).read_bytes() == table.read_bytes()


def _file_size_limit(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(
    ("size", "refused"), [(32_000, "fig5.csv"), (64, "No space|File too large")], ids=["table", "cache"]
)
def test_refusing_disk_is_one_clear_line(size: int, refused: str, tmp_path: Path, figure_5: Path) -> None:
    """A disk that takes no file above ``size`` bytes: first the table fails, then already the cache."""
    arguments = [*FIGURE_5, "--jobs", 1, "--out", tmp_path]
    if size > 64:
        # All cells are there, so that only the table is left to write.
        shutil.copytree(figure_5 / ".cache", tmp_path / ".cache")
    done = _datadose(*arguments, preexec_fn=_file_size_limit(size))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    complaints = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(complaints) == 1
    assert complaints[0] == done.stderr.strip().splitlines()[-1]
    assert re.search(refused, complaints[0])
    assert "run again" in complaints[0]
    assert not [path.name for path in tmp_path.iterdir() if path.name != ".cache"], "half a result is left"
    if size > 64:
        assert _datadose(*arguments).returncode == 0
        assert (tmp_path / "fig5.csv").read_bytes() == (figure_5 / "fig5.csv").read_bytes()
