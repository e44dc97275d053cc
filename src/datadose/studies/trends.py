"""How the error moves along B, n and k: the panels and trends that Figures 3, 4 and the map share."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TypeAlias

import numpy as np
import pandas as pd

from datadose.configs import STAGES, Stage
from datadose.covariance import Array
from datadose.studies.ledger import both, decide, judge_deviation, mean_interval
from datadose.studies.study import Judgement

AXES = ("prompts", "length", "steps")
"""What moves along a panel, named like its column: B, n, k."""


CONTROLS = {"prompts": "steps", "length": "fixed-lengths", "steps": "short-prompts"}


BASE_PANEL = "base"


def panel_letter(stage: Stage, axis: str) -> str:
    """``a`` .. ``i``, rows SFT, OS, RL and columns B, n, k."""
    return "abcdefghi"[3 * STAGES.index(stage) + AXES.index(axis)]


def panel(stage: Stage, axis: str, control: bool = False) -> str:
    """The letter of a panel; a control has its name appended."""
    letter = panel_letter(stage, axis)
    return f"{letter}-{CONTROLS[axis]}" if control else letter


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


def threshold_of(trend: str) -> float:
    """The threshold of a trend's statistic."""
    return INSENSITIVE if trend == "insensitive" else CHANGE


def trend_sentence(stage: Stage, axis: str, trend: str) -> str:
    """What the claim says, without the model."""
    words = {"falls-then-rises": "falls, then rises", "insensitive": "is insensitive"}.get(trend, trend)
    link = "to" if trend == "insensitive" else "with"
    return f"{_STAGE_NAMES[stage]} error {words} {link} {_AXIS_SYMBOLS[axis]}."
