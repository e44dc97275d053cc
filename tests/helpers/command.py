"""Running the command line from tests."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from datadose.cli import main

PATIENCE = 600
"""Seconds until a test gives up a process that should end by itself: only for one that hangs."""

BLOCK = ["--dimension", "40", "--shifted", "20", "--rho", "0.1", "--eta", "0.2"]
PREDICT = ["predict", *BLOCK, "--interference", "0.1", "--length", "40", "--prompts", "5"]
COMMANDS = (
    *("reproduce", "predict", "plan", "claims", "train"),
    *("score", "select", "posttrain", "compare", "explore", "samples"),
)
COLUMNS = (
    "figure panel stage model prompts length steps interference seed error predicted diverged".split()  # noqa: SIM905
)
CLAIM_KEYS = "id paper statement setting statistic threshold value interval seeds verdict note".split()  # noqa: SIM905


def environment() -> dict[str, str]:
    # No byte code: under a file-size limit Python would leave truncated files beside the sources.
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def argv(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "datadose.cli", *map(str, arguments)]


def run_datadose(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv(*arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment(),
        **options,
    )


def run_main(arguments: list[str]) -> int:
    """The exit code, whether main returns it or argparse raises it."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


def with_option(option: str, *values: str) -> list[str]:
    """A good `predict` command with one option given these values."""
    arguments = list(PREDICT)
    if option in arguments:
        place = arguments.index(option) + 1
        return [*arguments[:place], *values, *arguments[place + 1 :]]
    return [*arguments, option, *values]
