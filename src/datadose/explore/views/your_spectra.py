"""Your spectra: the plan for an uploaded shift, to look at and to download."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from dash import Dash, Input, Output, State, dcc, html, no_update

from datadose.covariance import rank
from datadose.drawing.plan import draw_plan
from datadose.errors import InputError
from datadose.explore import page
from datadose.explore.charts import dose_chart, outlook_chart
from datadose.explore.marks import Palette, palette
from datadose.explore.setting import Setting, make_setting
from datadose.explore.uploads import plan_uploads
from datadose.planner import Dose, Plan

_log = logging.getLogger(__name__)


def layout(setting: Setting) -> html.Div:
    """The view at a setting."""
    example = "data:text/yaml;charset=utf-8," + quote(setting.shift_yaml())
    return page.view(
        "your-spectra",
        "A plan for your own covariances",
        "Upload a SHIFT.yaml, with the .npy files that it names, or sigma0.npy and delta.npy alone. Files "
        "are read on the machine that serves this page and not kept.",
        setting,
        [
            dcc.Upload(
                html.Button("Choose or drop files", id="choose"),
                id="upload",
                multiple=True,
                className="upload",
                className_active="upload active",
            ),
            html.P(
                [
                    "No file yet? ",
                    html.A("Take the setting of the sliders", href=example, download="shift.yaml"),
                    " as a SHIFT.yaml, change it, and upload it. Two .npy files alone take length, eta, "
                    "interference and the rest from the sliders too.",
                ],
                className="small",
            ),
        ],
        [
            html.P(id="upload-complaint", className="complaint", role="alert"),
            dcc.Loading(
                html.Div(
                    [
                        html.P("The plan will stand here. A file to begin with:"),
                        html.Pre(setting.shift_yaml(), className="example", tabIndex=0),
                    ],
                    id="upload-plan",
                ),
                type="circle",
                delay_show=300,
            ),
        ],
    )


def register(app: Dash) -> None:
    """The view's callback."""

    @app.callback(
        Output("upload-plan", "children"),
        Output("upload-complaint", "children"),
        # Forgotten once read: choosing the same file again is a new upload.
        Output("upload", "contents"),
        inputs={
            "contents": Input("upload", "contents"),
            "names": State("upload", "filename"),
            "carried": State("carried", "data"),
            "scheme": State("scheme", "data"),
        },
        prevent_initial_call=True,
    )
    def show(contents: Any, names: Any, carried: Any, scheme: str) -> Any:
        if not contents:
            return no_update, no_update, no_update
        try:
            shown = plan_page(plan_uploads(names, contents, make_setting(carried)), names, palette(scheme))
        except InputError as error:
            return [], str(error), None
        except Exception as error:
            # Whatever a file does to a library below, the page says so and lives on.
            _log.exception("an upload failed")
            return [], f"This could not be planned: {type(error).__name__}: {error}", None
        return shown, "", None


def plan_page(found: Plan, names: Sequence[str], colors: Palette) -> list[Any]:
    """The sentence, the numbers, the charts and the downloads of a plan."""
    document = found.to_json()
    picture = io.BytesIO()
    draw_plan(document).savefig(picture, format="png", metadata={"Software": None})
    plan_json = json.dumps(document, indent=2, allow_nan=False).encode()
    near = found.near_optimal
    numbers = [
        (f"{found.prompts:,}", "best number of prompts, B*"),
        (page.number(found.predicted_error), "error there"),
        (page.number(found.error_before), "error without SFT"),
        (page.number(found.error_at_max_prompts), "error with all that is allowed"),
        *([(f"{near[0]:,} to {near[1]:,}", "within 5 percent of the best")] if near else []),
        (f"{found.spectral_radius:.2g}", f"spectral radius of the shift: {found.regime}"),
    ]
    parts: list[Any] = [
        html.P(f"Plan for {', '.join(names)}", className="small"),
        html.P(page.as_sentence(found.recommendation), className="sentence"),
        html.Ul(page.tiles(numbers), className="tiles"),
        html.P(
            [
                "Download: ",
                html.A("The plan (JSON)", href=_data("application/json", plan_json), download="plan.json"),
                html.A("The picture (PNG)", href=_data("image/png", picture.getvalue()), download="plan.png"),
            ],
            className="downloads",
        ),
        page.graph(
            "plan-dose",
            "Error against the number of prompts",
            "Post-test error against the number of prompts",
            size="medium",
            figure=dose_chart(_as_dose(found), rank(found.allocation), colors, band=near is not None),
        ),
    ]
    if found.sources is not None:
        parts += [html.H3("What to take from each source"), _sources(found)]
    if found.stages is not None:
        measure = "pass_rate" if found.stages.reward == "verifiable" else "error"
        chart = outlook_chart(found.stages, measure, colors)
        parts.append(
            page.graph("plan-stages", "Which stage?", "Promise of the four choices", size="low", figure=chart)
        )
    return parts


def _as_dose(found: Plan) -> Dose:
    """The dose of a plan; with sources, what the planned counts amount to."""
    if found.dose is not None:
        return found.dose
    at = (found.prompts, found.prompts)
    return Dose(
        found.prompts, found.predicted_error, found.error_before, found.error_at_max_prompts,
        found.near_optimal or at, None, None, found.curve,
    )  # fmt: skip


def _sources(found: Plan) -> html.Div:
    head = html.Tr([html.Th(name) for name in ("source", "take", "of", "worth of one more")])
    cells = [
        (s.name, f"{s.prompts:,}", f"{s.size:,}", page.number(s.marginal_value)) for s in found.sources or ()
    ]
    rows = [html.Tr([html.Td(cell) for cell in row]) for row in cells]
    return html.Div(html.Table([html.Thead(head), html.Tbody(rows)]), className="scroll")


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
