"""The command that predicts the error after SFT on the paper's two-block shift."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from datadose.cli.common import JSON, command, integer, number, option, print_json, print_table, tell

if TYPE_CHECKING:
    from datadose.shapes import Operator
    from datadose.shift import Shift
    from datadose.theory.source import Source
    from datadose.theory.stopping import Stopping

Row: TypeAlias = dict[str, Any]
Ways: TypeAlias = "dict[str, Stopping | None]"
"""What is simulated of a row: the first part of the keys of mean and standard error -> how training ends."""

_LONGEST_CHAIN = 10_000
"""A longer chain sets no other clock: c_k has its limit long before."""
_COLUMNS = {
    "prompts": "prompts",
    "time": "time",
    "predicted": "predicted",
    "simulated_mean": "simulated",
    "simulated_sem": "s.e.",
    "predicted_pretraining": "on Sigma0",
    "variance": "variance",
    "ceiling": "ceiling",
    "best_time": "best time",
    "best_time_error": "at best time",
    "best_time_simulated_mean": "simulated there",
    "best_time_simulated_sem": "s.e. there",
    "best_ridge": "best ridge",
    "best_ridge_error": "at best ridge",
    "best_ridge_simulated_mean": "simulated there",
    "best_ridge_simulated_sem": "s.e. there",
}
"""Key of a row -> head of its column."""


@command(
    "Predict the post-test error after SFT on the paper's two-block shift.",
    "datadose predict --dimension 400 --shifted 200 --rho 0.1 --eta 0.2 --interference 0.1 --length 400 "
    "--prompts 100 700 --time 20 50 --best-time --simulate 5",
    option("--dimension", type=integer, required=True, metavar="D", help="dimension d"),
    option("--shifted", type=integer, required=True, metavar="M", help="shifted directions m <= d"),
    option("--rho", type=number, required=True, metavar="R", help="pretraining variance there"),
    option("--eta", type=number, required=True, metavar="E", help="chain step, in (0, 2)"),
    option("--interference", type=number, required=True, metavar="r", help="r >= 0"),
    option("--length", type=integer, required=True, metavar="n", help="prompt length"),
    option("--prompts", type=integer, required=True, nargs="+", metavar="B", help="SFT prompts; 0: none"),
    option("--form", default="exact", help="exact, first-order or as-printed"),
    option("--finite-size", action="store_true", help="add the O(1/d) correction (form exact)"),
    option("--simulate", type=integer, metavar="SEEDS", help="also simulate with this many seeds"),
    JSON,
    groups={
        "how long to train (to convergence, unless one of time, steps and ridge is given)": (
            option("--time", type=number, nargs="+", metavar="T", help="times of gradient flow"),
            option("--steps", type=integer, metavar="T", help="steps of gradient descent"),
            option("--learning-rate", type=number, metavar="G", help="their size"),
            option(
                "--chain-steps", type=integer, metavar="k", help="k of the chains, with steps (default: 0)"
            ),
            option("--ridge", type=number, metavar="L", help="the penalty L ||V - V0||_F^2"),
            option("--best-time", action="store_true", help="also the time with the least error"),
            option("--best-ridge", action="store_true", help="also the penalty with the least error"),
        )
    },
)
def predict(arguments: argparse.Namespace, _: str) -> None:
    """Print predicted and simulated errors."""
    from datadose.errors import LARGEST_COUNT, require_integer
    from datadose.shift import Shift

    for B in arguments.prompts:
        require_integer("prompts", B, 0, LARGEST_COUNT)
    require_integer("length", arguments.length, 1, LARGEST_COUNT)
    if arguments.simulate is not None:
        require_integer("simulate", arguments.simulate, 1, LARGEST_COUNT)
    shift = Shift.two_block(
        arguments.dimension, arguments.shifted, arguments.rho, arguments.eta, arguments.interference
    )
    stoppings = _stoppings(arguments)
    predicted = [
        pair
        for B in arguments.prompts
        for pair in (_stopped(arguments, shift, B, stoppings) if stoppings else _plain(arguments, shift, B))
    ]
    _simulate(arguments, shift, predicted)
    rows = [row for row, _ in predicted]
    if arguments.json:
        print_json(rows)
    else:
        _print(arguments, rows, plain=not stoppings)


def _stoppings(arguments: argparse.Namespace) -> list[Stopping]:
    """How training ends, for each row of a number of prompts; none where nothing is said about it.

    Raises InputError for what cannot be, and for what holds at convergence alone.
    """
    from datadose.errors import reject, require_integer
    from datadose.theory.stopping import Stopping

    if arguments.chain_steps is None:
        arguments.chain_steps = 0
    elif arguments.steps is None:
        # A time, a penalty and convergence are the same for chains of every length.
        reject("chain_steps", f"{arguments.chain_steps} without steps", "steps and learning_rate beside it")
    require_integer("chain_steps", arguments.chain_steps, 0, _LONGEST_CHAIN)
    of_one = {name: getattr(arguments, name) for name in ("steps", "learning_rate", "ridge")}
    found = [Stopping(time=time, **of_one) for time in arguments.time or [None]]
    if found == [Stopping()] and not (arguments.best_time or arguments.best_ridge):
        return []
    what = "where training is stopped or penalised, and beside a best time or ridge"
    if arguments.form != "exact":
        reject("form", arguments.form, f"exact {what}")
    if arguments.finite_size:
        reject("finite_size", "True", f"False {what}")
    return found


def _plain(arguments: argparse.Namespace, shift: Shift, B: int) -> list[tuple[Row, Ways]]:
    """The row of a model that is trained to convergence, in any of the forms."""
    from datadose.theory.asymptotics import PeakError, predict_error
    from datadose.theory.stopping import Stopping

    n, form = arguments.length, arguments.form
    row: Row = {"prompts": B, "length": n, "form": form, "predicted": None}
    try:
        row["predicted"] = predict_error(shift, B, n, form=form, finite_size=arguments.finite_size)
    except PeakError as error:
        row["reason"] = error.reason
    return [(row, {"simulated": Stopping()})]


def _stopped(
    arguments: argparse.Namespace, shift: Shift, B: int, stoppings: Sequence[Stopping]
) -> Iterator[tuple[Row, Ways]]:
    """The rows of one number of prompts, one for each of ``stoppings``, with the best time and penalty."""
    from datadose.theory.equivalent import PeakError
    from datadose.theory.pretraining import pretrained_operator
    from datadose.theory.source import Source

    n = arguments.length
    start, source = pretrained_operator(shift.sigma0, n), Source(shift.data, n, B)
    best, best_ways, reasons = _best(arguments, shift, start, source)
    try:
        errors = _errors(shift, start, source, stoppings, arguments.chain_steps)
    except PeakError as error:
        names = ("predicted", "predicted_pretraining", *(["variance"] if arguments.ridge == 0 else []))
        errors, reasons = [dict.fromkeys(names)], [error.reason, *reasons]
    for stopping, found in zip(stoppings, errors, strict=True):
        row = {"prompts": B, "length": n, "form": arguments.form, **_given(stopping), **found, **best}
        if reasons:
            row["reason"] = "; ".join(reasons)
        yield row, {"simulated": stopping, **best_ways}


def _errors(
    shift: Shift, start: Operator, source: Source, stoppings: Sequence[Stopping], chain_steps: int
) -> list[Row]:
    """The errors on the target and on Sigma0 under each stopping; under a penalty with their variance.

    Raises PeakError where the mean is infinite, which is so at convergence alone: of one stopping, then.
    """
    from datadose.theory.asymptotics import predict_error
    from datadose.theory.training_time import trained_path

    n, rows = int(source.length), []
    if stoppings[0].is_converged:
        # Where it is refused, it is by the sentence that names the rank.
        predict_error(shift, source.prompts, n)
    models = trained_path(start, shift.eta, [source], stoppings, chain_steps=chain_steps)
    for model, stopping in zip(models, stoppings, strict=True):
        errors = [model.error(test, n) for test in (shift.target, shift.sigma0)]
        rows.append({"predicted": errors[0], "predicted_pretraining": errors[1]})
        if stopping.ridge is not None:
            rows[-1]["variance"] = model.variance(shift.target, n)
    return rows


def _given(stopping: Stopping) -> Row:
    """The keys that say how training ends; none for convergence."""
    names = ("time", "steps", "learning_rate", "ridge")
    return {name: getattr(stopping, name) for name in names if getattr(stopping, name) is not None}


def _best(
    arguments: argparse.Namespace, shift: Shift, start: Operator, source: Source
) -> tuple[Row, Ways, list[str]]:
    """The keys of the best time and penalty and of the ceiling, what is simulated of them, and reasons."""
    from datadose.theory.effective_penalty import EffectivePenalty
    from datadose.theory.equivalent import PeakError
    from datadose.theory.stopping import Stopping
    from datadose.theory.time_search import best_time
    from datadose.theory.weighted_test import WeightedTest

    row: Row = {}
    ways: Ways = {}
    reasons = []
    test = WeightedTest.of(shift.target, source.length)
    if arguments.best_time:
        found = best_time(start, shift.eta, [source], test)
        row |= {"best_time": found.time, "best_time_error": found.error}
        ways["best_time_simulated"] = Stopping(time=found.time)
        if found.reason is not None:
            reasons.append(f"best_time: {found.reason}")
    if arguments.ridge is None and not arguments.best_ridge:
        return row, ways, reasons
    penalised = EffectivePenalty.of(start, shift.eta, source, test)
    row["ceiling"] = penalised.ceiling.error
    if arguments.best_ridge:
        row |= {"best_ridge": None, "best_ridge_error": None}
        ways["best_ridge_simulated"] = None
        try:
            best = penalised.best(source.prompts)
        except PeakError as error:
            return row, ways, [*reasons, f"best_ridge: {error.reason}"]
        row["best_ridge_error"] = best.error
        if best.kind == "untouched":
            reasons.append("best_ridge: the stronger the penalty the better, without bound")
            ways["best_ridge_simulated"] = Stopping(time=0)
        else:
            row["best_ridge"], ways["best_ridge_simulated"] = best.ridge, Stopping(ridge=best.ridge)
    return row, ways, reasons


def _simulate(arguments: argparse.Namespace, shift: Shift, predicted: Sequence[tuple[Row, Ways]]) -> None:
    """Add the simulated means and standard errors to the rows; null where nothing is simulated."""
    seeds = arguments.simulate or 0
    asked = [(row["prompts"], way) for row, ways in predicted for way in ways.values() if way is not None]
    found = _drawn(arguments, shift, asked) if seeds else {}
    for row, ways in predicted:
        for name, way in ways.items():
            row[f"{name}_mean"], row[f"{name}_sem"] = found.get((row["prompts"], way), (None, None))
        row["seeds"] = seeds


def _drawn(
    arguments: argparse.Namespace, shift: Shift, asked: Sequence[tuple[int, Stopping]]
) -> Mapping[tuple[int, Stopping | None], tuple[float, float | None]]:
    """Simulated mean and standard error of each (prompts, stopping), on one growing set of prompts a seed."""
    from datadose.simulation.curves import simulate_error
    from datadose.simulation.training import simulate_training
    from datadose.theory.pretraining import pretrained_operator
    from datadose.theory.source import Source

    n, seeds = arguments.length, arguments.simulate
    found: dict[tuple[int, Stopping | None], tuple[float, float | None]] = {}

    def keep(B: int, stopping: Stopping, mean: float, sem: float) -> None:
        found[B, stopping] = float(mean), float(sem) if seeds > 1 else None

    converged = sorted({B for B, stopping in asked if stopping.is_converged})
    if converged:
        curve = simulate_error(shift, converged, n, seeds=seeds)
        for B, stopping in asked:
            if stopping.is_converged:
                keep(B, stopping, curve.mean[converged.index(B)], curve.sem[converged.index(B)])
    stopped = sorted({B for B, stopping in asked if not stopping.is_converged})
    stoppings = list(dict.fromkeys(stopping for _, stopping in asked if not stopping.is_converged))
    if stopped:
        start, source = pretrained_operator(shift.sigma0, n), Source(shift.data, n, 0)
        request = (start, shift.eta, [source], [shift.target], n, stoppings)
        surface = simulate_training(*request, counts=stopped, chain_steps=arguments.chain_steps, seeds=seeds)
        for B, stopping in asked:
            if not stopping.is_converged:
                at = stopped.index(B), stoppings.index(stopping), 0
                keep(B, stopping, surface.mean[at], surface.sem[at])
    return found


def _print(arguments: argparse.Namespace, rows: Sequence[Row], *, plain: bool) -> None:
    """The rows as a table, and a line for every reason why a number is missing."""
    title = f"post-test error / d, {arguments.form} form, n = {arguments.length}"
    if arguments.steps is not None:
        title += f", after {arguments.steps} steps of {arguments.learning_rate:g}"
        if arguments.chain_steps:
            title += f" on chains of k = {arguments.chain_steps}"
    if arguments.ridge is not None:
        title += f", ridge {arguments.ridge:g}"
    shown = [name for name in _COLUMNS if name in rows[0]]
    if not plain and not arguments.simulate:
        shown = [name for name in shown if "simulated" not in name]
    print_table(title, [_COLUMNS[name] for name in shown], [[row[name] for name in shown] for row in rows])
    notes: dict[str, list[int]] = {}
    for row in rows:
        if "reason" in row:
            notes.setdefault(row["reason"], []).append(row["prompts"])
    for reason, counts in notes.items():
        tell(f"note on {', '.join(map(str, dict.fromkeys(counts)))} prompts: {reason}")
