"""Progress on stderr: a bar with rate and times on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
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
_EVERY = 20.0
"""Seconds between plain lines."""


class _Rate(ProgressColumn):
    """Finished units a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.3g}/s")


class PlainLines:
    """A report in lines that say what is done, how long it has taken and how long the rest may take.

    A line is printed at the first and the last report of a name, and between them where none has been printed
    for 20 seconds. Time left is that of units as long as the average so far.

    Args:
        clock: returns seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: dict[str, tuple[float, int]] = {}
        self._ended: set[str] = set()
        self._printed = clock()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Print a line if it is time; see :data:`Report` for the arguments."""
        now, first = self._clock(), name not in self._begun
        begun, before = self._begun.setdefault(name, (now, done))
        last = done >= total
        if (last and name in self._ended) or not (first or last or now - self._printed >= _EVERY):
            return
        if last:
            self._ended.add(name)
        self._printed = now
        parts = [f"{name}: {done}/{total}"]
        if not first:
            parts.append(duration(now - begun))
        if not last and done > before:
            parts.append(f"about {duration((now - begun) * (total - done) / (done - before))} left")
        note(", ".join(parts))


def duration(seconds: float) -> str:
    """``seconds`` in words, to the second below an hour and to the minute above: "1 min 20 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
        yield PlainLines()
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
        report(f"{title} (cells)", done, total)

        def advance() -> None:
            nonlocal done
            done += 1
            report(f"{title} (cells)", done, total)

        yield advance
