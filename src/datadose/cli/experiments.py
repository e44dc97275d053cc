"""Commands that run or read experiments: reproduce, claims, train."""

from __future__ import annotations

import argparse
from pathlib import Path

from datadose.cli.common import ADDRESS, AGAIN, JSON, command, cores, integer, option, print_json, print_table
from datadose.printing import note
from datadose.studies.index import GROUPS, NAMES, named

_RESULTS = option("--out", type=Path, default=Path("results"), help="results folder")


@command(
    "Run the experiments behind the paper's figures and claims.",
    "datadose reproduce fig1 fig5 --preset quick --out results",
    option(
        "targets",
        nargs="*",
        default=["all"],
        help=f"{', '.join(NAMES)}; or several of them: {', '.join(GROUPS)}",
    ),
    option(
        "--preset",
        default="quick",
        help="smoke, quick, full (quick, with studies that `all` leaves out there) or paper; small, medium: "
        "some of the GPT's",
    ),
    _RESULTS,
    option("--seeds", type=integer, help="seeds per setting, instead of the preset's"),
    option("--jobs", type=integer, default=cores(), help="parallel processes"),
    option("--backend", default="loky", help="loky, dask or ray"),
    ADDRESS,
    again=f"finished cells are kept, {AGAIN} to continue",
)
def reproduce(arguments: argparse.Namespace, command_line: str) -> None:
    """Run the experiments and write their report."""
    from datadose.studies.reproduce import reproduce
    from datadose.sweep import Workers

    chosen = named(arguments.targets, arguments.preset)
    left_over = [name for name in GROUPS["all"] if "all" in arguments.targets and name not in chosen]
    out = reproduce(
        arguments.targets,
        preset=arguments.preset,
        out=arguments.out,
        seeds=arguments.seeds,
        workers=Workers(arguments.jobs, arguments.backend, arguments.address),
        command=command_line,
    )
    if left_over:
        note(f"left over: {', '.join(left_over)}; `datadose reproduce all --preset full` runs them too")
    note(f"wrote {out / 'report.html'}")


@command(
    "Print the ledger of claims and verdicts of a results folder.",
    "datadose claims --out results",
    _RESULTS,
    JSON,
)
def claims(arguments: argparse.Namespace, _: str) -> None:
    """Print the ledger."""
    from datadose.studies.report import read_ledger

    path = arguments.out / "claims.json"
    found = read_ledger(path)
    if arguments.json:
        print_json(found)
        return
    header = ["id", "statement", "value", "threshold", "verdict"]
    print_table(
        f"{len(found)} claims in {path}", header, [[claim[name] for name in header] for claim in found]
    )


@command(
    "Run one pipeline: pretrain, post-train (sft, outcome, rl, in order), post-test.",
    "datadose train configs/sft.yaml --out runs/sft",
    option(
        "config", type=Path, metavar="CONFIG.yaml", help="the pipeline; `datadose samples` writes examples"
    ),
    option("--out", type=Path, help="run folder (default: runs/NAME of the config)"),
    option("--resume", action="store_true", help="continue a run that was stopped"),
    again=f"its checkpoints are kept, {AGAIN} with --resume to continue",
    keys="datadose.stages.config:TrainConfig",
)
def train(arguments: argparse.Namespace, _: str) -> None:
    """Run the pipeline and print its errors."""
    from datadose.configs import load_config
    from datadose.progress import step_progress
    from datadose.stages.config import TrainConfig

    config = load_config(arguments.config, TrainConfig)
    # After the file is read: these load torch.
    from datadose.stages.distributed import joined
    from datadose.stages.pipeline import run_pipeline

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
            errors = [None if mean is None else mean[i] for mean in means]
            rows.append([report["stage"], k, *errors, len(report["diverged"])])
    header = ["stage", "thinking steps", "error on target", "error on pretraining", "diverged"]
    print_table(f"error / d, mean of {len(result['seeds'])} runs; {out / 'result.json'}", header, rows)
