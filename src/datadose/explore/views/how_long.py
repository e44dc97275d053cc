"""How long? The error over training time, and at the best time of every number of prompts."""

from __future__ import annotations

from typing import Any

from dash import Dash, Output, html

from datadose.explore import answers, page, training
from datadose.explore.marks import Palette
from datadose.explore.setting import LAST, Setting
from datadose.explore.training_charts import prompts_chart, time_chart


def layout(setting: Setting) -> html.Div:
    """The view at a setting."""
    return page.view(
        "how-long",
        "How long to train on them?",
        "Training that stops in time avoids most of what a small or misleading set does at convergence. The "
        "exact error over time, for all prompts that there are.",
        setting,
        page.sliders(setting, ("time", *page.SHIFT_SLIDERS)),
        [
            html.P(id="long-sentence", className="sentence", **page.aria(live="polite")),
            page.graph(
                "time-chart",
                "Error over training time, all prompts",
                "Post-test error over training time on the target and on pretraining's prompts",
                size="medium",
                sticky=True,
            ),
            html.Ul(id="long-numbers", className="tiles"),
            page.graph(
                "stopped-chart",
                "Error against the number of prompts, stopped and converged",
                "Post-test error against prompts: to convergence, at the best time, at the slider's time",
                size="medium",
            ),
        ],
    )


def register(app: Dash) -> None:
    """The view's callbacks."""

    @page.answering(
        app,
        Output("time-chart", "figure"),
        Output("long-numbers", "children"),
        Output("long-sentence", "children"),
    )
    def draw(setting: Setting, colors: Palette) -> Any:
        run, now = training.long_run(setting), training.at_time(setting)
        ceiling = training.ceiling(setting)
        chart = time_chart(run, ceiling, setting.time, now, colors)
        return chart, page.tiles(_numbers(setting, run, ceiling, now)), _sentence(setting, run)

    @page.answering(app, Output("stopped-chart", "figure"))
    def draw_prompts(setting: Setting, colors: Palette) -> Any:
        converged, stopped = answers.dose(setting), training.at_best_times(setting)
        timed = training.at_one_time(setting)
        return prompts_chart(converged, stopped, timed, training.ceiling(setting), setting.time, colors)


def _numbers(
    setting: Setting, run: training.LongRun, ceiling: float, now: training.Errors | None
) -> list[tuple[str, str]]:
    when = "to convergence" if setting.stopping().is_converged else f"at time {setting.time:.3g}"
    low, high = (_time(t) for t in run.near)
    before = page.number(run.before.known)
    return [
        (page.number(run.best.error), f"error at the best time, {_time(run.best.time)}"),
        (f"{low} to {high}", "times within 5 percent of it"),
        (page.number(now.target if now else None), f"error {when}"),
        (
            page.number(run.at_best.known),
            f"error on pretraining's prompts then; {before} before training",
        ),
        (page.number(ceiling), "ceiling: unlimited prompts, at their best time"),
    ]


def _time(time: float | None) -> str:
    if time is None or time > LAST:
        return "the end"
    return f"{time:.3g}" if time < 1000 else f"{time:,.0f}"


def _sentence(setting: Setting, run: training.LongRun) -> str:
    best, small = run.best, answers.dose(setting)
    number = page.number(None if run.converged is None else run.converged.target)
    if best.time is None:
        said = (
            f"With all {setting.max_prompts:,} prompts train to convergence: error {page.number(best.error)}"
        )
    elif best.time == 0:
        said = f"Do not train on these prompts: the untouched model's error is {page.number(best.error)}"
    else:
        said = (
            f"With all {setting.max_prompts:,} prompts stop at time {_time(best.time)}: "
            f"error {page.number(best.error)}, and {number} if trained to convergence"
        )
    few = f"The best number of prompts to train on to convergence, {small.prompts:,}, reaches"
    return f"{said}. {few} {page.number(small.error)}."
