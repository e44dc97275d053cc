"""The picture of the map: every setting by claim, shares by level of each choice, and error over training."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.drawing.curves import level
from datadose.drawing.hover import Cells, record_cells
from datadose.drawing.style import LOOKS, caption, draw_points, name_ticks, new_grid
from datadose.studies.gpt.map import Figure3Map
from datadose.studies.gpt.map_settings import CHOICES, STAGES, Column
from datadose.studies.gpt.map_verdicts import (
    AFTER,
    HELPS,
    level_name,
    of_main_size,
    relative_paths,
    shares_by_level,
    verdicts,
)
from datadose.studies.gpt.runs import VARIANT_NAMES, VARIANTS
from datadose.studies.study import Judgement
from datadose.studies.trends import SHORT_NAMES

_SHADES = {"holds": "#7fb2d6", "mixed": "#dbe7f0", "fails": "#ffffff"}
_SYMBOLS = {"holds": "+", "mixed": "~", "fails": "\N{MINUS SIGN}"}
_TITLES = {
    "a": "(a) SFT falls,\nrises with B",
    "b": "(b) SFT falls,\nrises with n",
    "c": "(c) SFT flat\nin k",
    "d": "(d) OS falls\nwith B",
    "e": "(e) OS falls\nwith n",
    "f": "(f) OS rises\nwith k",
    "sft-helps": "SFT helps",
    "outcome-helps": "OS helps",
}
Shares: TypeAlias = dict[tuple[str, str], Judgement]
"""Of one claim, by choice and level."""


def draw(table: pd.DataFrame, config: Figure3Map) -> Figure:
    """Top: one row a setting, one column a claim; middle: shares by level; bottom: error over training."""
    found = verdicts(table, config)
    settings = found[Column.PANEL].nunique()
    claims = list(_TITLES)
    height = 8.6 + 0.24 * settings
    ratios = [1.0 + 0.24 * settings, 4.2, 2.6]
    options = {"gridspec_kw": {"height_ratios": ratios}}
    with new_grid(3, len(claims), width=14.5, height=height, **options) as (figure, axes):
        _draw_settings(_joined(figure, axes, 0, 0, len(claims)), found)
        shares = {claim: {entry[:2]: entry[2] for entry in shares_by_level(found, claim)} for claim in claims}
        for place, claim in enumerate(claims):
            _draw_shares(axes[1][place], shares, claim, named=place == 0)
        places = [(stage, variant) for stage in STAGES for variant in VARIANTS]
        for axis in axes[2][len(places) :]:
            axis.remove()
        for axis, (stage, variant) in zip(axes[2], places, strict=False):
            _draw_paths(axis, table, config, stage, variant)
        heights = [axis.get_ylim() for axis in axes[2][: len(places)]]
        for axis in axes[2][: len(places)]:
            axis.set_ylim(min(low for low, _ in heights), max(high for _, high in heights))
        axes[2][0].set_ylabel("error / untouched")
        axes[2][0].legend(fontsize=7)
        caption(figure, _setting(config))
    return figure


def _joined(figure: Figure, axes: Any, row: int, first: int, last: int) -> Axes:
    """One panel in place of several of a row."""
    place = axes[row][first].get_gridspec()[row, first:last]
    for axis in axes[row][first:last]:
        axis.remove()
    return figure.add_subplot(place)


def _draw_settings(axis: Axes, found: pd.DataFrame) -> None:
    """Verdicts and statistics at what was drawn, with the errors before and after."""
    own = found[found["own"]]
    order = [Column.SIZE, Column.VARIANT, Column.PRETRAIN_STEPS, Column.RATE, Column.PANEL]
    names, claims = [*own.sort_values(order)[Column.PANEL].unique()], list(_TITLES)
    told: list[list[str]] = []
    for y, name in enumerate(names):
        rows = own[own[Column.PANEL] == name].set_index("claim")
        told.append([])
        for x, claim in enumerate(claims):
            verdict, value = str(rows.loc[claim, "verdict"]), float(rows.loc[claim, "value"])
            before, after = (float(rows.loc[claim, column]) for column in ("untouched", "error"))
            text = f"{before:.3g} to {after:.3g}" if claim in HELPS else f"{value:.2f}"
            text = "lost" if np.isnan(value) else text
            _draw_tile(axis, x, y, verdict, text)
            told[-1].append(
                f"{verdict}, statistic {value:.4g}; untouched {before:.4g}, last place {after:.4g}"
            )
    axis.set_xlim(0, len(claims))
    axis.set_ylim(len(names), 0)
    labels = [_setting_name(own[own[Column.PANEL] == name].iloc[0]) for name in names]
    axis.set_xticks(np.arange(len(claims)) + 0.5, list(_TITLES.values()))
    axis.set_yticks(np.arange(len(names)) + 0.5, labels)
    plain = [title.replace("\n", " ") for title in _TITLES.values()]
    record_cells(axis, Cells(range(len(claims) + 1), range(len(names) + 1), plain, labels, told, ""))
    axis.tick_params(length=0, labelsize=8, labeltop=True, labelbottom=False)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _draw_tile(axis: Axes, x: int, y: int, verdict: str, text: str) -> None:
    edges: dict[str, Any] = {"edgecolor": "#c4c8cc", "linewidth": 0.7, "clip_on": False}
    axis.fill_between([x, x + 1], y, y + 1, facecolor=_SHADES[verdict], **edges)
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": "#202124"}
    axis.text(x + 0.2, y + 0.5, _SYMBOLS[verdict], fontsize=11, fontweight="bold", **style)
    axis.text(x + 0.6, y + 0.5, text, fontsize=7.5, **style)


def _setting_name(row: pd.Series) -> str:
    n = "n tied" if row[Column.TIED] else "n fixed"
    return (
        f"{row[Column.SIZE]}, {VARIANT_NAMES[row[Column.VARIANT]]}, {level_name(row[Column.RATE])}, "
        f"pretrained {int(row[Column.PRETRAIN_STEPS]):,}, eta {row[Column.ETA]:g}, "
        f"{int(row[Column.OS_STEPS]):,} OS, {n}"
    )


def _draw_shares(axis: Axes, shares: dict[str, Shares], claim: str, *, named: bool) -> None:
    """Shares with exact intervals, a row a level; a claim has rows for what enters it."""
    names = _levels(shares)
    for look, size in zip(LOOKS, (True, False), strict=False):
        kept = {key: made for key, made in shares[claim].items() if (key[0] == CHOICES[Column.SIZE]) == size}
        values = np.array([made.value for made in kept.values()], dtype=np.float64)
        ends = np.array([made.interval for made in kept.values()], dtype=np.float64)
        bars = np.stack([values - ends[:, 0], ends[:, 1] - values])
        label = "_sizes" if size else "_tiny GPT, by level"
        draw_points(axis, values, [names.index(key) for key in kept], look, label, xerr=bars, markersize=4)
    axis.axvline(0.5, color="#c4c8cc", linewidth=0.8)
    axis.set_xlim(-0.05, 1.05)
    axis.set_ylim(len(names) - 0.5, -0.5)
    labels = [f"{choice} {label}" for choice, label in names] if named else [""] * len(names)
    name_ticks(axis.yaxis, labels, fontsize=7)
    axis.set_title(_TITLES[claim].split("\n")[0] if claim in HELPS else f"({claim})", loc="left")
    if named:
        axis.set_xlabel("share that holds")


def _levels(shares: dict[str, Shares]) -> list[tuple[str, str]]:
    """All levels of all choices, those of each choice together."""
    seen = dict.fromkeys(key for of_claim in shares.values() for key in of_claim)
    order, number = [*CHOICES.values(), AFTER], {key: place for place, key in enumerate(seen)}

    def rank(key: tuple[str, str]) -> tuple[int, float]:
        steps = key[1].removesuffix(" steps").replace(",", "")
        return order.index(key[0]), float(steps) if key[0] == AFTER else number[key]

    return sorted(seen, key=rank)


def _draw_paths(axis: Axes, table: pd.DataFrame, config: Figure3Map, stage: Any, variant: str) -> None:
    """A curve a B: the error over the untouched model's along training, the tiny GPT's settings with the
    longest paths."""
    rows = of_main_size(table)
    rows = rows[rows[Column.VARIANT] == variant]
    if stage != "sft":
        rows = rows[rows[Column.OS_STEPS] == rows[Column.OS_STEPS].max()]
    panels = sorted(rows[Column.PANEL].unique())
    title = f"{SHORT_NAMES[stage]} ({len(panels)} settings),\n{VARIANT_NAMES[variant]}"
    axis.set_title(title, loc="left", fontsize=8.5)
    axis.set_xlabel("optimiser steps")
    if not panels:
        return
    for look, (B, (steps, errors)) in zip(
        LOOKS, relative_paths(rows, config, stage, panels).items(), strict=False
    ):
        style = {"linestyle": look.dash, "markersize": 3.4}
        draw_points(axis, range(len(steps)), errors, look, f"B = {B:,}", **style)
    name_ticks(axis.xaxis, [f"{s:g}" for s in steps], fontsize=7, rotation=45)
    level(axis, 1.0)


def _setting(config: Figure3Map) -> str:
    return (
        "Top: + holds, ~ mixed, \N{MINUS SIGN} fails at 95 percent, with the claim's statistic, at what was "
        f"drawn (SFT: {config.judged_sft} steps); 'helps': error before and after training on B = "
        f"{max(config.prompts):,}. Middle: shares of settings with exact 95 percent intervals (tiny GPT, "
        "but for the sizes).\n"
        f"Bottom: geometric means over the settings whose number is given. d = {config.dimension}, "
        f"B {config.prompts}, n {config.lengths}, k {config.chains} (others at {config.base_prompts}, "
        f"{config.base_length}, {config.base_chain}), batches of {config.batch}, Adam, tested with k = "
        f"{config.test_steps} on Sigma0 + Delta; {config.seeds} seeds."
    )
