"""Whatever a verifier does is a verdict on one row: it raises, leaves, crashes, hangs, prints, meddles."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.llm.verifiers import CHILDREN, Verifier, judge, load_verifier, require_timeout, threaded
from helpers.processes import wait_until

CHECKS = r"""
import os, re, signal, subprocess, sys, time

calls = 0

def check(text, row):
    global calls
    calls += 1
    if text == "raise":
        raise ValueError("two\nlines")
    if text == "exit":
        sys.exit(3)
    if text == "leave":
        os._exit(4)
    if text == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if text == "hang":
        time.sleep(1000)
    if text == "backtrack":
        re.match("(a+)+$", "a" * 100 + "b")
    if text == "interrupt":
        raise KeyboardInterrupt
    if text == "start":
        subprocess.Popen(["sleep", "1000"])
        time.sleep(1000)
    if text == "unprintable":
        class Bad(Exception):
            def __str__(self):
                raise RuntimeError
        raise Bad
    if text == "print":
        print("said on stdout", flush=True)
        os.write(1, b"written to descriptor 1\n")
    if text == "read":
        return sys.stdin.read() == ""
    if text == "meddle":
        row["answer"] = "other"
        row["list"].clear()
        row.clear()
    if text == "pid":
        return os.getpid() % 2
    if text == "calls":
        return calls > 1
    if text == "text":
        return "1"
    return 1.0
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Verifier]:
    """The function above, of a module of the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "misbehaving", raising=False)
    (tmp_path / "misbehaving.py").write_text(CHECKS)
    CHILDREN.close()
    yield load_verifier("misbehaving:check")
    CHILDREN.close()


@pytest.mark.parametrize(
    ("text", "issue"),
    [
        ("raise", "verifier failed: ValueError: two lines"),
        ("exit", "verifier failed: SystemExit: 3"),
        ("interrupt", "verifier failed: KeyboardInterrupt: "),
        ("unprintable", "verifier failed: Bad"),
        ("leave", "verifier failed: its process ended with exit code 4"),
        ("crash", "verifier failed: its process ended by SIGSEGV"),
        ("text", "verifier failed: returned '1'"),
    ],
)
def test_each_end_is_a_verdict_and_the_next_row_is_judged(check: Verifier, text: str, issue: str) -> None:
    assert judge(check, text, {}) == (None, issue.strip())
    assert judge(check, "fine", {}) == (True, None)


@pytest.mark.parametrize("text", ["hang", "backtrack", "start"])
def test_a_call_that_takes_too_long_is_ended(check: Verifier, text: str) -> None:
    assert judge(check, "fine", {}) == (True, None)
    start = time.monotonic()
    assert judge(check, text, {}, timeout=0.5) == (None, "verifier failed: no verdict within 0.5 s")
    # Left alone it would take 1000.
    assert time.monotonic() - start < 100
    assert judge(check, "fine", {}) == (True, None)


def children(of: int) -> list[int]:
    """The child processes of a process, zombies too."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == of:
            found.append(int(folder.name))
    return found


def test_one_process_serves_all_calls_and_none_is_left(check: Verifier) -> None:
    before = set(children(os.getpid()))
    assert judge(check, "calls", {}) == (False, None)
    (one,) = set(children(os.getpid())) - before
    assert judge(check, "calls", {}) == (True, None)
    assert set(children(os.getpid())) - before == {one}
    judge(check, "hang", {}, timeout=0.2)
    judge(check, "leave", {})
    assert set(children(os.getpid())) == before
    judge(check, "fine", {})
    CHILDREN.close()
    assert set(children(os.getpid())) == before


def test_what_it_prints_goes_to_stderr_and_stdin_is_empty(
    check: Verifier, capfd: pytest.CaptureFixture[str]
) -> None:
    assert judge(check, "print", {}) == (True, None)
    assert judge(check, "read", {}) == (True, None)
    CHILDREN.close()
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "said on stdout\nwritten to descriptor 1\n"


def test_the_row_is_the_callers(check: Verifier) -> None:
    def meddle(_: str, columns: Any) -> float:
        print("said by a nested function")
        columns["list"].clear()
        columns.clear()
        return 1

    row = {"answer": "1", "list": [1]}
    assert judge(check, "meddle", row) == judge(meddle, "", row) == (True, None)
    assert row == {"answer": "1", "list": [1]}
    passed, issue = judge(check, "fine", {"answer": lambda: 0})
    assert passed is None
    assert issue is not None
    assert issue.startswith("verifier failed: the row cannot be sent to its process")


def test_a_verifier_that_another_process_cannot_import_is_named(
    check: Verifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "misbehaving.py").unlink()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for folder in tmp_path.glob("__pycache__/*"):
        folder.unlink()
    for _ in range(2):
        passed, issue = judge(check, "fine", {})
        assert passed is None
        assert issue is not None
        assert issue.startswith("verifier failed: misbehaving:check cannot be imported: ModuleNotFoundError")


