"""Commands that answer from formulas: predict and plan."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from datadose.cli.common import add_command, integer, number, print_table, show_number
from datadose.printing import say


def add_commands(commands: Any) -> None:
    """Add this module's commands to the subparsers ``commands``."""
    _add_predict(commands)
    _add_plan(commands)


def _add_predict(commands: Any) -> None:
    parser = add_command(
        commands,
        "predict",
        "Predict the post-test error after SFT on the paper's two-block shift.",
        "datadose predict --dimension 400 --shifted 200 --rho 0.1 --eta 0.2 --interference 0.1 --length 400 "
        "--prompts 100 700 --simulate 5",
        _predict,
    )
    parser.add_argument("--dimension", type=integer, required=True, metavar="D", help="dimension d")
    parser.add_argument(
        "--shifted", type=integer, required=True, metavar="M", help="shifted directions m <= d"
    )
    parser.add_argument("--rho", type=number, required=True, metavar="R", help="pretraining variance there")
    parser.add_argument("--eta", type=number, required=True, metavar="E", help="chain step, in (0, 2)")
    parser.add_argument("--interference", type=number, required=True, metavar="r", help="r >= 0")
    parser.add_argument("--length", type=integer, required=True, metavar="n", help="prompt length")
    parser.add_argument("--prompts", type=integer, required=True, nargs="+", metavar="B", help="SFT prompts")
    parser.add_argument("--form", default="exact", help="exact, first-order or as-printed")
    parser.add_argument("--finite-size", action="store_true", help="add the O(1/d) correction (form exact)")
    parser.add_argument(
        "--simulate", type=integer, metavar="SEEDS", help="also simulate V* with this many seeds"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _predict(arguments: argparse.Namespace, _: str) -> None:
    from datadose.errors import LARGEST_COUNT, require_integer
    from datadose.shift import Shift
    from datadose.theory.asymptotics import FORMS, PeakError, predict_error

    for B in arguments.prompts:
        require_integer("prompts", B, 1, LARGEST_COUNT)
    require_integer("length", arguments.length, 1, LARGEST_COUNT)
    if arguments.simulate is not None:
        require_integer("simulate", arguments.simulate, 1, LARGEST_COUNT)
    shift = Shift.two_block(
        arguments.dimension, arguments.shifted, arguments.rho, arguments.eta, arguments.interference
    )
    if arguments.form not in FORMS or (arguments.finite_size and arguments.form != "exact"):
        predict_error(shift, 1, arguments.length, form=arguments.form, finite_size=arguments.finite_size)
    simulated = None
    if arguments.simulate is not None:
        from datadose.simulation.curves import simulate_error

        simulated = simulate_error(shift, arguments.prompts, arguments.length, seeds=arguments.simulate)
    rows = []
    for index, B in enumerate(arguments.prompts):
        row: dict[str, Any] = {"prompts": B, "length": arguments.length, "form": arguments.form}
        try:
            row["predicted"] = predict_error(
                shift, B, arguments.length, form=arguments.form, finite_size=arguments.finite_size
            )
        except PeakError as error:
            row.update(predicted=None, reason=error.reason)
        row["simulated_mean"] = None if simulated is None else float(simulated.mean[index])
        sem = None if simulated is None or arguments.simulate < 2 else float(simulated.sem[index])
        row.update(simulated_sem=sem, seeds=arguments.simulate or 0)
        rows.append(row)
    if arguments.json:
        print(json.dumps(rows, indent=2, allow_nan=False))
        return
    print_table(
        f"post-test error / d, {arguments.form} form, n = {arguments.length}",
        ["prompts", "predicted", "simulated", "s.e."],
        [
            [
                str(r["prompts"]),
                *(show_number(r[key]) for key in ("predicted", "simulated_mean", "simulated_sem")),
            ]
            for r in rows
        ],
    )


def _add_plan(commands: Any) -> None:
    parser = add_command(
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
        from datadose.drawing.plan import draw_plan
        from datadose.drawing.style import save

        save(draw_plan(document), arguments.plot.parent, arguments.plot.stem, kinds=("png",))
    if arguments.json:
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    _print_plan(document)


def _print_plan(document: dict[str, Any]) -> None:
    """The sentence, then what it rests on."""
    from datadose.planner import WORTHWHILE
    from datadose.planner.stage_choice import show_pass_rate

    say(f"recommendation: {document['recommendation']}")
    near = document["near_optimal"]
    rows = [
        ["no prompts", "0", show_number(document["error_before"])],
        ["the best number", str(document["prompts"]), show_number(document["predicted_error"])],
    ]
    if near is not None:
        rows.append(["within 5 percent of it", f"{near[0]} to {near[1]}", ""])
    for name in ("best_below_peak", "best_above_peak"):
        if document.get(name):
            side = document[name]
            rows.append([name.replace("_", " "), str(side["prompts"]), show_number(side["predicted"])])
    rows.append(["all that is allowed", "", show_number(document["error_at_max_prompts"])])
    better = document.get("better_allocation")
    if better and better["gain"] > WORTHWHILE:
        rows.append(
            ["the planner's allocation", str(better["prompts"]), show_number(better["predicted_error"])]
        )
    print_table("SFT: predicted post-test error / d", ["choice", "prompts", "error"], rows)
    _print_cautions(document)
    if "sources" in document:
        header = ["source", "size", "take", "worth of one more", "worth at all", "noisy per clean"]
        names = ("marginal_value", "marginal_value_at_all", "noisy_per_clean")
        rows = [
            [s["name"], str(s["size"]), str(s["prompts"]), *(show_number(s[name]) for name in names)]
            for s in document["sources"]
        ]
        print_table("sources", header, rows)
    if "stages" in document:
        header = ["stage", "demonstrations", "RL prompts", "error", "pass rate"]
        rows = [
            [
                o["stage"],
                str(o["demonstrations"]),
                str(o["outcome_prompts"]),
                show_number(o["error"]),
                "-" if o["pass_rate"] is None else show_pass_rate(o["pass_rate"]),
            ]
            for o in document["stages"]["outlooks"]
        ]
        print_table(f"stages (regime: {document['regime']}; by gradient descent)", header, rows)
        notes: dict[str, list[str]] = {}
        for o in document["stages"]["outlooks"]:
            if o["note"] is not None:
                notes.setdefault(o["note"], []).append(o["stage"])
        for note, stages in notes.items():
            print(f"note on {', '.join(stages)}: {note}")


def _print_cautions(document: dict[str, Any]) -> None:
    """A line where the plan's own error may be far off, and for every search that did not go well."""
    from datadose.planner.search import SearchRecord

    if document.get("note"):
        print(f"note on the best number: {document['note']}")
    better = document.get("better_allocation", {})
    searches = {"the planner's allocation": better.get("search"), "sources": document.get("search")}
    for name, counted in searches.items():
        remark = SearchRecord(**counted).remark if counted else None
        if remark is not None:
            print(f"note on the search for {name}: {remark}")
