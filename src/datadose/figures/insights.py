"""Figures of Insights 1 to 4 and section 7: drawn from the saved tables and configurations only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from datadose.figures.hover import Cells, record_cells
from datadose.figures.style import (
    GREY,
    LOOKS,
    Look,
    caption,
    draw_simulation,
    draw_theory,
    new_figure,
    new_grid,
)

FIFTH = Look("#3c4043", (0, (3, 2, 1, 2, 1, 2)), "v")
"""A fifth curve, dark grey."""


def draw_curve(axis: Axes, rows: pd.DataFrame, x: str, y: str, look: Look, label: str | None = None) -> None:
    """Means over seeds with standard errors, joined by the look's line; lost runs are left out."""
    known = rows[rows[y].notna()]
    if known.empty:
        return
    mean = known.groupby(x)[y].mean()
    draw_theory(axis, mean.index.to_numpy(dtype=float), mean.to_numpy(), look, linewidth=1.3)
    draw_simulation(axis, known.assign(error=known[y]), x, look)
    if label is not None:
        axis.plot(
            [],
            [],
            color=look.color,
            linestyle=look.dash,
            marker=look.marker,
            markersize=4,
            markerfacecolor="white",
            label=label,
        )


def level(axis: Axes, value: float, label: str | None = None) -> None:
    """A thin grey line across: the untouched model, or a boundary."""
    axis.axhline(value, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=0, label=label)


def plain_log_ticks(axis: Axes, values: Sequence[float], labels: Sequence[str] | None = None) -> None:
    """A logarithmic x axis with these ticks and no others."""
    axis.set_xscale("log")
    axis.set_xticks(list(values), labels=[f"{v:g}" for v in values] if labels is None else list(labels))
    axis.set_xticks([], minor=True)


