"""Four questions on the sea: which method in a clean pool and in a faulty one, when to stop, cut or weigh."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import log_y, plain_log_ticks
from datadose.drawing.style import GREY, LOOKS, Look, caption, draw_points, new_grid
from datadose.power import mean_interval
from datadose.studies.referee.arms import (
    Arm,
    at_both_stops,
    budgets_of,
    gains,
    methods_of,
    middle_budget,
    settings_of,
)
from datadose.studies.referee.experiment import CANDIDATE, RANDOM
from datadose.studies.referee.runs import Column, Reference, Stop


def draw_sea(table: pd.DataFrame, config: Any) -> Figure:
    """Gains over random rows by method and budget in both pools; both stops; the cut against weights."""
    first, *others = settings_of(table)
    last = others[-1] if others else first
    seeds = table[Column.SEED].nunique()
    detected = [float(percent(config.pilot(pool[0], Stop.BEST).detectable(seeds))) for pool in (first, last)]
    with new_grid(2, 2, width=11.0, height=8.6) as (figure, axes):
        _draw_methods(axes[0][0], table, first, f"a   which method: {first[0]} pool, targets {first[1]}")
        _draw_methods(axes[0][1], table, last, f"b   which method: {last[0]} pool, targets {last[1]}")
        _draw_stops(axes[1][0], table, [first, last])
        _draw_weights(axes[1][1], table, [first, last])
        caption(
            figure,
            "Gain: 100 (1 - ratio of the test loss to that of random rows at the same budget), percent, at "
            f"the best step on validation (d: both); means over\n{seeds} seeds, bars 95 percent intervals "
            f"of paired differences. Detected with 80 percent power (pilot): {detected[0]:.0f} percent in "
            f"a, {detected[1]:.0f} in b.\nDashed: against random rows at the middle budget. "
            "Loss: nats a token on test rows.",
        )
    return figure


def percent(gain: Any) -> Any:
    """A difference of log losses as a percentage of the loss."""
    return 100 * (1 - np.exp(-np.asarray(gain)))


def interval_percent(values: Any) -> tuple[float, float, float]:
    """Mean of gains by seed, and the lengths of the bar below and above, in percent of the loss."""
    mean, low, high = (float(percent(x)) for x in mean_interval(values))
    return mean, mean - low, high - mean


def _draw_methods(axis: Axes, table: pd.DataFrame, pool: tuple[str, str], title: str) -> None:
    methods = [name for name in methods_of(table) if name != RANDOM]
    budgets = budgets_of(table, RANDOM)
    middle = middle_budget(table, RANDOM)
    random = Arm(*pool, RANDOM, middle)
    width = 0.8 / max(len(budgets), 1)
    for place, budget in enumerate(budgets):
        x = np.arange(len(methods)) + (place - (len(budgets) - 1) / 2) * width
        base = replace(random, budget=budget)
        found = [gains(table, replace(base, method=name), base) for name in methods]
        _draw_gains(axis, x, found, LOOKS[place], f"{budget:.0%} of the pool")
    unverified = budgets_of(table[_of(table, pool)], RANDOM, verified=False)
    if unverified:
        base = Arm(*pool, RANDOM, unverified[0])
        found = [gains(table, replace(base, method=name, verified=False), base) for name in methods]
        x = np.arange(len(methods)) + 0.45
        label = f"{unverified[0]:.0%}, without the verifier"
        _draw_gains(axis, x, found, Look(GREY, "-", "x"), label)
    lines = {
        "right target rows alone": Arm(*pool, Reference.ORACLE, middle),
        "whole pool": Arm(*pool, Reference.FULL, 1.0),
        "untouched model": Arm(*pool, Reference.UNTOUCHED, 0.0),
    }
    for (name, arm), look in zip(lines.items(), LOOKS, strict=False):
        values = gains(table, arm, random)
        if len(values):
            height = float(percent(values.mean()))
            axis.axhline(height, color=look.color, linestyle=(0, (2, 2)), linewidth=1.0)
            axis.annotate(
                name, (0.005, height), xycoords=("axes fraction", "data"),
                fontsize=7.5, va="bottom", color=look.color,
            )  # fmt: skip
    axis.axhline(0, color=GREY, linewidth=1.0)
    axis.set_xticks(range(len(methods)), methods, rotation=20 if len(methods) > 6 else 0)
    axis.set_ylabel("gain over random rows, percent")
    axis.set_title(title, loc="left")
    axis.legend(loc="best")


def _draw_gains(axis: Axes, x: Any, found: list[Any], look: Look, label: str) -> None:
    kept = [
        (place, interval_percent(values)) for place, values in zip(x, found, strict=True) if len(values) > 1
    ]
    if kept:
        places, bars = zip(*kept, strict=True)
        mean, low, high = np.array(bars).T
        draw_points(axis, list(places), mean, look, label, yerr=[low, high], markersize=5, capsize=2)


def _of(table: pd.DataFrame, pool: tuple[str, str]) -> Any:
    return (table[Column.CONTENTS] == pool[0]) & (table[Column.PAIR] == pool[1])


def _draw_stops(axis: Axes, table: pd.DataFrame, pools: list[tuple[str, str]]) -> None:
    """Loss over the budget for random rows and the candidate, at the end and at the best stop."""
    for place, pool in enumerate(dict.fromkeys(pools)):
        for method, look in ((RANDOM, LOOKS[2 * place]), (CANDIDATE, LOOKS[2 * place + 1])):
            budgets = budgets_of(table[_of(table, pool)], method)
            for stop, dash in ((Stop.BEST, "-"), (Stop.END, (0, (1.2, 1.2)))):
                each = [Arm(*pool, method, budget, stop=stop).losses(table) for budget in budgets]
                full = Arm(*pool, Reference.FULL, 1.0, stop=stop).losses(table)
                y = [float(np.exp(np.log(losses).mean())) for losses in [*each, full]]
                told = f"{method}, {pool[0]}" if stop == Stop.BEST else f"_{method}, {pool[0]}, equal steps"
                draw_points(
                    axis, [100 * b for b in [*budgets, 1.0]], y, look, told, linestyle=dash, markersize=4
                )
    plain_log_ticks(axis, [100 * b for b in [*budgets_of(table, RANDOM), 1.0]])
    log_y(axis)
    axis.set_xlabel("share of the pool, percent")
    axis.set_ylabel("loss on the target")
    axis.set_title("c   when to stop: at the best step (solid), after equal steps (dotted)", loc="left")
    axis.legend(loc="best")


def _draw_weights(axis: Axes, table: pd.DataFrame, pools: list[tuple[str, str]]) -> None:
    """What weights gain over cuts of the same order, over the whole pool, and short of right rows."""
    middle = middle_budget(table, CANDIDATE)
    names = {
        **{f"cut at {budget:.0%}": (CANDIDATE, budget) for budget in budgets_of(table, CANDIDATE)},
        "whole pool": (Reference.FULL, 1.0),
        "right target\nrows alone": (Reference.ORACLE, middle),
    }
    place = 0
    for pool in dict.fromkeys(pools):
        weighted = at_both_stops(Arm(*pool, Reference.WEIGHTED, middle))
        for stop, arm in weighted.items():
            found = [
                gains(table, arm, replace(arm, method=method, budget=budget))
                for method, budget in names.values()
            ]
            x = np.arange(len(names)) + (place - 1.5) * 0.18
            _draw_gains(axis, x, found, LOOKS[place % len(LOOKS)], f"{pool[0]}, {stop}")
            place += 1
    axis.axhline(0, color=GREY, linewidth=1.0)
    axis.set_xticks(range(len(names)), list(names))
    axis.set_ylabel("gain of weights over this, percent")
    axis.set_title(f"d   cut or weigh: every usable row, weighted in the order of {CANDIDATE}", loc="left")
    axis.legend(loc="best")
