"""The command line. Thin: it parses, calls the library and prints; imports wait until a command needs them.

argparse rather than a framework: `--prompts B [B ...]` takes many values, `--help` must answer at once, and
bad input must be one line on stderr with exit code 2.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from datadose._version import __version__
from datadose.cli import compare, experiments, explore, llm, plan, posttrain, predict, samples
from datadose.cli.common import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_OK, Parser, drop_output, stop_signals
from datadose.printing import note

if TYPE_CHECKING:
    from datadose.errors import InputError

__all__ = ["main"]

_COMMANDS = (
    *(experiments.reproduce, experiments.claims, experiments.train),
    *(predict.predict, plan.plan),
    *(llm.score, llm.select, posttrain.posttrain, compare.compare),
    *(explore.explore, samples.samples),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0 done, 1 failed, 2 bad input; after a signal 128 and its number: 130 for Ctrl-C, 143 for SIGTERM, 129 for
    SIGHUP.
    """
    from datadose.errors import InputError, RunError

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    arguments = _parser().parse_args(argv)
    command = ["datadose", *(sys.argv[1:] if argv is None else argv)]
    try:
        with stop_signals():
            run: Callable[[argparse.Namespace, str], None] = arguments.run
            run(arguments, shlex.join(command))
            sys.stdout.flush()
    except (InputError, ModuleNotFoundError) as error:
        return _complain(arguments, _bad_input(error), EXIT_BAD_INPUT)
    except BrokenPipeError:
        # The reader of our output left (`| head`); nothing to say to anybody.
        drop_output()
        return EXIT_OK
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        return _complain(arguments, f"interrupted; {arguments.again}", 128 + number)
    except (RunError, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:
            drop_output()
        return _complain(arguments, f"{_reason(error)}; {arguments.again}", EXIT_FAILED)
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        # How torch says that there is not enough of it.
        return _complain(arguments, _reason(MemoryError(str(error).splitlines()[0])), EXIT_FAILED)
    return EXIT_OK


def _bad_input(error: InputError | ModuleNotFoundError) -> str:
    """The line about bad input, or about torch, which only what trains or runs a model needs.

    Other libraries that may be absent are looked for where they are needed.
    """
    if not isinstance(error, ModuleNotFoundError):
        return str(error)
    if error.name != "torch":
        raise error
    return "torch is needed here and not installed: pip install torch"


def _reason(error: Exception) -> str:
    """Why a run could not finish: of a file that no reader or writer has a better sentence for, its name."""
    if isinstance(error, OSError):
        return f"{error.filename or 'standard output'}: {error.strerror or error}"
    return f"not enough memory ({error})" if isinstance(error, MemoryError) else str(error)


def _complain(arguments: argparse.Namespace, message: str, code: int) -> int:
    # What is complained about may be that nothing can be written.
    with contextlib.suppress(OSError):
        note(f"datadose {arguments.command}: error: {' '.join(message.split())}")
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
    for add in _COMMANDS:
        add(commands)
    return parser
