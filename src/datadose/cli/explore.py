"""The command `explore`."""

from __future__ import annotations

import argparse
from typing import Any

from datadose.cli.common import EXIT_INTERRUPTED, add_command, integer


def add_commands(commands: Any) -> None:
    """Add `explore`."""
    parser = add_command(
        commands,
        "explore",
        "Serve a page on 127.0.0.1 where sliders set the shift and the exact curves move.",
        "datadose explore --port 8050",
        _explore,
    )
    parser.add_argument(
        "--port", type=integer, default=8050, metavar="P", help="the port; 0 takes a free one"
    )


def _explore(arguments: argparse.Namespace, _: str) -> None:
    from datadose.explore import serve

    serve(arguments.port)
    # It only stops when it is interrupted.
    raise SystemExit(EXIT_INTERRUPTED)
