"""The token study, drawn from its saved table and configuration only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from datadose.covariance import Array
from datadose.drawing.curves import FIFTH, level
from datadose.drawing.hover import record_points
from datadose.drawing.style import GREY, LOOKS, Look, caption, draw_points, name_ticks, new_grid
from datadose.power import mean_interval
from datadose.studies.token_study.experiment import TokenStudy
from datadose.studies.token_study.language import TEST, TRAIN
from datadose.studies.token_study.pools import CLEAN, CONTAMINANTS, CONTAMINATED, POOLS, Band, Selector
from datadose.studies.token_study.runs import (
    MIXTURES,
    Arm,
    Column,
    Metric,
    Mixture,
    Panel,
    chosen_metric,
    runs_of,
)

_SIXTH = Look("#B8860B", (0, (6, 1, 1, 1)), "P")
_SEVENTH = Look("#CC79A7", (0, (3, 1)), "X")
_SELECTORS = {
    Selector.OURS: "ours",
    Selector.OURS_UNVERIFIED: "ours, no verifier",
    Selector.RANDOM: "random",
    Selector.EASIEST: "easiest (low NLL)",
    Selector.NLL: "hardest (raw NLL)",
    Selector.MIDDLE: "middle half of NLL",
    Selector.ALL: "the whole pool",
}
_BANDS = {
    Band.EASY: "easy",
    Band.MEDIUM: "medium",
    Band.HARD: "hard",
    Band.NOT_EXTREME: "neither 0\nnor 1",
    Band.ALL: "all",
}
_METRICS = ((Metric.TARGET, "all lengths"), (Metric.HARD, "lengths 6 to 8"))


def draw_token_study(table: pd.DataFrame, config: TokenStudy) -> Figure:
    """Twelve panels of test accuracy, means and intervals over seeds, learning rates chosen on validation."""
    kept = table[(table[Column.SPLIT] == TRAIN) | (table[Column.SPLIT] == TEST)]
    rows, every = kept[kept[Column.CHOSEN]], kept
    base = runs_of(rows, Panel.PRETRAINING, model=Mixture.RARE)
    panels: list[Callable[[Axes], None]] = [
        lambda axis: _draw_lengths(axis, rows),
        lambda axis: _draw_activation(axis, rows),
        lambda axis: _draw_sizes(axis, rows, base, Metric.TARGET, "SFT size: T"),
        lambda axis: _draw_sizes(axis, rows, base, Metric.KNOWN, "SFT size: known families"),
        lambda axis: _draw_frontier(axis, rows, every, base, CLEAN),
        lambda axis: _draw_frontier(axis, rows, every, base, CONTAMINATED),
        lambda axis: _draw_selectors_hard(axis, rows, base),
        lambda axis: _draw_contaminants(axis, rows),
        lambda axis: _draw_replay(axis, rows, base),
        lambda axis: _draw_bands(axis, rows, base, config),
        lambda axis: _draw_numbers(axis, rows, base),
        lambda axis: _draw_stages(axis, rows, base, config),
    ]
    with new_grid(3, 4, width=16.5, height=11.2) as (figure, axes):
        for letter, axis, draw in zip("abcdefghijkl", axes.flat, panels, strict=True):
            draw(axis)
            axis.set_title(f"({letter}) {axis.get_title(loc='left')}", loc="left")
        handles = [
            Line2D([], [], color=look.color, marker=look.marker, linestyle="none", label=label)
            for (_, label), look in zip(_SELECTORS.items(), _looks(), strict=True)
        ]
        figure.legend(
            handles=handles, loc="outside upper center", ncols=7, title="selectors, panels (e) to (h)"
        )
        caption(figure, _setting(config))
    return figure


def _looks() -> tuple[Look, ...]:
    return (*LOOKS, FIFTH, _SIXTH, _SEVENTH)


def _values(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    return rows[(rows[Column.METRIC] == metric) & rows[Column.LENGTH].isna()]


def _interval(values: pd.Series) -> tuple[float, float, float]:
    """Mean, and how far the interval reaches below and above within [0, 1]."""
    mean, low, high = mean_interval(values.to_numpy(dtype=float))
    return mean, mean - max(low, min(0.0, mean)), min(high, max(1.0, mean)) - mean


def _points(axis: Axes, found: Sequence[tuple[Any, pd.Series]], look: Look, label: str, **style: Any) -> None:
    """Means and intervals of the values at each place."""
    numbers = [(place, *_interval(values)) for place, values in found]
    places, means, low, high = (np.array(column, dtype=float) for column in zip(*numbers, strict=True))
    draw_points(axis, places, means, look, label, yerr=(low, high), elinewidth=0.9, capsize=2, **style)


def _curve(
    axis: Axes, rows: pd.DataFrame, x: str, look: Look, label: str, metric: str = Metric.TARGET
) -> None:
    found = [(place, part[Column.VALUE]) for place, part in _values(rows, metric).groupby(x)]
    _points(axis, found, look, label, linestyle=look.dash, markersize=4)


def _accuracy(axis: Axes, title: str, ylabel: str, xlabel: str = "") -> None:
    axis.set_title(title, loc="left")
    axis.set_ylabel(ylabel)
    axis.set_xlabel(xlabel)
    axis.set_ylim(-0.03, 1.05)


def _log_ticks(axis: Axes, places: Sequence[float]) -> None:
    if min(places) > 0:
        axis.set_xscale("log", base=2)
    else:
        axis.set_xscale("symlog", base=2, linthresh=min(p for p in places if p > 0))
    axis.set_xticks(list(places), [f"{p:g}" for p in places])
    axis.set_xticks([], minor=True)


def _base(axis: Axes, base: pd.DataFrame, metric: str, label: str | None = "untouched") -> None:
    level(axis, float(_values(base, metric)[Column.VALUE].mean()), label)


def _draw_lengths(axis: Axes, rows: pd.DataFrame) -> None:
    own = runs_of(rows, Panel.PRETRAINING)
    own = own[(own[Column.METRIC] == Metric.TARGET) & own[Column.LENGTH].notna()]
    for mixture, look in zip(reversed(MIXTURES), LOOKS, strict=False):
        part = runs_of(rows, Panel.PRETRAINING, model=mixture)
        known = _values(part, Metric.KNOWN)[Column.VALUE].mean()
        by_length = runs_of(own, model=mixture).assign(n=lambda t: t[Column.LENGTH], length=pd.NA)
        _curve(axis, by_length, "n", look, f"T {mixture} (known: {known:.2f})")
    _accuracy(axis, "Pretraining mixture", "accuracy on T", "length of the string")
    axis.legend(loc=(0.12, 0.13), fontsize=7.5)


def _draw_activation(axis: Axes, rows: pd.DataFrame) -> None:
    own = runs_of(rows, Panel.ACTIVATION)
    for mixture, look in zip(reversed(MIXTURES), LOOKS, strict=False):
        _curve(axis, runs_of(own, model=mixture), Column.PROMPTS, look, f"T {mixture}")
    _log_ticks(axis, sorted(own[Column.PROMPTS].unique()))
    _accuracy(axis, "Latent T: one new embedding trained", "accuracy on T", "examples B")
    axis.legend(loc=(0.5, 0.6))


def _draw_sizes(axis: Axes, rows: pd.DataFrame, base: pd.DataFrame, metric: str, title: str) -> None:
    own = runs_of(rows, Panel.SIZE)
    for arm, look in zip((Arm.EQUAL_STEPS, Arm.EQUAL_EPOCHS), LOOKS, strict=False):
        _curve(axis, runs_of(own, arm=arm), Column.PROMPTS, look, arm, metric)
        if metric == Metric.TARGET:
            hard = Look(look.color, (0, (1, 2)), look.marker)
            _curve(axis, runs_of(own, arm=arm), Column.PROMPTS, hard, f"{arm}, hard", Metric.HARD)
    _log_ticks(axis, sorted(own[Column.PROMPTS].unique()))
    _base(axis, base, metric)
    _accuracy(axis, title, "accuracy on T" if metric == Metric.TARGET else "accuracy", "SFT examples B of T")
    axis.legend(loc="best", fontsize=7.5)


def _draw_frontier(
    axis: Axes, rows: pd.DataFrame, every: pd.DataFrame, base: pd.DataFrame, pool: str
) -> None:
    """Target gain against forgetting: chosen rates with intervals, the others small."""
    for selector, look in zip(_SELECTORS, _looks(), strict=True):
        own = runs_of(every, Panel.SELECTORS, arm=selector, pool=pool)
        for _, part in own[~own[Column.CHOSEN]].groupby(Column.RATE):
            x, y = (_change(part, base, metric) for metric in (Metric.KNOWN, Metric.TARGET))
            small = {"markersize": 3.5, "alpha": 0.55}
            draw_points(axis, -x.mean(), y.mean(), look, f"_{_SELECTORS[selector]}, other rates", **small)
        chosen = runs_of(rows, Panel.SELECTORS, arm=selector)
        _cross(axis, chosen, base, pool, look, f"_{_SELECTORS[selector]}")
    _frontier_axes(axis, f"Selectors, {pool} pool")


def _frontier_axes(axis: Axes, title: str) -> None:
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.set_title(title, loc="left")
    axis.set_xlabel("forgetting: accuracy lost on known families")
    axis.set_ylabel("gain in accuracy on T")


def _change(part: pd.DataFrame, base: pd.DataFrame, metric: str) -> Array:
    """Differences from the untouched model, seed by seed."""
    own = _values(part, metric).set_index(Column.SEED)[Column.VALUE]
    return np.asarray(
        (own - _values(base, metric).set_index(Column.SEED)[Column.VALUE]).dropna(), dtype=np.float64
    )


def _cross(
    axis: Axes, rows: pd.DataFrame, base: pd.DataFrame, pool: str, look: Look, label: str
) -> tuple[float, float]:
    part = runs_of(rows, pool=pool)
    x, x_low, x_high = mean_interval(-_change(part, base, Metric.KNOWN))
    y, y_low, y_high = mean_interval(_change(part, base, Metric.TARGET))
    bars = {"xerr": [[x - x_low], [x_high - x]], "yerr": [[y - y_low], [y_high - y]]}
    draw_points(axis, x, y, look, label, markersize=6, elinewidth=0.7, **bars)
    return x, y


def _bars(axis: Axes, place: float, values: pd.DataFrame, look: Look, label: str) -> None:
    _points(axis, [(place, values[Column.VALUE])], look, label, markersize=5)


def _draw_selectors_hard(axis: Axes, rows: pd.DataFrame, base: pd.DataFrame) -> None:
    own = runs_of(rows, Panel.SELECTORS)
    for place, (selector, look) in enumerate(zip(_SELECTORS, _looks(), strict=True)):
        for pool, offset in ((CLEAN, -0.13), (CONTAMINATED, 0.13)):
            part = runs_of(own, arm=selector, pool=pool)
            _bars(axis, place + offset, _values(part, Metric.HARD), look, f"_{pool} pool")
    _base(axis, base, Metric.HARD)
    _names(axis, list(_SELECTORS))
    _accuracy(
        axis, "Selectors, hard lengths", "accuracy on T, lengths 6 to 8", "left: clean, right: contaminated"
    )
    axis.legend(loc="best")


def _names(axis: Axes, names: Sequence[str], rotation: int = 35) -> None:
    name_ticks(axis.xaxis, names, rotation=rotation, ha="right" if rotation else "center", fontsize=8)
    axis.set_xlim(-0.6, len(names) - 0.4)


def _draw_contaminants(axis: Axes, rows: pd.DataFrame) -> None:
    own = runs_of(rows, Panel.SELECTORS, pool=CONTAMINATED)
    for place, (selector, look) in enumerate(zip(_SELECTORS, _looks(), strict=True)):
        part = runs_of(own, arm=selector)
        wrong, mixed = (_values(part, chosen_metric(kind))[Column.VALUE].mean() for kind in CONTAMINANTS)
        bar: dict[str, Any] = {"color": look.color, "width": 0.7}
        axis.bar(place, wrong, **bar)
        record_points(axis, "wrong answers on T", look.color, place, wrong)
        axis.bar(place, mixed, bottom=wrong, **bar, alpha=0.45, hatch="///")
        record_points(axis, "other format", look.color, place, wrong + mixed, length=mixed)
        axis.text(place, wrong + mixed + 0.02, f"{wrong + mixed:.1%}", ha="center", fontsize=8)
    _names(axis, list(_SELECTORS))
    _accuracy(
        axis, "What was chosen", "share of chosen rows", "full: wrong answers on T, hatched: other format"
    )


def _draw_replay(axis: Axes, rows: pd.DataFrame, base: pd.DataFrame) -> None:
    own = runs_of(rows, Panel.REPLAY)
    for pool, look, name in zip(POOLS, LOOKS, ("T alone", "T and interfering"), strict=False):
        places = []
        # Without interfering rows the three points all but coincide.
        for (share, part), above in zip(own.groupby(Column.SHARE), (-9, -2, 7), strict=False):
            label = name if share == own[Column.SHARE].min() else f"_{name}"
            x, y = _cross(axis, part, base, pool, look, label)
            axis.annotate(f"{share:g}", (x, y), textcoords="offset points", xytext=(7, above), fontsize=8)
            places.append((x, y))
        axis.plot(*zip(*places, strict=True), color=look.color, linestyle=look.dash, linewidth=1)
    _frontier_axes(axis, "Replay: share of each batch")
    axis.legend(loc="best")


def _draw_bands(axis: Axes, rows: pd.DataFrame, base: pd.DataFrame, config: TokenStudy) -> None:
    own = runs_of(rows, Panel.RL, prompts=config.rl_band_size)
    for (metric, label), look, offset in zip(_METRICS, LOOKS, (-0.1, 0.1), strict=False):
        for place, band in enumerate(_BANDS):
            values = _values(runs_of(own, arm=band), metric)
            _bars(axis, place + offset, values, look, f"_{label}" if place else label)
        _base(axis, base, metric, None if metric == Metric.HARD else "untouched")
    _names(axis, list(_BANDS.values()), rotation=0)
    _accuracy(axis, f"GRPO: pass-rate bands, {config.rl_band_size} prompts", "accuracy on T")
    axis.legend(loc="best")


def _draw_numbers(axis: Axes, rows: pd.DataFrame, base: pd.DataFrame) -> None:
    own = runs_of(rows, Panel.RL, arm=Band.ALL)
    for (metric, label), look in zip(_METRICS, LOOKS, strict=False):
        _curve(axis, own, Column.PROMPTS, look, label, metric)
        _base(axis, base, metric, None if metric == Metric.HARD else "untouched")
    _log_ticks(axis, sorted(own[Column.PROMPTS].unique()))
    _accuracy(axis, "GRPO: number of prompts, unfiltered", "accuracy on T", "RL prompts, equal steps")
    axis.legend(loc="best")


def _draw_stages(axis: Axes, rows: pd.DataFrame, base: pd.DataFrame, config: TokenStudy) -> None:
    own = runs_of(rows, Panel.STAGES)
    arms = [(Arm.RL, 0), *((arm, size) for size in config.stage_sizes for arm in (Arm.SFT, Arm.SFT_RL))]
    names = {Arm.RL: "RL", Arm.SFT: "SFT\nB={}", Arm.SFT_RL: "SFT, RL\nB={}"}
    metrics = (*_METRICS, (Metric.KNOWN, "known families"))
    for (metric, label), look, offset in zip(metrics, LOOKS, (-0.16, 0.0, 0.16), strict=False):
        for place, (arm, size) in enumerate(arms):
            values = _values(runs_of(own, arm=arm, prompts=size), metric)
            _bars(axis, place + offset, values, look, f"_{label}" if place else label)
    _base(axis, base, Metric.TARGET)
    _names(axis, [names[arm].format(size) for arm, size in arms], rotation=0)
    _accuracy(axis, "SFT, RL, or both at equal compute", "accuracy")
    axis.legend(loc="best", fontsize=7.5)


def _setting(config: TokenStudy) -> str:
    made, shape = config.pretraining, config.pretraining.size
    return (
        f"Character-level Llama, {shape.layers} layers of width {shape.width}, pretrained for "
        f"{made.steps:,} steps of {made.batch} examples; T (sorting) has {made.target_share:.0%} of "
        "them in the rare model, from which (c) to (l) start. Test strings share no letter multiset with any "
        "training string.\n"
        f"Means and 95 percent Student intervals over {config.seeds} seeds (each its own pretraining, "
        "data and order). Learning rates are chosen on validation; small markers in (e, f): the others. "
        f"SFT takes {config.sft_steps} steps of 32 (equal epochs: {config.epochs} epochs).\n"
        f"Selectors take {config.selection_size} rows of {config.pools.pool:,}. GRPO: "
        f"{config.rl_steps} steps of 16 prompts x 8 completions. Compute of (l): a sampled token counts "
        "1, a trained one 3."
    )
