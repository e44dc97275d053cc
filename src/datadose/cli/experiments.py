"""Commands that run or read experiments: reproduce, claims, train."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from datadose.cli.common import AGAIN, add_command, cores, integer, print_table, show_number
from datadose.printing import note


def add_commands(commands: Any) -> None:
    """Add this module's commands to the subparsers ``commands``."""
    _add_reproduce(commands)
    _add_claims(commands)
    _add_train(commands)


def _add_reproduce(commands: Any) -> None:
    from datadose.studies.index import GROUPS, NAMES

    parser = add_command(
        commands,
        "reproduce",
        "Run the experiments behind the paper's figures and claims.",
        "datadose reproduce fig1 fig5 --preset quick --out results",
        _reproduce,
        again=f"finished cells are kept, {AGAIN} to continue",
    )
    parser.add_argument(
        "targets",
        nargs="*",
        default=["all"],
        help=f"{', '.join(NAMES)}; or several of them: {', '.join(GROUPS)}",
    )
    parser.add_argument("--preset", default="quick", help="smoke, quick, small (GPT only) or paper")
    parser.add_argument("--out", type=Path, default=Path("results"), help="results folder")
    parser.add_argument("--seeds", type=integer, help="seeds per setting, instead of the preset's")
    parser.add_argument("--jobs", type=integer, default=cores(), help="parallel processes")
    parser.add_argument("--backend", default="loky", help="loky, dask or ray")
    parser.add_argument("--address", help="address of a running Dask or Ray cluster")


def _reproduce(arguments: argparse.Namespace, command: str) -> None:
    from datadose.studies.reproduce import reproduce
    from datadose.sweep import Workers

    out = reproduce(
        arguments.targets,
        preset=arguments.preset,
        out=arguments.out,
        seeds=arguments.seeds,
        workers=Workers(arguments.jobs, arguments.backend, arguments.address),
        command=command,
    )
    note(f"wrote {out / 'report.html'}")


def _add_claims(commands: Any) -> None:
    parser = add_command(
        commands,
        "claims",
        "Print the ledger of claims and verdicts of a results folder.",
        "datadose claims --out results",
        _claims,
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="results folder")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _claims(arguments: argparse.Namespace, _: str) -> None:
    from datadose.studies.report import read_ledger

    path = arguments.out / "claims.json"
    claims = read_ledger(path)
    if arguments.json:
        print(json.dumps(claims, indent=2, allow_nan=False))
        return
    print_table(
        f"{len(claims)} claims in {path}",
        ["id", "statement", "value", "threshold", "verdict"],
        [
            [c["id"], c["statement"], show_number(c["value"]), show_number(c["threshold"]), c["verdict"]]
            for c in claims
        ],
    )


def _add_train(commands: Any) -> None:
    parser = add_command(
        commands,
        "train",
        "Run one pipeline: pretrain, post-train (sft, outcome, rl, in order), post-test.",
        "datadose train configs/sft.yaml --out runs/sft",
        _train,
        again=f"its checkpoints are kept, {AGAIN} with --resume to continue",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="the pipeline, see configs/")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME of the config)")
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")


def _train(arguments: argparse.Namespace, _: str) -> None:
    from datadose.configs import load_config
    from datadose.progress import step_progress
    from datadose.stages.config import TrainConfig
    from datadose.stages.distributed import joined
    from datadose.stages.pipeline import run_pipeline

    config = load_config(arguments.config, TrainConfig)
    out = arguments.out or Path("runs") / arguments.config.stem
    with joined("cpu") as processes, step_progress() as progress:
        result = run_pipeline(
            config, out, folder=arguments.config.parent, resume=arguments.resume, progress=progress
        )
    if not processes.first:
        return
    rows = []
    for report in result["stages"]:
        for i, k in enumerate(report["thinking_steps"]):
            means = [report[f"{test}_mean"] for test in ("target", "pretraining")]
            shown = [show_number(None if mean is None else mean[i]) for mean in means]
            rows.append([report["stage"], str(k), *shown, str(len(report["diverged"]))])
    header = ["stage", "thinking steps", "error on target", "error on pretraining", "diverged"]
    print_table(f"error / d, mean of {len(result['seeds'])} runs; {out / 'result.json'}", header, rows)
