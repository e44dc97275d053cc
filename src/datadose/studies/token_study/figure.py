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
from datadose.studies.ledger import mean_interval
from datadose.studies.token_study.experiment import TokenStudy

_SIXTH = Look("#B8860B", (0, (6, 1, 1, 1)), "P")
_SEVENTH = Look("#CC79A7", (0, (3, 1)), "X")
_SELECTORS = {
    "ours": "ours",
    "ours-unverified": "ours, no verifier",
    "random": "random",
    "easiest": "easiest (low NLL)",
    "nll": "hardest (raw NLL)",
    "band": "middle half of NLL",
    "all": "the whole pool",
}
_BANDS = {"easy": "easy", "medium": "medium", "hard": "hard", "not-extreme": "neither 0\nnor 1", "all": "all"}
_MIXTURES = ("balanced", "rare", "absent")
_METRICS = (("target", "all lengths"), ("hard", "lengths 6 to 8"))


def draw_token_study(table: pd.DataFrame, config: TokenStudy) -> Figure:
    """Twelve panels of test accuracy, means and intervals over seeds, learning rates chosen on validation."""
    kept = table[(table["split"] == "train") | (table["split"] == "test")]
    rows, every = kept[kept["chosen"]], kept
    base = rows[(rows["panel"] == "pretraining") & (rows["model"] == "rare")]
    panels: list[Callable[[Axes], None]] = [
        lambda axis: _draw_lengths(axis, rows),
        lambda axis: _draw_activation(axis, rows),
        lambda axis: _draw_sizes(axis, rows, base, "target", "SFT size: T"),
        lambda axis: _draw_sizes(axis, rows, base, "known", "SFT size: known families"),
        lambda axis: _draw_frontier(axis, rows, every, base, "clean"),
        lambda axis: _draw_frontier(axis, rows, every, base, "contaminated"),
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


def _values(rows: pd.DataFrame, metric: str, length: int | None = None) -> pd.DataFrame:
    of_length = rows["length"].isna() if length is None else rows["length"] == length
    return rows[(rows["metric"] == metric) & of_length]


def _interval(values: pd.Series | pd.DataFrame) -> tuple[float, float, float]:
    """Mean, and how far the interval reaches below and above within [0, 1]."""
    mean, low, high = mean_interval(values.to_numpy(dtype=float))
    return mean, mean - max(low, min(0.0, mean)), min(high, max(1.0, mean)) - mean


def _curve(axis: Axes, rows: pd.DataFrame, x: str, look: Look, label: str, metric: str = "target") -> None:
    found = [(place, *_interval(part["value"])) for place, part in _values(rows, metric).groupby(x)]
    places, means, low, high = (np.array(column, dtype=float) for column in zip(*found, strict=True))
    style = {"linestyle": look.dash, "markersize": 4, "elinewidth": 0.9, "capsize": 2}
    draw_points(axis, places, means, look, label, yerr=(low, high), **style)


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
    level(axis, float(_values(base, metric)["value"].mean()), label)


def _draw_lengths(axis: Axes, rows: pd.DataFrame) -> None:
    own = rows[(rows["panel"] == "pretraining") & (rows["metric"] == "target") & rows["length"].notna()]
    for mixture, look in zip(_MIXTURES, LOOKS, strict=False):
        part = rows[(rows["panel"] == "pretraining") & (rows["model"] == mixture)]
        known = _values(part, "known")["value"].mean()
        by_length = own[own["model"] == mixture].assign(n=lambda t: t["length"], length=pd.NA)
        _curve(axis, by_length, "n", look, f"T {mixture} (known: {known:.2f})")
    _accuracy(axis, "Pretraining mixture", "accuracy on T", "length of the string")
    axis.legend(loc=(0.12, 0.13), fontsize=7.5)


def _draw_activation(axis: Axes, rows: pd.DataFrame) -> None:
    own = rows[rows["panel"] == "activation"]
    for mixture, look in zip(_MIXTURES, LOOKS, strict=False):
        _curve(axis, own[own["model"] == mixture], "prompts", look, f"T {mixture}")
    _log_ticks(axis, sorted(own["prompts"].unique()))
    _accuracy(axis, "Latent T: one new embedding trained", "accuracy on T", "examples B")
    axis.legend(loc=(0.5, 0.6))


def _draw_sizes(axis: Axes, rows: pd.DataFrame, base: pd.DataFrame, metric: str, title: str) -> None:
    own = rows[rows["panel"] == "sft size"]
    for arm, look in zip(("equal steps", "equal epochs"), LOOKS, strict=False):
        _curve(axis, own[own["arm"] == arm], "prompts", look, arm, metric)
        if metric == "target":
            hard = Look(look.color, (0, (1, 2)), look.marker)
            _curve(axis, own[own["arm"] == arm], "prompts", hard, f"{arm}, hard", "hard")
    _log_ticks(axis, sorted(own["prompts"].unique()))
    _base(axis, base, metric)
    _accuracy(axis, title, "accuracy on T" if metric == "target" else "accuracy", "SFT examples B of T")
    axis.legend(loc="best", fontsize=7.5)


def _draw_frontier(
    axis: Axes, rows: pd.DataFrame, every: pd.DataFrame, base: pd.DataFrame, pool: str
) -> None:
    """Target gain against forgetting: chosen rates with intervals, the others small."""
    for selector, look in zip(_SELECTORS, _looks(), strict=True):
        inside = (every["panel"] == "selectors") & (every["arm"] == selector) & (every["pool"] == pool)
        others = every[inside & ~every["chosen"]]
        for _, part in others.groupby("rate"):
            x, y = (_change(part, base, metric) for metric in ("known", "target"))
            small = {"markersize": 3.5, "alpha": 0.55}
            draw_points(axis, -x.mean(), y.mean(), look, f"_{_SELECTORS[selector]}, other rates", **small)
        own = rows[(rows["panel"] == "selectors") & (rows["arm"] == selector)]
        _cross(axis, own, base, pool, look, f"_{_SELECTORS[selector]}")
    _frontier_axes(axis, f"Selectors, {pool} pool")


def _frontier_axes(axis: Axes, title: str) -> None:
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.set_title(title, loc="left")
    axis.set_xlabel("forgetting: accuracy lost on known families")
    axis.set_ylabel("gain in accuracy on T")


def _change(part: pd.DataFrame, base: pd.DataFrame, metric: str) -> Array:
    """Differences from the untouched model, seed by seed."""
    own = _values(part, metric).set_index("seed")["value"]
    return np.asarray((own - _values(base, metric).set_index("seed")["value"]).dropna(), dtype=np.float64)


def _cross(
    axis: Axes, rows: pd.DataFrame, base: pd.DataFrame, pool: str, look: Look, label: str
) -> tuple[float, float]:
    part = rows[rows["pool"] == pool]
    (x, x_low, x_high), (y, y_low, y_high) = (
        mean_interval(_change(part, base, metric) * sign) for metric, sign in (("known", -1), ("target", 1))
    )
    bars = {"xerr": [[x - x_low], [x_high - x]], "yerr": [[y - y_low], [y_high - y]]}
    draw_points(axis, x, y, look, label, markersize=6, elinewidth=0.7, **bars)
    return x, y


def _bars(axis: Axes, place: float, values: pd.DataFrame, look: Look, label: str) -> None:
    mean, low, high = _interval(values["value"])
    style = {"markersize": 5, "elinewidth": 0.9, "capsize": 2}
    draw_points(axis, place, mean, look, label, yerr=[[low], [high]], **style)


def _draw_selectors_hard(axis: Axes, rows: pd.DataFrame, base: pd.DataFrame) -> None:
    own = rows[rows["panel"] == "selectors"]
    for place, (selector, look) in enumerate(zip(_SELECTORS, _looks(), strict=True)):
        for pool, offset in (("clean", -0.13), ("contaminated", 0.13)):
            part = own[(own["arm"] == selector) & (own["pool"] == pool)]
            _bars(axis, place + offset, _values(part, "hard"), look, f"_{pool} pool")
    _base(axis, base, "hard")
    _names(axis, list(_SELECTORS))
    _accuracy(
        axis, "Selectors, hard lengths", "accuracy on T, lengths 6 to 8", "left: clean, right: contaminated"
    )
    axis.legend(loc="best")


def _names(axis: Axes, names: Sequence[str], rotation: int = 35) -> None:
    name_ticks(axis.xaxis, names, rotation=rotation, ha="right" if rotation else "center", fontsize=8)
    axis.set_xlim(-0.6, len(names) - 0.4)


def _draw_contaminants(axis: Axes, rows: pd.DataFrame) -> None:
    own = rows[(rows["panel"] == "selectors") & (rows["pool"] == "contaminated")]
    for place, (selector, look) in enumerate(zip(_SELECTORS, _looks(), strict=True)):
        part = own[own["arm"] == selector]
        wrong, mixed = (_values(part, f"chosen {k}")["value"].mean() for k in ("wrong", "interfering"))
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
    own = rows[rows["panel"] == "replay"]
    for pool, look, name in zip(
        ("clean", "contaminated"), LOOKS, ("T alone", "T and interfering"), strict=False
    ):
        places = []
        # Without interfering rows the three points all but coincide.
        for (share, part), above in zip(own.groupby("share"), (-9, -2, 7), strict=False):
            x, y = _cross(axis, part, base, pool, look, name if share == own["share"].min() else f"_{name}")
            axis.annotate(f"{share:g}", (x, y), textcoords="offset points", xytext=(7, above), fontsize=8)
            places.append((x, y))
        axis.plot(*zip(*places, strict=True), color=look.color, linestyle=look.dash, linewidth=1)
    _frontier_axes(axis, "Replay: share of each batch")
    axis.legend(loc="best")


def _draw_bands(axis: Axes, rows: pd.DataFrame, base: pd.DataFrame, config: TokenStudy) -> None:
    own = rows[(rows["panel"] == "rl") & (rows["prompts"] == config.rl_band_size)]
    for (metric, label), look, offset in zip(_METRICS, LOOKS, (-0.1, 0.1), strict=False):
        for place, band in enumerate(_BANDS):
            values = _values(own[own["arm"] == band], metric)
            _bars(axis, place + offset, values, look, f"_{label}" if place else label)
        _base(axis, base, metric, None if metric == "hard" else "untouched")
    _names(axis, list(_BANDS.values()), rotation=0)
    _accuracy(axis, f"GRPO: pass-rate bands, {config.rl_band_size} prompts", "accuracy on T")
    axis.legend(loc="best")


def _draw_numbers(axis: Axes, rows: pd.DataFrame, base: pd.DataFrame) -> None:
    own = rows[(rows["panel"] == "rl") & (rows["arm"] == "all")]
    for (metric, label), look in zip(_METRICS, LOOKS, strict=False):
        _curve(axis, own, "prompts", look, label, metric)
        _base(axis, base, metric, None if metric == "hard" else "untouched")
    _log_ticks(axis, sorted(own["prompts"].unique()))
    _accuracy(axis, "GRPO: number of prompts, unfiltered", "accuracy on T", "RL prompts, equal steps")
    axis.legend(loc="best")


def _draw_stages(axis: Axes, rows: pd.DataFrame, base: pd.DataFrame, config: TokenStudy) -> None:
    own = rows[rows["panel"] == "stages"]
    arms = [("rl", 0), *((arm, size) for size in config.stage_sizes for arm in ("sft", "sft-rl"))]
    names = {"rl": "RL", "sft": "SFT\nB={}", "sft-rl": "SFT, RL\nB={}"}
    metrics = (*_METRICS, ("known", "known families"))
    for (metric, label), look, offset in zip(metrics, LOOKS, (-0.16, 0.0, 0.16), strict=False):
        for place, (arm, size) in enumerate(arms):
            values = _values(own[(own["arm"] == arm) & (own["prompts"] == size)], metric)
            _bars(axis, place + offset, values, look, f"_{label}" if place else label)
    _base(axis, base, "target")
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
