"""Where calls run: local processes (joblib's loky), a Dask cluster or a Ray cluster; one function serves all.

Every call, and every piece of work in a thread of this process, runs with one BLAS thread, so its bits do not
depend on the number of processes or on the backend.
Results come back as soon as they are there. Local processes end with the process that started them, however
that one ended; Dask and Ray look after theirs.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeAlias

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool
from threadpoolctl import threadpool_limits

from datadose.errors import RunError, reject, require_choice, require_integer

Backend: TypeAlias = Literal["loky", "dask", "ray"]
BACKENDS: tuple[Backend, ...] = ("loky", "dask", "ray")
Call: TypeAlias = tuple[Callable[..., Any], dict[str, Any]]
"""A module-level function and its keyword arguments."""

_RAY_WAITING = 256
"""Calls that wait on a Ray cluster at least, so that one that grows by demand gets some."""

_LOST = "a worker process was killed (out of memory?)"


@dataclass(frozen=True)
class Workers:
    """Where the cells of a study run: in local processes, or on a Dask or Ray cluster.

    Args:
        jobs: number of local processes, >= 1.
        backend: ``loky`` for local processes, ``dask`` or ``ray``.
        address: that of a running cluster of Dask or Ray; none for one on this machine.
        gpus: GPUs >= 0 that each call holds on Ray, which hides all others from it; Dask's workers see all of
            theirs.

    Raises:
        InputError: a value out of range, or an address with ``loky``.

    Example:
        >>> from datadose import Workers
        >>> Workers(jobs=2)
        Workers(jobs=2, backend='loky', address=None, gpus=0)
    """

    jobs: int = 1
    backend: Backend = "loky"
    address: str | None = None
    gpus: int = 0

    def __post_init__(self) -> None:
        require_integer("jobs", self.jobs, 1)
        require_integer("gpus", self.gpus, 0)
        require_choice("backend", self.backend, BACKENDS)
        if self.address is not None and self.backend == "loky":
            reject("address", self.address, "no address with backend loky (use dask or ray)")


def finished_calls(calls: Sequence[Call], workers: Workers) -> Iterator[tuple[int, Any]]:
    """(place of the call in ``calls``, its result), in the order in which they finish.

    Raises RunError if a worker dies, InputError for a cluster that cannot be reached; what a call raises is
    raised here. Calls that have not finished by then are given up.
    """
    if not calls:
        return
    if workers.backend == "ray":
        yield from _on_ray(calls, workers)
    else:
        yield from _on_joblib(calls, workers)


def in_threads(work: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> Iterator[tuple[int, Any]]:
    """(place of the item, ``work`` on it), in the order in which they finish, ``jobs`` of them at a time.

    In threads of this process, for work that leaves Python's lock alone and shares large data. What ``work``
    raises is raised here, once what was under way has finished and been given.
    """
    waiting: dict[Future[Any], int] = {}
    places, stopped = iter(range(len(items))), False
    with ThreadPoolExecutor(jobs, initializer=_one_torch_thread) as pool:
        try:
            while True:
                # One more than run, so that no thread is idle.
                for place in () if stopped else islice(places, jobs + 1 - len(waiting)):
                    waiting[pool.submit(work, items[place])] = place
                if not waiting:
                    return
                done = wait(waiting, return_when=FIRST_COMPLETED).done
                if not stopped and any(one.exception() for one in done):
                    stopped = True
                    for one in [one for one in waiting if one.cancel()]:
                        del waiting[one]
                    continue
                if stopped:
                    done = wait(waiting).done
                for one in sorted(done, key=lambda one: one.exception() is not None):
                    yield waiting.pop(one), one.result()
        finally:
            for one in waiting:
                one.cancel()


def _one_torch_thread() -> None:
    """torch keeps a thread count of its own, one for each thread that calls it; its sums depend on it."""
    if "torch" in sys.modules:
        # Another thread may still be at importing it, which this waits for.
        importlib.import_module("torch").set_num_threads(1)


def run_one(place: int, function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[int, Any]:
    """``place`` and the result of a call; its bits depend on the number of threads, which is one."""
    with threadpool_limits(1):
        _one_torch_thread()
        return place, function(**arguments)


def _on_joblib(calls: Sequence[Call], workers: Workers) -> Iterator[tuple[int, Any]]:
    tasks = (joblib.delayed(run_one)(place, *call) for place, call in enumerate(calls))
    with _joblib_backend(workers, len(calls)) as jobs:
        try:
            yield from joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)(tasks)
        except BrokenProcessPool as error:
            raise RunError(_LOST) from error


@contextlib.contextmanager
def _joblib_backend(workers: Workers, calls: int) -> Iterator[int]:
    """Enter the joblib backend; yields n_jobs."""
    if workers.backend == "loky":
        # Of no use to anybody: that idle workers ended and new ones were started.
        warnings.filterwarnings("ignore", category=UserWarning, module="joblib")
        # The parent's number as it is here: a worker whose parent is gone by then has another one.
        options = {"initializer": _end_with_parent, "initargs": (os.getpid(),)}
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1, **options):
            yield min(workers.jobs, calls)
    else:
        with _dask_client(workers) as client, joblib.parallel_config(backend="dask", client=client):
            yield -1


def _end_with_parent(parent: int) -> None:
    """End this process soon after its parent, whatever the call under way.

    Asking is what every system offers; Linux could send a signal, but does so when the parent's thread ends.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()


