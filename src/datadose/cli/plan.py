"""The command `datadose plan`: the sentences of a plan, each with the tables that it rests on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from datadose.cli.common import JSON, command, option, print_json, print_table, tell


@command(
    "Decide from a shift how many prompts to take, of which kind, from which source, at which stage.",
    "datadose plan configs/plan.yaml --plot plan.png, a file that `datadose samples` writes",
    option(
        "shift",
        type=Path,
        metavar="SHIFT.yaml",
        help="the shift and the pool; `datadose samples` writes examples",
    ),
    JSON,
    option("--plot", type=Path, metavar="FILE.png", help="also draw the plan"),
    keys="datadose.planner.config:PlanConfig",
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
    """What the file asks for beyond the plan to convergence, then that plan with its recommendation."""
    from datadose.planner.judged import recommendation_notes

    for name, show in _ASKED.items():
        if name in document:
            show(document)
    tell(f"recommendation: {document['recommendation']}")
    for note in recommendation_notes(document):
        tell(f"note on the recommendation: {note}")
    _print_converged(document)
    for name, show in _PARTS.items():
        if name in document:
            show(document)


def _print_converged(document: dict[str, Any]) -> None:
    """How many prompts to take for training to convergence, and what to beware of."""
    from datadose.planner import WORTHWHILE

    near = document["near_optimal"]
    rows: list[list[object]] = [
        ["no prompts", 0, document["error_before"]],
        ["the best number", document["prompts"], document["predicted_error"]],
    ]
    if near is not None:
        rows.append(["within 5 percent of it", f"{near[0]} to {near[1]}", ""])
    sides = {side: document.get(side.replace(" ", "_")) for side in ("best below peak", "best above peak")}
    rows += [[side, best["prompts"], best["predicted"]] for side, best in sides.items() if best]
    # With sources the curve ends where they do in the plan's proportions.
    most = "" if "sources" in document else document["curve"][-1]["prompts"]
    rows.append(["all that is allowed", most, document["error_at_max_prompts"]])
    better = document.get("better_allocation")
    if better and better["gain"] > WORTHWHILE:
        rows.append(["the planner's allocation", better["prompts"], better["predicted_error"]])
    title = "SFT to convergence: predicted post-test error / d"
    print_table(title, ["choice", "prompts", "error"], rows)
    if document["error_at_max_prompts"] is None:
        tell("note on all that is allowed: the mean error is infinite there, next to a peak")
    _print_cautions(document)


def _print_sources(document: dict[str, Any]) -> None:
    """What to take of each source of a pool, trained to convergence."""
    columns = {
        "source": "name",
        "size": "size",
        "take": "prompts",
        "worth of one more": "marginal_value",
        "worth at all": "marginal_value_at_all",
        "noisy per clean": "noisy_per_clean",
    }
    rows = [[source[name] for name in columns.values()] for source in document["sources"]]
    print_table(
        "sources, to convergence: what to take, and by how much one more prompt lowers the error",
        list(columns),
        rows,
    )


def _print_stages(document: dict[str, Any]) -> None:
    """What each choice of stages promises, and why a number is withheld."""
    from datadose.planner.stage_choice import show_pass_rate

    outlooks = document["stages"]["outlooks"]
    header = ["stage", "demonstrations", "RL prompts", "error", "pass rate"]
    names = ("stage", "demonstrations", "outcome_prompts", "error")
    rates = [None if o["pass_rate"] is None else show_pass_rate(o["pass_rate"]) for o in outlooks]
    rows = [[*(o[name] for name in names), rate] for o, rate in zip(outlooks, rates, strict=True)]
    on = " on `tests`" if document["stages"]["judged_by"] == "tests" else ""
    title = f"stages (regime: {document['regime']}; by gradient descent): predicted post-test error / d{on}"
    print_table(title, header, rows)
    notes: dict[str, list[str]] = {}
    for outlook in outlooks:
        if outlook["note"] is not None:
            notes.setdefault(outlook["note"], []).append(outlook["stage"])
    for note, stages in notes.items():
        tell(f"note on {', '.join(stages)}: {note}")


def _print_pretraining(document: dict[str, Any]) -> None:
    """What to pretrain on: the sentence, the shares, and the error after every shift."""
    found = document["pretraining_error"]
    kind = "mean" if found["objective"] == "mean" else "worst"
    gain, equal = found["gain"], found["cost_balanced"]
    compared = f"{abs(gain):.1%} {'below' if gain >= 0 else 'above'} that of equal shares"
    if found["budget"] is not None and equal > found["budget"]:
        compared += f", which the budget does not pay for ({equal:.3g} a prompt)"
    tell(f"pretraining: the {kind} error after the shifts that may come is {found['error']:.4g}, {compared}")
    rows: list[list[object]] = [
        [one["name"], f"{one['share']:.2%}", one["cost"]] for one in document["pretraining"]
    ]
    rows.append(["all", "", found["cost"]])
    print_table("pretraining mixture: shares, and the cost of a prompt", ["source", "share", "cost"], rows)
    names = ("shift", "weight", "error_before", "error", "error_balanced")
    header = ["shift", "weight", "before", "error", "from equal shares"]
    print_table(
        "error / d after each shift that may come, in the order of the file",
        header,
        [[one[name] for name in names] for one in found["by_shift"]],
    )
    if found["prompts"] is None:
        tell("note on the shares: for unlimited prompts of pretraining; give `prompts` where they are few")


def _print_schedule(document: dict[str, Any]) -> None:
    """What the budget buys of each stage, what the other plans come to, and where the next unit goes."""
    tell(f"schedule: {_sentence_of_schedule(document)}")
    names = ("stage", "prompts", "time", "steps", "learning_rate", "predicted_error", "cost")
    header = ["stage", "prompts", "time", "steps", "learning rate", "error after it", "cost"]
    print_table("schedule of the budget", header, [[s[name] for name in names] for s in document["schedule"]])
    print_table(
        "error of the best plan",
        ["no stage", "SFT alone", "outcome supervision alone", "both at most"],
        [[document["alternatives"][name] for name in ("none", "sft", "outcome", "both")]],
    )
    following = document["next_unit"]
    if following is None:
        tell("next unit of the budget: it buys nothing that lowers the error")
        return
    tell(
        f"next unit of the budget: {following['buys']} of {_STAGES[following['stage']]}, which lowers the "
        f"error by {following['gain']:.3g}"
    )


_STAGES = {"sft": "SFT", "outcome": "outcome supervision"}


def _sentence_of_schedule(document: dict[str, Any]) -> str:
    """What to do in which order, what it comes to, and what it costs."""
    stages, none = document["schedule"], document["alternatives"]["none"]
    if not stages:
        return f"buy nothing, for no stage lowers the error {none:.3g}"
    steps = ["" if s["steps"] is None else f" for {s['steps']} steps" for s in stages]
    told = [
        f"{_STAGES[s['stage']]} on {s['prompts']} rows{long}" for s, long in zip(stages, steps, strict=True)
    ]
    return (
        f"{', then '.join(told)}: error {stages[-1]['predicted_error']:.3g} against {none:.3g} without, at a "
        f"cost of {sum(s['cost'] for s in stages):.4g}"
    )


def _print_cautions(document: dict[str, Any]) -> None:
    """A line where the plan's own error may be far off, and for every search that did not go well."""
    from datadose.planner.search import SearchRecord

    if document.get("note"):
        tell(f"note on the best number: {document['note']}")
    better = document.get("better_allocation", {})
    searches = {"the planner's allocation": better.get("search"), "sources": document.get("search")}
    for name, counted in searches.items():
        remark = SearchRecord(**counted).remark if counted else None
        if remark is not None:
            tell(f"note on the search for {name}: {remark}")


