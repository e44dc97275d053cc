"""How much? The error against the number of prompts, and the planner's sentence."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update

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
            dcc.Interval(id="poll", interval=300, disabled=True),
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
    setting = {"shown": State("setting", "data")}
    shown = (
        Output("poll", "disabled"),
        Output("points", "data"),
        Output("progress", "value"),
        Output("progress", "hidden"),
        Output("stop", "hidden"),
        Output("simulated", "children"),
    )

    @app.callback(
        Output("poll", "disabled", allow_duplicate=True),
        Output("simulated", "children", allow_duplicate=True),
        inputs={"clicks": Input("simulate", "n_clicks"), **setting},
        prevent_initial_call=True,
    )
    def start(clicks: int, shown: Any) -> Any:
        try:
            simulations.start(make_setting(shown))
        except InputError as error:
            return True, str(error)
        return False, "starting"

    @app.callback(
        Output("poll", "disabled", allow_duplicate=True),
        Output("progress", "hidden", allow_duplicate=True),
        Output("stop", "hidden", allow_duplicate=True),
        Output("simulated", "children", allow_duplicate=True),
        inputs={"clicks": Input("stop", "n_clicks"), **setting},
        prevent_initial_call=True,
    )
    def stop(clicks: int, shown: Any) -> Any:
        # Whoever else looks at the same simulation keeps it; one that nobody looks at ends by itself.
        found = simulations.find(make_setting(shown))
        done = len(found.curves) if found else 0
        return True, True, True, f"stopped after {done} of {SEEDS} seeds"

    @app.callback(*shown, inputs={"ticks": Input("poll", "n_intervals"), "shown": SETTING})
    def poll(ticks: int, shown: Any) -> Any:
        found = simulations.find(make_setting(shown))
        if found is None:
            # Points of another setting stay where they are: the chart does not show them.
            return True, no_update, "0", True, True, ""
        return _state(found)


def _state(found: Simulation) -> tuple[Any, ...]:
    """What the page shows of a simulation on its way or done."""
    # In this order: a seed may land between the two.
    finished, done = found.finished, len(found.curves)
    points = {**found.points(), "of": found.setting.query()} if done else no_update
    if found.failure:
        return True, points, "0", True, True, found.failure
    if finished:
        stopped = f"stopped after {done} of {SEEDS} seeds"
        said = stopped if done < SEEDS else f"{done} seeds, 95 percent intervals"
        return True, points, str(done), True, True, said
    said = f"{done} of {SEEDS} seeds" if found.running else "waiting for another simulation"
    return False, points, str(done), False, False, said
