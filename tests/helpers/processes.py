"""Real runs that are stopped, killed and looked at from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.command import PATIENCE, argv, environment

SMALL = ["reproduce", "fig5", "--preset", "smoke", "--seeds", 12]
"""Some seconds of cells."""
LONG = ["reproduce", "fig5", "--preset", "smoke", "--seeds", 2000]
"""Minutes of cells: it never ends before it is stopped."""

TRAIN = """
shift: {sigma0: {blocks: [[0.1, 2], [1.0, 4]]}, delta: {blocks: [[1.0, 2], [0.0, 4]]}}
pretrain: {length: 12}
stages: [{stage: sft, length: 12, prompts: 16, batch: 8, steps: %d}]
test: {length: 12, thinking_steps: [1, 3], prompts: 64}
seeds: 2
checkpoint_every: 20
"""


def start(*arguments: object, log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """The command in a process group of its own, everything it says in ``log``."""
    with log.open("wb") as said:
        return subprocess.Popen(
            argv(*arguments),
            stdout=said,
            stderr=said,
            env=environment(),
            start_new_session=True,
            **options,
        )


def end(process: subprocess.Popen[bytes]) -> int:
    """Its exit code; one that hangs is killed with all its group and fails the test."""
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Look until ``true()``; AssertionError when patience ends."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


def kept(out: Path) -> list[Path]:
    """The kept results of ``reproduce``."""
    return sorted((out / ".cache").rglob("*.json"))


def in_group(leader: int) -> set[int]:
    """The living processes of a group (not those that are dead and not yet waited for)."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == leader and state != "Z":
            found.add(int(folder.name))
    return found


def leftovers(folder: Path) -> list[Path]:
    """Files that a write has not finished."""
    return sorted(folder.rglob("*.part"))


def one_complaint(log: Path) -> str:
    """The last line, which must be the only error, without a traceback."""
    text = log.read_text()
    assert "Traceback" not in text, text
    lines = [line for line in text.splitlines() if ": error: " in line]
    assert len(lines) == 1, text
    assert lines[0] == text.strip().splitlines()[-1]
    return lines[0]
