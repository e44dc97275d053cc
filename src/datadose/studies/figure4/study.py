"""Figure 4, the study: how the error after SFT, OS and RL moves with B, n and k, and what is claimed of it.

The trends and their statistics are those of :mod:`~datadose.studies.trends`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from datadose.configs import Stage
from datadose.power import CONFIDENCE
from datadose.studies.figure4.experiment import NAME, Column, Figure4, panel
from datadose.studies.figure4.figure import draw
from datadose.studies.study import Claim, Judgement, Saved, Study
from datadose.studies.trends import (
    BASE_PANEL,
    PAPER_CLAIMS,
    STATISTICS,
    curve,
    judge_trend,
    listed,
    threshold_of,
    trend_sentence,
)


def _judge(
    saved: Saved[Figure4], threshold: float, *, stage: Stage, axis: str, trend: str, control: bool
) -> Judgement:
    table, name = saved.table, panel(stage, axis, control)
    x, errors, lost = curve(table, name, axis)
    base = None
    if axis == Column.PROMPTS:
        untouched = table[table[Column.PANEL] == BASE_PANEL].set_index(Column.LENGTH)[Column.ERROR]
        length = table.loc[table[Column.PANEL] == name, Column.LENGTH].iloc[0]
        base = np.full(len(errors), float(untouched.loc[length]))
    found = judge_trend(trend, x, errors, threshold, base)
    notes = [
        found.note,
        f"error/d {listed(errors.mean(axis=0))} at {listed(x)}",
        "" if base is None else f"untouched {base[0]:.3g}",
        f"{lost} of {errors.size} runs diverged" if lost else "",
    ]
    return replace(found, note="; ".join(part for part in notes if part))


_SETTING = (
    "LSA, all weights, d=100, Sigma0=diag(0.1 on d/5, 1), Delta=1 on d/5, A=Delta, eta=0.2, Adam 1e-3, "
    "batch 32, 130 epochs, test k=1 (sizes of the preset)"
)
_WHERE = {
    (Column.PROMPTS, False): "B from 32 to 1024, n=2d",
    (Column.PROMPTS, True): "B from 32 to 1024, n=2d, equal optimiser steps at every B",
    (Column.LENGTH, False): "n from d/4 to 8d, the same in pretraining, post-training and test; B=128",
    (Column.LENGTH, True): "post-training n from d/4 to 8d; pretraining and test n=2d; B=128",
    (Column.STEPS, False): "training k from 1 to 8; B=128, n=2d",
    (
        Column.STEPS,
        True,
    ): "training k from 1 to 8; B=128, n=d, where the shift is nearer to the pretrained model",
}


def _claim(id_: str, paper: str, stage: Stage, axis: str, trend: str, control: bool = False) -> Claim:
    return Claim(
        id=id_,
        paper=paper,
        statement=f"LSA: {trend_sentence(stage, axis, trend)}",
        setting=f"{_SETTING}; {_WHERE[axis, control]}",
        statistic=f"{STATISTICS[trend]}; paired seeds, {CONFIDENCE:.0%} interval",
        threshold=threshold_of(trend),
        judge=partial(_judge, stage=stage, axis=axis, trend=trend, control=control),
        test=f"tests/studies/figure4/test_claims.py::test_{trend.replace('-', '_')}",
    )


def _controls(letters: Sequence[str], axis: str, suffix: str) -> list[Claim]:
    return [
        _claim(f"fig-4{letter}-{suffix}", "Fig 4 (ours)", stage, axis, trend, control=True)
        for letter, stage, _, trend in PAPER_CLAIMS
        if letter in letters
    ]


CLAIMS = [
    *(
        _claim(f"fig-4{letter}", f"Fig 4{letter}", stage, axis, trend)
        for letter, stage, axis, trend in PAPER_CLAIMS
    ),
    *_controls("ad", Column.PROMPTS, "equal-steps"),
    *_controls("be", Column.LENGTH, "fixed-lengths"),
    *_controls("f", Column.STEPS, "short-prompts"),
    *(
        _claim(f"fig-4{letter}-rl", "Fig 4 (ours)", "rl", axis, trend)
        for letter, _, axis, trend in PAPER_CLAIMS
        if letter in "def"
    ),
]
STUDY = Study(
    name=NAME,
    title="What does training itself do? (Figure 4)",
    story=(
        "After SFT on the shift's data the error falls and rises again with B only because a fixed number of "
        "epochs means more steps for more data: at equal steps it does not rise. Outcome supervision and RL "
        "improve with B either way, and lose with longer chains when the task is far from the pretrained "
        "model."
    ),
    experiment=Figure4,
    draw=draw,
    claims=CLAIMS,
)
