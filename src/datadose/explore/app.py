"""The explorer as a Dash application: a page on 127.0.0.1, or any WSGI host.

Dash bundles all that the browser needs, so that nothing is fetched from elsewhere. The address is the state:
path = view, query = setting.
"""

from __future__ import annotations

import logging
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from dash import ALL, MATCH, ClientsideFunction, Dash, Input, Output, State, html, no_update, set_props
from flask import Flask

from datadose.errors import InputError
from datadose.explore.page import OPENINGS, SETTING, VIEWS, shell
from datadose.explore.setting import make_setting, read_query
from datadose.explore.simulations import Simulations
from datadose.explore.uploads import LARGEST_REQUEST
from datadose.explore.views import how_long, how_much, which, which_stage, your_spectra

_MODULES = dict(zip(VIEWS, (how_much, how_long, which, which_stage, your_spectra), strict=True))
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>{%metas%}<title>{%title%}</title>{%favicon%}<style>LOOK</style>{%css%}</head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""
_log = logging.getLogger(__name__)


def create_app(simulations: Simulations | None = None) -> Dash:
    """The application, ready to be served by one process; ``simulations`` run beside it in a thread."""
    app = Dash(
        "datadose.explore",
        title="datadose explorer",
        update_title="",
        suppress_callback_exceptions=True,
        serve_locally=True,
        assets_folder=str(files("datadose.explore").joinpath("assets")),
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
        on_error=_tell,
    )
    app.server.config["MAX_CONTENT_LENGTH"] = LARGEST_REQUEST
    look = files("datadose").joinpath("templates/look.css").read_text()
    app.index_string = _PAGE.replace("LOOK", look)
    app.layout = shell
    _register_address(app)
    _register_sliders(app)
    how_much.register(app, simulations or Simulations())
    for module in (how_long, which, which_stage, your_spectra):
        module.register(app)
    return app


def create_server() -> Flask:
    """The WSGI application, for a public host: ``gunicorn 'datadose.explore:create_server()'``."""
    server: Flask = create_app().server
    return server


def _tell(error: Exception) -> None:
    """What went wrong, on the page; the charts keep what they show."""
    if not isinstance(error, InputError):
        _log.error("a callback failed", exc_info=error)
    said = str(error) if isinstance(error, InputError) else f"Something failed here: {error}"
    set_props("complaint", {"children": said})


def _register_address(app: Dash) -> None:
    @app.callback(Output("page", "children"), Input("address", "pathname"), Input("address", "search"))
    def route(path: str | None, search: str | None) -> Any:
        name = (path or "/").strip("/") or next(iter(VIEWS))
        if name not in VIEWS:
            known = ", ".join(f"/{view}" for view in VIEWS)
            return html.P(f"view: got /{name}; allowed: {known}", className="complaint", role="alert")
        setting, complaint = read_query((search or "").strip("?") or urlencode(OPENINGS.get(name, {})))
        shown: html.Div = _MODULES[name].layout(setting)
        return [html.P(complaint, className="complaint", role="alert"), shown] if complaint else shown

    @app.callback(Output("query", "data"), Output("complaint", "children"), inputs={"shown": SETTING})
    def keep(shown: Any) -> Any:
        try:
            return make_setting(shown).query(), ""
        except InputError as error:
            return no_update, str(error)

    app.clientside_callback(
        ClientsideFunction("explore", "keep"),
        Output({"type": "tab", "name": ALL}, "href"),
        Input("query", "data"),
        Input("address", "pathname"),
        State({"type": "tab", "name": ALL}, "id"),
        State("openings", "data"),
        State("defaults", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("explore", "scheme"), Output("scheme", "data"), Input("address", "hash")
    )


def _register_sliders(app: Dash) -> None:
    """What the browser does by itself: it gathers the sliders, and keeps each beside its number."""
    # Choices are apart from controls: they have no typed number beside them.
    kinds = ("control", "power", "choice", "level")
    controls, powers, choices, levels = ({"type": kind, "name": ALL} for kind in kinds)
    app.clientside_callback(
        ClientsideFunction("explore", "gather"),
        Output("setting", "data"),
        Input(controls, "value"),
        Input(powers, "value"),
        Input(choices, "value"),
        Input(levels, "value"),
        State(controls, "id"),
        State(powers, "id"),
        State(choices, "id"),
        State("carried", "data"),
        State("setting", "data"),
        State("defaults", "data"),
        State({"type": "tab", "name": ALL}, "id"),
    )
    for kind in ("control", "power", "level"):
        drawn, typed, said = ({"type": f"{kind}{part}", "name": MATCH} for part in ("", "-typed", "-said"))
        app.clientside_callback(
            ClientsideFunction("explore", "agree_power" if kind == "power" else "agree"),
            Output(drawn, "value"),
            Output(typed, "value"),
            Output(said, "children"),
            Input(drawn, "value"),
            Input(typed, "value"),
            State(drawn, "min"),
            State(drawn, "max"),
            State(drawn, "step"),
            prevent_initial_call=True,
        )
