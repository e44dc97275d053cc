"""The command that compares selection methods on a pool: compare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from datadose.cli.common import AGAIN, command, integer, number, option, print_json, print_table, tell
from datadose.cli.llm_options import COLUMNS, PICKLES, columns_of, config_of
from datadose.printing import note

_EXAMPLES = (
    "datadose compare --scores scores --target target.jsonl --methods bm25,rds,longest --budget 64 "
    "--out compared; how much more rows would give: --budgets 64,256,1024 in place of --budget"
)


@command(
    "Compare selection methods on your pool: small trainings of each, over seeds, on rows of the target.",
    _EXAMPLES,
    option("--scores", type=Path, required=True, help="folder that `datadose score` wrote"),
    option("--target", type=Path, required=True, help="examples of the target, one pool or its scores"),
    option("--methods", required=True, metavar="A,B,C", help="methods of `select --method`; random is added"),
    option("--budget", type=integer, metavar="N", help="rows that each method selects"),
    option("--budgets", metavar="N,M,...", help="in place of --budget: several, ascending, for a curve"),
    option("--out", type=Path, required=True, help="folder for table.csv and report.html; continues there"),
    COLUMNS,
    option("--seeds", type=integer, metavar="K", help="how many, each with its split of the target (5)"),
    option("--steps", type=integer, help="optimiser steps of an arm (100)"),
    option("--batch", type=integer, help="rows per step (8)"),
    option("--learning-rate", type=number, help="peak learning rate (2e-4 with an adapter, else 2e-5)"),
    option("--lora-rank", type=integer, help="rank of the adapter; 0 trains all weights (16)"),
    option("--evaluate-every", type=integer, metavar="N", help="steps between evaluations (a twentieth)"),
    option("--seed", type=integer, help="the first seed; the others follow (0)"),
    PICKLES,
    option("--json", action="store_true", help="the result as one JSON document on stdout"),
    again=f"finished arms and checkpoints are kept, {AGAIN} to continue",
)
def compare(arguments: argparse.Namespace, _: str) -> None:
    """Compare, and say which method to take."""
    from datadose.llm.compare import CompareConfig, compare
    from datadose.progress import step_progress

    arguments.methods = [name.strip() for name in arguments.methods.split(",")]
    arguments.budgets = _budgets(arguments)
    config = config_of(CompareConfig, arguments)
    with step_progress() as progress:
        found = compare(
            arguments.scores,
            arguments.target,
            arguments.out,
            config=config,
            columns=columns_of(arguments),
            allow_pickle_weights=arguments.allow_pickle_weights,
            progress=progress,
        )
    if arguments.json:
        print_json(found.to_json())
        return
    _print(found)
    note(f"wrote {arguments.out / 'table.csv'} and {arguments.out / 'report.html'}")


def _budgets(arguments: argparse.Namespace) -> tuple[int, ...]:
    from datadose.errors import reject

    if (arguments.budget is None) == (arguments.budgets is None):
        given = "none" if arguments.budget is None else "--budget and --budgets"
        reject("budget", given, "either --budget N or --budgets N,M,...")
    if arguments.budget is not None:
        return (arguments.budget,)
    parts = [part.strip() for part in arguments.budgets.split(",")]
    if len(parts) < 2 or not all(part.isdecimal() and len(part) <= 15 for part in parts):
        reject("budgets", arguments.budgets, "at least two numbers of rows, ascending, such as 64,256,1024")
    return tuple(int(part) for part in parts)


def _print(found: Any) -> None:
    from datadose.llm.compare.table import shown_rows

    header, rows = shown_rows(found.table)
    target = found.setting["target"]
    print_table(
        f"Loss on {target['test']} test rows of the target at each arm's best step, nats a token, "
        f"means of {found.setting['seeds']} seeds with 95 percent intervals",
        header,
        rows,
    )
    for sentence in found.advice:
        tell(f"{sentence}.")
    for method, one in found.forecasts.items():
        tell(f"{method}: {one.sentence()}.")
