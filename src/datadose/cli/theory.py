"""Commands that answer from formulas: predict, plan, explore."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import Any

from datadose.cli.common import JSON, command, integer, number, option, print_json, print_table
from datadose.printing import say


@command(
    "Predict the post-test error after SFT on the paper's two-block shift.",
    "datadose predict --dimension 400 --shifted 200 --rho 0.1 --eta 0.2 --interference 0.1 --length 400 "
    "--prompts 100 700 --simulate 5",
    option("--dimension", type=integer, required=True, metavar="D", help="dimension d"),
    option("--shifted", type=integer, required=True, metavar="M", help="shifted directions m <= d"),
    option("--rho", type=number, required=True, metavar="R", help="pretraining variance there"),
    option("--eta", type=number, required=True, metavar="E", help="chain step, in (0, 2)"),
    option("--interference", type=number, required=True, metavar="r", help="r >= 0"),
    option("--length", type=integer, required=True, metavar="n", help="prompt length"),
    option("--prompts", type=integer, required=True, nargs="+", metavar="B", help="SFT prompts"),
    option("--form", default="exact", help="exact, first-order or as-printed"),
    option("--finite-size", action="store_true", help="add the O(1/d) correction (form exact)"),
    option("--simulate", type=integer, metavar="SEEDS", help="also simulate V* with this many seeds"),
    JSON,
)
def predict(arguments: argparse.Namespace, _: str) -> None:
    """Print predicted and simulated errors."""
    from datadose.errors import LARGEST_COUNT, require_integer
    from datadose.shift import Shift
    from datadose.theory.asymptotics import PeakError, predict_error

    length, form = arguments.length, arguments.form
    for B in arguments.prompts:
        require_integer("prompts", B, 1, LARGEST_COUNT)
    require_integer("length", length, 1, LARGEST_COUNT)
    if arguments.simulate is not None:
        require_integer("simulate", arguments.simulate, 1, LARGEST_COUNT)
    shift = Shift.two_block(
        arguments.dimension, arguments.shifted, arguments.rho, arguments.eta, arguments.interference
    )
    rows: list[dict[str, Any]] = []
    for B in arguments.prompts:
        rows.append({"prompts": B, "length": length, "form": form, "predicted": None})
        try:
            predicted = predict_error(shift, B, length, form=form, finite_size=arguments.finite_size)
            rows[-1]["predicted"] = predicted
        except PeakError as error:
            rows[-1]["reason"] = error.reason
    seeds = arguments.simulate or 0
    if seeds:
        from datadose.simulation.curves import simulate_error

        simulated = simulate_error(shift, arguments.prompts, length, seeds=seeds)
    for i, row in enumerate(rows):
        row["simulated_mean"] = float(simulated.mean[i]) if seeds else None
        row["simulated_sem"] = float(simulated.sem[i]) if seeds > 1 else None
        row["seeds"] = seeds
    if arguments.json:
        print_json(rows)
        return
    names = ("prompts", "predicted", "simulated_mean", "simulated_sem")
    print_table(
        f"post-test error / d, {form} form, n = {length}",
        ["prompts", "predicted", "simulated", "s.e."],
        [[row[name] for name in names] for row in rows],
    )


@command(
    "Decide from a shift how many prompts to take, of which kind, from which source, at which stage.",
    "datadose plan configs/plan.yaml --plot plan.png",
    option("shift", type=Path, metavar="SHIFT.yaml", help="the shift and the pool, see configs/"),
    JSON,
    option("--plot", type=Path, metavar="FILE.png", help="also draw the plan"),
)
def plan(arguments: argparse.Namespace, _: str) -> None:
    """Print the plan, and draw it."""
    from datadose.errors import reject
    from datadose.files import prepare_folder
    from datadose.planner import plan_file

    if arguments.plot is not None:
        if arguments.plot.suffix != ".png":
            reject("plot", str(arguments.plot), "a file name that ends in .png")
        prepare_folder("plot", arguments.plot.parent)
    document = plan_file(arguments.shift).to_json()
    if arguments.plot is not None:
        from datadose.drawing.plan import draw_plan
        from datadose.drawing.style import save

        save(draw_plan(document), arguments.plot.parent, arguments.plot.stem, kinds=("png",))
    if arguments.json:
        print_json(document)
        return
    _print_plan(document)


def _print_plan(document: dict[str, Any]) -> None:
    """The sentence, then what it rests on."""
    from datadose.planner import WORTHWHILE
    from datadose.planner.stage_choice import show_pass_rate

    say(f"recommendation: {document['recommendation']}")
    near = document["near_optimal"]
    rows: list[list[object]] = [
        ["no prompts", 0, document["error_before"]],
        ["the best number", document["prompts"], document["predicted_error"]],
    ]
    if near is not None:
        rows.append(["within 5 percent of it", f"{near[0]} to {near[1]}", ""])
    sides = {side: document.get(side.replace(" ", "_")) for side in ("best below peak", "best above peak")}
    rows += [[side, best["prompts"], best["predicted"]] for side, best in sides.items() if best]
    rows.append(["all that is allowed", "", document["error_at_max_prompts"]])
    better = document.get("better_allocation")
    if better and better["gain"] > WORTHWHILE:
        rows.append(["the planner's allocation", better["prompts"], better["predicted_error"]])
    print_table("SFT: predicted post-test error / d", ["choice", "prompts", "error"], rows)
    _print_cautions(document)
    if "sources" in document:
        columns = {
            "source": "name",
            "size": "size",
            "take": "prompts",
            "worth of one more": "marginal_value",
            "worth at all": "marginal_value_at_all",
            "noisy per clean": "noisy_per_clean",
        }
        rows = [[source[name] for name in columns.values()] for source in document["sources"]]
        print_table("sources", list(columns), rows)
    if "stages" in document:
        outlooks = document["stages"]["outlooks"]
        header = ["stage", "demonstrations", "RL prompts", "error", "pass rate"]
        names = ("stage", "demonstrations", "outcome_prompts", "error")
        rates = [None if o["pass_rate"] is None else show_pass_rate(o["pass_rate"]) for o in outlooks]
        rows = [[*(o[name] for name in names), rate] for o, rate in zip(outlooks, rates, strict=True)]
        print_table(f"stages (regime: {document['regime']}; by gradient descent)", header, rows)
        notes: dict[str, list[str]] = {}
        for outlook in outlooks:
            if outlook["note"] is not None:
                notes.setdefault(outlook["note"], []).append(outlook["stage"])
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