@contextlib.contextmanager
def _dask_client(workers: Workers) -> Iterator[Any]:
    dask = _library("dask", "distributed", "loky, or dask after `pip install 'datadose[cluster]'`")
    try:
        if workers.address is not None:
            try:
                client = dask.Client(workers.address, timeout=10)
            except (OSError, ValueError) as error:
                reject("address", workers.address, f"the address of a running Dask scheduler ({error})")
            with client:
                yield client
            return
        with (
            dask.LocalCluster(
                n_workers=workers.jobs, threads_per_worker=1, dashboard_address=None
            ) as cluster,
            dask.Client(cluster) as client,
        ):
            yield client
    except dask.KilledWorker as error:
        raise RunError(_LOST) from error
    except TimeoutError as error:
        if "has no worker" not in str(error):
            raise
        msg = "the Dask cluster has no worker"
        raise RunError(msg) from error
    except dask.comm.CommClosedError as error:
        msg = "the Dask cluster is gone"
        raise RunError(msg) from error


def _library(backend: str, name: str, allowed: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        reject("backend", backend, allowed)


def _on_ray(calls: Sequence[Call], workers: Workers) -> Iterator[tuple[int, Any]]:
    """By Ray's own tasks: joblib's backend for Ray returns nothing before everything is finished."""
    with _ray(workers) as ray:
        task = ray.remote(num_cpus=1, num_gpus=workers.gpus, max_retries=0)(run_one)
        # Arguments of waiting calls lie in Ray's memory: not those of all calls at once.
        most = max(_RAY_WAITING, 2 * int(ray.cluster_resources().get("CPU", 1)))
        to_come = enumerate(calls)
        waiting: list[Any] = []
        try:
            while True:
                waiting += [task.remote(place, *call) for place, call in islice(to_come, most - len(waiting))]
                if not waiting:
                    return
                ready, waiting = ray.wait(waiting, num_returns=1)
                yield ray.get(ready[0])
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ray.exceptions.RayError):
                # The call never began: its module or an argument cannot be had there.
                reason = str(error.cause).splitlines()[0]
                msg = f"a Ray worker could not take a call ({reason})"
                raise RunError(msg) from error
            # Ray's own text is the worker's traceback.
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise RunError(_LOST) from error
        finally:
            # Of use where the cluster outlives this: a Ray that the caller had started.
            with contextlib.suppress(ray.exceptions.RayError):
                for reference in waiting:
                    ray.cancel(reference, force=True)


@contextlib.contextmanager
def _ray(workers: Workers) -> Iterator[Any]:
    """The module ray, connected; a cluster that was started or joined here is left again."""
    library = _library("ray", "ray", "loky, dask, or ray after `pip install 'datadose[ray]'`")
    if library.is_initialized():
        yield library
        return
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    allowed = "the address of a running Ray cluster, host:port or ray://host:port"
    if workers.address is None:
        # Without "local" Ray joins a cluster that happens to run. Its processes import what this one can: the
        # variable is inherited (Ray's own way to hand one over takes seconds more).
        paths = os.pathsep.join(path or os.curdir for path in sys.path)
        # Ray reports its use to its makers unless it is configured not to.
        with _environment(PYTHONPATH=paths, RAY_USAGE_STATS_ENABLED="0"):
            library.init(address="local", num_cpus=workers.jobs, include_dashboard=False, **quiet)
    else:
        _require_listener(workers.address, allowed)
        try:
            library.init(address=workers.address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            reject("address", workers.address, f"{allowed} ({error})")
    try:
        yield library
    finally:
        library.shutdown()


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


def _require_listener(address: str, allowed: str) -> None:
    """InputError unless a server runs at ``address``: Ray would try for minutes, then end the process."""
    found = re.fullmatch(r"(?:ray://)?(.+):(\d{1,5})", address)
    if found is None:
        reject("address", address, allowed)
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        reject("address", address, f"{allowed} ({error})")
