"""A sweep: cells in, their results in order; cached on disk, parallel, resumable.

A cell is a module-level function and keyword arguments that fix its result, seed included. The process that
runs the sweep keeps every finished cell (:mod:`~datadose.cell_cache`) before it counts it; a sweep that is
killed and run again computes only what is missing and returns the same results. Workers, be they on other
machines (:mod:`~datadose.workers`), need not see the folder of the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datadose.cell_cache import CellCache
from datadose.errors import RunError
from datadose.printing import note
from datadose.progress import cell_progress
from datadose.workers import BACKENDS, Backend, Call, Workers, finished_calls

__all__ = ["BACKENDS", "Backend", "Cell", "Workers", "kept_results", "run_calls", "run_cells"]


@dataclass(frozen=True)
class Cell:
    """One unit of work: ``function(**arguments)``, cached by both.

    It returns numbers, texts, None, lists or dicts with text keys; tuples come back as lists.
    """

    function: Callable[..., Any]
    arguments: dict[str, Any]


def run_cells(cells: Sequence[Cell], *, cache_folder: Path, workers: Workers, title: str) -> list[Any]:
    """Results of ``cells``, in their order.

    Progress goes to stderr. Raises RunError if a worker dies or the disk refuses a result; KeyboardInterrupt
    passes through. In all cases finished cells stay in the cache.
    """
    cache = CellCache(cache_folder)
    paths = [cache.path(cell.function, cell.arguments) for cell in cells]
    kept = [cache.read(path) for path in paths]
    if cache.damaged:
        note(f"{title}: {len(cache.damaged)} damaged of the kept results run again: {cache.damaged[0]}")
    results = [found[0] if found else None for found in kept]
    missing = [index for index, found in enumerate(kept) if not found]
    calls = [(cells[index].function, cells[index].arguments) for index in missing]
    with cell_progress(title, len(cells), done=len(cells) - len(missing)) as advance:
        for place, result in run_calls(title, calls, workers):
            index = missing[place]
            results[index] = cache.write(paths[index], result)
            advance()
    return results


def kept_results(cells: Sequence[Cell], cache_folder: Path) -> list[Any]:
    """The results of those ``cells`` that are finished, None for the others."""
    cache = CellCache(cache_folder)
    kept = [cache.read(cache.path(cell.function, cell.arguments)) for cell in cells]
    return [found[0] if found else None for found in kept]


def run_calls(title: str, calls: Sequence[Call], workers: Workers) -> Iterator[tuple[int, Any]]:
    """(place, result) of ``calls`` as they finish, nothing kept; RunError as of :func:`run_cells`."""
    try:
        yield from finished_calls(calls, workers)
    except RunError as error:
        msg = f"{title}: {error}"
        raise RunError(msg) from error
