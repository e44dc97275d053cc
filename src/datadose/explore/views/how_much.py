"""How much? The error against the number of prompts, and the best number in a sentence."""

from __future__ import annotations

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update

from datadose.errors import InputError
from datadose.explore import answers, page
from datadose.explore.charts import dose_chart
from datadose.explore.marks import Palette
from datadose.explore.setting import Setting, make_setting
from datadose.explore.simulations import SEEDS, Simulations


def layout(setting: Setting) -> html.Div:
    """The view at a setting."""
    return page.view(
        "how-much",
        "How many SFT prompts?",
        "The exact post-test error after SFT on B prompts, trained to convergence. Often a few good ones "
        "help; the error explodes where B is the number of directions that the data span.",
        setting,
        page.sliders(setting, page.SHIFT_SLIDERS),
        [
            html.P(id="sentence", className="sentence", **page.aria(live="polite")),
            page.graph(
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
    @page.answering(
        app,
        Output("dose-chart", "figure"),
        Output("dose-numbers", "children"),
        points=Input("points", "data"),
    )
    def draw(setting: Setting, colors: Palette, points: Any) -> Any:
        found, peak = answers.dose(setting), setting.shift().data_rank
        own = points if points and points["of"] == setting.without(*answers.SFT_IGNORES).query() else None
        low, high = found.near_optimal
        numbers = page.tiles(
            [
                (f"{found.prompts:,}", "best number of prompts, B*"),
                (page.number(found.error), "error there"),
                (page.number(found.error_before), "error without SFT"),
                (page.number(found.error_at_max), f"error with all {setting.max_prompts:,}"),
                (f"{low:,} to {high:,}", "within 5 percent of the best"),
                (f"{peak:,}", "prompts at the peak: the rank of the data"),
            ]
        )
        return dose_chart(found, peak, colors, own), numbers

    @app.callback(Output("sentence", "children"), inputs={"shown": page.SETTING})
    def say(shown: Any) -> str:
        return sentence(make_setting(shown))


def sentence(setting: Setting) -> str:
    """How many SFT prompts are best at ``setting``, and what that changes."""
    found, most = answers.dose(setting), f"all {setting.max_prompts:,}"
    before, last = page.number(found.error_before), page.number(found.error_at_max)
    if found.prompts == 0:
        said = f"Train on none: the error is {before} without SFT, every set raises it, and {most} to {last}"
    elif found.prompts == setting.max_prompts:
        said = f"Train on {most} prompts: the error is {page.number(found.error)}, and {before} without SFT"
    else:
        said = (
            f"Train on {found.prompts:,} of {setting.max_prompts:,} prompts: the error is "
            f"{page.number(found.error)}, and {before} without SFT, {last} with {most}"
        )
    return f"{said}. Training that stops earlier (How long?) and RL (Which stage?) may do better."


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
            "shown": page.SETTING,
            "running": State("running", "data"),
        },
    )
    def simulate(clicks: int, stops: int | None, looks: int | None, shown: Any, running: Any) -> Any:
        setting, stops = make_setting(shown), stops or 0
        if ctx.triggered_id == "simulate":
            try:
                simulations.start(setting)
            except InputError as error:
                return _state(str(error))
        found = simulations.find(setting)
        if found is None:
            # Points of another setting stay where they are: the chart does not show them.
            return _state("")
        # In this order: a seed may land between the two.
        finished, done = found.finished, len(found.curves)
        stopped = f"stopped after {done} of {SEEDS} seeds"
        if ctx.triggered_id == "stop" or (
            ctx.triggered_id == "look" and running and stops > running["stops"]
        ):
            # Whoever else looks at the same simulation keeps it; one that nobody looks at ends by itself.
            return _state(stopped)
        points = {**found.points(), "of": found.setting.query()} if done else no_update
        if found.failure:
            return _state(found.failure, points)
        if finished:
            said = stopped if done < SEEDS else f"{done} seeds, 95 percent intervals"
            return _state(said, points, done)
        said = f"{done} of {SEEDS} seeds" if found.running else "waiting for another simulation"
        return _state(said, points, done, {"look": (looks or 0) + 1, "stops": stops})


def _state(said: str, points: Any = no_update, done: int = 0, next_look: Any = None) -> tuple[Any, ...]:
    """What the page shows of a simulation: on its way where there is a next look, else at rest."""
    resting = next_look is None
    return points, str(done), resting, resting, said, next_look
