"""Progress on stderr: a bar with elapsed and remaining time on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
_PLAIN_LINES = 4


@contextlib.contextmanager
def step_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yields ``report(name, done, total)``; each name is a bar of its own."""
    console = Console(stderr=True)
    if not console.is_terminal:

        def plain(name: str, done: int, total: int) -> None:
            if done % max(1, total // _PLAIN_LINES) == 0 or done == total:
                console.print(f"{name}: {done}/{total}", highlight=False)

        yield plain
        return
    tasks: dict[str, TaskID] = {}
    with Progress(*_COLUMNS, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        yield report


@contextlib.contextmanager
def cell_progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Yields ``advance()``, called once for each finished cell of ``total``."""
    done = 0
    with step_progress() as report:

        def advance() -> None:
            nonlocal done
            done += 1
            report(f"{title} (cells)", done, total)

        yield advance
