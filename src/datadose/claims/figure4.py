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
from itertools import combinations
from typing import TypeAlias

import numpy as np
import pandas as pd

from datadose.claims.figures import both
from datadose.claims.ledger import (
    CONFIDENCE,
    Claim,
    Judgement,
    Tables,
    decide,
    judge_deviation,
    mean_interval,
)
from datadose.covariance import Array
from datadose.experiments.figure4 import AXES, BASE_PANEL, Stage, panel

CHANGE = 1.02
"""A ratio of errors that counts as a change."""
INSENSITIVE = 0.1
"""Largest relative change that counts as none."""
DIVERGED = 10.0

Trend: TypeAlias = Callable[[Array, Array, float], Judgement]
"""Judges errors (seeds, X) at places x (X,) against a threshold."""


def _other_seeds_choice(errors: Array) -> Array:
    """Per seed, its error at the place where the other seeds' mean is smallest."""
    seeds = len(errors)
    if seeds < 2:
        return np.asarray(errors.min(axis=1))
    total = errors.sum(axis=0)
    places = np.array([(total - own).argmin() for own in errors])
    return np.asarray(errors[np.arange(seeds), places])


def _ratio(above: Array, below: Array) -> tuple[float, float, float]:
    """Geometric mean of above / below over seeds and its interval."""
    mean, low, high = np.exp(mean_interval(np.log(above / below)))
    return float(mean), float(low), float(high)


def falls_then_rises(x: Array, errors: Array, threshold: float, start: Array | None = None) -> Judgement:
    """Whether the error falls from ``start`` (default: the first place) and rises again to the last place."""
    best = _other_seeds_choice(errors)
    fall = _ratio(errors[:, 0] if start is None else start, best)
    rise = _ratio(errors[:, -1], best)
    verdict = both(*(decide(low, high, threshold, below=False) for _, low, high in (fall, rise)))
    value, low, high = min(fall, rise)
    turn = x[errors.mean(axis=0).argmin()]
    note = f"lowest at {turn:g}: {fall[0]:.3g} times lower than at the start, then up {rise[0]:.3g} times"
    return Judgement(value, (low, high), len(errors), verdict, note)


def falls(x: Array, errors: Array, threshold: float) -> Judgement:
    """Whether the error falls from the first place to the last; mixed if it has turned and rises again."""
    return _one_way(x, errors, threshold)


def rises(x: Array, errors: Array, threshold: float) -> Judgement:
    """The mirror image of :func:`falls`."""
    return _one_way(x, 1 / errors, threshold)


def _one_way(x: Array, errors: Array, threshold: float) -> Judgement:
    value, low, high = _ratio(errors[:, 0], errors[:, -1])
    verdict = decide(low, high, threshold, below=False)
    back, back_low, back_high = _ratio(errors[:, -1], _other_seeds_choice(errors))
    note = ""
    if decide(back_low, back_high, threshold, below=False) == "holds":
        note = f"turns at {x[errors.mean(axis=0).argmin()]:g} and goes back {back:.3g} times"
        verdict = "mixed" if verdict == "holds" else verdict
    return Judgement(value, (low, high), len(errors), verdict, note)


def insensitive(x: Array, errors: Array, threshold: float) -> Judgement:
    """Whether no two places differ by more than ``threshold``, as a relative change (log ratio)."""
    logs = np.log(errors)
    changes = np.stack([logs[:, j] - logs[:, i] for i, j in combinations(range(len(x)), 2)])
    sem = changes.std(axis=1, ddof=1) / len(errors) ** 0.5
    return judge_deviation(changes.mean(axis=1), sem, len(errors), threshold)


def fill_diverged(errors: Array) -> tuple[Array, int]:
    """``errors`` with diverged runs (not finite) at ``DIVERGED`` times the largest, and their number."""
    lost = ~np.isfinite(errors)
    worst = 1.0 if lost.all() else float(errors[~lost].max())
    return np.where(lost, DIVERGED * worst, errors), int(lost.sum())


def curve(table: pd.DataFrame, name: str, axis: str) -> tuple[Array, Array, int]:
    """Places (X,), errors (seeds, X) of a panel with diverged runs filled in, and the number of those."""
    rows = table[table["panel"] == name]
    wide = rows.pivot(index="seed", columns=axis, values="error").sort_index(axis=1)
    errors, lost = fill_diverged(wide.to_numpy(dtype=np.float64))
    return wide.columns.to_numpy(dtype=np.float64), errors, lost


def untouched(table: pd.DataFrame, length: int) -> float:
    """Error of the pretrained model on prompts of this length."""
    rows = table[(table["panel"] == BASE_PANEL) & (table["length"] == length)]
    return float(rows["error"].iloc[0])


def _judge(stage: Stage, axis: str, trend: str, control: bool) -> Callable[[Tables, float], Judgement]:
    def judge(tables: Tables, threshold: float) -> Judgement:
        table = tables.get("fig4")
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


def listed(values: Array) -> str:
    """Values, comma-separated, four digits each."""
    return ", ".join(f"{v:.4g}" for v in values)


def judge_trend(
    trend: str, x: Array, errors: Array, threshold: float, base: Array | None = None
) -> Judgement:
    """Judge ``trend`` (falls-then-rises | falls | rises | insensitive); ``base``: errors at B = 0, if any."""
    if trend == "falls-then-rises":
        return falls_then_rises(x, errors, threshold, base)
    one_way: dict[str, Trend] = {"falls": falls, "rises": rises, "insensitive": insensitive}
    return one_way[trend](x, errors, threshold)


STATISTICS = {
    "falls-then-rises": "the smaller of start / best and last / best: errors at the first, best, last place",
    "falls": "error at the first place / error at the last; mixed if it turns and rises again",
    "rises": "error at the last place / error at the first; mixed if it turns and falls again",
    "insensitive": "largest change of the log error between two places, Bonferroni over pairs",
}
PAPER_CLAIMS: tuple[tuple[str, Stage, str, str], ...] = (
    ("a", "sft", "prompts", "falls-then-rises"),
    ("b", "sft", "length", "falls-then-rises"),
    ("c", "sft", "steps", "insensitive"),
    ("d", "outcome", "prompts", "falls"),
    ("e", "outcome", "length", "falls"),
    ("f", "outcome", "steps", "rises"),
)
"""Letter, stage, axis and trend of the paper's six claims."""

_STAGE_NAMES = {"sft": "SFT", "outcome": "OS", "rl": "RL (dense reward, GRPO)"}
_AXIS_SYMBOLS = dict(zip(AXES, ("B", "n", "k"), strict=True))
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


def threshold_of(trend: str) -> float:
    """The threshold of a trend's statistic."""
    return INSENSITIVE if trend == "insensitive" else CHANGE


def trend_sentence(stage: Stage, axis: str, trend: str) -> str:
    """What the claim says, without the model."""
    words = {"falls-then-rises": "falls, then rises", "insensitive": "is insensitive"}.get(trend, trend)
    link = "to" if trend == "insensitive" else "with"
    return f"{_STAGE_NAMES[stage]} error {words} {link} {_AXIS_SYMBOLS[axis]}."


def _claim(id_: str, paper: str, stage: Stage, axis: str, trend: str, control: bool = False) -> Claim:
    return Claim(
        id_,
        paper,
        f"LSA: {trend_sentence(stage, axis, trend)}",
        f"{_SETTING}; {_WHERE[axis, control]}",
        f"{STATISTICS[trend]}; paired seeds, {CONFIDENCE:.0%} interval",
        threshold_of(trend),
        "fig4",
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
