"""How the error moves along B, n and k: the panels, trends and curves that Figures 3, 4 and the map share.

Statistics are ratios of errors, averaged over paired seeds (geometric means, Student intervals). Where a
curve's best place is chosen from the same seeds, it is chosen for each seed by the others, so that the choice
does not flatter the ratio. A run that diverged counts as ten times the largest finite error of its panel. The
constants below were fixed before looking at results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from datadose.configs import STAGES, Stage
from datadose.covariance import Array
from datadose.drawing.curves import draw_curve
from datadose.drawing.style import Look
from datadose.power import mean_interval
from datadose.studies import tables
from datadose.studies.ledger import both, decide, judge_deviation, paired_errors
from datadose.studies.study import Judgement


class Column(tables.Column):
    """Of a row: which axis moves, on the paper's curve or a control, trained for how many steps."""

    AXIS = "axis"
    VARIANT = "variant"
    OPTIMISER_STEPS = "optimiser_steps"


AXES = (Column.PROMPTS, Column.LENGTH, Column.STEPS)
"""What moves along a panel: B, n, k."""
MAIN = "main"
"""The variant of the paper's own curves; a control has its name."""
BASE_PANEL = "base"
"""Panel and variant of the untouched pretrained model."""

FALLS_THEN_RISES, FALLS, RISES, INSENSITIVE = "falls-then-rises", "falls", "rises", "insensitive"
STATISTICS = {
    FALLS_THEN_RISES: "the smaller of start / best and last / best: errors at the first, best, last place",
    FALLS: "error at the first place / error at the last; mixed if it turns and rises again",
    RISES: "error at the last place / error at the first; mixed if it turns and falls again",
    INSENSITIVE: "largest change of the log error between two places, Bonferroni over pairs",
}
"""Each trend and its statistic."""
PAPER_CLAIMS: tuple[tuple[str, Stage, str, str], ...] = (
    ("a", "sft", Column.PROMPTS, FALLS_THEN_RISES),
    ("b", "sft", Column.LENGTH, FALLS_THEN_RISES),
    ("c", "sft", Column.STEPS, INSENSITIVE),
    ("d", "outcome", Column.PROMPTS, FALLS),
    ("e", "outcome", Column.LENGTH, FALLS),
    ("f", "outcome", Column.STEPS, RISES),
)
"""Letter, stage, axis and trend of the paper's six claims."""
CHANGE = 1.02
"""A ratio of errors that counts as a change. All runs share their test prompts, whose sampling error (about
0.5 percent; it does not cancel across n) is not in the interval."""
NO_CHANGE = 0.1
"""Largest relative change that counts as none."""
DIVERGED = 10.0

SHORT_NAMES: dict[Stage, str] = {"sft": "SFT", "outcome": "OS", "rl": "RL"}
ROW_NAMES: dict[Stage, str] = {**SHORT_NAMES, "rl": "RL, dense reward"}
COLUMN_NAMES = {
    Column.PROMPTS: "post-training prompts B",
    Column.LENGTH: "prompt length n",
    Column.STEPS: "training chain length k",
}
_STAGE_NAMES = {**ROW_NAMES, "rl": "RL (dense reward, GRPO)"}
_AXIS_SYMBOLS = dict(zip(AXES, ("B", "n", "k"), strict=True))


def panel_letter(stage: Stage, axis: str) -> str:
    """``a`` .. ``i``, rows SFT, OS, RL and columns B, n, k."""
    return "abcdefghi"[3 * STAGES.index(stage) + AXES.index(axis)]


def threshold_of(trend: str) -> float:
    """The threshold of a trend's statistic."""
    return NO_CHANGE if trend == INSENSITIVE else CHANGE


def trend_sentence(stage: Stage, axis: str, trend: str) -> str:
    """The claim's statement, without the model."""
    words = {FALLS_THEN_RISES: "falls, then rises", INSENSITIVE: "is insensitive"}.get(trend, trend)
    link = "to" if trend == INSENSITIVE else "with"
    return f"{_STAGE_NAMES[stage]} error {words} {link} {_AXIS_SYMBOLS[axis]}."


def judge_trend(
    trend: str, x: Array, errors: Array, threshold: float, base: Array | None = None
) -> Judgement:
    """Judge one of the trends of ``STATISTICS``.

    Args:
        x: places (X,); ``errors`` (seeds, X) are those there.
        base: errors (seeds,) at B = 0, where a fall starts; None where B does not move.
    """
    if trend == FALLS_THEN_RISES:
        return falls_then_rises(x, errors, threshold, base)
    if trend == INSENSITIVE:
        if (errors == DIVERGED).all():
            return Judgement(None, None, len(errors), "fails", "every run was lost")
        return _insensitive(errors, threshold)
    return _one_way(x, 1 / errors if trend == RISES else errors, threshold)


