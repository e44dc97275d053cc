"""What the commands share: the parser, its one-line errors, and tables on a terminal."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, NoReturn

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """One line on stderr for bad input, no usage block."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: error: {message} (see {self.prog} --help)\n")
        raise SystemExit(EXIT_BAD_INPUT)


def add_command(commands: Any, name: str, help_: str, example: str, run: Any) -> argparse.ArgumentParser:
    """A command's parser; ``run(arguments, command line)`` is what it does."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_,
        description=help_,
        epilog=f"example: {example}",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
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
    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.capture() as captured:
        console.print(table)
    print(captured.get(), end="", flush=True)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
