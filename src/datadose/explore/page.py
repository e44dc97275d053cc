"""The explorer's page: header, views, sliders, and what callbacks need to read and answer them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from annotated_types import Ge, Le
from dash import Dash, Input, Output, dcc, html

from datadose.explore.marks import palette
from datadose.explore.setting import WEIGHTS, Setting, make_setting

VIEWS = {
    "how-much": "How much?",
    "how-long": "How long?",
    "which": "Which?",
    "which-stage": "Which stage?",
    "your-spectra": "Your spectra",
}
"""Path of each view and its name."""

_LABELS = {
    "share": ("Rank of the shift, share of d", 0.05, "directions rare in pretraining that now matter"),
    "rho": ("Pretraining variance of these directions, rho", 0.01, "1 is as common as all others"),
    "tilt": ("Unevenness of the shift", 0.1, "0: every direction shifts alike; 1: like 1 / level"),
    "interference": ("Interference r", 0.002, "variance of the SFT data outside the shift"),
    "eta": ("Chain-of-thought step, eta", 0.05, "how far one thought goes towards the answer"),
    "length": ("Prompt length n", 10, "examples in a prompt"),
    "max_prompts": ("Prompts available", 50, "the largest B, and RL's prompts"),
    "dimension": ("Dimension d", 20, ""),
    "chain_steps": ("Thinking steps k", 1, "thoughts in RL's rollout"),
    "steps": ("Optimiser steps T", 10, "of a stage, or of two together"),
    "time": ("Training time t", 0.05, "steps times learning rate; its right end is convergence"),
    "weight_yours": ("Your data", 0.05, "a quarter of the prompts; left end: left out"),
    "weight_replay": ("Like pretraining", 0.05, "as many prompts as there are"),
    "weight_even": ("Spread evenly", 0.05, "as many, a quarter of your mean variance"),
    "tolerance": ("Tolerance of a pass", 0.05, "root mean square error on the shift's directions"),
}  # fmt: skip
"""Slider -> label, step, what it means; limits are those of :class:`Setting`."""
SHIFT_SLIDERS = ("share", "rho", "tilt", "interference", "eta", "length", "max_prompts", "dimension")
POWERS = ("time", *WEIGHTS)
"""Sliders on a logarithmic scale; their typed number is the value itself."""
STAGE_SLIDERS = ("chain_steps", "steps", "tolerance")

SETTING = Input("setting", "data")
"""The input of every callback that answers a setting (a mapping for :func:`make_setting`).

