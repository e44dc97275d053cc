"""What the commands share: the parser, its one-line errors, and tables on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130
AGAIN = "run the same command again"
"""What to do after an interrupt or a full disk, where nothing is kept."""


class Parser(argparse.ArgumentParser):
    """One line on stderr for bad input, no usage block."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: error: {message} (see {self.prog} --help)\n")
        raise SystemExit(EXIT_BAD_INPUT)


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise :class:`~datadose.errors.Stopped`, as Ctrl-C raises KeyboardInterrupt.

    A signal that is ignored (``nohup``) or that has a handler stays so.
    """
    from datadose.errors import Stopped

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise Stopped(number)

    wanted = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    main = threading.current_thread() is threading.main_thread()
    ours = [number for number in wanted if main and signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def drop_output() -> None:
    """Give up standard output, which takes no more: Python would try once more at its end, and complain."""
    if sys.stdout is not None:
        # A stream that a test put there has no descriptor.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_command(
    commands: Any, name: str, help_: str, example: str, run: Any, *, again: str = AGAIN
) -> argparse.ArgumentParser:
    """A command's parser; ``run(arguments, command line)`` is what it does.

    ``again`` says what is kept of a run that was stopped, and how to continue it.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_,
        description=help_,
        epilog=f"example: {example}",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run, again=again)
    return parser


def show_number(value: float | None) -> str:
    """Five digits; a dash for None."""
    return "-" if value is None else f"{value:.5g}"


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table on stdout, numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in header:
        numeric = name not in ("id", "statement", "verdict", "stage", "choice", "source")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # Printed by us, so that a reader that left is met as BrokenPipeError in main, not by an exit of rich's.
    console = Console(width=None if sys.stdout is not None and sys.stdout.isatty() else 120)
    with console.capture() as captured:
        console.print(table)
    print(captured.get(), end="", flush=True)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
