"""How much? The error against the number of prompts, and the planner's sentence."""

from __future__ import annotations

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update

from datadose.errors import InputError
from datadose.explore import answers
from datadose.explore.charts import dose_chart, palette
from datadose.explore.page import (
    SETTING,
    SHIFT_SLIDERS,
    aria,
    as_sentence,
    graph,
    number,
    sliders,
    tiles,
    view,
)
from datadose.explore.setting import Setting, make_setting
from datadose.explore.simulations import SEEDS, Simulation, Simulations, simulated_part


def layout(setting: Setting) -> html.Div:
    """The view at a setting."""
    return view(
        "how-much",
        "How many SFT prompts?",
        "The exact post-test error after SFT on B prompts. Often a few good ones help; the error explodes "
        "where B is the number of directions that the data span.",
        setting,
        sliders(setting, SHIFT_SLIDERS),
        [
            html.P(id="sentence", className="sentence", **aria(live="polite")),
            graph(
                "dose-chart",
                "",
                "Post-test error against the number of prompts; the numbers are listed below",
                sticky=True,
            ),
            html.Ul(id="dose-numbers", className="tiles"),
            html.Div(
                [
                    html.Button(f"Simulate ({SEEDS} seeds)", id="simulate"),
                    html.Button("Stop", id="stop", hidden=True),
                    html.Progress(id="progress", max=str(SEEDS), value="0", hidden=True),
                    html.Span(id="simulated", className="small", role="status"),
                ],
                className="simulate",
            ),
            dcc.Store(id="running"),
            dcc.Store(id="look"),
            dcc.Store(id="points"),
        ],
    )


def register(app: Dash, simulations: Simulations) -> None:
    """The view's callbacks."""
    _register_answers(app)
    _register_simulation(app, simulations)


def _register_answers(app: Dash) -> None:
    @app.callback(
        Output("dose-chart", "figure"),
        Output("dose-numbers", "children"),
        inputs={"shown": SETTING, "scheme": Input("scheme", "data"), "points": Input("points", "data")},
    )
    def draw(shown: Any, scheme: str, points: Any) -> Any:
        setting = make_setting(shown)
        found, peak = answers.dose(setting), setting.shift().data_rank
        own = points if points and points["of"] == simulated_part(setting).query() else None
        chart = dose_chart(found, peak, setting.max_prompts, palette(scheme), own)
        near = found.near_optimal
        numbers = tiles(
            [
                (f"{found.prompts:,}", "best number of prompts, B*"),
                (number(found.error), "error there"),
                (number(found.error_before), "error without SFT"),
                (number(found.error_at_max), f"error with all {setting.max_prompts:,}"),
                (f"{near[0]:,} to {near[1]:,}", "within 5 percent of the best"),
                (f"{peak:,}", "the peak: rank of the data"),
            ]
        )
        return chart, numbers

    @app.callback(Output("sentence", "children"), inputs={"shown": SETTING})
    def say(shown: Any) -> str:
        return as_sentence(answers.stages(make_setting(shown)).reason)


def _register_simulation(app: Dash, simulations: Simulations) -> None:
    """One callback for all that changes what is shown: of two answers on their way the page keeps the newer.

    Each answer arms the next look, so that a slow line slows the looks and never drops them.
    """
    app.clientside_callback(ClientsideFunction("explore", "look_again"), Input("running", "data"))

    @app.callback(
        Output("points", "data"),
        Output("progress", "value"),
        Output("progress", "hidden"),
        Output("stop", "hidden"),
        Output("simulated", "children"),
        Output("running", "data"),
        inputs={
            "clicks": Input("simulate", "n_clicks"),
            "stops": Input("stop", "n_clicks"),
            "looks": Input("look", "data"),
            "shown": SETTING,
            "running": State("running", "data"),
        },
    )
    def simulate(clicks: int, stops: int | None, looks: int | None, shown: Any, running: Any) -> Any:
        setting, stops = make_setting(shown), stops or 0
        if ctx.triggered_id == "simulate":
            try:
                simulations.start(setting)
            except InputError as error:
                return no_update, "0", True, True, str(error), None
        found = simulations.find(setting)
        if found is None:
            # Points of another setting stay where they are: the chart does not show them.
            return no_update, "0", True, True, "", None
        if ctx.triggered_id == "stop" or (
            ctx.triggered_id == "look" and running and stops > running["stops"]
        ):
            # Whoever else looks at the same simulation keeps it; one that nobody looks at ends by itself.
            said = f"stopped after {len(found.curves)} of {SEEDS} seeds"
            return no_update, "0", True, True, said, None
        more, *state = _state(found)
        return *state, {"look": (looks or 0) + 1, "stops": stops} if more else None


def _state(found: Simulation) -> tuple[bool, Any, str, bool, bool, str]:
    """Whether there is more to come, and what the page shows of a simulation on its way or done."""
    # In this order: a seed may land between the two.
    finished, done = found.finished, len(found.curves)
    points = {**found.points(), "of": found.setting.query()} if done else no_update
    if found.failure:
        return False, points, "0", True, True, found.failure
    if finished:
        stopped = f"stopped after {done} of {SEEDS} seeds"
        said = stopped if done < SEEDS else f"{done} seeds, 95 percent intervals"
        return False, points, str(done), True, True, said
    said = f"{done} of {SEEDS} seeds" if found.running else "waiting for another simulation"
    return True, points, str(done), False, False, said
