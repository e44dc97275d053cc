"""Which stage? Stability of outcome supervision, the four choices, and the learning curves."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, html

from datadose.explore import answers
from datadose.explore.charts import palette
from datadose.explore.page import (
    SETTING,
    SHIFT_SLIDERS,
    STAGE_SLIDERS,
    aria,
    as_sentence,
    graph,
    reward_choice,
    sliders,
    tiles,
    view,
)
from datadose.explore.setting import Setting, make_setting
from datadose.explore.stage_charts import learning_chart, map_chart, outlook_chart


def layout(setting: Setting) -> html.Div:
    """The view at a setting."""
    return view(
        "which-stage",
        "SFT, RL, or both?",
        "SFT learns from demonstrations, RL (outcome supervision) from its answers to target prompts. How "
        "large its steps may be depends on the shift; a verifiable reward teaches only what it passes.",
        setting,
        [reward_choice(setting), sliders(setting, (*STAGE_SLIDERS, *SHIFT_SLIDERS))],
        [
            html.P(id="stage-sentence", className="sentence", **aria(live="polite")),
            html.Ul(id="stage-numbers", className="tiles"),
            graph(
                "map-chart",
                "How large a step RL bears on many long prompts",
                "Largest stable step by radius of the shift and thinking steps",
                size="medium",
                sticky=True,
            ),
            html.Div(
                [
                    graph("error-bars", "Error after each choice", "Error of the four choices", size="low"),
                    graph("pass-bars", "Pass rate after it", "Pass rate of the four choices", size="low"),
                ],
                className="pair",
            ),
            graph(
                "learning-chart",
                "Learning curves (RL with a dense reward, one thinking step)",
                "Predicted error by optimiser steps",
                size="medium",
            ),
        ],
    )


def register(app: Dash) -> None:
    """The view's callbacks."""

    @app.callback(Output("map-chart", "figure"), inputs={"shown": SETTING, "scheme": Input("scheme", "data")})
    def draw_map(shown: Any, scheme: str) -> Any:
        setting = make_setting(shown)
        found = answers.stability_map(setting)
        return map_chart(found, setting.chain_steps, palette(scheme), dark=scheme == "dark")

    @app.callback(
        Output("error-bars", "figure"),
        Output("pass-bars", "figure"),
        Output("stage-sentence", "children"),
        Output("stage-numbers", "children"),
        inputs={"shown": SETTING, "scheme": Input("scheme", "data")},
    )
    def choose(shown: Any, scheme: str) -> Any:
        setting = make_setting(shown)
        colors, choice = palette(scheme), answers.stages(setting)
        needed = "over a million" if choice.steps_needed is None else f"{choice.steps_needed:,}"
        if setting.chain_steps > 1:
            needed = "not known"
        numbers = tiles(
            [
                (f"{answers.radius(setting):.2g}", f"spectral radius of the shift: {choice.regime}"),
                (f"{choice.stable_step:.2g}", "largest stable step of RL"),
                (needed, "steps until RL's error settles"),
            ]
        )
        return (
            outlook_chart(choice, "error", colors),
            outlook_chart(choice, "pass_rate", colors),
            as_sentence(choice.reason),
            numbers,
        )

    @app.callback(
        Output("learning-chart", "figure"), inputs={"shown": SETTING, "scheme": Input("scheme", "data")}
    )
    def learn(shown: Any, scheme: str) -> Any:
        setting = make_setting(shown)
        before = answers.stages(setting).of("none").error
        return learning_chart(answers.learning_curves(setting), before, palette(scheme))
