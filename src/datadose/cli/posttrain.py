"""The command that trains a language model on a selection: posttrain."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from datadose.cli.common import AGAIN, command, integer, number, option, print_json
from datadose.cli.llm_options import COLUMNS, DATE, LOSS, PICKLES, columns_of, config_of
from datadose.printing import note

_EXAMPLES = (
    "datadose posttrain --model MODEL --data selected/sft.jsonl --stage sft --out runs/sft; in given shares "
    "of a batch, measured, the best step kept: datadose posttrain --model MODEL --stage sft --out runs/mixed "
    "--mix clean.jsonl=3 web.jsonl=1 --validation target.jsonl --keep known.jsonl; the mean of two runs: "
    "datadose posttrain --average runs/sft runs/mixed --out runs/mean"
)


@command(
    "Train a model on a selected set with TRL (SFT, or GRPO with a verifier as the reward), or average runs.",
    _EXAMPLES,
    option("--model", metavar="DIR_OR_ID", help="base model, Transformers format"),
    option(
        "--data", type=Path, metavar="FILE", help="sft.jsonl or rl.jsonl of `datadose select`, or any pool"
    ),
    COLUMNS,
    option("--stage", help="sft or rl"),
    option("--out", type=Path, required=True, help="run folder; continues what is in it"),
    option("--verifier", help="the reward of stage rl, as in `datadose score`"),
    option("--verifier-timeout", type=number, metavar="SECONDS", help="rl: for one completion (5)"),
    option("--steps", type=integer, help="optimiser steps (100)"),
    option("--batch", type=integer, help="examples (sft) or completions (rl) per step (8)"),
    option("--learning-rate", type=number, help="peak learning rate (2e-4 with an adapter, else 2e-5)"),
    option("--lora-rank", type=integer, help="rank of the adapter; 0 trains all weights (16)"),
    option("--samples", type=integer, metavar="G", help="rl: completions per prompt (8)"),
    option("--temperature", type=number, help="rl: of the samples (1.0)"),
    option("--max-tokens", type=integer, help="rl: largest length of a sample (256)"),
    option("--seed", type=integer, help="of order, initialisation and samples (0)"),
    LOSS,
    DATE,
    PICKLES,
    option("--json", action="store_true", help="the result as one JSON document on stdout"),
    groups={
        "measured while training (sft)": [
            option("--validation", type=Path, metavar="FILE", help="target rows; the best step is kept"),
            option("--keep", type=Path, metavar="FILE", help="rows of what must not be forgotten"),
            option(
                "--keep-weight",
                type=number,
                metavar="W",
                help="what decides is (1 - W) validation loss + W keep loss (0.5)",
            ),
            option(
                "--evaluate-every",
                type=integer,
                metavar="N",
                help="steps between evaluations, each with a checkpoint (a twentieth of the run)",
            ),
            option(
                "--patience",
                type=integer,
                metavar="N",
                help="stop after N evaluations in a row that are no better (never)",
            ),
        ],
        "several files, several runs": [
            option(
                "--mix",
                nargs="+",
                metavar="FILE=SHARE",
                help="in place of --data: files with their shares of a batch, relative to each other",
            ),
            option(
                "--average",
                nargs="+",
                type=Path,
                metavar="RUN",
                help="in place of training: the mean weights of finished runs of one base model",
            ),
        ],
    },
    again=f"checkpoints are kept, {AGAIN} to continue",
)
def posttrain(arguments: argparse.Namespace, _: str) -> None:
    """Train, or average, and say what came of it and where it is."""
    from datadose.llm.run_summary import summary

    result = _trained(arguments) if arguments.average is None else _averaged(arguments)
    if arguments.json:
        print_json(result)
        return
    if (best := result.get("best_step")) is not None:
        steps, last = result["config"]["steps"], result["history"][-1]["step"]
        ended = f"stopped at step {last} of {steps}" if last < steps else f"{steps} steps"
        kept = f"the weights of step {best}" if best else "the untouched weights: no step was better"
        note(f"{ended}; kept are {kept}")
    for line in summary(result):
        note(line)
    note(f"wrote {arguments.out / 'result.json'}")


def _trained(arguments: argparse.Namespace) -> Any:
    from datadose.errors import reject
    from datadose.llm.mixing import parse_shares
    from datadose.llm.posttrain import Evaluation, PosttrainConfig, posttrain
    from datadose.progress import step_progress

    for name in ("model", "stage"):
        if getattr(arguments, name) is None:
            reject(name, "none", f"--{name} with a value; only --average needs none")
    if (arguments.data is None) == (arguments.mix is None):
        given = "none" if arguments.data is None else "--data and --mix"
        reject("data", given, "either --data FILE or --mix FILE=SHARE ...")
    evaluation = None
    if arguments.validation is None:
        for name in ("keep", "keep_weight", "evaluate_every", "patience"):
            if (value := getattr(arguments, name)) is not None:
                reject(name, value, "none without --validation")
    else:
        evaluation = Evaluation(
            arguments.validation,
            keep=arguments.keep,
            keep_weight=arguments.keep_weight,
            every=arguments.evaluate_every,
            patience=arguments.patience,
        )
    with step_progress() as progress:
        return posttrain(
            arguments.model,
            arguments.data if arguments.mix is None else parse_shares(arguments.mix),
            arguments.out,
            config=config_of(PosttrainConfig, arguments),
            verifier=arguments.verifier,
            evaluation=evaluation,
            columns=columns_of(arguments),
            allow_pickle_weights=arguments.allow_pickle_weights,
            progress=progress,
        )


def _averaged(arguments: argparse.Namespace) -> Any:
    from datadose.errors import reject
    from datadose.llm.averaging import average

    allowed = ("command", "run", "again", "average", "out", "json", "allow_pickle_weights")
    for name, value in vars(arguments).items():
        if name not in allowed and value is not None:
            reject(name, value, "none with --average, which does not train")
    return average(arguments.average, arguments.out, allow_pickle_weights=arguments.allow_pickle_weights)
