"""Sweeps: order, cache, resume after an interruption or a killed worker, and the backends."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.cell_cache import call_key
from datadose.errors import InputError, RunError
from datadose.files import write_atomic
from datadose.studies.tables import TwoBlock, curve_cell
from datadose.sweep import Cell, Workers, file_cell, kept_results, run_cells

pytestmark = pytest.mark.long

ONE, TWO = Workers(1), Workers(2)


def logged_square(x: float, log: str) -> float:
    """Cell: x^2, and a line in ``log`` for every execution."""
    with Path(log).open("a") as handle:
        handle.write(f"{x}\n")
    return x * x


def slow_when_small(x: int) -> int:
    """Cell: early cells finish last."""
    time.sleep(0.2 if x == 0 else 0.0)
    return 10 * x


def interrupted_once(x: int, log: str, flag: str) -> int:
    """Cell: Ctrl-C at x = 3, the first time only."""
    if x == 3 and not Path(flag).exists():
        Path(flag).touch()
        raise KeyboardInterrupt
    return int(logged_square(x, log))


def killed_once(x: int, log: str, flag: str, cache: str) -> int:
    """Cell: its process is killed at x = 3, the first time only, once two other cells are kept."""
    if x == 3 and not Path(flag).exists():
        deadline = time.monotonic() + 300
        while len(list(Path(cache).rglob("*.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return int(logged_square(x, log))


def _executions(log: str | Path) -> int:
    return len(Path(log).read_text().split()) if Path(log).exists() else 0


def _run(cells: list[Cell], folder: Path, workers: Workers = ONE) -> list[Any]:
    return run_cells(cells, cache_folder=folder, workers=workers, title="test")


def _squares(log: Path, count: int = 4) -> list[Cell]:
    return [Cell(logged_square, {"x": float(x), "log": str(log)}) for x in range(count)]


def _curves(seeds: int = 2) -> list[Cell]:
    block = TwoBlock(12, 6)
    return [curve_cell(block, r, 15, [0, 3, 12, 30], seed) for r in (0.0, 0.1) for seed in range(seeds)]


@pytest.mark.parametrize("workers", [ONE, TWO], ids=["jobs=1", "jobs=2"])
def test_results_come_in_the_order_of_the_cells(tmp_path: Path, workers: Workers) -> None:
    cells = [Cell(slow_when_small, {"x": x}) for x in (0, 5, 2, 7)]
    assert _run(cells, tmp_path, workers) == [0, 50, 20, 70]


def test_no_cells_no_results(tmp_path: Path) -> None:
    assert _run([], tmp_path) == []


def test_one_and_two_jobs_give_identical_bits(tmp_path: Path) -> None:
    assert _run(_curves(), tmp_path / "one") == _run(_curves(), tmp_path / "two", TWO)


@pytest.mark.parametrize("workers", [ONE, TWO], ids=["jobs=1", "jobs=2"])
def test_second_run_uses_the_cache(tmp_path: Path, workers: Workers) -> None:
    log = tmp_path / "log"
    first = _run(_squares(log), tmp_path / "cache", workers)
    assert _executions(log) == 4
    assert _run(_squares(log), tmp_path / "cache") == first == [0.0, 1.0, 4.0, 9.0]
    assert _executions(log) == 4


def test_only_changed_arguments_are_computed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    _run(_squares(log), tmp_path / "cache")
    cells = [*_squares(log, 3), Cell(logged_square, {"x": 3.5, "log": str(log)})]
    assert _run(cells, tmp_path / "cache") == [0.0, 1.0, 4.0, 12.25]
    assert log.read_text().split()[4:] == ["3.5"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:70])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _swap(path: Path) -> None:
    path.write_bytes(sorted(path.parent.glob("*.json"))[-1].read_bytes())


class _Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return Path.touch, (self.flag,)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Payload(path.parent / "ran")))


@pytest.mark.parametrize(
    "damage", [_cut, _flip, _swap, _pickle, Path.touch, lambda path: path.write_text("")]
)
def test_damaged_results_are_computed_again(
    damage: Callable[[Path], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut, one bit flipped, another cell's content, a pickle that runs code, emptied, untouched."""
    log = tmp_path / "log"
    expected = _run(_squares(log), tmp_path / "cache")
    victim = min((tmp_path / "cache").rglob("*.json"))
    whole = victim.read_bytes()
    damage(victim)
    again = 4 + (victim.read_bytes() != whole)
    capsys.readouterr()
    assert _run(_squares(log), tmp_path / "cache") == expected
    assert _executions(log) == again
    lines = [line for line in capsys.readouterr().err.splitlines() if "cells" not in line]
    assert len(lines) == again - 4
    assert all(str(victim) in line for line in lines)
    assert not (victim.parent / "ran").exists()
    assert _run(_squares(log), tmp_path / "cache") == expected
    assert _executions(log) == again