def test_a_module_that_is_imported_anew_is_also_run_anew(check: Verifier, tmp_path: Path) -> None:
    assert judge(check, "fine", {}) == (True, None)
    (tmp_path / "misbehaving.py").write_text("def check(text, row):\n    return 0.0  # another length\n")
    del sys.modules["misbehaving"]
    again = load_verifier("misbehaving:check")
    assert judge(again, "fine", {}) == (False, None)


def test_verdicts_do_not_depend_on_the_number_of_processes(check: Verifier) -> None:
    texts = ["fine", "raise", "text", "leave", "exit", "hang", "fine", "<think>a"] * 3

    def one(text: str) -> Any:
        return judge(check, text, {}, timeout=1)

    alone = threaded(one, texts, 1)
    assert threaded(one, texts, 4) == alone
    assert [passed for passed, _ in alone[:8]] == [True, None, None, None, None, None, True, False]


def test_an_exception_on_one_thread_ends_what_the_others_do(check: Verifier) -> None:
    def one(text: str) -> Any:
        if text == "stop":
            time.sleep(0.5)
            raise KeyboardInterrupt
        # As a row with several samples: the calls after the one that is ended start nothing anew.
        return [judge(check, text, {}, timeout=100) for _ in range(5)]

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        threaded(one, ["stop", "hang", *["fine"] * 10], 2)
    # The calls that hang would take 5 times 100.
    assert time.monotonic() - start < 90
    assert judge(check, "fine", {}) == (True, None)


@pytest.mark.parametrize("started", [0, 3])
def test_calls_are_ended_whatever_they_are_at(check: Verifier, started: float) -> None:
    found: list[Any] = []
    call = threading.Thread(target=lambda: found.append(judge(check, "hang", {}, timeout=100)))
    call.start()
    time.sleep(started)  # 0: while its process starts; later: while it hangs
    with CHILDREN.stopped():
        call.join(90)  # of the 100 that it would take
    assert not call.is_alive()
    assert found[0][0] is None
    assert found[0][1].startswith("verifier failed: ")


SCRIPT = """
import sys
from datadose.llm.verifiers import judge, load_verifier
check = load_verifier("misbehaving:check")
judge(check, "fine", {})
print("ready", flush=True)
judge(check, "hang", {}, timeout=2)
judge(check, "hang", {}, timeout=1000)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_the_parent_is_stopped(check: Verifier, tmp_path: Path, sent: int) -> None:
    # No guard around the script's work: a child that ran it again would print, and start children for ever.
    (tmp_path / "script.py").write_text(SCRIPT.replace("1000", "4"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    wait_until(lambda: bool(children(process.pid)), "the child")
    family = children(process.pid)
    process.send_signal(sent)
    process.wait(30)
    assert process.stdout.read() == ""
    # A child whose parent was killed ends at the end of its pipe, or ten seconds after its time limit.
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), "the end of the children")


def test_calls_are_fast(check: Verifier) -> None:
    judge(check, "fine", {})
    start = time.monotonic()
    for _ in range(1000):
        judge(check, "fine", {"answer": "1"})
    assert time.monotonic() - start < 5


def returns(value: Any) -> Verifier:
    """A verifier that gives ``value``."""

    def verifier(_: str, columns: Mapping[str, Any]) -> Any:
        return value

    return verifier


@pytest.mark.parametrize("value", [1, 1.0, True, np.float32(1.0), np.int64(1)])
def test_ones_pass(value: Any) -> None:
    assert judge(returns(value), "", {}) == (True, None)


@pytest.mark.parametrize("value", [0, 0.999, False, np.float64(0.0)])
def test_less_than_one_fails(value: Any) -> None:
    assert judge(returns(value), "", {}) == (False, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, None, "1", [1], 1j, "x" * 10000])
def test_what_is_no_score_is_neither(value: Any) -> None:
    verdict, issue = judge(returns(value), "", {})
    assert verdict is None
    assert issue is not None
    assert issue.startswith("verifier failed: returned ")
    assert len(issue) < 400


@pytest.mark.parametrize("error", [RuntimeError("two\nlines"), SystemExit("two\nlines")])
def test_what_a_verifier_raises_is_named_in_one_line(error: BaseException) -> None:
    def verifier(_: str, columns: Mapping[str, Any]) -> float:
        raise error

    assert judge(verifier, "", {}) == (None, f"verifier failed: {type(error).__name__}: two lines")


@pytest.mark.parametrize("seconds", [0, -1, math.inf, "5", 1e6])
def test_a_time_limit_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(InputError, match="verifier-timeout: got"):
        require_timeout(seconds)


def test_a_forked_process_starts_children_of_its_own(check: Verifier) -> None:
    judge(check, "fine", {})
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        passed: Callable[..., Any] = judge
        os.write(writer, str(passed(check, "calls", {})).encode())
        CHILDREN.close()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        assert said.read() == "(False, None)"  # the first call of its own child
    os.waitpid(pid, 0)
    assert judge(check, "calls", {}) == (True, None)
