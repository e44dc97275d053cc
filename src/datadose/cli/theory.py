"""Commands that answer from formulas: predict, explore."""

from __future__ import annotations

import argparse
import signal
from typing import Any

from datadose.cli.common import JSON, command, integer, number, option, print_json, print_table


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
    "Serve a page on 127.0.0.1 where sliders set the shift and the exact curves move.",
    "datadose explore --port 8050",
    option("--port", type=integer, default=8050, metavar="P", help="the port; 0 takes a free one"),
)
def explore(arguments: argparse.Namespace, _: str) -> None:
    """Serve the page. It only stops when it is interrupted."""
    from datadose.explore import serve

    serve(arguments.port)
    raise SystemExit(128 + signal.SIGINT)
