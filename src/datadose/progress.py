"""Progress on stderr: a bar with rate and times on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from multiprocessing import parent_process
from typing import TypeAlias

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from datadose.printing import note, printable

Report: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

_COLUMNS = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
_PLAIN_LINES = 4


class _Rate(ProgressColumn):
    """Finished units a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.3g}/s")


def silent(name: str, done: int, total: int) -> None:
    """A report to nobody."""


_open: list[Report] = []


@contextlib.contextmanager
def step_progress() -> Iterator[Report]:
    """Yields ``report(name, done, total)``; each name is a bar of its own, beside those of an outer block."""
    with contextlib.ExitStack() as stack:
        if not _open:
            _open.append(stack.enter_context(_display()))
            stack.callback(_open.clear)
        yield _open[0]


@contextlib.contextmanager
def _display() -> Iterator[Report]:
    console = Console(stderr=True)
    # The bars of two processes would overwrite each other: a worker writes lines, above its parent's bars.
    if not console.is_terminal or parent_process() is not None:
        parts: dict[str, int] = {}

        def plain(name: str, done: int, total: int) -> None:
            part = _PLAIN_LINES * done // max(1, total)
            if part > parts.setdefault(name, 0):
                parts[name] = part
                note(f"{name}: {done}/{total}")

        yield plain
        return
    tasks: dict[str, TaskID] = {}
    columns = (*_COLUMNS, _Rate(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(printable(name), total=total)
            bar.update(tasks[name], completed=done)

        yield report


@contextlib.contextmanager
def cell_progress(title: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Yields ``advance()``, called once for each finished cell of ``total``; ``done`` are there already."""
    with step_progress() as report:
        if done:
            report(f"{title} (cells)", done, total)

        def advance() -> None:
            nonlocal done
            done += 1
            report(f"{title} (cells)", done, total)

        yield advance