def other_seeds_choice(errors: Array) -> Array:
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
    best = other_seeds_choice(errors)
    fall = _ratio(errors[:, 0] if start is None else start, best)
    rise = _ratio(errors[:, -1], best)
    verdict = both(*(decide(low, high, threshold, below=False) for _, low, high in (fall, rise)))
    value, low, high = min(fall, rise)
    turn = x[errors.mean(axis=0).argmin()]
    note = f"lowest at {turn:g}: {fall[0]:.3g} times lower than at the start, then up {rise[0]:.3g} times"
    return Judgement(value, (low, high), len(errors), verdict, note)


def rise_from_best(x: Array, errors: Array, threshold: float) -> Judgement:
    """Whether the error at the last place is above that at the best place, chosen by the other seeds."""
    value, low, high = _ratio(errors[:, -1], other_seeds_choice(errors))
    note = f"lowest at {x[errors.mean(axis=0).argmin()]:g}"
    return Judgement(value, (low, high), len(errors), decide(low, high, threshold, below=False), note)


def _one_way(x: Array, errors: Array, threshold: float) -> Judgement:
    """Whether the error falls from the first place to the last; mixed if it has turned and rises again."""
    value, low, high = _ratio(errors[:, 0], errors[:, -1])
    verdict = decide(low, high, threshold, below=False)
    back, back_low, back_high = _ratio(errors[:, -1], other_seeds_choice(errors))
    note = ""
    if decide(back_low, back_high, threshold, below=False) == "holds":
        note = f"turns at {x[errors.mean(axis=0).argmin()]:g} and goes back {back:.3g} times"
        verdict = "mixed" if verdict == "holds" else verdict
    return Judgement(value, (low, high), len(errors), verdict, note)


def _insensitive(errors: Array, threshold: float) -> Judgement:
    """Whether no two places differ by more than ``threshold``, as a relative change (log ratio)."""
    logs = np.log(errors)
    changes = np.stack([logs[:, j] - logs[:, i] for i, j in combinations(range(errors.shape[1]), 2)])
    sem = changes.std(axis=1, ddof=1) / len(errors) ** 0.5
    return judge_deviation(changes.mean(axis=1), sem, len(errors), threshold)


def fill_diverged(errors: Array) -> tuple[Array, int]:
    """``errors`` with diverged runs (not finite) at ``DIVERGED`` times the largest, and their number.

    If all are lost, all are at ``DIVERGED``.
    """
    lost = ~np.isfinite(errors)
    worst = 1.0 if lost.all() else float(errors[~lost].max())
    return np.where(lost, DIVERGED * worst, errors), int(lost.sum())


def curve(table: pd.DataFrame, name: str, axis: str) -> tuple[Array, Array, int]:
    """Places (X,), errors (seeds, X) of a panel with diverged runs filled in, and the number of those."""
    places, errors = paired_errors(table[table[Column.PANEL] == name], axis)
    return places, *fill_diverged(errors)


def listed(values: Array) -> str:
    """Values, comma-separated, four digits each."""
    return ", ".join(f"{v:.4g}" for v in values)


def draw_panels(table: pd.DataFrame, axes: Any, draw: Callable[[Axes, pd.DataFrame, str], None]) -> None:
    """A row of panels per stage, a column per axis that moves; ``draw(axis, rows, moved)`` fills each."""
    for row, stage in zip(axes, ROW_NAMES, strict=True):
        for axis, moved in zip(row, COLUMN_NAMES, strict=True):
            rows = table[(table[Column.STAGE] == stage) & (table[Column.AXIS] == moved)]
            draw(axis, rows, moved)
            axis.set_title(f"({rows[Column.PANEL].min()}) {ROW_NAMES[stage]}", loc="left")
            axis.set_xscale("log")
            axis.set_yscale("log")
            _plain_ticks(axis, sorted(rows[moved].unique()))
        row[0].set_ylabel("post-test error / d")
    for axis, moved in zip(axes[-1], COLUMN_NAMES, strict=True):
        axis.set_xlabel(COLUMN_NAMES[moved])


def draw_runs(axis: Axes, rows: pd.DataFrame, x: str, look: Look, height: float, name: str) -> None:
    """Mean and standard error over the runs that did not diverge; crosses at the top where some did.

    ``name`` is what the hover record calls the curve.
    """
    kept = rows[rows[Column.DIVERGED] == 0]
    draw_curve(axis, kept, x, Column.ERROR, look, f"_{name}", linewidth=1.7)
    for place, number in rows.groupby(x)[Column.DIVERGED].sum().items():
        if number:
            axis.annotate(
                f"\N{MULTIPLICATION SIGN}{number}",
                (float(str(place)), height),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="top",
                fontsize=7.5,
                color=look.color,
            )


_TICKS_BELOW_ONE = (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
_ERROR_TICKS = (*_TICKS_BELOW_ONE, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


def _plain_ticks(axis: Axes, places: Sequence[float]) -> None:
    """Ticks at the places of the curve, and plain decimals on the error axis."""
    axis.xaxis.set_major_locator(FixedLocator([float(x) for x in places]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.yaxis.set_major_locator(FixedLocator(_ERROR_TICKS))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
