"""The command that serves the page of sliders."""

from __future__ import annotations

import argparse
import signal

from datadose.cli.common import command, integer, option


@command(
    "Serve a page on 127.0.0.1 where sliders set the shift and the exact curves move.",
    "datadose explore --port 8050",
    option("--port", type=integer, default=8050, metavar="P", help="the port; 0 takes a free one"),
)
def explore(arguments: argparse.Namespace, _: str) -> None:
    """Serve the page. It only stops when it is interrupted."""
    from datadose.explore import serve

    serve(arguments.port)
    raise SystemExit(128 + signal.SIGINT)
