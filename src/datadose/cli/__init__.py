"""The command line. Thin: it parses, calls the library and prints; imports wait until a command needs them.

argparse rather than a framework: `--prompts B [B ...]` takes many values, `--help` must answer at once, and
bad input must be one line on stderr with exit code 2.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from datadose._version import __version__
from datadose.cli import experiments, explore, llm, theory
from datadose.cli.common import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, Parser
from datadose.printing import say

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (0 done, 1 failed, 2 bad input, 130 interrupted)."""
    from datadose.errors import InputError, RunError

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    arguments = _parser().parse_args(argv)
    command = ["datadose", *(sys.argv[1:] if argv is None else argv)]
    try:
        run: Callable[[argparse.Namespace, str], None] = arguments.run
        run(arguments, shlex.join(command))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output left (`| head`); nothing to say to anybody.
        _discard_output()
        return EXIT_OK
    except KeyboardInterrupt:
        return _complain(arguments, f"interrupted; {arguments.interrupted}", EXIT_INTERRUPTED)
    except (InputError, RunError) as error:
        code = EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED
        return _complain(arguments, str(error), code)
    except OSError as error:
        # The machine's fault, not the input's: a full disk, or a stdout that takes nothing.
        _discard_output()
        return _complain(arguments, f"{error.filename or 'output'}: {error.strerror or error}", EXIT_FAILED)
    except MemoryError as error:
        return _complain(arguments, f"not enough memory ({error}); smaller sizes need less", EXIT_FAILED)
    return EXIT_OK


def _discard_output() -> None:
    """Give up what stdout holds if it cannot be written: the interpreter would fail over it at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(arguments: argparse.Namespace, message: str, code: int) -> int:
    say(f"datadose {arguments.command}: error: {' '.join(message.split())}", sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="datadose",
        description="Which data, how much of it, at which stage: exact theory and experiments.",
        epilog="example: datadose reproduce fig1 --preset quick --jobs 2",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"datadose {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for group in (experiments, theory, llm, explore):
        group.add_commands(commands)
    return parser
