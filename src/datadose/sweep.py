"""A sweep: cells in, their results in order; cached on disk, parallel, resumable.

A cell is a module-level function and keyword arguments that fix its result, seed included. Finished cells
are kept by joblib's disk cache, one file each, written whole or not at all; a sweep that is killed and run
again computes only what is missing and returns the same results. Every cell runs with one BLAS thread, so
its bits do not depend on the number of jobs or on the backend.

The cache is keyed by the arguments and by a digest of the package's numerical source, so results never
outlive the code that made them. On a cluster the cache folder should be on a file system that the workers
share; otherwise a resumed sweep recomputes cells, to the same result.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits

from datadose.errors import RunError, reject, require_integer
from datadose.progress import cell_progress

Backend: TypeAlias = Literal["loky", "dask", "ray"]
BACKENDS: tuple[Backend, ...] = ("loky", "dask", "ray")

_PRESENTATION = ("cli/", "progress.py", "figures", "report.py", "claims", "templates", "explore")


@dataclass(frozen=True)
class Cell:
    """One unit of work: ``function(**arguments)``, cached by both."""

    function: Callable[..., Any]
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Workers:
    """Where cells run: ``jobs`` local processes, or a Dask or Ray cluster at ``address``."""

    jobs: int = 1
    backend: Backend = "loky"
    address: str | None = None

    def __post_init__(self) -> None:
        require_integer("jobs", self.jobs, 1)
        if self.backend not in BACKENDS:
            reject("backend", self.backend, ", ".join(BACKENDS))
        if self.address is not None and self.backend == "loky":
            reject("address", self.address, "no address with backend loky (use dask or ray)")


@cache
def code_digest() -> str:
    """A digest of the numerical source files of the package (presentation left out)."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).as_posix()
        if not relative.startswith(_PRESENTATION):
            digest.update(relative.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def run_cells(cells: Sequence[Cell], *, cache_folder: Path, workers: Workers, title: str) -> list[Any]:
    """Results of ``cells``, in their order.

    Progress goes to stderr. Raises RunError if a worker dies; KeyboardInterrupt passes through. In both
    cases finished cells stay in the cache.
    """
    memory = joblib.Memory(cache_folder / code_digest(), verbose=0)
    # Two workers may both find the folder of a function missing; joblib warns and goes on.
    warnings.filterwarnings("ignore", category=UserWarning, module="joblib")
    functions = {cell.function: memory.cache(cell.function) for cell in cells}
    tasks = (
        joblib.delayed(_run_one)(index, functions[cell.function], cell.arguments)
        for index, cell in enumerate(cells)
    )
    results: list[Any] = [None] * len(cells)
    try:
        with _parallel_backend(workers) as jobs, cell_progress(title, len(cells)) as advance:
            finished = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)(tasks)
            for index, result in finished:
                results[index] = result
                advance()
    except TerminatedWorkerError as error:
        msg = f"{title}: a worker process was killed (out of memory?); finished cells are kept, run again"
        raise RunError(msg) from error
    except OSError as error:
        why = error.strerror or error
        msg = f"{title}: {cache_folder} could not be written ({why}); finished cells are kept, run again"
        raise RunError(msg) from error
    return results


def _run_one(index: int, function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[int, Any]:
    with threadpool_limits(1):
        if "torch" in sys.modules:
            # torch keeps a thread count of its own; its sums depend on it.
            sys.modules["torch"].set_num_threads(1)
        return index, function(**arguments)


@contextlib.contextmanager
def _parallel_backend(workers: Workers) -> Iterator[int]:
    """Enter the joblib backend; yields n_jobs."""
    if workers.backend == "loky":
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            yield workers.jobs
    elif workers.backend == "dask":
        with _dask_client(workers) as client, joblib.parallel_config(backend="dask", client=client):
            yield -1
    else:
        _start_ray(workers)
        with joblib.parallel_config(backend="ray"):
            yield -1


@contextlib.contextmanager
def _dask_client(workers: Workers) -> Iterator[Any]:
    try:
        import distributed  # noqa: PLC0415
    except ImportError:
        reject("backend", "dask", "loky, or dask after `pip install 'datadose[cluster]'`")
    cluster_library: Any = distributed
    if workers.address is not None:
        try:
            client = cluster_library.Client(workers.address, timeout=10)
        except (OSError, ValueError) as error:
            reject("address", workers.address, f"the address of a running Dask scheduler ({error})")
        with client:
            yield client
        return
    with (
        cluster_library.LocalCluster(
            n_workers=workers.jobs, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        cluster_library.Client(cluster) as client,
    ):
        yield client


def _start_ray(workers: Workers) -> None:
    try:
        import ray  # noqa: PLC0415
        from ray.util.joblib import register_ray  # noqa: PLC0415
    except ImportError:
        reject("backend", "ray", "loky, dask, or ray after `pip install 'datadose[ray]'`")
    if not ray.is_initialized():
        try:
            ray.init(address=workers.address, num_cpus=None if workers.address else workers.jobs)
        except (ConnectionError, ValueError) as error:
            reject("address", workers.address, f"the address of a running Ray cluster ({error})")
    register_ray()