def _print_training(document: dict[str, Any]) -> None:
    """How training is to end, in one sentence, and what it is compared with."""
    stopped = "stopping" in document
    found = document["stopping" if stopped else "penalty"]
    tell(f"training: {_sentence_of_time(found) if stopped else _sentence_of_penalty(found)}")
    well = "at the best time" if stopped else "under the best penalty"
    rows: list[list[object]] = [
        ["no training", 0, document["error_before"], found["pretraining_before"]],
        [f"the plan, {well}", found["prompts"], found["predicted_error"], found["predicted_pretraining"]],
        [
            "the same rows to convergence",
            found["prompts"],
            found["error_if_converged"],
            found["pretraining_if_converged"],
        ],
        [
            f"all rows alike, {well}",
            found["all_rows"],
            found["error_on_all_rows"],
            found["pretraining_on_all_rows"],
        ],
        [
            "all rows alike to convergence",
            found["all_rows"],
            found["error_on_all_rows_if_converged"],
            found["pretraining_on_all_rows_if_converged"],
        ],
    ]
    test = "on tests" if document.get("stages", {}).get("judged_by") == "tests" else "target"
    print_table("training: predicted errors / d", ["choice", "rows", test, "on Sigma0"], rows)
    if any(row[2] is None for row in rows):
        tell("note on the dashes: the mean error is infinite there, next to a peak")
    needed = found["prompts_within_10_percent"]
    many = "no number of rows" if needed is None else f"{needed} rows" if needed else "no training at all"
    scarcity = found["scarcity"]
    now = f"scarcity costs {scarcity:.3g} now" if scarcity >= 0 else "the choice of rows is below it already"
    tell(f"ceiling: unlimited rows give {found['ceiling']:.3g}, {many} within 10 percent of it; {now}")
    if found["reason"] is not None:
        tell(f"note on training: {found['reason']}")


