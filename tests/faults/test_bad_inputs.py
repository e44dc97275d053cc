"""A corpus of bad inputs against every command: one line of error, exit code 2, and nothing else happens."""

from __future__ import annotations

import builtins
import io
import os
import re
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.command import COMMANDS, run_datadose, run_main
from helpers.corpus import BASE, CASES, Case, command_line, write_inputs
from helpers.tiny_llama import make_model

PATIENCE = 120
"""Seconds after which a command that should have refused its input counts as hanging."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder of all inputs, and the paths of the bad files."""
    folder = tmp_path_factory.mktemp("inputs")
    bad = write_inputs(folder)
    make_model(folder / "model")
    # The target is measured here, once, so that no case has a reason to write into the scores.
    for command, out in (("score", folder / "scores"), ("select", folder / "selected")):
        line = [part.replace("{in}", str(folder)) for part in BASE[command][:-1]]
        assert run_main([*line, str(out)]) == 0
    return folder, bad


def state(folder: Path) -> dict[str, Any]:
    """What lies in a folder: sizes and times of change, without opening anything."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        changed = None if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)
        found[str(path.relative_to(folder))] = changed
    return found


@pytest.fixture
def patience() -> Iterator[None]:
    def give_up(*_: Any) -> None:
        raise TimeoutError(PATIENCE)

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def forbid(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening ``path`` is refused, as the system would to a user without the permission."""
    really = io.open

    def refuse(file: Any, *more: Any, **options: Any) -> Any:
        if not isinstance(file, int) and os.fspath(file) == path:
            raise PermissionError(13, "Permission denied", path)
        return really(file, *more, **options)

    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr(builtins, "open", refuse)


def test_the_corpus_has_every_command_and_each_name_once() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) > 400
    assert {case.arguments[0] for case in CASES if case.arguments} >= set(COMMANDS)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_line_and_changes_nothing(
    case: Case,
    inputs: tuple[Path, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, bad = inputs
    monkeypatch.chdir(tmp_path)
    before = state(folder)
    if case.patched:
        forbid(bad[case.patched], monkeypatch)
    code = run_main(command_line(case, folder, bad))
    monkeypatch.undo()
    shown = capsys.readouterr()
    assert code == 2, shown.err
    assert shown.out == ""
    *progress, error = shown.err.splitlines()
    assert re.fullmatch(r"datadose( \w+)?: error: .{1,1400}", error), shown.err
    assert case.said in error
    assert not progress
    assert state(folder) == before
    assert state(tmp_path) == {}


@pytest.mark.parametrize(
    "name",
    [
        "plan SHIFT.yaml: pipe",
        "plan: references",
        "plan: array huge",
        "claims: a text value",
        "plan delta.npy: device",
    ],
)
def test_the_same_from_a_shell(name: str, inputs: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name)
    done = run_datadose(*command_line(case, *inputs), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert case.said in done.stderr
    assert list(tmp_path.iterdir()) == []
