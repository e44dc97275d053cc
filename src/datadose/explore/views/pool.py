"""A part of *Which?*: a pool of three sources, a weight for each, and the error at the best time."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, dcc, html, no_update

from datadose.explore import page, training
from datadose.explore.answers import STAGES, dose
from datadose.explore.marks import Palette
from datadose.explore.setting import WEIGHTS, Setting, make_setting
from datadose.explore.training_charts import pool_chart


def layout(setting: Setting) -> list[Any]:
    """The weights, and what is shown of the pool."""
    return [
        dcc.Store(id="tuned"),
        html.H3("A pool: cut it, or weigh it?"),
        html.P(
            "A few prompts of your data, and many of two other kinds: like pretraining's, and spread evenly "
            "over all directions with little variance, which misleads. A row counts in the loss by the "
            "weight of its source.",
            className="small",
        ),
        html.Div(page.sliders(setting, WEIGHTS), className="weights"),
        page.graph("pool-chart", "", "Error on the pool over training time, by weights", size="medium"),
        html.Ul(id="pool-numbers", className="tiles"),
    ]


def register(app: Dash) -> None:
    """The callbacks of this part. The best weights take longer than a move: they follow when hands rest."""

    @page.answering(
        app,
        Output("pool-chart", "figure"),
        Output("pool-numbers", "children"),
        tuned=Input("tuned", "data"),
    )
    def draw(setting: Setting, colors: Palette, tuned: str | None) -> Any:
        own, equal = training.weighed(setting), training.equally_weighed(setting)
        entries = [("equal weights", equal, colors.blue, "dash")]
        if own.weights != equal.weights:
            entries.append(("these weights", own, colors.green, "solid"))
        numbers = [
            (page.number(own.best.error), f"error with these weights, {_when(own)}"),
            (page.number(own.at_best.known), "on pretraining's prompts then"),
            (f"{own.shares[0]:.0%}", "of a batch is your data"),
            (page.number(equal.best.error), f"error with equal weights, {_when(equal)}"),
        ]
        best = training.tuned(setting) if tuned == _pool_of(setting) else None
        if best is not None:
            entries.append(("tuned weights", best, colors.orange, "dashdot"))
            shown = ", ".join(f"{weight:.2g}" if weight >= 1e-3 else "0" for weight in best.weights)
            numbers.append(
                (page.number(best.best.error), f"error with tuned weights ({shown}), {_when(best)}")
            )
        return pool_chart(entries, dose(setting).error_before, colors), page.tiles(numbers)

    @app.callback(Output("tuned", "data"), inputs={"still": Input("still", "data")})
    def tune(still: Any) -> Any:
        if still is None:
            return no_update
        setting = make_setting(still)
        training.tuned(setting)
        return _pool_of(setting)


def _when(found: training.Weighed) -> str:
    time = found.best.time
    return "at convergence" if time is None else "untrained" if time == 0 else f"at time {time:.3g}"


def _pool_of(setting: Setting) -> str:
    """The part of a setting that the best weights are for, as an address."""
    return setting.without(*STAGES, *WEIGHTS, "time").query()
