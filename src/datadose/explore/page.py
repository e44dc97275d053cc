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
OPENINGS = {"which": {"tilt": 1.5}}
"""The setting of a view whose address names none, where the defaults would show nothing to choose from."""

_LABELS = {
    "share": (
        "Share of directions that shift", 0.05, "rare in pretraining, and asked for now",
        "The rank of the shift divided by the dimension d: how many directions the new task needs more of.",
    ),
    "rho": (
        "How common they were in pretraining, rho", 0.01, "their variance; that of all others is 1",
        "The pretraining variance of the directions that shift. At 1 pretraining taught them like any other.",
    ),
    "tilt": (
        "Unevenness of the shift", 0.1, "0: all alike; 1: falls like 1 / level",
        "The directions that shift form eight levels whose shift falls like level to the power of minus this "
        "number, with mean 1.",
    ),
    "interference": (
        "Interference r", 0.002, "what SFT prompts contain besides the shift",
        "The variance of the SFT prompts in directions outside the shift. A small r above 0 is the strongest "
        "interference: it teaches these directions a wrong scale.",
    ),
    "eta": (
        "Step of one thought, eta", 0.05, "how far one thought moves to the answer",
        "The demonstrations are chains of thought; each thought closes this share of the distance to the "
        "answer.",
    ),
    "length": (
        "Prompt length n", 10, "examples in a prompt",
        "The number of (x, y) examples in a prompt of pretraining, SFT and test.",
    ),
    "max_prompts": (
        "Prompts available", 50, "the most that SFT can use",
        "The largest number of SFT prompts B, and the number of target prompts that RL uses.",
    ),
    "dimension": (
        "Dimension d", 20, "of the regression's inputs",
        "The number of coordinates of an input x. Errors are divided by d.",
    ),
    "chain_steps": (
        "Thinking steps k", 1, "thoughts before RL's answer is judged",
        "The number of thoughts that the model writes before RL compares its answer with the truth.",
    ),
    "steps": (
        "Optimiser steps T", 10, "of one stage, or of two together",
        "The number of updates of the weights; SFT then RL takes half of them for each.",
    ),
    "time": (
        "Training time t", 0.05, "number of steps times learning rate",
        "The training time of gradient flow. The right end means training to convergence.",
    ),
    "weight_yours": (
        "Weight of your data", 0.05, "a quarter of the prompts available",
        "The weight in the loss of a row of your own data, relative to the other two sources.",
    ),
    "weight_replay": (
        "Weight of replay", 0.05, "as many prompts as available, like pretraining's",
        "The weight in the loss of a row of replayed pretraining data.",
    ),
    "weight_even": (
        "Weight of misleading rows", 0.05, "as many, with a quarter of your mean variance",
        "The weight in the loss of a row that is spread evenly over all directions with little variance.",
    ),
    "tolerance": (
        "Tolerance of a pass", 0.05, "an answer passes within this error",
        "An answer passes a verifiable reward if its root mean square error on the shift's directions is "
        "below this number.",
    ),
}  # fmt: skip
"""Slider -> label, step, what it means in a line, the same in a tooltip; limits are in :class:`Setting`."""
_ENDS = {("time", 1): "convergence", **{(name, 0): "0.001 (left out)" for name in WEIGHTS}}
"""(slider, 0 for its left or 1 for its right end) -> what stands there instead of the number."""
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
    """Attributes for those who hear the page: ``label`` becomes ``aria-label``."""
    return {f"aria-{name}": value for name, value in attributes.items()}


def limits(name: str) -> tuple[float, float]:
    """The smallest and the largest value of a slider."""
    marks = Setting.model_fields[name].metadata
    low = next(mark.ge for mark in marks if isinstance(mark, Ge))
    high = next(mark.le for mark in marks if isinstance(mark, Le))
    return float(low), float(high)  # type: ignore[arg-type]


def sliders(setting: Setting, names: Sequence[str]) -> html.Div:
    """Labelled sliders; each also takes a typed number."""
    values = [(name, getattr(setting, name), limits(name), *_LABELS[name]) for name in names]
    kinds = ("power" if name in POWERS else "control" for name in names)
    return html.Div(
        [slider(kind, *each) for kind, each in zip(kinds, values, strict=True)], className="sliders"
    )


def slider(
    kind: str,
    name: str,
    value: float,
    ends: tuple[float, float],
    label: str,
    step: float,
    meaning: str = "",
    tooltip: str = "",
) -> html.Div:
    """A slider with its range and a number to type, kept in step by assets/explore.js.

    One of the kind "power" moves along log10 of its value. What is typed and cannot be is refused or moved
    to the nearest end, and the line below says so.
    """
    first, last, drawn = np.log10([*ends, value]).tolist() if kind == "power" else (*ends, value)
    label_id = f"label-{name}"
    identity, typed, said = ({"type": f"{kind}{part}", "name": name} for part in ("", "-typed", "-said"))
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
                    # Text, because a field of numbers drops what it cannot read: "50%" would arrive as 50.
                    dcc.Input(
                        type="text", value=value, id=typed, debounce=True, autoComplete="off",
                        inputMode="decimal",  # type: ignore[arg-type]  # of HTML, unknown to Dash's types
                    ),
                    html.Div(
                        [html.Span(_ENDS.get((name, side), f"{end:g}")) for side, end in enumerate(ends)],
                        className="ends",
                    ),
                ],
                className="track",
            ),
            html.Span(id=said, className="said", role="status"),
        ],
        className="control",
        role="group",
        title=tooltip or None,
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
            dcc.Store(id="openings", data=OPENINGS),
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
