"""Which? The data's allocation over directions: the paper's, the planner's, and one's own by dragging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update

from datadose.covariance import Array
from datadose.errors import InputError
from datadose.explore import answers, page
from datadose.explore.charts import curves_chart, steps_chart
from datadose.explore.marks import Chart, Palette
from datadose.explore.setting import EXPONENTS, GROUPS, Setting, make_setting
from datadose.explore.views import pool
from datadose.planner import WORTHWHILE, Dose

_STEP = 0.1


def layout(setting: Setting) -> html.Div:
    """The view at a setting."""
    exponents = setting.exponents().tolist()
    names = [*(f"Level {i + 1} of the shift" for i in range(GROUPS)), "Outside the shift (interference)"]
    by_number = [
        page.slider("level", f"level-{place}", value, EXPONENTS, name, _STEP)
        for place, (name, value) in enumerate(zip(names, exponents, strict=True))
    ]
    return page.view(
        "which",
        "Which directions should they cover?",
        "The paper's allocation follows the target; the planner's minimises the exact error at the same "
        "total variance. Drag the green levels to try one of your own. An even shift leaves nothing to "
        "choose, so this view opens on an uneven one.",
        setting,
        [
            page.sliders(setting, page.SHIFT_SLIDERS),
            html.Details(
                [
                    html.Summary(
                        "Your data by number: how many times to double (1) or halve (-1) the paper's"
                    ),
                    html.Div(by_number, className="sliders"),
                    html.Button("Back to the paper's", id="undrag"),
                ],
                open=bool(setting.levels),
            ),
        ],
        [
            dcc.Store(id="planned"),
            html.P(id="which-sentence", className="sentence", **page.aria(live="polite")),
            page.graph(
                "allocation-chart",
                "Variance of the data, by direction",
                "Variance of the three allocations by direction; yours can be set by number",
                size="medium",
                sticky=True,
                draggable=True,
            ),
            page.graph(
                "allocation-error",
                "Error after SFT on it",
                "Post-test error against prompts for the three allocations",
                size="medium",
            ),
            html.Div(
                [
                    page.graph("spectra-chart", "Pretraining and target", "Their spectra", size="small"),
                    page.graph(
                        "hardness-chart",
                        "Hardness for the pretrained model",
                        "Error of the pretrained model by direction, for infinitely long prompts",
                        size="small",
                    ),
                ],
                className="pair",
            ),
            *pool.layout(setting),
        ],
    )


def register(app: Dash) -> None:
    """The view's callbacks. The planner's allocation takes longer than a move: it follows when hands rest."""
    _register_dragging(app)
    pool.register(app)

    charts = ("allocation-chart", "allocation-error", "spectra-chart", "hardness-chart")

    @page.answering(
        app,
        *(Output(chart, "figure") for chart in charts),
        Output("which-sentence", "children"),
        planned=Input("planned", "data"),
    )
    def draw(setting: Setting, colors: Palette, planned: str) -> Any:
        known = planned == _shift_of(setting)
        entries = allocations(setting, colors, planner=known)
        doses = [(name, dose, color, dash) for name, _, dose, color, dash in entries]
        return (
            allocation_chart(setting, entries, colors),
            curves_chart(doses, colors),
            spectra_chart(setting, colors),
            hardness_chart(setting, entries, colors),
            _sentence(setting, planner=known),
        )

    @app.callback(Output("planned", "data"), inputs={"still": Input("still", "data")})
    def plan(still: Any) -> Any:
        if still is None:
            return no_update
        setting = make_setting(still)
        answers.better_dose(setting)
        return _shift_of(setting)


def _shift_of(setting: Setting) -> str:
    """The setting without what was dragged: what the planner's allocation is for."""
    return setting.without("levels").query()


def _register_dragging(app: Dash) -> None:
    @app.callback(
        Output({"type": "level", "name": ALL}, "value"),
        inputs={
            "moved": Input("allocation-chart", "relayoutData"),
            "clicks": Input("undrag", "n_clicks"),
            "levels": State({"type": "level", "name": ALL}, "value"),
            "shown": State("setting", "data"),
        },
        prevent_initial_call=True,
    )
    def drag(moved: Any, clicks: int, levels: list[float], shown: Any) -> Any:
        if ctx.triggered_id == "undrag":
            return [0.0] * len(levels)
        try:
            setting = make_setting(shown)
        except InputError:  # Said elsewhere on the page; this callback answers many sliders at once.
            return [no_update] * len(levels)
        dragged = dragged_levels(moved or {}, setting, levels)
        return [no_update] * len(levels) if dragged is None else dragged


