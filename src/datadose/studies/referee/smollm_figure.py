"""SmolLM2 in a sea of rows: what each method gains, what it takes, and what it costs elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.covariance import Array
from datadose.drawing.style import GREY, LOOKS, caption, draw_points, name_ticks, new_figure
from datadose.power import mean_interval
from datadose.studies.referee.smollm_arms import Arm, gains, stopped
from datadose.studies.referee.smollm_experiment import RANDOM, SmolStudy
from datadose.studies.referee.smollm_runs import ORACLE, UNTOUCHED, Column


def draw_sea_smollm(table: pd.DataFrame, config: SmolStudy) -> Figure:
    """Gains over random rows at both stops; the rows that each arm took; what earlier abilities lost."""
    arms = _arms(table)
    with new_figure(3, width=13.0, height=4.6) as (figure, axes):
        _draw_gains(axes[0], table, arms)
        _draw_rows(axes[1], table, arms)
        _draw_earlier(axes[2], table, arms)
        for axis in axes:
            axis.set_ylim(len(arms) - 0.5, -1.6)
        caption(figure, _setting(table, config))
    return figure


def _arms(table: pd.DataFrame) -> dict[str, Arm]:
    """The table's arms by label, with the verifier first, right target rows last."""
    runs = table[table[Column.METHOD] != UNTOUCHED]
    found = list(runs[[Column.METHOD, Column.VERIFIED]].drop_duplicates().itertuples(index=False, name=None))
    found.sort(key=lambda run: (run[0] == ORACLE, not run[1]))
    labels = {True: "{}", False: "{}, no verifier"}
    return {
        "right target rows" if method == ORACLE else labels[bool(verified)].format(method): Arm(
            method, verified
        )
        for method, verified in found
    }


def _draw_gains(axis: Axes, table: pd.DataFrame, arms: dict[str, Arm]) -> None:
    for best, look, shift, label in (
        (True, LOOKS[0], -0.12, "best stop"),
        (False, LOOKS[1], 0.12, "all updates"),
    ):
        base = Arm(RANDOM, best=best)
        values = [gains(table, arm._replace(best=best), base) for arm in arms.values() if arm[:2] != base[:2]]
        places = [place for place, arm in enumerate(arms.values()) if arm[:2] != base[:2]]
        _draw_means(axis, [_percent(each) for each in values], np.array(places) + shift, look, label)
    axis.axvline(0, color=GREY, linewidth=1.0)
    name_ticks(axis.yaxis, list(arms))
    axis.set_xlabel("gain over random rows, percent of the loss")
    axis.set_title("a   What is gained on the target", loc="left")
    axis.legend(loc="upper right", ncols=2, fontsize=8)


def _percent(found: Array) -> Array:
    """Differences of log losses as percentages of the loss."""
    return np.asarray(100 * (1 - np.exp(-found)))


def _draw_means(axis: Axes, values: list[Array], places: Any, look: Any, label: str) -> None:
    """A mean and its interval over seeds at each place; nothing for fewer than two seeds."""
    kept = [(mean_interval(each), place) for each, place in zip(values, places, strict=True) if len(each) > 1]
    if kept:
        (means, low, high), at = np.array([bar for bar, _ in kept]).T, [place for _, place in kept]
        bars = [means - low, high - means]
        draw_points(axis, means, at, look, label, xerr=bars, markersize=5, capsize=2)


def _draw_rows(axis: Axes, table: pd.DataFrame, arms: dict[str, Arm]) -> None:
    """Mean shares of the rows taken, behind each other: right ones of the target, faulty ones, others."""
    rows = [table[_of(table, arm)] for arm in arms.values()]
    target, faulty = (
        np.array([100 * r[name].mean() for r in rows]) for name in (Column.TARGET, Column.FAULTY)
    )
    places, left = np.arange(len(arms)), np.zeros(len(arms))
    for share, label, color in (
        (target - faulty, "target, right", LOOKS[0].color),
        (faulty, "target, faulty", LOOKS[1].color),
        (100 - target, "other families", "#DDDDDD"),
    ):
        axis.barh(places, share, left=left, color=color, label=label, height=0.7)
        left = left + share
    name_ticks(axis.yaxis, list(arms))
    axis.set_xlim(0, 100)
    axis.set_xlabel("share of the rows taken, percent")
    axis.set_title("b   What is taken", loc="left")
    axis.legend(loc="upper center", ncols=3, fontsize=8)


def _of(table: pd.DataFrame, arm: Arm) -> Any:
    return (table[Column.METHOD] == arm.method) & (table[Column.VERIFIED] == arm.verified)


def _draw_earlier(axis: Axes, table: pd.DataFrame, arms: dict[str, Arm]) -> None:
    before = float(table.loc[table[Column.METHOD] == UNTOUCHED, Column.EARLIER].iloc[0])
    values = [
        stopped(table, arm._replace(best=False))[Column.EARLIER].to_numpy(dtype=np.float64)
        for arm in arms.values()
    ]
    _draw_means(axis, values, np.arange(len(arms)), LOOKS[2], "after all updates")
    axis.axvline(before, color=GREY, linestyle=":", linewidth=1.2, label="untouched model")
    name_ticks(axis.yaxis, list(arms))
    axis.set_xlabel("loss on earlier abilities, nats a token")
    axis.set_title("c   What it costs elsewhere", loc="left")
    axis.legend(loc="upper right", ncols=2, fontsize=8)


def _setting(table: pd.DataFrame, config: SmolStudy) -> str:
    sea, training = config.sea, config.training
    seeds = table[Column.SEED].nunique()
    detected = float(_percent(np.array([config.pilot.detectable(max(seeds, 2))]))[0])
    families = len(sea.target) + len(sea.solved) + len(sea.others)
    return (
        f"SmolLM2-135M-Instruct, LoRA rank {training.rank}; targets {' and '.join(sea.target)}; a seed's "
        f"pool is two thirds of {sea.rows} rows of {families} families, a method takes {config.size}.\n"
        f"{training.updates[-1]} updates of {training.tokens} tokens, rate {training.rate:g}. Bars: 95 "
        f"percent intervals over {seeds} seeds, paired in a. From a pilot: so many detect a gain of "
        f"{detected:.0f} percent with 80 percent power."
    )