def _sentence_of_time(found: dict[str, Any]) -> str:
    low, high = found["near_optimal_time"]
    far = f"any time from {low:.3g} on" if high is None else f"any time from {low:.3g} to {high:.3g}"
    if found["time"] == 0:
        return f"do not train: {found['reason']}"
    if found["time"] is None:
        return f"train on {found['prompts']} rows without an end: {_worth(found)}; {far} is within 5 percent"
    rate = f" at learning rate {found['learning_rate']:.3g}"
    steps = "more steps than can be counted" if found["steps"] is None else f"{found['steps']} steps{rate}"
    return (
        f"stop after {steps} (time {found['time']:.3g}) on {found['prompts']} rows: {_worth(found)}; {far} "
        "is within 5 percent"
    )


def _sentence_of_penalty(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return f"do not train: {found['reason']}"
    return f"penalty {found['value']:.3g} on {found['prompts']} rows: {_worth(found)}"


def _worth(found: dict[str, Any]) -> str:
    """The error, how far it is from the ceiling, and what convergence would make of it."""
    share = found["scarcity"] / found["ceiling"]
    side = f"{share:.0%} above" if share >= 0 else f"{-share:.0%} below"
    converged = found["error_if_converged"]
    ended = "has an infinite mean" if converged is None else f"{converged:.3g}"
    kept = found["objective"]
    both = "" if abs(kept - found["predicted_error"]) < 1e-9 else f" (with Sigma0 weighed in {kept:.3g})"
    return f"error {found['predicted_error']:.3g}{both}, {side} the ceiling; trained to convergence {ended}"


def _print_mixture(document: dict[str, Any]) -> None:
    """What each source gives, what one more row of it is worth, and what to buy next."""
    columns = {
        "source": "name",
        "rows": "prompts",
        "weight": "weight",
        "share of a batch": "share",
        "worth of one more": "marginal_value",
    }
    bought = document.get("next_purchase")
    if bought is not None:
        columns["by cost"] = "gain_per_cost"
    rows = [[part[name] for name in columns.values()] for part in document["mixture"]]
    header = list(columns)
    if bought is not None:
        header.append("buy next")
        rows = [[*row, part["prompts"]] for row, part in zip(rows, bought, strict=True)]
    print_table(
        "mixture: rows and their weight in the loss, and by how much one more row lowers the error",
        header,
        rows,
    )
    if bought is not None:
        chosen = [f"{part['prompts']} of {part['name']}" for part in bought if part["prompts"]]
        spent = f"for {document['purchase_budget']:.4g} (a tenth of what the rows cost)"
        tell(f"next purchase {spent}: {', '.join(chosen) or 'nothing, for no row helps'}")
    for part in document["mixture"]:
        if part["reason"] is not None:
            tell(f"weight zero for {part['name']}: {part['reason']}")


_ASKED = {
    "stopping": _print_training,
    "penalty": _print_training,
    "mixture": _print_mixture,
    "schedule": _print_schedule,
    "pretraining": _print_pretraining,
}
"""Printers of what a file asks for beyond the plan to convergence, which come first."""
_PARTS = {"sources": _print_sources, "stages": _print_stages}
"""Printers of the parts of the plan to convergence, in their order."""
