"""Figures 1, 2 and 5: the error after SFT against prompts and length, simulation and theory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from datadose.drawing.style import (
    GREY,
    LOOKS,
    Look,
    caption,
    draw_points,
    draw_simulation,
    draw_theory,
    new_figure,
)
from datadose.studies.sft_curves.experiment import Figure1, Figure2, SftCurves
from datadose.studies.sft_curves.figure5 import Figure5

_STAR: dict[str, Any] = {
    "marker": "*",
    "markersize": 13,
    "markeredgewidth": 1.0,
    "zorder": 5,
    "linestyle": "none",
}


def _setting(config: SftCurves | Figure5) -> str:
    block = config.block
    return (
        f"d = {block.dimension}, m = {block.shifted}, rho = {block.rho:g}, eta = {block.eta:g}; "
        f"markers: simulated V*, mean of {config.seeds} seeds with standard errors; lines: theory"
    )


def _mark_peak(axis: Axes, place: float, label: str) -> None:
    axis.axvline(place, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), zorder=0)
    axis.annotate(
        label,
        (place, 0.985),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        va="top",
        fontsize=8.5,
        color=GREY,
    )


def _mark_optimum(axis: Axes, curve: pd.DataFrame, look: Look, name: str) -> None:
    best = curve.loc[curve["predicted"].idxmin()]
    name = f"_best B in range, {name}"
    draw_points(axis, best["prompts"], best["predicted"], look, name, markeredgecolor="white", **_STAR)


def _interference_title(r: float) -> str:
    return "no interference (r = 0)" if r == 0 else f"interference r = {r:g}"


def _proxy_star(label: str) -> Line2D:
    return Line2D([], [], color=GREY, label=label, **_STAR)


def draw_figure1(table: pd.DataFrame, config: Figure1) -> Figure:
    """Figure 1: log error against B, one panel an interference, one curve a length."""
    block = config.block
    with new_figure(len(config.interferences)) as (figure, axes):
        for axis, r in zip(axes, config.interferences, strict=True):
            rows = table[np.isclose(table["interference"], r)]
            for look, n in zip(LOOKS, config.lengths, strict=False):
                curve = rows[rows["length"] == n]
                theory = curve[curve["model"] == "theory"].sort_values("prompts")
                draw_theory(axis, theory["prompts"], theory["predicted"], look, f"n = {n}")
                # At the peak itself the mean is infinite: a sample mean there says nothing.
                simulated = curve[(curve["model"] == "lsa") & curve["predicted"].notna()]
                draw_simulation(axis, simulated, "prompts", look, f"_n = {n}, simulated")
                _mark_optimum(axis, theory, look, f"n = {n}")
            where = ("m", block.shifted) if r == 0 else ("d", block.dimension)
            _mark_peak(axis, where[1], f"peak: B = {where[0]}")
            axis.set_yscale("log")
            _square_root_scale(axis, max(config.theory_prompts))
            axis.set_title(_interference_title(r))
            axis.set_xlabel("SFT prompts B (square-root scale)")
        _limit_log(axes, table)
        axes[0].set_ylabel("post-test error / d")
        handles, labels = axes[0].get_legend_handles_labels()
        handles.append(_proxy_star("best B in range"))
        axes[0].legend(handles, [*labels, "best B in range"], loc="upper right", bbox_to_anchor=(1, 0.93))
        caption(figure, _setting(config))
    return figure


def _square_root_scale(axis: Axes, largest: int) -> None:
    """Room for the small sets, where the story is, and the long tail."""
    axis.set_xscale("function", functions=(lambda x: np.sqrt(np.abs(x)), np.square))
    axis.set_xlim(0, 1.03 * largest)
    axis.set_xticks([0, *(round(largest * share) for share in (0.025, 0.1, 0.2, 0.35, 0.6, 1.0))])


def _limit_log(axes: list[Axes], table: pd.DataFrame) -> None:
    """Limits from the theory on both sides of the peak, where it is finite on the grid."""
    finite = table.loc[table["model"] == "theory", "predicted"].dropna()
    axes[0].set_ylim(0.8 * float(finite.min()), 1.3 * float(finite.max()))


def draw_figure2(table: pd.DataFrame, config: Figure2) -> Figure:
    """Figure 2: log error against n, one panel an interference, one curve a number of prompts."""
    with new_figure(len(config.interferences)) as (figure, axes):
        for axis, r in zip(axes, config.interferences, strict=True):
            rows = table[np.isclose(table["interference"], r)]
            for look, B in zip(LOOKS, config.prompts, strict=False):
                curve = rows[rows["prompts"] == B]
                theory = curve[curve["model"] == "theory"].sort_values("length")
                draw_theory(axis, theory["length"].astype(float), theory["predicted"], look, f"B = {B}")
                simulated = curve[curve["model"] == "lsa"]
                draw_simulation(axis, simulated, "length", look, f"_B = {B}, simulated")
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_title(_interference_title(r))
            axis.set_xlabel("prompt length n (all stages)")
        axes[0].set_ylabel("post-test error / d")
        axes[0].legend(loc="upper left")
        caption(figure, _setting(config))
    return figure


def draw_figure5(table: pd.DataFrame, config: Figure5) -> Figure:
    """Figure 5: V* and V~ simulated; exact, corrected and printed theory; one panel a length."""
    curves = (
        ("exact", LOOKS[0], "exact theory of V* (ours)", "-"),
        ("first-order", LOOKS[1], "Thm B.1 corrected (ours)", "-"),
        ("as-printed", LOOKS[2], "Thm B.1 as printed", (0, (4, 2))),
    )
    with new_figure(len(config.lengths), width=9.0, height=4.2) as (figure, axes):
        for axis, n in zip(axes, config.lengths, strict=True):
            rows = table[table["length"] == n]
            for form, look, label, dash in curves:
                theory = rows[(rows["model"] == "theory") & (rows["form"] == form)].sort_values("prompts")
                draw_theory(axis, theory["prompts"], theory["predicted"], look, label, linestyle=dash)
            simulated = rows[rows["model"] == "lsa"]
            for estimator, look, label in (
                ("minimiser", LOOKS[0], "simulated V*"),
                ("first-order", LOOKS[1], "simulated first-order V~"),
            ):
                draw_simulation(axis, simulated[simulated["estimator"] == estimator], "prompts", look, label)
            _mark_peak(axis, config.block.dimension, "peak: B = d")
            axis.set_yscale("log")
            axis.set_title(f"n = {n}")
            axis.set_xlabel("SFT prompts B")
        top = table.loc[table["model"] == "theory", "predicted"].dropna().quantile(0.995)
        low = table["error"].dropna().min()
        axes[0].set_ylim(0.8 * low, 1.3 * top)
        axes[0].set_ylabel("post-test error / d")
        axes[-1].legend(loc="upper right")
        caption(figure, _setting(config).replace("V*,", "V* and V~,") + f"; r = {config.interference:g}")
    return figure