def returns(kind: str) -> Any:
    """Cell: a result of every kind that may be kept, or one that may not."""
    floats = [0.1 + 0.2, 5e-324, -0.0, 1.7976931348623157e308, float("inf")]
    kept = {"floats": floats, "scalars": (np.float64(1 / 3), np.int64(7), np.bool_(True)), "none": None}
    return {"kept": kept, "array": np.zeros(2), "keys": {1: "one"}}[kind]


def test_results_come_back_bit_by_bit_and_the_same_from_the_cache(tmp_path: Path) -> None:
    first, second = (_run([Cell(returns, {"kind": "kept"})], tmp_path)[0] for _ in range(2))
    assert repr(first) == repr(second)
    assert repr(first["floats"]) == repr(returns("kept")["floats"])
    assert first["scalars"] == [1 / 3, 7, True]


@pytest.mark.parametrize("kind", ["array", "keys"])
def test_results_that_json_cannot_hold_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a cell returns"):
        _run([Cell(returns, {"kind": kind})], tmp_path)


def makes_text(text: str, log: str, *, file: Path) -> None:
    """Cell: a file, written whole; Ctrl-C at its first call for "stop"."""
    flag = Path(log).with_name("flag")
    if text == "stop" and not flag.exists():
        flag.touch()
        raise KeyboardInterrupt
    with Path(log).open("a") as handle:
        handle.write(f"{text}\n")
    write_atomic(file, text)


def reads(made: Path, factor: int) -> str:
    """Cell: what a file holds, some times."""
    return made.read_text() * factor


def makes_nothing(*, file: Path) -> None:
    """Cell: like a worker whose disk is another one."""


def _texts(folder: Path, *texts: str) -> list[Cell]:
    log = str(folder / "log")
    return [file_cell(folder / "made", "text", ".txt", makes_text, text=text, log=log) for text in texts]