assets/explore.js fills it from the sliders, as fast as answers come back and no faster.
"""


def answering(app: Dash, *outputs: Output, **more: Input) -> Callable[[Callable[..., Any]], None]:
    """Register a function of (setting, colors, the inputs ``more``) whose answers go to ``outputs``."""

    def register(function: Callable[..., Any]) -> None:
        @app.callback(*outputs, inputs={"shown": SETTING, "scheme": Input("scheme", "data"), **more})
        def answer(shown: Any, scheme: str | None, **others: Any) -> Any:
            return function(make_setting(shown), palette(scheme), **others)

    return register


def aria(**attributes: str) -> dict[str, Any]:
    """Attributes for those who hear the page: ``label`` stands for ``aria-label``."""
    return {f"aria-{name}": value for name, value in attributes.items()}


def limits(name: str) -> tuple[float, float]:
    """The smallest and the largest value of a slider."""
    marks = Setting.model_fields[name].metadata
    low = next(mark.ge for mark in marks if isinstance(mark, Ge))
    high = next(mark.le for mark in marks if isinstance(mark, Le))
    return float(low), float(high)  # type: ignore[arg-type]


def sliders(setting: Setting, names: Sequence[str]) -> html.Div:
    """Labelled sliders; each also takes a typed number."""
    values = [(name, getattr(setting, name), *limits(name), *_LABELS[name]) for name in names]
    kinds = ("power" if name in POWERS else "control" for name in names)
    return html.Div(
        [slider(kind, *each) for kind, each in zip(kinds, values, strict=True)], className="sliders"
    )


def slider(
    kind: str, name: str, value: float, low: float, high: float, label: str, step: float, meaning: str = ""
) -> html.Div:
    """A slider and a number to type, kept in step by assets/explore.js; both carry the label's name.

    One of the kind "power" moves along log10 of its value.
    """
    if kind == "power":
        first, last, drawn = np.log10([low, high, value]).tolist()
    else:
        first, last, drawn = low, high, value
    label_id = f"label-{name}"
    identity, typed = ({"type": part, "name": name} for part in (kind, f"{kind}-typed"))
    return html.Div(
        [
            html.Label(label, id=label_id),
            html.Span(meaning, className="small"),
            html.Div(
                [
                    # Its own number field shows one value and reports another for a number off its range.
                    dcc.Slider(
                        first, last, step, value=drawn, marks=None, id=identity, updatemode="drag",
                        allow_direct_input=False,
                    ),
                    dcc.Input(type="number", value=value, id=typed, debounce=True, step="any"),
                ],
                className="track",
            ),
        ],
        className="control",
        role="group",
        **aria(labelledby=label_id),
    )  # fmt: skip


def reward_choice(setting: Setting) -> html.Div:
    """Dense or verifiable reward."""
    return html.Div(
        [
            html.Label("Reward of RL", id="label-reward"),
            dcc.RadioItems(
                [
                    {"label": "dense: distance to the answer", "value": "dense"},
                    {"label": "verifiable: 1 for a pass, else 0", "value": "verifiable"},
                ],
                setting.reward,
                id={"type": "choice", "name": "reward"},
            ),
        ],
        className="control",
        role="radiogroup",
        **aria(labelledby="label-reward"),
    )


def graph(
    identity: str,
    title: str,
    description: str,
    *,
    size: str = "",
    sticky: bool = False,
    figure: dict[str, Any] | None = None,
    draggable: bool = False,
) -> html.Div:
    """A titled chart, described for those who cannot see it; a sticky one stays in sight on a phone."""
    config: Any = {"displayModeBar": False, "responsive": True}
    if draggable:
        config["edits"] = {"shapePosition": True}
    given: dict[str, Any] = {"figure": figure} if figure else {}
    # Dash gives a responsive graph the height of what it is in.
    chart = dcc.Graph(id=identity, config=config, responsive=True, **given)
    return html.Div(
        [
            html.H3(title) if title else None,
            html.Div(chart, role="img", className=f"chart {size}", **aria(label=description)),
        ],
        className="sticky" if sticky else "",
    )


def view(
    name: str, title: str, lead: str, setting: Setting, controls: Any, answers: Sequence[Any]
) -> html.Div:
    """A view: its title, the sliders beside (on a phone: above) the answers."""
    return html.Div(
        [
            dcc.Store(id="carried", data=setting.model_dump()),
            dcc.Store(id="setting", data=setting.model_dump()),
            dcc.Store(id="still"),
            html.H2(title),
            html.P(lead, className="lead"),
            html.Div(
                [
                    html.Section(controls, className="controls", **aria(label="Setting")),
                    html.Section(
                        list(answers), id="answers", className="answers", tabIndex=-1, **aria(label="Answer")
                    ),
                ],
                className="split",
            ),
        ],
        id=f"view-{name}",
    )


def tiles(entries: Sequence[tuple[str, str]]) -> list[html.Li]:
    """Key numbers: (value, what it is)."""
    return [html.Li([html.B(value), what]) for value, what in entries]


def shell() -> html.Div:
    """What stays while views change: title, navigation, complaints, and where the address is kept."""
    return html.Div(
        [
            dcc.Location(id="address", refresh=False),
            dcc.Store(id="defaults", data=Setting().model_dump()),
            dcc.Store(id="scheme"),
            dcc.Store(id="query"),
            html.Header(
                [
                    html.A("Skip to the answer", href="#answers", className="skip"),
                    html.H1("Which data, how much, at which stage?"),
                    html.Nav(
                        [
                            dcc.Link(title, href=f"/{name}", id={"type": "tab", "name": name})
                            for name, title in VIEWS.items()
                        ],
                        **aria(label="Views"),
                    ),
                ]
            ),
            html.Div(id="complaint", role="alert"),
            # assets/explore.js says when it is busy: what is live is read out once the answer is whole.
            html.Main(id="page", tabIndex=-1),
            html.Footer(
                html.P(
                    "All numbers are datadose's theory of linear self-attention on in-context linear "
                    "regression, computed here: for SFT exact in large dimension; where optimiser steps, "
                    "more thoughts or a verifiable reward come in, the planner's approximations. Errors are "
                    "divided by d, and 1 is the error of predicting nothing. The address of this page holds "
                    "the setting: share it.",
                    className="meta",
                )
            ),
        ]
    )


def as_sentence(reason: str) -> str:
    """The planner's words with a capital and a full stop."""
    return f"{reason[:1].upper()}{reason[1:]}."


def number(value: float | None) -> str:
    """Three digits; infinite where the mean does not exist."""
    return "infinite" if value is None else f"{value:.3g}"