def log_y(axis: Axes) -> None:
    """A logarithmic y axis with plain numbers at 1, 2 and 5 of each decade."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def draw_selection(table: pd.DataFrame, config: dict[str, Any]) -> Figure:
    """Insight 1: error against B per pool, one curve a selection (gradient descent)."""
    block = config["block"]
    kinds = (
        ("hard", "hardest for the model"),
        ("random", "random"),
        ("easy", "easiest for the model"),
        ("shift", "shift only (needs labels)"),
    )
    panels = list(dict.fromkeys(table["panel"]))
    with new_figure(len(panels), width=3.6 * len(panels) + 0.4) as (figure, axes):
        for axis, panel in zip(axes, panels, strict=True):
            rows = table[(table["panel"] == panel) & (table["prompts"] > 0)]
            for look, (kind, label) in zip(LOOKS, kinds, strict=True):
                chosen = rows[(rows["kind"] == kind) & (rows["estimator"] == "trained")]
                draw_curve(axis, chosen, "prompts", "error", look, label)
            level(axis, float(table.loc[table["kind"] == "base", "error"].iloc[0]), "before SFT")
            plain_log_ticks(axis, config["prompts"])
            log_y(axis)
            title = (
                "all demonstrations right"
                if panel == "clean"
                else f"{panel.split()[0]} of demonstrations wrong"
            )
            axis.set_title(title)
            axis.set_xlabel("SFT prompts B taken from the pool")
        axes[0].set_ylabel("post-test error / d")
        axes[0].legend(loc="lower left")
        caption(
            figure,
            f"d = {block['dimension']}, m = {block['shifted']}, rho = {block['rho']:g}, eta = "
            f"{block['eta']:g}, n = {config['length']}; pool of {config['pool']}; {config['descent']} steps "
            f"of gradient descent; means of {config['seeds']} seeds with standard errors",
        )
    return figure


def draw_size(table: pd.DataFrame, config: dict[str, Any]) -> Figure:
    """Insight 2: a map of the error over (r, B) with the best B, and best small set against the largest."""
    d = config["block"]["dimension"]
    theory = table[table["model"] == "theory"]
    simulated = table[table["model"] == "lsa"]
    with new_grid(1, 2, width=10.5, height=4.3, width_ratios=[1.25, 1]) as (figure, axes):
        heat, right = axes[0]
        shown = theory[theory["prompts"] > 0]
        grid = shown.pivot_table(index="prompts", columns="interference", values="predicted")
        low = float(grid.min().min())
        mesh = heat.pcolormesh(
            grid.columns.to_numpy(),
            grid.index.to_numpy() / d,
            grid.to_numpy(),
            norm=LogNorm(0.9 * low, 30 * low),
            cmap="cividis",
            shading="nearest",
            rasterized=True,
        )
        bar = figure.colorbar(mesh, ax=heat, extend="max")
        bar.set_label("predicted error / d")
        best = theory.loc[theory.groupby("interference")["predicted"].idxmin()]
        early = theory[theory["prompts"] < d]
        small = early.loc[early.groupby("interference")["predicted"].idxmin()]
        record_cells(heat, _map_cells(grid, d))
        lowest: dict[str, Any] = {"linestyle": (0, (4, 2)), "label": "_best B below the peak"}
        heat.plot(small["interference"], small["prompts"] / d, color="white", **lowest)
        lowest = {"linestyle": "-", "marker": "o", "markersize": 3, "label": "_best B"}
        heat.plot(best["interference"], best["prompts"] / d, color="white", **lowest)
        heat.axhline(1, color="black", linewidth=0.8)
        heat.text(1.1e-3, 1.06, "peak: B = d", color="black", fontsize=8.5)
        heat.set_yscale("log")
        heat.set_xscale("log")
        heat.set_ylim(grid.index.min() / d, grid.index.max() / d)
        heat.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2, 5], labels=["0.05", "0.1", "0.2", "0.5", "1", "2", "5"])
        heat.set_xlabel("interference r")
        heat.set_ylabel("SFT prompts B / d")
        heat.set_title("dots: best B; dashes: best B below the peak")
        _draw_ratio(right, theory, simulated, d)
        block = config["block"]
        caption(
            figure,
            f"d = {d}, m = {block['shifted']}, rho = {block['rho']:g}, eta = {block['eta']:g}, n = "
            f"{config['length']}; lines and map: exact theory; markers: simulated V*, mean of "
            f"{config['seeds']} seeds with standard errors",
        )
    return figure


def _map_cells(grid: pd.DataFrame, d: int) -> Cells:
    """The cells of the map: edges midway between neighbours, as the mesh draws them."""
    x, y = grid.columns.to_numpy(dtype=float), grid.index.to_numpy(dtype=float) / d
    x_edges, y_edges = (
        np.concatenate(
            [[1.5 * v[0] - 0.5 * v[1]], (v[1:] + v[:-1]) / 2, [1.5 * v[-1] - 0.5 * v[-2]]]
        ).tolist()
        for v in (x, y)
    )
    values = grid.to_numpy().tolist()
    return Cells(x_edges, y_edges, x.tolist(), y.tolist(), values, "predicted error / d")


def _draw_ratio(axis: Axes, theory: pd.DataFrame, simulated: pd.DataFrame, d: int) -> None:
    """Error of the best B < d over the error at the largest B, and over no SFT."""
    for look, (reference, label) in zip(
        LOOKS, (("largest", "over the largest set (B = 5d)"), ("none", "over no SFT (B = 0)")), strict=False
    ):
        line = [
            (r, _small_over(rows, "predicted", reference, d)) for r, rows in theory.groupby("interference")
        ]
        draw_theory(axis, [r for r, _ in line], [ratio for _, ratio in line], look, label)
        for r, rows in simulated.groupby("interference"):
            means = rows.groupby("prompts")["error"].mean()
            inside = means[(means.index > 0) & (means.index < d)]
            wide = rows.pivot_table(index="seed", columns="prompts", values="error")
            place = wide.columns.max() if reference == "largest" else 0
            ratio = (wide[inside.idxmin()] / wide[place]).to_numpy()
            points = pd.DataFrame({"r": r, "error": ratio})
            draw_simulation(axis, points, "r", look, f"_{label}, simulated")
    level(axis, 1.0)
    axis.set_xscale("log")
    log_y(axis)
    axis.set_xlabel("interference r")
    axis.set_ylabel("error of the best B < d, as a ratio")
    axis.set_title("below 1: the small set wins")
    axis.legend(loc="best")


def _small_over(rows: pd.DataFrame, column: str, reference: str, d: int) -> float:
    values = rows.set_index("prompts")[column]
    small = values[(values.index > 0) & (values.index < d)].min()
    return float(small / values[values.index.max() if reference == "largest" else 0])


_OUTCOMES = ("slow", "stable", "diverged")
_MAP_COLORS = ("#f1f3f4", "#8ab8d8", "#a63603")
_MAP_NAMES = ("slow: error not halved", "learns", "diverges (any seed)")


def draw_stability(table: pd.DataFrame, config: dict[str, Any]) -> Figure:
    """Insight 3: where gradient descent on OS is stable, one panel a k; then its sensitivity."""
    chains = config["chain_steps"]
    maps = table[table["kind"] == "map"]
    with new_grid(1, len(chains) + 1, width=3.3 * (len(chains) + 1) + 0.6, height=4.3) as (figure, grid):
        axes = grid[0]
        for axis, k in zip(axes, chains, strict=False):
            _draw_map(axis, maps[maps["steps"] == k], k)
            axis.sharey(axes[0])
        axes[0].set_ylabel("step size of gradient descent")
        handles: list[Any] = [
            Patch(facecolor=color, edgecolor=GREY, linewidth=0.5, label=name)
            for color, name in zip(_MAP_COLORS, _MAP_NAMES, strict=True)
        ]
        handles.append(Line2D([], [], color="black", linewidth=1.8, label="theory: 2 / curvature"))
        axes[0].legend(handles=handles, loc="lower left", frameon=True, framealpha=0.9, fontsize=8)
        _draw_sensitivity(axes[-1], table[table["kind"] != "map"], config)
        task, probe = config["task"], config["probe"]
        caption(
            figure,
            f"maps: d = {task['dimension']}, m = {task['shifted']}, Sigma0 = I, n = {task['length']}, B = "
            f"{config['prompts']}, {config['descent']} steps, {config['map_seeds']} seeds; right: n = "
            f"{probe['length']}, k = {config['probe_steps']}, {config['seeds']} seeds, bars: standard errors",
        )
    return figure


def _draw_map(axis: Axes, rows: pd.DataFrame, k: int) -> None:
    codes = rows["outcome"].map({name: code for code, name in enumerate(_OUTCOMES)})
    # A cell is as bad as its worst seed: diverged, else slow, else stable.
    badness = rows.assign(code=codes.map({0: 1, 1: 0, 2: 2}))
    worst = badness.pivot_table(
        index="learning_rate", columns="spectral_radius", values="code", aggfunc="max"
    )
    picture = worst.replace({0: 1, 1: 0, 2: 2}).to_numpy()
    x, y = worst.columns.to_numpy(dtype=float), worst.index.to_numpy(dtype=float)
    axis.pcolormesh(
        _edges(x),
        _edges(y),
        picture,
        cmap=ListedColormap(_MAP_COLORS),
        vmin=0,
        vmax=2,
        edgecolor="white",
        linewidth=0.4,
    )
    names = [[_MAP_NAMES[int(code)] for code in row] for row in picture]
    record_cells(axis, Cells(_edges(x), _edges(y), list(x), list(y), names, ""))
    line = rows.groupby("spectral_radius")["stable_step"].first()
    axis.plot(line.index, line.to_numpy(), color="white", linewidth=3.4)
    axis.plot(line.index, line.to_numpy(), color="black", linewidth=1.8)
    axis.set_yscale("log")
    axis.set_ylim(_edges(y)[0], _edges(y)[-1])
    plain_log_ticks(axis, (0.25, 0.5, 1, 2, 4) if len(x) > 4 else [float(v) for v in x])
    axis.set_xlim(_edges(x)[0], _edges(x)[-1])
    axis.grid(visible=False)
    axis.set_title(f"k = {k} thinking step{'s' if k > 1 else ''}")
    axis.set_xlabel("rho(inv(Gamma0) Delta)")


def _edges(centres: Any) -> Any:
    logs = np.log(centres)
    middle = (logs[1:] + logs[:-1]) / 2
    return np.exp([logs[0] - (middle[0] - logs[0]), *middle, logs[-1] + (logs[-1] - middle[-1])])


def _draw_sensitivity(axis: Axes, rows: pd.DataFrame, config: dict[str, Any]) -> None:
    few, many = (min(config["probes"]), max(config["probes"]))
    settings = [("own step", few), ("own step", many), ("one step", few), ("one step", many)]
    for look, (kind, (B, T)) in zip(LOOKS, settings, strict=True):
        chosen = rows[(rows["kind"] == kind) & (rows["prompts"] == B) & (rows["training_steps"] == T)]
        lost = chosen[chosen["diverged"] == 1]["spectral_radius"].unique()
        # A mean over the survivors would flatter a step size that loses runs.
        whole = chosen[~chosen["spectral_radius"].isin(lost)]
        draw_curve(axis, whole, "spectral_radius", "error", look, f"{kind}, B = {B}")
        lost_style: dict[str, Any] = {"color": look.color, "label": f"_{kind}, B = {B}: runs lost"}
        axis.plot(lost, [0.97] * len(lost), "x", transform=axis.get_xaxis_transform(), **lost_style)
    plain_log_ticks(axis, (0.25, 0.5, 1, 2, 4))
    log_y(axis)
    axis.set_title("sample size (crosses: runs lost)")
    axis.set_xlabel("rho(inv(Gamma0) Delta)")
    axis.set_ylabel("post-test error / d")
    low, high = rows["error"].min(), rows["error"].max()
    axis.set_ylim(0.85 * low, 2.2 * high)
    axis.legend(loc="upper left", bbox_to_anchor=(0, 0.94), fontsize=8)


def draw_balance(table: pd.DataFrame, config: dict[str, Any]) -> Figure:
    """Insight 4 and section 7: error and pass rate after each stage against the share of the shift."""
    budget, recipe = config["budget"], config["recipe"]
    arms = (("sft", "SFT"), ("outcome", "OS"), ("rl", "RL, 0/1 reward"), ("outcome-gd", "OS, plain descent"))
    radius = table.groupby("share")["spectral_radius"].first()
    panels = (("error", "post-test error / d"), ("pass_rate", "pass rate on the shift"))
    with new_grid(1, 2, width=10.5, height=4.5) as (figure, grid):
        axes = grid[0]
        for axis, (column, label) in zip(axes, panels, strict=True):
            draw_curve(axis, table[table["kind"] == "base"], "share", column, FIFTH, "pretrained model")
            for look, (kind, name) in zip(LOOKS, arms, strict=True):
                rows = table[table["kind"] == kind]
                draw_curve(axis, rows, "share", column, look, name)
                if column == "error":
                    lost = rows.groupby("share")["diverged"].mean()
                    places = lost[lost > 0.5].index
                    lost_style = {"color": look.color, "label": f"_{name}: most runs diverged"}
                    where = axis.get_xaxis_transform()
                    axis.plot(places, [0.97] * len(places), "x", transform=where, **lost_style)
            plain_log_ticks(axis, radius.index, [f"{s:g}\n({r:.2g})" for s, r in radius.items()])
            axis.axvline(budget["shifted"] / budget["dimension"], color=GREY, linewidth=0.9, linestyle=":")
            axis.set_xlabel("share of tr Sigma0 on the shift's directions (rho(inv(Gamma0) Delta))")
            axis.set_ylabel(label)
        log_y(axes[0])
        axes[0].set_title("crosses: most runs diverged; dotted: Sigma0 = I")
        axes[0].legend(loc="upper center")
        axes[1].set_title("what the shift asks for")
        caption(
            figure,
            f"d = {budget['dimension']}, m = {budget['shifted']}, n = {budget['length']}, Delta = "
            f"{budget['strength']:g}; B = {recipe['prompts']}, {recipe['steps']} steps of Adam "
            f"({recipe['learning_rate']:g}), k = {recipe['chain_steps']}; {config['seeds']} seeds, "
            "standard errors, over the runs that survived",
        )
    return figure
