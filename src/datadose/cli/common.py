"""What the commands share: how they are declared, one-line errors, and what they print."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn, TypeAlias

from datadose.printing import printable, say, shortened

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2
AGAIN = "run the same command again"
"""What to do after an interrupt or a full disk, where nothing is kept."""
Run: TypeAlias = Callable[[argparse.Namespace, str], None]
Option: TypeAlias = tuple[tuple[str, ...], dict[str, Any]]
_NARROW = 12
"""Characters that a column of text must have for a table to be printed, and that a head may always take."""
_BETWEEN = 3
"""Characters of a table from one column to the next."""
_WORDS = ("id", "statement", "verdict", "stage", "choice", "source", "method")
"""Heads of the columns that hold text, not numbers."""


class Parser(argparse.ArgumentParser):
    """One line on stderr for bad input, no usage block; a misspelt name is answered with the right one.

    ``keys``, if it is set, names the class of the command's configuration file, whose keys the help lists.
    """

    keys = ""
    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; a command's own parser takes nothing that is left over."""
        self._given = sys.argv[1:] if args is None else list(args)
        found, left = super().parse_known_args(args, namespace)
        if left and self._subparsers is None:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return found, left

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(
                action, _unknown(f"got {_short(value)!r}", value, list(action.choices))
            )

    def format_help(self) -> str:
        """argparse's help, and the keys of the command's file."""
        return super().format_help() + (_list_keys(self.keys) if self.keys else "")

    def error(self, message: str) -> NoReturn:
        """Exit with one line: of an option that does not exist first, since it may mean the missing one."""
        names = [part.partition("=")[0] for part in self._given if part.startswith("--") and part != "--"]
        for name in names if self._subparsers is None else ():
            if name not in self._option_string_actions:
                known = [known for known in self._option_string_actions if known.startswith("--")]
                message = f"unknown option {_unknown(name, name, known, show=False)}"
                break
        shown = shortened(" ".join(printable(message).split()), 400)
        sys.stderr.write(f"{self.prog}: error: {shown} (see {self.prog} --help)\n")
        raise SystemExit(EXIT_BAD_INPUT)


def _unknown(shown: str, name: str, known: Sequence[str], *, show: bool = True) -> str:
    """``shown`` with the known name that is written most like ``name``, and if ``show`` with all of them."""
    from datadose.errors import close_match

    close = close_match(name, known)
    return shown + (f" ({close})" if close else "") + (f"; allowed: {', '.join(known)}" if show else "")


def _list_keys(place: str) -> str:
    """The keys of the configuration class at ``place``, MODULE:CLASS, a paragraph each."""
    from pkgutil import resolve_name

    from datadose.strict import describe_keys

    lines = ["", "keys of the file, where a.b is the key b of the section a, and a.N.b that of its item N:"]
    for name, what in describe_keys(resolve_name(place)):
        lines += textwrap.wrap(f"{name}: {what}", 100, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(lines) + "\n"


def integer(text: str) -> int:
    """The type of an option that is a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {_numeral(text, whole=True)}; allowed: an integer") from None


def number(text: str) -> float:
    """The type of an option that is a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"got {_numeral(text)}; allowed: a finite number")
    return value


def _short(text: object) -> str:
    return shortened(str(text), 60)


def _numeral(text: str, *, whole: bool = False) -> str:
    """A text that is no (``whole``) number, with the number that it may mean."""
    from datadose.errors import number_hint

    hint = number_hint(text, whole=whole)
    return repr(_short(text)) + (f" ({hint})" if hint else "")


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


def option(*names: str, **settings: Any) -> Option:
    """An option or a positional argument of a command, as argparse takes it; the help states its default."""
    if "default" in settings:
        settings["help"] += " (default: %(default)s)"
    return names, settings


def command(
    help_: str,
    example: str,
    *options: Option,
    groups: Mapping[str, Sequence[Option]] | None = None,
    again: str = AGAIN,
    keys: str = "",
) -> Callable[[Run], Callable[[Any], None]]:
    """Turn a function of (arguments, command line) into one that adds its command to argparse's subparsers.

    The command has the function's name. ``again`` says what is kept of a run that was stopped, and how to
    continue it. Options in ``groups`` are listed apart, under the group's name. ``keys`` is the class of the
    command's configuration file, as MODULE:CLASS.
    """

    def decorate(run: Run) -> Callable[[Any], None]:
        def add(commands: Any) -> None:
            parser: Parser = commands.add_parser(
                run.__name__, help=help_, description=help_, epilog=f"example: {example}", allow_abbrev=False
            )
            parser.set_defaults(run=run, again=again)
            parser.keys = keys
            for title, members in {"": options, **(groups or {})}.items():
                place = parser.add_argument_group(title) if title else parser
                for names, settings in members:
                    place.add_argument(*names, **settings)

        return add

    return decorate


JSON = option("--json", action="store_true", help="one JSON document on stdout")
ADDRESS = option("--address", help="address of a running Dask or Ray cluster")


def print_json(document: Any) -> None:
    """Print a JSON document on stdout."""
    print(json.dumps(document, indent=2, allow_nan=False))


def _shown(cell: object) -> str:
    """Five digits of a number that is not whole; a dash for None."""
    return "-" if cell is None else f"{cell:.5g}" if isinstance(cell, float) else str(cell)


def tell(sentence: str) -> None:
    """Print a sentence on stdout; on a terminal in lines of whole words."""
    if sys.stdout.isatty():
        sentence = "\n".join(textwrap.wrap(sentence, shutil.get_terminal_size().columns))
    say(sentence)


def print_table(title: str, header: list[str], cells: Sequence[Sequence[object]]) -> None:
    """Print a table on stdout, numbers to the right; on a narrow terminal each row is a block of lines."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [[_shown(cell) for cell in row] for row in cells]
    console = Console(width=None if sys.stdout.isatty() else 120)
    columns = list(zip(header, *rows, strict=True))
    needed, longest = 1, [max(map(len, column)) for column in columns]
    fits = sum(width + _BETWEEN for width in longest) < console.width
    table = Table()
    for name, *column in columns:
        # Words can be wrapped, numbers cannot.
        cell = max(map(len, column), default=0)
        width = max([*map(len, name.split()), min(cell, _NARROW) if name in _WORDS else cell])
        needed += width + _BETWEEN
        head = name if fits else "\n".join(textwrap.wrap(name, max(width, _NARROW)))
        table.add_column(head, justify="left" if name in _WORDS else "right", overflow="fold")
    if console.width < needed:
        say(_blocks(title, header, rows, console.width))
        return
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    # A title of rich's is wrapped to the width of its table, which may be narrower than the terminal.
    say("\n".join(textwrap.wrap(title, console.width)))
    # Printed by us, so that a reader that left is met as BrokenPipeError in main, not by an exit of rich's.
    with console.capture() as captured:
        console.print(table)
    print(captured.get(), end="", flush=True)


def _blocks(title: str, header: list[str], rows: list[list[str]], width: int) -> str:
    lines = textwrap.wrap(title, width)
    for row in rows:
        lines.append("")
        for name, cell in zip(header, row, strict=True):
            lines += textwrap.wrap(f"{name}: {cell}", width, subsequent_indent="  ")
    return "\n".join(lines)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
