"""Figure 4 and the map of where its claims hold, drawn from their saved tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from datadose.drawing.curves import draw_curve
from datadose.drawing.hover import Cells, record_cells
from datadose.drawing.style import LOOKS, Look, caption, draw_theory, new_figure, new_grid
from datadose.studies.figure4.experiment import Figure4
from datadose.studies.figure4.map import Figure4Map

ROW_NAMES = {"sft": "SFT", "outcome": "OS", "rl": "RL, dense reward"}
COLUMN_NAMES = {
    "prompts": "post-training prompts B",
    "length": "prompt length n",
    "steps": "training chain length k",
}
_MAIN, _CONTROL = LOOKS[0], LOOKS[1]
_BASE = Look("#8a8f94", "-", "")
_ERRORS = [
    0.01,
    0.02,
    0.03,
    0.05,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.8,
    1,
    1.5,
    2,
    3,
    4,
    6,
    8,
    12,
    16,
    24,
    32,
    64,
]
_SHADES = {"holds": "#7fb2d6", "mixed": "#dbe7f0", "fails": "#ffffff"}
_SYMBOLS = {"holds": "+", "mixed": "~", "fails": "\N{MINUS SIGN}"}


def draw_figure4(table: pd.DataFrame, config: Figure4) -> Figure:
    """Rows SFT, OS, RL; columns B, n, k; solid: the paper's; dashed: the control; grey: untouched model."""
    base = table[table["variant"] == "base"].set_index("length")["error"].sort_index()
    sharing = {"sharex": "col", "sharey": "col"}
    with new_grid(len(ROW_NAMES), len(COLUMN_NAMES), width=10.5, height=9.2, **sharing) as (figure, axes):

        def draw(axis: Axes, rows: pd.DataFrame, moved: str) -> None:
            _draw_base(axis, moved, base, config)
            main, control = _curve_names(moved, config)
            draw_runs(axis, rows[rows["variant"] != "main"], moved, _CONTROL, 0.93, control)
            draw_runs(axis, rows[rows["variant"] == "main"], moved, _MAIN, 0.98, main)

        draw_panels(table, axes, draw)
        for axis, moved in zip(axes[0], COLUMN_NAMES, strict=True):
            _limit(axis, table, moved)
            place = "upper left" if moved == "length" else "upper right"
            axis.legend(handles=_legend(moved, config), loc=place, fontsize=7.5)
        caption(figure, _setting(table, config))
    return figure


def draw_panels(table: pd.DataFrame, axes: Any, draw: Callable[[Axes, pd.DataFrame, str], None]) -> None:
    """A row of panels per stage, a column per axis that moves; ``draw(axis, rows, moved)`` fills each."""
    for row, stage in zip(axes, ROW_NAMES, strict=True):
        for axis, moved in zip(row, COLUMN_NAMES, strict=True):
            rows = table[(table["stage"] == stage) & (table["axis"] == moved)]
            draw(axis, rows, moved)
            axis.set_title(f"({rows['panel'].min()}) {ROW_NAMES[stage]}", loc="left")
            axis.set_xscale("log")
            axis.set_yscale("log")
            plain_ticks(axis, sorted(rows[moved].unique()))
        row[0].set_ylabel("post-test error / d")
    for axis, moved in zip(axes[-1], COLUMN_NAMES, strict=True):
        axis.set_xlabel(COLUMN_NAMES[moved])


def draw_runs(axis: Axes, rows: pd.DataFrame, x: str, look: Look, height: float, name: str) -> None:
    """Mean and standard error over the runs that did not diverge; crosses at the top where some did.

    ``name`` is what the hover record calls the curve.
    """
    draw_curve(axis, rows[rows["diverged"] == 0], x, "error", look, f"_{name}", linewidth=1.7)
    for place, number in rows.groupby(x)["diverged"].sum().items():
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


def _draw_base(axis: Axes, moved: str, base: pd.Series, config: Figure4) -> None:
    """The untouched model: at each n where n is tied, else at the n of the curve (dashed: of the control)."""
    style: dict[str, Any] = {"linewidth": 1.2, "zorder": 1}
    here = float(base.loc[config.base_length])
    if moved == "length":
        tied = base.loc[list(config.lengths)]
        draw_theory(axis, tied.index.to_numpy(dtype=float), tied, _BASE, "_untouched model", **style)
        axis.axhline(here, color=_BASE.color, linestyle=_CONTROL.dash, **style)
        return
    axis.axhline(here, color=_BASE.color, **style)
    if moved == "steps":
        short = float(base.loc[config.short_length])
        axis.axhline(short, color=_BASE.color, linestyle=_CONTROL.dash, **style)


def _curve_names(moved: str, config: Figure4) -> tuple[str, str]:
    """What the paper's curve and the control are called where ``moved`` moves."""
    n, short = config.base_length, config.short_length
    return {
        "prompts": (f"{config.epochs} epochs", f"{config.equal_steps:,} steps at every B"),
        "length": ("n in all stages", f"post-training n only (others n = {n})"),
        "steps": (f"n = {n}", f"n = {short}: nearer shift"),
    }[moved]


def _legend(moved: str, config: Figure4) -> list[Line2D]:
    names = _curve_names(moved, config)
    handles = [
        Line2D(
            [],
            [],
            color=look.color,
            linestyle=look.dash,
            marker=look.marker,
            markersize=3.4,
            markerfacecolor="white",
            label=name,
        )
        for look, name in zip((_MAIN, _CONTROL), names, strict=True)
    ]
    return [*handles, Line2D([], [], color=_BASE.color, linewidth=1.2, label="untouched model")]


