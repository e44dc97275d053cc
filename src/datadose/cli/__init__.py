"""The command line. Thin: it parses, calls the library and prints; imports wait until a command needs them.

argparse rather than a framework: `--prompts B [B ...]` takes many values, `--help` must answer at once, and
bad input must be one line on stderr with exit code 2.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
from collections.abc import Callable, Sequence

from datadose._version import __version__
from datadose.cli import experiments, explore, llm, theory
from datadose.cli.common import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_OK, Parser, drop_output, stop_signals

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0 done, 1 failed, 2 bad input; after a signal 128 and its number: 130 for Ctrl-C, 143 for SIGTERM, 129 for
    SIGHUP.
    """
    from datadose.errors import InputError, RunError

    arguments = _parser().parse_args(argv)
    command = ["datadose", *(sys.argv[1:] if argv is None else argv)]
    try:
        with stop_signals():
            run: Callable[[argparse.Namespace, str], None] = arguments.run
            run(arguments, shlex.join(command))
            if sys.stdout is not None:
                sys.stdout.flush()
    except InputError as error:
        return _complain(arguments, str(error), EXIT_BAD_INPUT)
    except RunError as error:
        return _complain(arguments, f"{error}; {arguments.again}", EXIT_FAILED)
    except BrokenPipeError:
        # The reader of our output left (`| head`); nothing to say to anybody.
        drop_output()
        return EXIT_OK
    except OSError as error:
        # Of a file that no reader or writer has a better sentence for; without a name it is the output.
        if error.filename is None:
            drop_output()
        where = error.filename or "standard output"
        return _complain(arguments, f"{where}: {error.strerror or error}; {arguments.again}", EXIT_FAILED)
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        return _complain(arguments, f"interrupted; {arguments.again}", 128 + number)
    return EXIT_OK


def _complain(arguments: argparse.Namespace, message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"datadose {arguments.command}: error: {' '.join(message.split())}", file=sys.stderr)
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
