"""Options that the commands for language models share."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from datadose.cli.common import option

PICKLES = option(
    "--allow-pickle-weights",
    action="store_true",
    help="read weights from .bin files, which can run code: only for models that you trust",
)
LOSS = option("--loss", metavar="last|all", help="the completion, or all assistant turns (last)")
DATE = option("--template-date", metavar="YYYY-MM-DD", help="what a chat template's clock shows (2024-07-26)")
COLUMNS = option(
    "--columns",
    metavar="ROLE=COLUMN,...",
    help="the columns of prompt, completion (or messages), answer, tools and id, where names do not show "
    "them: prompt=question,completion=solution,answer=final",
)


def columns_of(arguments: argparse.Namespace) -> dict[str, str] | None:
    """The columns of a pool's roles, None where none is named."""
    from datadose.llm.pool import parse_columns

    return None if arguments.columns is None else parse_columns(arguments.columns)


def config_of(kind: Any, arguments: argparse.Namespace) -> Any:
    """A configuration of the class ``kind`` from the options that have its fields' names."""
    given = {name: getattr(arguments, name, None) for name in inspect.signature(kind).parameters}
    return kind(**{name: value for name, value in given.items() if value is not None})
