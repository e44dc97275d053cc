"""Which stage? Stability of outcome supervision, the four choices, and the learning curves."""

from __future__ import annotations

from typing import Any

from dash import Dash, Output, html

from datadose.explore import answers, page
from datadose.explore.charts import learning_chart, map_chart, outlook_chart
from datadose.explore.marks import Palette
from datadose.explore.setting import Setting


def layout(setting: Setting) -> html.Div:
    """The view at a setting."""
    return page.view(
        "which-stage",
        "SFT, RL, or both?",
        "SFT learns from demonstrations, RL (outcome supervision) from its answers to target prompts. How "
        "large its steps may be depends on the shift; a verifiable reward teaches only what it passes.",
        setting,
        [page.reward_choice(setting), page.sliders(setting, (*page.STAGE_SLIDERS, *page.SHIFT_SLIDERS))],
        [
            html.P(id="stage-sentence", className="sentence", **page.aria(live="polite")),
            html.Ul(id="stage-numbers", className="tiles"),
            page.graph(
                "map-chart",
                "How large a step RL bears on many long prompts",
                "Largest stable step by radius of the shift and thinking steps",
                size="medium",
                sticky=True,
            ),
            html.Div(
                [
                    page.graph(
                        "error-bars", "Error after each choice", "Error of the four choices", size="low"
                    ),
                    page.graph(
                        "pass-bars", "Pass rate after it", "Pass rate of the four choices", size="low"
                    ),
                ],
                className="pair",
            ),
            page.graph(
                "learning-chart",
                "Learning curves (RL with a dense reward, one thinking step)",
                "Predicted error by optimiser steps",
                size="medium",
            ),
        ],
    )


def register(app: Dash) -> None:
    """The view's callbacks."""

    @page.answering(app, Output("map-chart", "figure"))
    def draw_map(setting: Setting, colors: Palette) -> Any:
        return map_chart(answers.stability_map(setting), setting.chain_steps, colors)

    @page.answering(
        app,
        *(Output(name, "figure") for name in ("error-bars", "pass-bars")),
        *(Output(name, "children") for name in ("stage-sentence", "stage-numbers")),
    )
    def choose(setting: Setting, colors: Palette) -> Any:
        choice = answers.stages(setting)
        step, needed = "not known", "not known"
        if choice.stable_step is not None:
            step = f"{choice.stable_step:.2g}"
            needed = "over a million" if choice.steps_needed is None else f"{choice.steps_needed:,}"
        numbers = page.tiles(
            [
                (f"{answers.radius(setting):.2g}", f"spectral radius of the shift: {choice.regime}"),
                (step, "largest stable step of RL"),
                (needed, "steps until RL's error settles"),
            ]
        )
        bars = [outlook_chart(choice, measure, colors) for measure in ("error", "pass_rate")]
        return *bars, page.as_sentence(choice.reason), numbers

    @page.answering(app, Output("learning-chart", "figure"))
    def learn(setting: Setting, colors: Palette) -> Any:
        return learning_chart(answers.learning_curves(setting), answers.dose(setting).error_before, colors)
