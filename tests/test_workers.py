"""Clusters: the bits of one machine, bad addresses, lost workers, no process that outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import datadose.progress
from datadose.errors import InputError, RunError
from datadose.sweep import Cell, Workers
from helpers.command import argv, environment
from helpers.processes import LONG, end, kept, wait_until
from test_sweep import _curves, _run, killed_once, refuses, slow_when_small

pytestmark = pytest.mark.long


def test_ray_gives_the_results_of_loky(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a local Ray cluster that the sweep starts and ends itself; progress comes cell by cell."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setattr(datadose.progress, "_EVERY", 0.0)
    cells = [Cell(slow_when_small, {"x": x}) for x in (0, 5, 2, 7)]
    results = _run([*_curves(), *cells], tmp_path / "ray", Workers(2, "ray"))
    assert not ray.is_initialized()
    lines = [line for line in capsys.readouterr().err.splitlines() if "cells" in line]
    assert [line.partition(",")[0] for line in lines] == [f"test (cells): {done}/8" for done in range(9)]
    assert results == _run([*_curves(), *cells], tmp_path / "loky")
    assert len(list((tmp_path / "ray").rglob("*.json"))) == len(results)


def test_a_call_waits_for_a_thread_that_imports_torch(tmp_path: Path) -> None:
    """With one job cells run beside the thread that draws, whose first report imports every study."""
    (tmp_path / "torch.py").write_text("import time; time.sleep(1); set_num_threads = print")
    code = (
        "import sys, threading, time; from datadose.workers import run_one; "
        "threading.Thread(target=lambda: __import__('torch')).start()\n"
        "while 'torch' not in sys.modules: time.sleep(0.01)\n"
        "print(run_one(3, dict, {}))"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env={**environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split("\n")[:2] == ["1", "(3, {})"], done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", "127.0.0.1:99999"])
def test_an_unreachable_ray_address(tmp_path: Path, address: str) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    with pytest.raises(InputError, match="running Ray cluster") as raised:
        _run(_curves(), tmp_path, Workers(backend="ray", address=address))
    assert raised.value.field == "address"
    assert address in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.fixture
def ray_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Ray cluster of two workers that somebody else started."""
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path or os.curdir for path in sys.path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
def test_a_ray_cluster_at_an_address(ray_address: str, tmp_path: Path) -> None:
    """Bits, a cell's bad input, a killed worker and the run after it."""
    workers = Workers(backend="ray", address=ray_address)
    assert _run(_curves(), tmp_path / "ray", workers) == _run(_curves(), tmp_path / "loky")
    with pytest.raises(InputError, match=r"^x: got [01]; allowed: nothing$"):
        _run([Cell(refuses, {"x": x}) for x in range(2)], tmp_path / "refused", workers)
    shared = {"log": str(tmp_path / "log"), "flag": str(tmp_path / "flag"), "cache": str(tmp_path / "killed")}
    cells = [Cell(killed_once, {"x": x, **shared}) for x in range(6)]
    with pytest.raises(RunError, match=r"^test: a worker process was killed[^\n]*$"):
        _run(cells, tmp_path / "killed", workers)
    assert len(list((tmp_path / "killed").rglob("*.json"))) >= 2
    assert _run(cells, tmp_path / "killed", workers) == [0, 1, 4, 9, 16, 25]


def _marked(marker: str) -> set[int]:
    """Living processes whose environment holds ``marker``."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_local_clusters_end_with_a_killed_parent(backend: str, tmp_path: Path) -> None:
    pytest.importorskip({"dask": "distributed"}.get(backend, backend), reason=f"{backend} is not installed")
    marker, out = uuid.uuid4().hex, tmp_path / "out"
    process = subprocess.Popen(
        argv(*LONG, "--jobs", 2, "--backend", backend, "--out", out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**environment(), "DATADOSE_TEST": marker},
    )
    wait_until(lambda: len(kept(out)) >= 4, "four cells")
    assert len(_marked(marker)) >= 3
    process.kill()
    assert end(process) == -signal.SIGKILL
    wait_until(lambda: not _marked(marker), "the end of all processes of the cluster")


@pytest.mark.slow
def test_a_dask_cluster_without_a_worker(tmp_path: Path) -> None:
    """joblib waits for one for ten seconds."""
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        workers = Workers(backend="dask", address=cluster.scheduler_address)
        with pytest.raises(RunError, match=r"^test: the Dask cluster has no worker$"):
            _run(_curves(), tmp_path, workers)


def _workers_of_the_cluster() -> int:
    from distributed import get_client

    return len(get_client().scheduler_info(n_workers=-1)["workers"])


def test_a_local_dask_cluster_has_as_many_workers_as_jobs(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask is not installed")
    assert _run([Cell(_workers_of_the_cluster, {})], tmp_path, Workers(3, "dask")) == [3]
