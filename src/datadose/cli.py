"""The command line. Thin: it parses, calls the library and prints; imports wait until a command needs them.

argparse rather than a framework: `--prompts B [B ...]` takes many values, `--help` must answer at once, and
bad input must be one line on stderr with exit code 2.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from datadose._version import __version__

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """One line on stderr for bad input, no usage block."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: error: {message} (see {self.prog} --help)\n")
        raise SystemExit(EXIT_BAD_INPUT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (0 done, 1 failed, 2 bad input, 130 interrupted)."""
    from datadose.errors import InputError, RunError

    arguments = _parser().parse_args(argv)
    command = ["datadose", *(sys.argv[1:] if argv is None else argv)]
    try:
        run: Callable[[argparse.Namespace, str], None] = arguments.run
        run(arguments, shlex.join(command))
    except InputError as error:
        return _complain(arguments, str(error), EXIT_BAD_INPUT)
    except RunError as error:
        return _complain(arguments, str(error), EXIT_FAILED)
    except BrokenPipeError:
        # The reader of our output left (`| head`); nothing to say to anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        hint = "interrupted; finished cells are kept, run the same command again to continue"
        return _complain(arguments, hint, EXIT_INTERRUPTED)
    return EXIT_OK


def _complain(arguments: argparse.Namespace, message: str, code: int) -> int:
    print(f"datadose {arguments.command}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="datadose",
        description="Which data, how much of it, at which stage: exact theory and experiments.",
        epilog="example: datadose reproduce fig1 --preset quick --jobs 2",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"datadose {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_reproduce(commands)
    _add_predict(commands)
    _add_plan(commands)
    _add_claims(commands)
    _add_train(commands)
    return parser


def _command(commands: Any, name: str, help_: str, example: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_,
        description=help_,
        epilog=f"example: {example}",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_reproduce(commands: Any) -> None:
    parser = _command(
        commands,
        "reproduce",
        "Run the experiments behind the paper's figures and claims.",
        "datadose reproduce fig1 fig5 --preset quick --out results",
        _reproduce,
    )
    parser.add_argument(
        "targets",
        nargs="*",
        default=["all"],
        help="fig1 fig2 fig3 gpt_data fig4 fig4map fig5 planner planner_stages claims, insights, or all",
    )
    parser.add_argument("--preset", default="quick", help="smoke, quick, small (GPT only) or paper")
    parser.add_argument("--out", type=Path, default=Path("results"), help="results folder")
    parser.add_argument("--seeds", type=int, help="seeds per setting, instead of the preset's")
    parser.add_argument("--jobs", type=int, default=_cores(), help="parallel processes")
    parser.add_argument("--backend", default="loky", help="loky, dask or ray")
    parser.add_argument("--address", help="address of a running Dask or Ray cluster")


def _reproduce(arguments: argparse.Namespace, command: str) -> None:
    from datadose.reproduction import reproduce
    from datadose.sweep import Workers

    out = reproduce(
        arguments.targets,
        preset=arguments.preset,
        out=arguments.out,
        seeds=arguments.seeds,
        workers=Workers(arguments.jobs, arguments.backend, arguments.address),
        command=command,
    )
    print(f"wrote {out / 'report.html'}", file=sys.stderr)


def _add_predict(commands: Any) -> None:
    parser = _command(
        commands,
        "predict",
        "Predict the post-test error after SFT on the paper's two-block shift.",
        "datadose predict --dimension 400 --shifted 200 --rho 0.1 --eta 0.2 --interference 0.1 --length 400 "
        "--prompts 100 700 --simulate 5",
        _predict,
    )
    parser.add_argument("--dimension", type=int, required=True, metavar="D", help="dimension d")
    parser.add_argument("--shifted", type=int, required=True, metavar="M", help="shifted directions m <= d")
    parser.add_argument("--rho", type=float, required=True, metavar="R", help="pretraining variance there")
    parser.add_argument("--eta", type=float, required=True, metavar="E", help="chain step, in (0, 2)")
    parser.add_argument("--interference", type=float, required=True, metavar="r", help="r >= 0")
    parser.add_argument("--length", type=int, required=True, metavar="n", help="prompt length")
    parser.add_argument("--prompts", type=int, required=True, nargs="+", metavar="B", help="SFT prompts")
    parser.add_argument("--form", default="exact", help="exact, first-order or as-printed")
    parser.add_argument("--finite-size", action="store_true", help="add the O(1/d) correction (form exact)")
    parser.add_argument("--simulate", type=int, metavar="SEEDS", help="also simulate V* with this many seeds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _predict(arguments: argparse.Namespace, _: str) -> None:
    from datadose.errors import require_integer
    from datadose.shift import Shift
    from datadose.theory.asymptotics import FORMS, PeakError, predict_error

    for B in arguments.prompts:
        require_integer("prompts", B, 1)
    if arguments.simulate is not None:
        require_integer("simulate", arguments.simulate, 1)
    shift = Shift.two_block(
        arguments.dimension, arguments.shifted, arguments.rho, arguments.eta, arguments.interference
    )
    if arguments.form not in FORMS or (arguments.finite_size and arguments.form != "exact"):
        predict_error(shift, 1, arguments.length, form=arguments.form, finite_size=arguments.finite_size)
    simulated = None
    if arguments.simulate is not None:
        from datadose.curves import simulate_error

        simulated = simulate_error(shift, arguments.prompts, arguments.length, seeds=arguments.simulate)
    rows = []
    for index, B in enumerate(arguments.prompts):
        row: dict[str, Any] = {"prompts": B, "length": arguments.length, "form": arguments.form}
        try:
            row["predicted"] = predict_error(
                shift, B, arguments.length, form=arguments.form, finite_size=arguments.finite_size
            )
        except PeakError:
            near = "within 1 of" if arguments.finite_size else "="
            row.update(
                predicted=None, reason=f"B {near} rank(A) = {shift.data_rank}: the mean is infinite there"
            )
        row["simulated_mean"] = None if simulated is None else float(simulated.mean[index])
        sem = None if simulated is None or arguments.simulate < 2 else float(simulated.sem[index])
        row.update(simulated_sem=sem, seeds=arguments.simulate or 0)
        rows.append(row)
    if arguments.json:
        print(json.dumps(rows, indent=2, allow_nan=False))
        return
    _print_table(
        f"post-test error / d, {arguments.form} form, n = {arguments.length}",
        ["prompts", "predicted", "simulated", "s.e."],
        [
            [str(r["prompts"]), *(_shown(r[key]) for key in ("predicted", "simulated_mean", "simulated_sem"))]
            for r in rows
        ],
    )


def _add_plan(commands: Any) -> None:
    parser = _command(
        commands,
        "plan",
        "Decide from a shift how many prompts to take, of which kind, from which source, at which stage.",
        "datadose plan configs/plan.yaml --plot plan.png",
        _plan,
    )
    parser.add_argument("shift", type=Path, metavar="SHIFT.yaml", help="the shift and the pool, see configs/")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw the plan")


def _plan(arguments: argparse.Namespace, _: str) -> None:
    from datadose.errors import reject
    from datadose.files import prepare_folder
    from datadose.planner import plan_file

    if arguments.plot is not None and arguments.plot.suffix != ".png":
        reject("plot", str(arguments.plot), "a file name that ends in .png")
    if arguments.plot is not None:
        prepare_folder("plot", arguments.plot.parent)
    found = plan_file(arguments.shift)
    document = found.to_json()
    if arguments.plot is not None:
        from datadose.figures.plan import draw_plan
        from datadose.figures.style import save

        save(draw_plan(document), arguments.plot.parent, arguments.plot.stem, kinds=("png",))
    if arguments.json:
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    _print_plan(document)


def _print_plan(document: dict[str, Any]) -> None:
    """The sentence, then what it rests on."""
    print(f"recommendation: {document['recommendation']}")
    near = document["near_optimal"]
    rows = [
        ["no prompts", "0", _shown(document["error_before"])],
        ["the best number", str(document["prompts"]), _shown(document["predicted_error"])],
    ]
    if near is not None:
        rows.append(["within 5 percent of it", f"{near[0]} to {near[1]}", ""])
    for name in ("best_below_peak", "best_above_peak"):
        if document.get(name):
            side = document[name]
            rows.append([name.replace("_", " "), str(side["prompts"]), _shown(side["predicted"])])
    rows.append(["all that is allowed", "", _shown(document["error_at_max_prompts"])])
    better = document.get("better_allocation")
    if better and better["gain"] > 0:
        rows.append(["the planner's allocation", str(better["prompts"]), _shown(better["predicted_error"])])
    _print_table("SFT: predicted post-test error / d", ["choice", "prompts", "error"], rows)
    if "sources" in document:
        header = ["source", "size", "take", "worth of one more", "worth at all", "noisy per clean"]
        names = ("marginal_value", "marginal_value_at_all", "noisy_per_clean")
        rows = [
            [s["name"], str(s["size"]), str(s["prompts"]), *(_shown(s[name]) for name in names)]
            for s in document["sources"]
        ]
        _print_table("sources", header, rows)
    if "stages" in document:
        header = ["stage", "demonstrations", "RL prompts", "error", "pass rate"]
        rows = [
            [
                o["stage"],
                str(o["demonstrations"]),
                str(o["outcome_prompts"]),
                _shown(o["error"]),
                _shown(o["pass_rate"]),
            ]
            for o in document["stages"]["outlooks"]
        ]
        _print_table(f"stages (regime: {document['regime']})", header, rows)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _add_claims(commands: Any) -> None:
    parser = _command(
        commands,
        "claims",
        "Print the ledger of claims and verdicts of a results folder.",
        "datadose claims --out results",
        _claims,
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="results folder")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _claims(arguments: argparse.Namespace, _: str) -> None:
    from datadose.errors import reject
    from datadose.files import read_json

    path = arguments.out / "claims.json"
    if not path.is_file():
        reject("out", str(arguments.out), "a folder where `datadose reproduce claims` has run")
    claims = read_json(path)
    shown = ("id", "statement", "value", "threshold", "verdict")
    if not isinstance(claims, list) or not all(isinstance(c, dict) and c.keys() >= {*shown} for c in claims):
        reject("file", str(path), "a list of claims, as `datadose reproduce claims` writes it")
    if arguments.json:
        print(json.dumps(claims, indent=2, allow_nan=False))
        return
    _print_table(
        f"{len(claims)} claims in {path}",
        ["id", "statement", "value", "threshold", "verdict"],
        [[c["id"], c["statement"], _shown(c["value"]), _shown(c["threshold"]), c["verdict"]] for c in claims],
    )


def _add_train(commands: Any) -> None:
    parser = _command(
        commands,
        "train",
        "Run one pipeline: pretrain, post-train (sft, outcome, rl, in order), post-test.",
        "datadose train configs/sft.yaml --out runs/sft",
        _train,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="the pipeline, see configs/")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME of the config)")
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")


def _train(arguments: argparse.Namespace, _: str) -> None:
    from datadose.configs import TrainConfig, load_config
    from datadose.pipeline import run_pipeline
    from datadose.progress import step_progress

    config = load_config(arguments.config, TrainConfig)
    out = arguments.out or Path("runs") / arguments.config.stem
    with step_progress() as progress:
        result = run_pipeline(
            config, out, folder=arguments.config.parent, resume=arguments.resume, progress=progress
        )
    rows = []
    for report in result["stages"]:
        for i, k in enumerate(report["thinking_steps"]):
            means = [report[f"{test}_mean"] for test in ("target", "pretraining")]
            shown = [_shown(None if mean is None else mean[i]) for mean in means]
            rows.append([report["stage"], str(k), *shown, str(len(report["diverged"]))])
    header = ["stage", "thinking steps", "error on target", "error on pretraining", "diverged"]
    _print_table(f"error / d, mean of {len(result['seeds'])} runs; {out / 'result.json'}", header, rows)


def _print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in header:
        numeric = name not in ("id", "statement", "verdict", "stage", "choice", "source")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # Printed by us, so that a reader that left is met as BrokenPipeError in main, not by an exit of rich's.
    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.capture() as captured:
        console.print(table)
    print(captured.get(), end="", flush=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    raise SystemExit(main())
