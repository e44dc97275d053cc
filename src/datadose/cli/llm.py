"""Commands for language models: score, select."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from datadose.cli.common import ADDRESS, AGAIN, command, cores, integer, number, option, print_json
from datadose.cli.llm_options import COLUMNS, DATE, LOSS, PICKLES, columns_of, config_of
from datadose.printing import note, say

_MODEL = option("--model", required=True, metavar="DIR_OR_ID", help="base model, Transformers format")
_POOL = ".jsonl, .json, .csv, .gz of these, .parquet, a folder or glob, or hf:owner/name[/config][:split]"
_MANIFEST = option("--json", action="store_true", help="the manifest as one JSON document on stdout")
_THRESHOLDS = {
    "hard": "share of each length stratum, hardest first, that the SFT set is drawn from (0.5)",
    "extreme": "share of each stratum with the largest loss, taken for unlearnable (0.02)",
    "conflict": "the model's confidence from which its own, different answer makes a label suspect (0.7)",
    "unaligned": "quantile of the target's own alignment that a row must reach (0.1)",
    "interfering": "share of each stratum set apart as most opposed to the reference (0.1)",
    "overlap": "share of an evaluation question's word 8-grams with which a row is out (0.5)",
    "sft_solved": "pass rates surely above this are left out of the SFT set (0.5)",
    "rl_mixed": "chance that a group of G is mixed from which a prompt is in the RL set (0.5)",
}
"""Fields of SelectionConfig, with their defaults in brackets (a test compares them)."""
_JUDGEMENTS = [name for name in _THRESHOLDS if name not in ("overlap", "rl_mixed")]
"""Those of the method filters alone."""


@command(
    "Measure a pool of examples under a base model: loss, pass rate, representations.",
    "datadose score --model MODEL --pool pool.jsonl --out scores --samples 16 --verifier number",
    _MODEL,
    option("--pool", type=Path, required=True, help=_POOL),
    COLUMNS,
    option("--out", type=Path, required=True, help="scores folder; continues what is in it"),
    option("--samples", type=integer, default=0, metavar="K", help="completions sampled per prompt"),
    option(
        "--adaptive",
        action="store_true",
        help="4 samples of each prompt, then up to K where its place in the RL set is open",
    ),
    option(
        "--alone",
        action="store_true",
        help="also score each completion without its prompt (a pass more; what the method ifd needs)",
    ),
    option(
        "--verifier", help="exact, number, math, reasoning-gym, or module:function(completion, row) -> [0, 1]"
    ),
    option("--verifier-timeout", type=number, metavar="SECONDS", help="for one completion (5)"),
    option("--verifier-processes", type=integer, metavar="N", help="that the verifier runs in (1)"),
    option(
        "--completions",
        type=Path,
        help="completions made elsewhere, not sampled here: .jsonl or .jsonl.gz, results of a batch job too",
    ),
    option("--temperature", type=number, default=1.0, help="of the samples"),
    option("--max-tokens", type=integer, default=256, help="largest length of a sample"),
    option("--seed", type=integer, default=0, help="of the samples"),
    option("--batch-tokens", type=integer, default=4096, help="padded tokens per batch"),
    option("--jobs", type=integer, metavar="N", help="batches of losses at a time (cores; on a GPU 1)"),
    option("--backend", default="loky", help="where they run: loky (this process), dask or ray"),
    ADDRESS,
    option("--dtype", default="auto", help="auto (the model's own on a GPU, float32 on a CPU), or its name"),
    option("--device-map", metavar="auto", help="auto: spread a model that is larger than a device"),
    LOSS,
    DATE,
    PICKLES,
    _MANIFEST,
    groups={
        "samples from a server with OpenAI's interface (its key in the variable OPENAI_API_KEY)": [
            option("--endpoint", metavar="URL", help="such as http://localhost:8000/v1; draws the samples"),
            option("--endpoint-model", metavar="NAME", help="the model's name there (the only one it lists)"),
            option("--concurrency", type=integer, metavar="N", help="requests under way at a time (16)"),
            option("--endpoint-timeout", type=number, metavar="S", help="seconds for one answer (600)"),
            option(
                "--endpoint-options",
                metavar="JSON",
                help="an object of further fields of each request; null leaves a field out",
            ),
        ]
    },
    again=f"finished batches are kept, {AGAIN} to continue",
)
def score(arguments: argparse.Namespace, _: str) -> None:
    """Measure a pool and say what was marked."""
    from datadose.llm.score import score
    from datadose.llm.score_config import ScoreConfig
    from datadose.llm.spoiled import unfinished_samples
    from datadose.progress import step_progress
    from datadose.workers import Workers

    backend, address, jobs = arguments.backend, arguments.address, arguments.jobs
    workers = Workers(cores() if jobs is None else jobs, backend, address)
    default = jobs is None and backend == "loky"
    with step_progress() as progress:
        scores = score(
            arguments.model,
            arguments.pool,
            arguments.out,
            columns=columns_of(arguments),
            config=config_of(ScoreConfig, arguments),
            verifier=arguments.verifier,
            completions=arguments.completions,
            endpoint=_endpoint(arguments),
            allow_pickle_weights=arguments.allow_pickle_weights,
            workers=None if default else workers,
            progress=progress,
        )
    if arguments.json:
        print_json(scores.manifest)
        return
    counts = scores.manifest
    rows, scored, sampled = counts["rows"], counts["scored"], counts["with_pass_rate"]
    if scored or not sampled:
        mean = f": mean loss {counts['mean_nll']:.4g} nats a token" if scored else ""
        note(f"{scored} of {rows} rows scored in {arguments.out}{mean}")
    if sampled:
        note(f"{sampled} of {rows} rows have a pass rate: mean {counts['mean_pass_rate']:.3g}")
    for issue, count in counts["issues"].items():
        note(f"  {count} marked: {issue} (the column issue says more)")
    for lack, count in counts["incomplete"].items():
        note(f"  {count} in part: {lack} (the column incomplete says more)")
    if failed := int((scores.table["label_passes"] == 0).sum()):
        note(f"  {failed} completions of the pool fail the verifier: `select` takes none of them for SFT")
    if counts["unfinished"]:
        note(f"  {unfinished_samples(counts['unfinished'])}")


def _endpoint(arguments: argparse.Namespace) -> Any:
    """Where to sample, None for the model itself."""
    from datadose.errors import reject
    from datadose.llm.endpoint import Endpoint
    from datadose.reading import parse_json

    names = ("endpoint_model", "concurrency", "endpoint_timeout", "endpoint_options")
    given = {name: getattr(arguments, name) for name in names}
    if arguments.endpoint is None:
        for name, value in given.items():
            if value is not None:
                reject(name.replace("_", "-"), value, "none without --endpoint URL")
        return None
    if (options := given["endpoint_options"]) is not None:
        given["endpoint_options"] = parse_json("endpoint-options", options, options)
    fields_ = {name.removeprefix("endpoint_"): value for name, value in given.items() if value is not None}
    return Endpoint(arguments.endpoint, **fields_)


@command(
    "Choose an SFT set and an RL set, and equal-size random controls, from a scored pool.",
    "datadose select --scores scores --target target.jsonl --out selected",
    option("--scores", type=Path, required=True, help="folder that `datadose score` wrote"),
    option(
        "--target",
        nargs="+",
        type=Path,
        metavar="TARGET",
        help="examples of the target: a pool, or its scores folder; needed unless --sft-size is 0; several "
        "take turns",
    ),
    option("--out", type=Path, required=True, help="folder for the sets, manifest and report"),
    option("--reference", type=Path, help="what must be kept: a pool or its scores (default: the pool)"),
    COLUMNS,
    option(
        "--method",
        metavar="NAME",
        help="which rows come first: random, longest, easiest, middle, hardest, ifd, bm25, rds, sketch, "
        "sketch-mean, transport or filters (bm25)",
    ),
    option(
        "--weights",
        action="store_true",
        help="the SFT set is every usable row with a sampling weight by its place in the order; half of the "
        "draws, or more, are of the first --sft-size; no RL set then",
    ),
    option(
        "--sft-size",
        default="auto",
        metavar="auto|N",
        help="rows of the SFT set; auto: a heuristic, at least 64, so give a number if you can; 0: none",
    ),
    option(
        "--sft-tokens", type=integer, metavar="N", help="completion tokens of the SFT set, in place of rows"
    ),
    option(
        "--rl-size",
        default="auto",
        metavar="auto|N",
        help="prompts of the RL set, whatever the target; 0: none",
    ),
    option(
        "--against",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="evaluation files: no row that repeats a question of theirs is chosen",
    ),
    option(
        "--near-duplicates",
        type=number,
        metavar="X",
        help="similarity of two questions, in (0, 1], from which one of them is left out (none)",
    ),
    option("--format", default="trl", help="trl, or also verl, openrlhf, llama-factory or axolotl"),
    option("--group", type=integer, metavar="G", help="completions per prompt in RL (8)"),
    option("--replay", type=number, default=0.0, help="share of reference rows in the SFT set"),
    option("--representation", default="sketch", help="sketch or embedding: of alignment and filters"),
    option("--seed", type=integer, default=0, help="of everything that is drawn"),
    *(option(name, type=number, help=argparse.SUPPRESS) for name in ("--rl-solved", "--rl-hopeless")),
    PICKLES,
    _MANIFEST,
    groups={
        "thresholds (see docs/llm_selection.md; all but --overlap and --rl-mixed are of --method filters)": [
            option(f"--{name.replace('_', '-')}", type=number, metavar="X", help=help_)
            for name, help_ in _THRESHOLDS.items()
        ]
    },
)
def select(arguments: argparse.Namespace, _: str) -> None:
    """Choose and write the sets, and describe them."""
    from datadose.files import prepare_folder
    from datadose.llm.pool import read_pool
    from datadose.llm.represent import scores_of
    from datadose.llm.scores import read_scores
    from datadose.llm.selection import (
        SelectionConfig,
        check_format,
        describe,
        select,
        training_commands,
        wants_rl,
        write_selection,
    )
    from datadose.llm.selection.config import FILTERS
    from datadose.reading import read_json

    check_format(arguments.format)
    arguments.sft_size = _size("sft-size", arguments.sft_size)
    arguments.rl_size = _size("rl-size", arguments.rl_size)
    config = config_of(SelectionConfig, arguments)
    for name in _JUDGEMENTS:
        if getattr(arguments, name) is not None and config.method != FILTERS:
            note(f"{name}: not used, it is a threshold of --method {FILTERS} and not of {config.method}")
    pool = read_scores(arguments.scores)
    # Before the target is measured, which takes a while.
    wants_rl(pool, config)
    if arguments.sft_size == 0 and arguments.reference is not None:
        note("reference: not used, it is for the SFT set")
        arguments.reference = None
    files = arguments.against or ()
    reading: dict[str, Any] = {
        "columns": columns_of(arguments),
        "several": arguments.reference is not None or bool(files),
    }
    options = {**reading, "allow_pickle_weights": arguments.allow_pickle_weights}
    against = {
        str(path): read_pool(path, "against", mark=True, prompts_alone=True, **reading) for path in files
    }
    targets = [scores_of(path, "target", pool, **options) for path in arguments.target or ()]
    reference = arguments.reference and scores_of(arguments.reference, "reference", pool, **options)
    for name, rows in against.items():
        if unread := sum(row.issue is not None for row in rows):
            note(f"against: {unread} of {len(rows)} rows of {name} could not be read and are not looked for")
    prepare_folder("out", arguments.out)
    selection = select(pool, targets, reference=reference, against=against, config=config)
    write_selection(selection, pool, reference, arguments.out, form=arguments.format)
    if arguments.json:
        print_json(read_json(arguments.out / "manifest.json"))
        return
    commands = training_commands(selection, arguments.out, arguments.format)
    say(describe(selection, reference, commands))
    note(f"wrote {arguments.out / 'report.html'}")


def _size(field: str, value: str) -> Any:
    from datadose.errors import reject

    if value == "auto":
        return value
    if not value.isdecimal() or len(value) > 15:
        reject(field, value, "auto, or an integer >= 0")
    return int(value)
