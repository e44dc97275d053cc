"""Claims on Figure 4: how the error after SFT, OS and RL moves with B, n and k, judged from fig4.csv.

Statistics are ratios of errors, averaged over paired seeds (geometric means, Student intervals). A change
counts from ``CHANGE`` = 2 percent: all runs share their test prompts, whose sampling error (about 0.5
percent; it does not cancel across n) is not in the interval. Where a curve's best place is chosen from the
same seeds, it is chosen for each seed by the others, so that the choice does not flatter the ratio. A run
that diverged counts as ten times the largest finite error of its panel. Both constants and the factors below
were fixed before looking at results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from datadose.configs import Stage
from datadose.studies.ledger import CONFIDENCE
from datadose.studies.study import Claim, Judgement, Saved
from datadose.studies.trends import (
    PAPER_CLAIMS,
    STATISTICS,
    curve,
    judge_trend,
    listed,
    panel,
    threshold_of,
    trend_sentence,
    untouched,
)


def _judge(stage: Stage, axis: str, trend: str, control: bool) -> Callable[[Saved[Any], float], Judgement]:
    def judge(saved: Saved[Any], threshold: float) -> Judgement:
        table = saved.table
        name = panel(stage, axis, control)
        x, errors, lost = curve(table, name, axis)
        base = None
        if axis == "prompts":
            length = int(table.loc[table["panel"] == name, "length"].iloc[0])
            base = np.full(len(errors), untouched(table, length))
        found = judge_trend(trend, x, errors, threshold, base)
        notes = [
            found.note,
            f"error/d {listed(errors.mean(axis=0))} at {listed(x)}",
            "" if base is None else f"untouched {base[0]:.3g}",
            f"{lost} of {errors.size} runs diverged" if lost else "",
        ]
        note = "; ".join(part for part in notes if part)
        return Judgement(found.value, found.interval, found.seeds, found.verdict, note)

    return judge


_SETTING = (
    "LSA, all weights, d=100, Sigma0=diag(0.1 on d/5, 1), Delta=1 on d/5, A=Delta, eta=0.2, Adam 1e-3, "
    "batch 32, 130 epochs, test k=1 (sizes of the preset)"
)
_WHERE = {
    ("prompts", False): "B from 32 to 1024, n=2d",
    ("prompts", True): "B from 32 to 1024, n=2d, equal optimiser steps at every B",
    ("length", False): "n from d/4 to 8d, the same in pretraining, post-training and test; B=128",
    ("length", True): "post-training n from d/4 to 8d; pretraining and test n=2d; B=128",
    ("steps", False): "training k from 1 to 8; B=128, n=2d",
    ("steps", True): "training k from 1 to 8; B=128, n=d, where the shift is nearer to the pretrained model",
}


def _claim(id_: str, paper: str, stage: Stage, axis: str, trend: str, control: bool = False) -> Claim:
    return Claim(
        id_,
        paper,
        f"LSA: {trend_sentence(stage, axis, trend)}",
        f"{_SETTING}; {_WHERE[axis, control]}",
        f"{STATISTICS[trend]}; paired seeds, {CONFIDENCE:.0%} interval",
        threshold_of(trend),
        _judge(stage, axis, trend, control),
        f"tests/claims/test_figure4_claims.py::test_{trend.replace('-', '_')}",
    )


def _controls(letters: Sequence[str], axis: str, suffix: str) -> list[Claim]:
    return [
        _claim(f"fig-4{letter}-{suffix}", "Fig 4 (ours)", stage, axis, trend, control=True)
        for letter, stage, _, trend in PAPER_CLAIMS
        if letter in letters
    ]


FIGURE4_CLAIMS = [
    *(
        _claim(f"fig-4{letter}", f"Fig 4{letter}", stage, axis, trend)
        for letter, stage, axis, trend in PAPER_CLAIMS
    ),
    *_controls("ad", "prompts", "equal-steps"),
    *_controls("be", "length", "fixed-lengths"),
    *_controls("f", "steps", "short-prompts"),
    *(
        _claim(f"fig-4{letter}-rl", "Fig 4 (ours)", "rl", axis, trend)
        for letter, _, axis, trend in PAPER_CLAIMS
        if letter in "def"
    ),
]
