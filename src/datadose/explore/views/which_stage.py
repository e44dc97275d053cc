"""Which stage? Stability of outcome supervision, the four choices, and the learning curves."""

from __future__ import annotations

from typing import Any

from dash import Dash, Output, html

from datadose.explore import answers, page
from datadose.explore.charts import learning_chart, map_chart, outlook_chart
from datadose.explore.marks import Palette
from datadose.explore.setting import Setting
from datadose.planner import StageChoice
from datadose.planner.stage_choice import WORTH_A_STAGE


def layout(setting: Setting) -> html.Div:
    """The view at a setting."""
    return page.view(
        "which-stage",
        "SFT, RL, or both?",
        "SFT learns from demonstrations, RL (outcome supervision) from its own answers to target prompts. "
        "The learning rate that keeps RL stable depends on the shift; a verifiable reward teaches only by "
        "the answers that pass.",
        setting,
        [page.reward_choice(setting), page.sliders(setting, (*page.STAGE_SLIDERS, *page.SHIFT_SLIDERS))],
        [
            html.P(id="stage-sentence", className="sentence", **page.aria(live="polite")),
            html.Ul(id="stage-numbers", className="tiles"),
            page.graph(
                "map-chart",
                "Largest stable learning rate of RL, for many long prompts",
                "Largest stable learning rate by radius of the shift and thinking steps",
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
            html.P(id="pass-note", className="small"),
            page.graph(
                "learning-chart", "Learning curves", "Predicted error by optimiser steps", size="medium"
            ),
            html.P(id="learning-note", className="small"),
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
        *(Output(name, "children") for name in ("stage-sentence", "stage-numbers", "pass-note")),
    )
    def choose(setting: Setting, colors: Palette) -> Any:
        choice = answers.stages(setting)
        bars = [outlook_chart(choice, measure, colors) for measure in ("error", "pass_rate")]
        numbers = page.tiles(_numbers(setting, choice))
        return *bars, page.as_sentence(choice.reason), numbers, _about_passes(setting, choice)

    @page.answering(app, Output("learning-chart", "figure"), Output("learning-note", "children"))
    def learn(setting: Setting, colors: Palette) -> Any:
        shown = [c for c in answers.learning_curves(setting) if setting.reward == "dense" or c.stage == "sft"]
        before = answers.dose(setting).error_before
        return learning_chart(shown, before, max(10, setting.steps), colors), _LEARNING[setting.reward]


_LEARNING = {
    "dense": "RL is drawn with one thinking step (k = 1), where its course is known.",
    "verifiable": "RL is not drawn: the course of training with a verifiable reward is not forecast.",
}


def _numbers(setting: Setting, choice: StageChoice) -> list[tuple[str, str]]:
    step, needed = "not known", "not known"
    if choice.stable_step is not None:
        step = f"{choice.stable_step:.2g}"
        needed = "over a million" if choice.steps_needed is None else f"{choice.steps_needed:,}"
    reach = "within reach" if choice.regime == "incremental" else "new to the model"
    numbers = [
        (f"{answers.radius(setting):.2g}", f"spectral radius of the shift: {choice.regime}, {reach}"),
        (step, "largest stable learning rate of RL, dense reward"),
    ]
    settled = (needed, "steps until RL's error settles, at half that rate")
    return [*numbers, settled] if setting.reward == "dense" else numbers


def _about_passes(setting: Setting, choice: StageChoice) -> str:
    """How the pass rates and the recommended stage agree."""
    within = f"an answer passes if its error on the shift's directions is below {setting.tolerance:g}"
    # A rate that is withheld may be any.
    rare = all(o.pass_rate is not None and o.pass_rate <= WORTH_A_STAGE for o in choice.outlooks)
    if rare:
        within += ", and hardly any does, whatever the stage: raise the tolerance to tell the stages apart"
    if setting.reward == "dense":
        return f"A dense reward pays for coming closer, so RL learns without a pass; {within}."
    used = "they cannot tell the stages apart, so errors decide" if rare else "they decide"
    return f"A verifiable reward pays for passes alone, and {used}; {within}."
