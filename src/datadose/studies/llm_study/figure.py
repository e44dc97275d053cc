"""The study of a real language model, drawn from its saved table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from datadose.drawing.style import GREY, LOOKS, Look, caption, draw_points, name_ticks, new_grid
from datadose.studies.llm_study.experiment import BASE, PROFILE, LlmStudy
from datadose.studies.llm_study.pools import Arm, Band
from datadose.studies.llm_study.runs import Column

_ARMS: dict[Arm, str] = {
    "ours": "ours",
    "ours_unverified": "ours, no verifier",
    "ours_replay": "ours + replay",
    "random": "random",
    "random_target": "random on target*",
    "nll_top": "raw NLL, top",
    "easiest": "easiest",
    "nll_band": "NLL band",
    "all": "all rows",
}
_MARKERS = dict(zip(_ARMS, "oX*^pv<sD", strict=True))
_BANDS: dict[Band, str] = {
    "ours": "not extreme (ours)", "easy": "easy", "medium": "medium", "hard": "hard", "all": "any",
}  # fmt: skip
_TARGET, _EARLIER = LOOKS[0], LOOKS[1]
_MEASURES = (
    (Column.TARGET_PROBABILITY, "target", _TARGET, -0.14),
    (Column.EARLIER_PROBABILITY, "earlier abilities", _EARLIER, 0.14),
)


def draw_llm_study(table: pd.DataFrame, config: LlmStudy) -> Figure:
    """Profile and arms on top; gain against forgetting, sizes and RL bands below."""
    base = table[table[Column.QUESTION] == BASE].iloc[0]
    arms = table[table[Column.QUESTION] == "arms"]
    with new_grid(2, 3, width=12.4, height=8.6) as (figure, axes):
        _draw_profile(axes[0][0], table[table[Column.QUESTION] == PROFILE])
        for axis, contents, title in (
            (axes[0][1], "clean", "(b) SFT rows from a clean pool"),
            (axes[0][2], "contaminated", "(c) SFT rows from a faulty pool"),
        ):
            _draw_rows(axis, arms[arms[Column.CONTENTS] == contents], _ARMS, base)
            axis.set_title(title, loc="left")
        _draw_frontier(axes[1][0], arms, base)
        _draw_sizes(axes[1][1], table, base, config)
        _draw_rows(axes[1][2], table[table[Column.QUESTION] == "bands"], _BANDS, base)
        axes[1][2].set_title("(f) GRPO prompts by pass rate", loc="left")
        axes[0][1].legend(loc="upper left", fontsize=7.5, ncols=2)
        caption(figure, _setting(config))
    return figure


def _draw_profile(axis: Axes, rows: pd.DataFrame) -> None:
    ordered = rows.sort_values(Column.PROBABILITY)
    places = np.arange(len(ordered))
    for column, label, look, filled in (
        (Column.PROBABILITY, "one sample", LOOKS[0], True),
        (Column.GREEDY, "greedy decoding", LOOKS[2], False),
    ):
        face = look.color if filled else "white"
        draw_points(axis, ordered[column], places, look, label, markersize=5, markerfacecolor=face)
    name_ticks(axis.yaxis, list(ordered[Column.LEVEL]))
    axis.set_xlim(-0.02, 1)
    axis.set_xlabel("share passed, untouched model")
    axis.legend(loc="lower right")
    axis.set_title("(a) What the model can do", loc="left")


def _draw_rows(axis: Axes, rows: pd.DataFrame, names: Mapping[Any, str], base: pd.Series) -> None:
    """A line of the axis per arm: target and earlier abilities with intervals; dotted: untouched."""
    present = [arm for arm in names if (rows[Column.ARM] == arm).any()]
    for column, label, look, shift in _MEASURES:
        axis.axvline(float(base[column]), color=look.color, linestyle=":", linewidth=1.0)
        for place, arm in enumerate(present):
            values = rows.loc[rows[Column.ARM] == arm, column].to_numpy(dtype=np.float64)
            _draw_mean(
                axis, values, len(present) - 1 - place - shift, look, label if place == 0 else f"_{label}"
            )
    name_ticks(axis.yaxis, [names[arm] for arm in reversed(present)])
    axis.set_ylim(-0.6, len(present) + 0.2)
    axis.set_xlabel("pass rate after training")


def _draw_mean(axis: Axes, values: Any, height: float, look: Look, label: str) -> None:
    """The mean, its standard error as a thick bar, and the seeds as ticks."""
    mean = float(values.mean())
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
    seeds, ticks = f"_{label.removeprefix('_')}, single seeds", Look(look.color, "none", "|")
    draw_points(axis, values, [height] * len(values), ticks, seeds, markersize=7, alpha=0.6)
    draw_points(axis, mean, height, look, label, xerr=error, markersize=5, elinewidth=1.4)


def _draw_frontier(axis: Axes, arms: pd.DataFrame, base: pd.Series) -> None:
    """Means of the arms: what the target gained against what greedy decoding lost elsewhere."""
    for contents, look in (("clean", LOOKS[0]), ("contaminated", LOOKS[1])):
        measured = [Column.TARGET_PROBABILITY, Column.EARLIER_GREEDY]
        means = arms[arms[Column.CONTENTS] == contents].groupby(Column.ARM)[measured].mean()
        x = means[Column.EARLIER_GREEDY] - float(base[Column.EARLIER_GREEDY])
        y = means[Column.TARGET_PROBABILITY] - float(base[Column.TARGET_PROBABILITY])
        for arm in means.index:
            name = f"_{_ARMS[arm]}, {'clean' if contents == 'clean' else 'faulty'} pool"
            marked = Look(look.color, "none", _MARKERS[arm])
            draw_points(axis, x[arm], y[arm], marked, name, markersize=6, alpha=0.85)
    handles: list[Artist] = [
        Line2D([], [], color=GREY, marker=_MARKERS[arm], linestyle="none", markersize=5, label=name)
        for arm, name in _ARMS.items()
    ]
    handles += [
        Patch(color=look.color, label=f"{name} pool")
        for name, look in zip(("clean", "faulty"), LOOKS, strict=False)
    ]
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.margins(x=0.3)
    axis.set_xlabel("change of greedy accuracy, earlier abilities")
    axis.set_ylabel("change of pass rate, target")
    axis.legend(handles=handles, loc="lower right", fontsize=6.5)
    axis.set_title("(d) Gain against forgetting", loc="left")


def _draw_sizes(axis: Axes, table: pd.DataFrame, base: pd.Series, config: LlmStudy) -> None:
    rows = table[(table[Column.CONTENTS] == "clean") & table[Column.QUESTION].isin(["arms", "sizes"])]
    for arm, fill in (("random", "white"), ("ours", None)):
        own = rows[rows[Column.ARM] == arm]
        if arm == "random":
            own = pd.concat([own, rows[rows[Column.ARM] == "all"]])
        for column, label, look, _ in _MEASURES:
            _draw_size_curve(axis, own, column, look, f"{label}, {arm}", fill)
    for column, _, look, _ in _MEASURES:
        axis.axhline(float(base[column]), color=look.color, linestyle=":", linewidth=1.0)
    axis.set_xscale("log", base=2)
    ticks = sorted({int(size) for size in rows[Column.ROWS].unique()})
    axis.set_xticks(ticks, [str(size) for size in ticks], fontsize=7.5)
    axis.minorticks_off()
    axis.set_xlabel(f"SFT rows, {config.sft.steps} steps each (right end of random: all)")
    axis.set_ylabel("pass rate after training")
    axis.legend(fontsize=7)
    axis.set_title("(e) Size at equal steps", loc="left")


def _draw_size_curve(
    axis: Axes, rows: pd.DataFrame, column: str, look: Look, label: str, fill: str | None
) -> None:
    grouped = rows.groupby(Column.ROWS)[column]
    mean, sem = grouped.mean(), grouped.sem().fillna(0.0)
    style: dict[str, Any] = {"linestyle": "-" if fill is None else (0, (4, 2)), "elinewidth": 1.0}
    style |= {"markersize": 5, "markerfacecolor": fill or look.color}
    draw_points(axis, mean.index.to_numpy(dtype=float), mean, look, label, yerr=sem, **style)


def _setting(config: LlmStudy) -> str:
    split, sft, rl = config.split, config.sft, config.rl
    pool = sum(count for _, count in split.pool)
    return (
        f"SmolLM2-135M-Instruct, LoRA rank {sft.lora_rank}; target {' and '.join(split.target)} (terms "
        f"x digits), earlier abilities {', '.join(split.earlier)}; test rows a level: "
        f"{split.test_rows} and {split.earlier_rows}.\n"
        f"SFT: {config.size} rows, {sft.steps} steps of {sft.batch}, rate {sft.learning_rate:g}, "
        f"from {pool} clean and in (c) {split.spoiled} faulty rows. GRPO: {rl.steps} steps of "
        f"{rl.batch} completions, {config.rl_prompts} prompts (ours: all that remain).\n"
        f"Pass rate: exact probability of the answer. Bars: standard error over {config.seeds} seeds, "
        "ticks: seeds, dotted: untouched model. * knows which rows are the target's."
    )
