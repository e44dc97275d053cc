"""The command line: reproduce and claims, with interrupts, kills and full disks."""

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

import numpy as np
import pandas as pd
import pytest

from datadose.cli import main
from helpers.command import (
    CLAIM_KEYS,
    COLUMNS,
    PATIENCE,
    argv,
    environment,
    run_datadose,
    run_main,
)
from helpers.processes import wait_until


def test_datadose_reproduce_stays_a_function() -> None:
    """Importing the submodule of the same name, as the first use does, must not take its place."""
    code = (
        "import datadose; first = datadose.reproduce; second = datadose.reproduce; "
        "print(callable(first), callable(second))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.split() == ["True", "True"]


SEEDS = 20
FIGURE_5 = ["reproduce", "fig5", "--preset", "smoke", "--seeds", SEEDS]
THEOREMS = ["reproduce", "claims", "--preset", "smoke", "--seeds", 2]


@pytest.fixture(scope="module")
def figure_5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uninterrupted `reproduce fig5`."""
    out = tmp_path_factory.mktemp("fig5") / "made" / "here"
    done = run_datadose(*FIGURE_5, "--jobs", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "report.html" in done.stderr
    return out


@pytest.fixture(scope="module")
def theorems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uninterrupted `reproduce claims`."""
    out = tmp_path_factory.mktemp("claims")
    done = run_datadose(*THEOREMS, "--jobs", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_figure_files(figure_5: Path) -> None:
    names = {path.name for path in figure_5.iterdir() if not path.name.startswith(".")}
    assert names == {"fig5.png", "fig5.svg", "fig5.csv", "fig5.json", "fig5.hover.json", "report.html"}
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


def _interrupt(
    arguments: list[object], out: Path, signal_: signal.Signals
) -> subprocess.CompletedProcess[str]:
    """Start a run in its own process group, wait for its first results and signal the group."""
    process = subprocess.Popen(
        argv(*arguments), stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )
    try:
        wait_until(lambda: len(_cached(out)) >= 5, "five finished cells")
        os.killpg(process.pid, signal_)
        _, said = process.communicate(timeout=PATIENCE)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, "", said)


def _cached(out: Path) -> set[Path]:
    return set((out / ".cache").rglob("*.json"))


@pytest.mark.parametrize(
    ("target", "signal_", "jobs"),
    [
        ("fig5", signal.SIGINT, 1),
        ("fig5", signal.SIGKILL, 2),
        pytest.param("claims", signal.SIGINT, 2, marks=pytest.mark.slow),
    ],
)
def test_interrupted_run_continues_to_the_same_bytes(
    target: str, signal_: signal.Signals, jobs: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Ctrl-C or SIGKILL (workers included) after the first few cells."""
    reference: Path = request.getfixturevalue("figure_5" if target == "fig5" else "theorems")
    arguments = FIGURE_5 if target == "fig5" else THEOREMS
    first_table = "fig5.csv" if target == "fig5" else "theorems.csv"
    stopped = _interrupt([*arguments, "--jobs", jobs, "--out", tmp_path], tmp_path, signal_)
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
    assert run_main([*map(str, arguments), "--jobs", "1", "--out", str(tmp_path)]) == 0
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
    done = run_datadose(*arguments, preexec_fn=_file_size_limit(size))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    complaints = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(complaints) == 1
    assert complaints[0] == done.stderr.strip().splitlines()[-1]
    assert re.search(refused, complaints[0])
    assert "run the same command again" in complaints[0]
    assert not [path.name for path in tmp_path.iterdir() if path.name != ".cache"], "half a result is left"
    if size > 64:
        assert run_main([str(part) for part in arguments]) == 0
        assert (tmp_path / "fig5.csv").read_bytes() == (figure_5 / "fig5.csv").read_bytes()
