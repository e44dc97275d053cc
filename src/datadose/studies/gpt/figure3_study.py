"""Figure 3 drawn and judged from its saved table, and the study.

Of the claims, the trends, their statistics and constants are Figure 4's (:mod:`~datadose.studies.trends`). A
claim is judged once for each pretraining length: it holds if it holds in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from datadose.configs import Stage
from datadose.drawing.style import GREY, LOOKS, Look, caption, draw_theory, new_grid
from datadose.power import CONFIDENCE
from datadose.studies.gpt.figure3 import CONTROLS, NAME, Column, Figure3
from datadose.studies.ledger import judge_settings
from datadose.studies.study import Claim, Judgement, Saved, Study, Verdict
from datadose.studies.trends import (
    BASE_PANEL,
    COLUMN_NAMES,
    MAIN,
    PAPER_CLAIMS,
    ROW_NAMES,
    STATISTICS,
    curve,
    draw_panels,
    draw_runs,
    judge_trend,
    listed,
    panel_letter,
    threshold_of,
    trend_sentence,
)

_CONTROL_NAMES = {Column.PROMPTS: "equal epochs", Column.LENGTH: "n in post-training only"}


def draw_figure3(table: pd.DataFrame, config: Figure3) -> Figure:
    """Rows SFT, OS, RL; columns B, n, k; a colour a pretraining length, dashed: control, thin: untouched."""
    pretrained = sorted(table[Column.PRETRAIN_STEPS].unique())
    looks = dict(zip(pretrained, LOOKS, strict=False))
    sharing = {"sharex": "col", "sharey": "col"}
    with new_grid(len(ROW_NAMES), len(COLUMN_NAMES), width=10.5, height=9.2, **sharing) as (figure, axes):

        def draw(axis: Axes, rows: pd.DataFrame, moved: str) -> None:
            for T, look in looks.items():
                own = rows[rows[Column.PRETRAIN_STEPS] == T]
                _draw_untouched(axis, table[table[Column.PRETRAIN_STEPS] == T], moved, look, config)
                dashed, solid = Look(look.color, (0, (4, 2)), "x"), Look(look.color, "-", look.marker)
                name = f"pretrained {int(T):,} steps"
                control = f"{name}, {_CONTROL_NAMES.get(moved, 'control')}"
                draw_runs(axis, own[own[Column.VARIANT] != MAIN], moved, dashed, 0.93, control)
                draw_runs(axis, own[own[Column.VARIANT] == MAIN], moved, solid, 0.98, name)

        draw_panels(table, axes, draw)
        for axis, moved in zip(axes[0], COLUMN_NAMES, strict=True):
            axis.legend(handles=_handles(looks, moved), fontsize=7)
        caption(figure, _setting(config))
    return figure


def _draw_untouched(axis: Axes, table: pd.DataFrame, moved: str, look: Look, config: Figure3) -> None:
    base = table[table[Column.VARIANT] == BASE_PANEL].set_index(Column.LENGTH)[Column.ERROR].sort_index()
    style: dict[str, Any] = {"linestyle": ":", "linewidth": 0.8, "alpha": 0.7, "zorder": 1}
    if moved == Column.LENGTH:
        steps = int(table[Column.PRETRAIN_STEPS].iloc[0])
        name = f"_untouched model, pretrained {steps:,} steps"
        draw_theory(axis, base.index.to_numpy(dtype=float), base, look, name, **style)
    else:
        axis.axhline(float(base.loc[config.task.length]), color=look.color, **style)


def _handles(looks: dict[Any, Look], moved: str) -> list[Line2D]:
    handles = [
        Line2D(
            [], [], color=look.color, marker=look.marker, markersize=3.4, label=f"pretrained {int(T):,} steps"
        )
        for T, look in looks.items()
    ]
    if moved in _CONTROL_NAMES:
        handles.append(Line2D([], [], color=GREY, linestyle=(0, (4, 2)), label=_CONTROL_NAMES[moved]))
    return [*handles, Line2D([], [], color=GREY, linestyle=":", linewidth=0.8, label="untouched model")]


def _setting(config: Figure3) -> str:
    task, first = config.task, config.pretrainings[0]
    steps = "/".join(f"{s:,}" for s in config.stage_steps)
    return (
        f"GPT-2 '{first.preset}', d = {task.dimension}, eta = {task.eta:g}, pretrained with chains "
        f"of {task.chain_steps}; {steps} steps of SFT/OS/RL, batch {config.batch}, Adam "
        f"{config.learning_rate:g}, on prompts of Delta; test on Sigma0 + Delta, k = {task.test_steps}."
        "\n"
        f"Where they do not move: B = {config.base_prompts}, n = {task.length}, "
        f"k = {config.base_chain}. "
        f"Means of {config.seeds} seeds with standard errors; one pretrained model a pretraining length."
    )


def _judge(
    stage: Stage, axis: str, trend: str, control: bool
) -> Callable[[Saved[Figure3], float], Judgement]:
    def judge(saved: Saved[Figure3], threshold: float) -> Judgement:
        table = saved.table
        letter = panel_letter(stage, axis)
        name = f"{letter}-{CONTROLS[axis]}" if control else letter
        verdicts: dict[str, Verdict] = {}
        notes, seeds = [], 0
        for T, rows in table.groupby(Column.PRETRAIN_STEPS):
            x, errors, lost = curve(rows, name, axis)
            untouched = rows[rows[Column.PANEL] == BASE_PANEL].set_index(Column.LENGTH)[Column.ERROR]
            length = int(rows.loc[rows[Column.PANEL] == name, Column.LENGTH].max())
            base = np.full(len(errors), float(untouched[length])) if axis == Column.PROMPTS else None
            found = judge_trend(trend, x, errors, threshold, base)
            seeds = found.seeds
            verdicts[f"{T:,} pretraining steps"] = found.verdict
            gone = f", {lost} runs lost" if lost else ""
            notes.append(
                f"after {T:,} steps: error/d {listed(errors.mean(axis=0))} at {listed(x)}{gone}, "
                f"untouched {float(untouched[length]):.3g}"
            )
        size = _size(saved.config)
        return judge_settings(verdicts, 1.0, seeds, f"{size}; " + "; ".join(notes))

    return judge


def _size(config: Figure3) -> str:
    preset = config.pretrainings[0].preset
    return f"{preset} GPT, d={config.task.dimension}, n={config.task.length}"


TEST = "tests/studies/gpt/test_claims.py"
SETTING = (
    "GPT-2 pretrained on Sigma0=diag(0.1 on d/5, 1) with Garg's curriculum, two pretraining lengths; Delta=1 "
    "on d/5, post-training on Delta, batch 64, fixed steps, eta=0.5, test k=3 (sizes of the preset)"
)
_WHERE = {
    (Column.PROMPTS, False): "B moves, equal steps",
    (Column.PROMPTS, True): "B moves, equal epochs",
    (Column.LENGTH, False): "n moves in post-training and test",
    (Column.LENGTH, True): "n moves in post-training alone",
    (Column.STEPS, False): "training k moves",
}


def _claim(id_: str, paper: str, stage: Stage, axis: str, trend: str, control: bool = False) -> Claim:
    return Claim(
        id_,
        paper,
        f"GPT-2: {trend_sentence(stage, axis, trend)}",
        f"{SETTING}; {_WHERE[axis, control]}",
        f"share of pretraining lengths where it holds: {STATISTICS[trend]}; {CONFIDENCE:.0%} interval",
        threshold_of(trend),
        _judge(stage, axis, trend, control),
        f"{TEST}::test_trends_are_judged_for_each_pretraining_length",
    )


CLAIMS = [
    *(
        _claim(f"fig-3{letter}", f"Fig 3{letter}", stage, axis, trend)
        for letter, stage, axis, trend in PAPER_CLAIMS
    ),
    *(
        _claim(f"fig-3{letter}-{CONTROLS[axis]}", "Fig 3 (ours)", stage, axis, trend, control=True)
        for letter, stage, axis, trend in PAPER_CLAIMS
        if axis in CONTROLS
    ),
    *(
        _claim(f"fig-3{letter}-rl", "Fig 3 (ours)", "rl", axis, trend)
        for letter, _, axis, trend in PAPER_CLAIMS
        if letter in "def"
    ),
]

STUDY = Study(
    name=NAME,
    title="Does a real transformer do the same? (Figure 3)",
    story=(
        "A GPT-2 is pretrained to write chains of thought for the weights of a regression, then post-trained "
        "on the shift. Dotted lines are the untouched models: how long the model was pretrained decides what "
        "post-training can still add, and on data of the shift alone it may only take away."
    ),
    experiment=Figure3,
    draw=draw_figure3,
    claims=CLAIMS,
)