def dragged_levels(moved: dict[str, Any], setting: Setting, levels: list[float]) -> list[float] | None:
    """The levels after a handle was dragged, from Plotly's account of it; None if it was something else."""
    found, paper, seen = list(levels), _by_level(setting, setting.shift().data), False
    for handle, place in enumerate(_handles(setting)):
        ends = [moved[key] for key in (f"shapes[{handle}].y0", f"shapes[{handle}].y1") if key in moved]
        if not ends:
            continue
        height = max(float(np.mean(ends)), 1e-9)
        exponent = float(np.clip(np.log2(height / paper[place]), *EXPONENTS))
        found[place if place < setting.level_count else GROUPS] = round(round(exponent / _STEP) * _STEP, 1)
        seen = True
    return found if seen else None


def _handles(setting: Setting) -> list[int]:
    """The levels that can be dragged: those where the paper's data are not zero."""
    return [place for place, value in enumerate(_by_level(setting, setting.shift().data)) if value > 0]


def _by_level(setting: Setting, spectrum: Array) -> Array:
    return spectrum[answers.level_places(setting)]


Entry = tuple[str, Array, Dose, str, str]
"""An allocation: name, spectrum (d,), dose, colour, dash."""


def allocations(setting: Setting, colors: Palette, *, planner: bool) -> list[Entry]:
    """The paper's allocation, the planner's if it is known already, and one's own if it is another one."""
    paper = ("the paper's", setting.shift().data, answers.dose(setting), colors.blue, "solid")
    found: list[Entry] = [paper]
    if planner:
        better = answers.better(setting).allocation
        found.append(("the planner's", better, answers.better_dose(setting), colors.orange, "dash"))
    if setting.exponents().any():
        own = setting.dragged_data()
        found.append(("yours", own, answers.dragged_dose(setting), colors.green, "dot"))
    return found


def allocation_chart(setting: Setting, entries: Sequence[Entry], colors: Palette) -> Chart:
    """The allocations by direction; a handle for each level of one's own."""
    edges, dragged = setting.level_edges(), _by_level(setting, setting.dragged_data())
    gap = 0.004 * setting.dimension
    handles = [
        {
            "type": "line",
            "x0": edges[place] + 0.5 + gap,
            "x1": edges[place + 1] + 0.5 - gap,
            "y0": dragged[place],
            "y1": dragged[place],
            "opacity": 0.5,
            "line": {"color": colors.green, "width": 9},
        }
        for place in _handles(setting)
    ]
    # Room above the paper's to drag into; nearly always the same before and after the planner's is known.
    highest = [float(data.max()) for _, data, *_ in entries]
    top = max(2.2 * float(setting.shift().data.max()), 1.5 * float(dragged.max()), 1.05 * max(highest))
    shown = [(name, _by_level(setting, data), color, dash) for name, data, _, color, dash in entries]
    return steps_chart(setting, shown, "variance", colors, shapes=handles, yaxis={"range": [0, top]})


def spectra_chart(setting: Setting, colors: Palette) -> Chart:
    """Sigma0 and Sigma."""
    shift = setting.shift()
    shown = [
        ("pretraining Σ₀", _by_level(setting, shift.sigma0), colors.soft, "solid"),
        ("target Σ", _by_level(setting, shift.target), colors.purple, "dash"),
    ]
    return steps_chart(setting, shown, "variance", colors, yaxis={"rangemode": "tozero"})


def hardness_chart(setting: Setting, entries: Sequence[Entry], colors: Palette) -> Chart:
    """Error of the pretrained model by direction, infinitely long prompts, on the target and on the data."""
    spectra = [("target", setting.shift().target, colors.purple, "dash")]
    spectra += [(name, data, color, dash) for name, data, _, color, dash in entries]
    shown = [
        (name, answers.hardness_by_level(setting, data), color, dash) for name, data, color, dash in spectra
    ]
    return steps_chart(setting, shown, "error, long prompts", colors, yaxis={"rangemode": "tozero"})


def _sentence(setting: Setting, *, planner: bool) -> str:
    paper = answers.dose(setting)
    said = f"The paper's allocation reaches {page.number(paper.error)} with {paper.prompts:,} prompts; "
    if not planner:
        said += "the planner is looking for a better one"
    else:
        better = answers.better_dose(setting)
        gain = 1 - better.error / paper.error
        if gain > WORTHWHILE:
            said += f"the planner's {page.number(better.error)} with {better.prompts:,}, {gain:.1%} better"
        else:
            said += "the planner finds nothing better at the same total variance"
            said += " (make the shift uneven, and there is something to choose)" if not setting.tilt else ""
    if not setting.exponents().any():
        return said + "."
    own = answers.dragged_dose(setting)
    # The planner keeps to the paper's total variance; a hand does not.
    cost = setting.dragged_data().sum() / setting.shift().data.sum()
    return f"{said}. Yours: {page.number(own.error)} with {own.prompts:,}, at {cost:.2f} times the variance."
