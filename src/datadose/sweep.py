"""A sweep: cells in, their results in order; cached on disk, parallel, resumable.

A cell is a module-level function and keyword arguments that fix its result, seed included. The process that
runs the sweep keeps every finished cell (:mod:`~datadose.cell_cache`) before it counts it; a sweep that is
killed and run again computes only what is missing and returns the same results. Workers, be they on other
machines (:mod:`~datadose.workers`), need not reach the folder of the results, unless cells make files there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from datadose.cell_cache import CellCache, call_key, make_folder
from datadose.errors import RunError
from datadose.printing import note
from datadose.progress import cell_progress
from datadose.workers import BACKENDS, Backend, Workers, finished_calls

__all__ = ["BACKENDS", "Backend", "Cell", "Round", "Workers", "file_cell", "kept_results", "run_cells"]


@dataclass(frozen=True)
class Cell:
    """One unit of work: ``function(**arguments)``, cached by both.

    It returns numbers, texts, None, lists or dicts with text keys; tuples come back as lists. A cell with a
    ``file`` makes that file or folder instead (``function(**arguments, file=file)``), whole or not at all; it
    is finished if the file is there, and its result is the path.
    """

    function: Callable[..., Any]
    arguments: dict[str, Any]
    file: Path | None = None


Round: TypeAlias = tuple[str, Sequence[Cell]]
"""What is made ("" for the study itself), and the cells that make it: all before the next round's."""


def file_cell(folder: Path, stem: str, suffix: str, function: Callable[..., Any], **arguments: Any) -> Cell:
    """The cell that makes ``folder``/STEM-KEY-SUFFIX; KEY is a digest of the code and the arguments."""
    path = folder / f"{stem}-{call_key(function, arguments)[:16]}{suffix}"
    return Cell(function, arguments, path.absolute())


def run_cells(cells: Sequence[Cell], *, cache_folder: Path, workers: Workers, title: str) -> list[Any]:
    """The results of ``cells``, in their order.

    Finished cells are read from the cache, the others are computed and kept there. Progress goes to stderr.

    Args:
        cells: the calls.
        cache_folder: folder of the kept results.
        workers: where the calls run.
        title: what progress and errors call the sweep.

    Raises RunError if a worker dies, a result cannot be written or a file was made where this machine cannot
    reach it; KeyboardInterrupt passes through. In all cases finished cells stay in the cache.
    """
    cache = CellCache(cache_folder)
    paths = [cell.file or cache.path(cell.function, cell.arguments) for cell in cells]
    kept = [_kept(cell, path, cache) for cell, path in zip(cells, paths, strict=True)]
    if cache.damaged:
        note(f"{title}: {len(cache.damaged)} damaged of the kept results run again: {cache.damaged[0]}")
    results = [found[0] if found else None for found in kept]
    missing = [index for index, found in enumerate(kept) if not found]
    with cell_progress(title, len(cells), done=len(cells) - len(missing)) as advance:
        for place, result in _finished([cells[index] for index in missing], workers, title):
            index = missing[place]
            results[index] = cells[index].file or cache.write(paths[index], result)
            advance()
    return results


def kept_results(cells: Sequence[Cell], cache_folder: Path) -> list[Any]:
    """The results of those ``cells`` that are finished and kept in ``cache_folder``, None for the others."""
    cache = CellCache(cache_folder)
    kept = (_kept(cell, cell.file or cache.path(cell.function, cell.arguments), cache) for cell in cells)
    return [found[0] if found else None for found in kept]


def _kept(cell: Cell, path: Path, cache: CellCache) -> tuple[Any, ...]:
    """``(result,)`` of a finished cell, ``()`` of another one."""
    if cell.file is None:
        return cache.read(path)
    return (path,) if path.exists() else ()


def _finished(cells: Sequence[Cell], workers: Workers, title: str) -> Iterator[tuple[int, Any]]:
    """(place, result) of ``cells`` as they finish, results not yet kept."""
    calls = [(c.function, c.arguments if c.file is None else {**c.arguments, "file": c.file}) for c in cells]
    for folder in {cell.file.parent for cell in cells if cell.file}:
        make_folder(folder)
    try:
        for place, result in finished_calls(calls, workers):
            file = cells[place].file
            if file is not None and not file.exists():
                msg = f"{file} was made on another machine; cells that make files need workers that share it"
                raise RunError(msg)
            yield place, result
    except RunError as error:
        msg = f"{title}: {error}"
        raise RunError(msg) from error