def plain_ticks(axis: Axes, places: Sequence[float]) -> None:
    """Ticks at the places of the curve, and plain decimals on the error axis."""
    axis.xaxis.set_major_locator(FixedLocator([float(x) for x in places]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.yaxis.set_major_locator(FixedLocator(_ERRORS))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def _limit(axis: Axes, table: pd.DataFrame, moved: str) -> None:
    """Limits from what the column draws, with room for the legend above."""
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in axis.lines]
    rows = table[table["axis"] == moved]
    means = rows.groupby(["panel", moved])["error"].mean().dropna().to_numpy()
    values = np.concatenate([means, *drawn])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    axis.set_ylim(low * (low / high) ** 0.06, high * (high / low) ** (0.3 if moved == "steps" else 0.1))


def _setting(table: pd.DataFrame, config: Figure4) -> str:
    lost = int(table["diverged"].sum())
    d = config.dimension
    scaled = "" if d == 100 else " (scaled down from the paper's 100)"
    return (
        f"LSA, all weights trained, d = {d}{scaled}; A = Delta, eta = {config.eta:g}, Adam "
        f"{config.learning_rate:g}, mini-batches of {config.batch}; test on Sigma0 + Delta with "
        f"k = 1.\nWhere they do not move: B = {config.base_prompts}, n = {config.base_length}, "
        f"k = {config.base_chain}. "
        f"Means of {config.seeds} seeds with standard errors; "
        + (
            f"{lost} diverged runs left out, \N{MULTIPLICATION SIGN} counts them"
            if lost
            else "no run diverged"
        )
        + ". Grey: before post-training, dashed for the control."
    )


def draw_figure4_map(table: pd.DataFrame, config: Figure4Map) -> Figure:
    """One row a setting, one column a claim: + holds, ~ mixed, - fails, with the statistic."""
    keys = ["data", "interference", "eta", "batch", "schedule"]
    settings = table[keys].astype({"batch": "string"}).drop_duplicates().to_numpy().tolist()
    claims = list(dict.fromkeys(table["claim"]))
    with new_figure(1, width=7.6, height=1.7 + 0.27 * len(settings)) as (figure, (axis,)):
        for number, row in enumerate(table.itertuples(index=False)):
            y, x = divmod(number, len(claims))
            _draw_tile(axis, x, y, row)
        axis.set_xlim(0, len(claims))
        axis.set_ylim(len(settings), 0)
        columns, rows = [_claim_title(claim) for claim in claims], [_row_title(*one) for one in settings]
        axis.set_xticks(np.arange(len(claims)) + 0.5, columns)
        axis.set_yticks(np.arange(len(settings)) + 0.5, rows)
        told = [f"{row.verdict}, statistic {row.value:.4g}" for row in table.itertuples(index=False)]
        values = [told[k : k + len(claims)] for k in range(0, len(told), len(claims))]
        edges = range(len(claims) + 1), range(len(settings) + 1)
        titles = [title.replace("\n", " ") for title in columns]
        record_cells(axis, Cells(*edges, titles, rows, values, ""))
        axis.tick_params(length=0, labelsize=8, labeltop=True, labelbottom=False)
        axis.grid(visible=False)
        for spine in axis.spines.values():
            spine.set_visible(False)
        caption(figure, _map_setting(config))
    return figure


def _draw_tile(axis: Axes, x: int, y: int, row: Any) -> None:
    axis.fill_between(
        [x, x + 1],
        y,
        y + 1,
        facecolor=_SHADES[row.verdict],
        edgecolor="#c4c8cc",
        linewidth=0.7,
        clip_on=False,
    )
    text: dict[str, Any] = {"ha": "center", "va": "center", "color": "#202124"}
    axis.text(x + 0.27, y + 0.5, _SYMBOLS[row.verdict], fontsize=11, fontweight="bold", **text)
    axis.text(x + 0.64, y + 0.5, f"{row.value:.2f}", fontsize=7.5, **text)


def _claim_title(claim: str) -> str:
    titles = {
        "a": "SFT falls,\nrises with B",
        "b": "SFT falls,\nrises with n",
        "c": "SFT flat\nin k",
        "d": "OS falls\nwith B",
        "e": "OS falls\nwith n",
        "f": "OS rises\nwith k",
    }
    letter = claim[-1]
    return f"({letter}) {titles[letter]}"


def _row_title(data: str, interference: float, eta: float, batch: str, schedule: str) -> str:
    A = "A = Delta" if data == "delta" else f"allocated, r = {interference:g}"
    size = "full batch" if batch == "full" else f"batch {batch}"
    length = "epochs" if schedule == "epochs" else "equal steps"
    return f"{A}, eta = {eta:g}, {size}, {length}"


def _map_setting(config: Figure4Map) -> str:
    return (
        f"+ holds, ~ mixed, \N{MINUS SIGN} fails at 95 percent; number: the claim's statistic, a ratio of "
        f"errors (c: largest log change).\nLSA, d = {config.dimension}, B {_range(config.prompts)}, "
        f"n {_range(config.lengths)} (tied), k {_range(config.chains)}; {config.seeds} seeds; "
        f"{config.epochs} epochs or {config.equal_steps} steps of Adam {config.learning_rate:g}."
    )


def _range(values: Sequence[int]) -> str:
    return f"{min(values)} to {max(values)}"
