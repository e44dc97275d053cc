"""Signals at any moment: workers end with their parent, the advice is right, the bytes stay the same."""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datadose.cli.common import AGAIN, stop_signals
from datadose.errors import Stopped
from helpers.command import run_main
from helpers.processes import (
    LONG,
    SMALL,
    TRAIN,
    end,
    in_group,
    kept,
    leftovers,
    one_complaint,
    start,
    wait_until,
)

NAMES = ("metrics.csv", "model.safetensors", "fig5.csv")
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


def _train(folder: Path, steps: int, out: Path) -> list[object]:
    (folder / "train.yaml").write_text(TRAIN % steps)
    return ["train", folder / "train.yaml", "--out", out]


@linux
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_workers_end_with_their_parent(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """The signal reaches the parent alone, as from a scheduler or another terminal."""
    log, out = tmp_path / "log", tmp_path / "out"
    process = start(*LONG, "--jobs", 2, "--out", out, log=log)
    wait_until(lambda: len(kept(out)) >= 4, "four cells")
    assert len(in_group(process.pid)) >= 3
    process.send_signal(number)
    assert end(process) == code
    wait_until(lambda: not in_group(process.pid), f"the end of {in_group(process.pid)}")
    if number != signal.SIGKILL:
        assert one_complaint(log).endswith(
            "interrupted; finished cells are kept, run the same command again to continue"
        )
        assert not leftovers(out)


def test_an_ignored_signal_stays_ignored() -> None:
    """Under nohup a closed terminal does not stop a run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(Stopped):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def _with_run(act: Callable[..., None]) -> Callable[..., argparse.Namespace]:
    """A parser of arguments whose commands do nothing but ``act``."""
    parse = argparse.ArgumentParser.parse_args

    def parsed(*values: Any) -> argparse.Namespace:
        return argparse.Namespace(**{**vars(parse(*values)), "run": act})

    return parsed


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("reproduce fig5", f"finished cells are kept, {AGAIN} to continue"),
        ("train t.yaml", f"its checkpoints are kept, {AGAIN} with --resume to continue"),
        ("plan t.yaml", AGAIN),
        ("claims", AGAIN),
        (
            "score --model m --pool p --out o",
            "finished batches are kept, run the same command again to continue",
        ),
        ("select --scores s --target t --out o", AGAIN),
    ],
)
def test_advice_after_an_interrupt(
    command: str, advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", _with_run(interrupted))
    assert run_main(command.split()) == 130
    assert (
        capsys.readouterr().err == f"datadose {command.split(maxsplit=1)[0]}: error: interrupted; {advice}\n"
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_the_code_after_a_signal(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def signalled(*_: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", _with_run(signalled))
    before = signal.getsignal(number)
    assert run_main(["reproduce", "fig5"]) == code
    assert signal.getsignal(number) is before
    assert "finished cells are kept" in capsys.readouterr().err


def test_the_advice_of_train_works(tmp_path: Path, any_shape: None) -> None:
    log, whole, cut = tmp_path / "log", tmp_path / "whole", tmp_path / "cut"
    assert run_main([str(part) for part in _train(tmp_path, 1500, whole)]) == 0
    command = _train(tmp_path, 1500, cut)
    process = start(*command, log=log)
    wait_until((cut / "checkpoints" / "0-sft.safetensors").exists, "a checkpoint")
    process.send_signal(signal.SIGINT)
    assert end(process) == 130
    assert "run the same command again with --resume" in one_complaint(log)
    assert run_main([*map(str, command), "--resume"]) == 0
    _compare(whole, cut)


def _compare(whole: Path, other: Path) -> None:
    found = [name for name in NAMES if (whole / name).exists()]
    assert found
    for name in found:
        assert (other / name).read_bytes() == (whole / name).read_bytes()
    assert not leftovers(other)


@pytest.mark.parametrize(
    ("command", "kills"),
    [
        ("train", 2),
        # A small case of `reproduce` is in `tests/cli/test_reproduce.py`.
        *(pytest.param(command, 30, marks=pytest.mark.slow) for command in ("reproduce", "train")),
    ],
)
def test_killed_at_random_moments(command: str, kills: int, tmp_path: Path, any_shape: None) -> None:
    """SIGKILL for the whole group: first as soon as a run has begun, then at moments spread over a whole run.

    Each successor goes on with what it finds; then one is left alone, and the bytes are those of a run that
    nobody stopped. Seeded, but the moments depend on the machine.
    """

    def arguments(out: Path) -> list[object]:
        if command == "reproduce":
            return [*SMALL, "--jobs", 2, "--out", out]
        return [*_train(tmp_path, 1500, out), "--resume"]

    whole, cut, log = tmp_path / "whole", tmp_path / "cut", tmp_path / "log"
    begin = time.monotonic()
    assert end(start(*arguments(whole), log=log)) == 0, log.read_text()
    duration = time.monotonic() - begin
    moments, killed = random.Random(kills), 0
    for kill in range(kills):
        process = start(*arguments(cut), log=log)
        if kill == 0:
            # A machine that has become faster would have finished by any moment of the first run.
            wait_until(cut.exists, "a folder")
        else:
            time.sleep(moments.uniform(0.2, 1.0) * duration)
        if process.poll() is None:
            killed += 1
            os.killpg(process.pid, signal.SIGKILL)
        assert end(process) in (0, -signal.SIGKILL), log.read_text()
        assert "Traceback" not in log.read_text()
    assert killed > 0
    assert run_main([str(part) for part in arguments(cut)]) == 0
    _compare(whole, cut)


def test_two_runs_in_one_folder(small_results: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    runs = [start(*SMALL, "--jobs", 1, "--out", shared, log=tmp_path / f"log{i}") for i in range(2)]
    for i, process in enumerate(runs):
        assert end(process) == 0, (tmp_path / f"log{i}").read_text()
    _compare(small_results, shared)
    assert len(kept(shared)) == len(kept(small_results))