@pytest.mark.parametrize("workers", [ONE, TWO], ids=["jobs=1", "jobs=2"])
def test_cells_that_make_files_run_once_and_are_counted(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [*_texts(tmp_path, "a", "b"), Cell(slow_when_small, {"x": 3})]
    results = _run(cells, tmp_path, workers)
    assert [path.read_text() for path in results[:2]] == ["a", "b"]
    assert results[2] == 30
    assert "test (cells): 3/3" in capsys.readouterr().err
    assert _run(cells, tmp_path) == kept_results(cells, tmp_path) == results
    assert _executions(tmp_path / "log") == 2
    results[0].unlink()
    assert kept_results(cells, tmp_path) == [None, *results[1:]]
    assert _run(cells, tmp_path) == results
    assert sorted((tmp_path / "log").read_text().split()) == ["a", "a", "b"]


def test_files_are_named_by_what_made_them_and_count_by_their_names(tmp_path: Path) -> None:
    """A folder of results that has moved is continued; another file is another argument."""
    first, other = (cell.file for cell in _texts(tmp_path, "a", "b"))
    assert first is not None
    assert other is not None
    assert first.name != other.name
    key = call_key(reads, {"made": first, "factor": 2})
    assert key == call_key(reads, {"made": Path("elsewhere") / first.name, "factor": 2})
    assert key != call_key(reads, {"made": other, "factor": 2})


def test_an_interrupted_sweep_of_files_keeps_the_finished_ones(tmp_path: Path) -> None:
    cells = _texts(tmp_path, "a", "stop", "b")
    with pytest.raises(KeyboardInterrupt):
        _run(cells, tmp_path)
    assert [path.read_text() for path in _run(cells, tmp_path)] == ["a", "stop", "b"]
    assert (tmp_path / "log").read_text().split() == ["a", "stop", "b"]


def test_a_file_that_is_not_seen_here_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^test: .*made-.* was made on another machine; .* share it$"):
        _run([file_cell(tmp_path, "made", "", makes_nothing)], tmp_path)


def refuses(x: int) -> int:
    """Cell: bad input."""
    raise InputError("x", x, "nothing")


@pytest.mark.parametrize("workers", [ONE, TWO], ids=["jobs=1", "jobs=2"])
def test_bad_input_found_by_a_cell_keeps_its_sentence(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^x: got [01]; allowed: nothing$"):
        _run([Cell(refuses, {"x": x}) for x in range(2)], tmp_path, workers)


def test_interrupted_sweep_keeps_finished_cells_and_resumes(tmp_path: Path) -> None:
    log, flag = tmp_path / "log", tmp_path / "flag"
    cells = [Cell(interrupted_once, {"x": x, "log": str(log), "flag": str(flag)}) for x in range(6)]
    with pytest.raises(KeyboardInterrupt):
        _run(cells, tmp_path / "cache")
    assert log.read_text().split() == ["0", "1", "2"]
    assert _run(cells, tmp_path / "cache") == [0, 1, 4, 9, 16, 25]
    assert log.read_text().split() == ["0", "1", "2", "3", "4", "5"]


def test_killed_worker_is_one_clear_error_and_the_rerun_completes(tmp_path: Path) -> None:
    log, flag = tmp_path / "log", tmp_path / "flag"
    shared = {"log": str(log), "flag": str(flag), "cache": str(tmp_path / "cache")}
    cells = [Cell(killed_once, {"x": x, **shared}) for x in range(6)]
    with pytest.raises(RunError, match=r"^test: a worker process was killed.*$"):
        _run(cells, tmp_path / "cache", TWO)
    kept = len(list((tmp_path / "cache").rglob("*.json")))
    assert kept >= 2
    before = _executions(log)
    assert _run(cells, tmp_path / "cache", TWO) == [0, 1, 4, 9, 16, 25]
    assert 1 <= _executions(log) - before <= 6 - kept


def test_dask_gives_the_results_of_loky(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        workers = Workers(backend="dask", address=cluster.scheduler_address)
        results = _run(_curves(), tmp_path / "dask", workers)
    assert results == _run(_curves(), tmp_path / "loky")
    assert len(list((tmp_path / "dask").rglob("*.json"))) == len(results)


@pytest.mark.parametrize(
    ("arguments", "field", "value", "allowed"),
    [
        ({"backend": "threads"}, "backend", "threads", "loky, dask, ray"),
        ({"address": "tcp://10.0.0.1:8786"}, "address", "tcp://10.0.0.1:8786", "dask or ray"),
        ({"jobs": 0}, "jobs", "0", ">= 1"),
        ({"jobs": -1}, "jobs", "-1", ">= 1"),
        ({"jobs": 1.5}, "jobs", "1.5", "integer"),
    ],
)
def test_bad_workers(arguments: dict[str, Any], field: str, value: str, allowed: str) -> None:
    with pytest.raises(InputError) as raised:
        Workers(**arguments)
    assert raised.value.field == field
    assert value in str(raised.value)
    assert allowed in str(raised.value)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://127.0.0.1:1"])
def test_unreachable_dask_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    distributed = pytest.importorskip("distributed")
    real = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda where, **_: real(where, timeout=1))
    with pytest.raises(InputError, match="running Dask scheduler") as raised:
        _run(_squares(tmp_path / "log"), tmp_path / "cache", Workers(backend="dask", address=address))
    assert raised.value.field == "address"
    assert address in str(raised.value)
    assert "\n" not in str(raised.value)


def test_absent_ray_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="pip install") as raised:
        _run(_squares(tmp_path / "log"), tmp_path / "cache", Workers(backend="ray"))
    assert raised.value.field == "backend"
    assert "ray" in str(raised.value)
