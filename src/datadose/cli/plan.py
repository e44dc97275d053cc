"""The command `datadose plan`: the sentence of a plan, then the tables that it rests on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from datadose.cli.common import JSON, command, option, print_json, print_table
from datadose.printing import say


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
