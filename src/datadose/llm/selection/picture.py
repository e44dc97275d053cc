"""The report's pictures: what the pool looks like, and what was taken."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datadose.covariance import Array
from datadose.drawing.style import GREY, LOOKS, new_grid
from datadose.llm.selection.arrays import Floats, Indices, numbers
from datadose.llm.selection.choose import Selection

POOL, SFT, RL, TARGET = "#b4bac1", LOOKS[1].color, LOOKS[0].color, LOOKS[2].color
_BINS = 40
_DASHED: dict[str, Any] = {"color": GREY, "linewidth": 1, "linestyle": (0, (2, 2))}

Set: TypeAlias = tuple[Array, str, str]
"""Values of some rows, their colour and their name."""


@dataclass(frozen=True)
class Picture:
    """An inline image and what it says."""

    title: str
    text: str
    image: str
    """A data URI."""


def pictures(selection: Selection) -> list[Picture]:
    """The report's pictures, in order; one about pass rates only where there are some."""
    eligible = np.flatnonzero(selection.eligible)
    compared = bool(selection.geometry)
    found = [_hardness(selection, eligible), _directions(selection, eligible)] if compared else []
    if np.isfinite(numbers(selection.pool.table, "pass_rate")).any():
        found.append(_pass_rates(selection, eligible))
    return [*found, _shift(selection)] if compared else found


def _hardness(selection: Selection, eligible: Indices) -> Picture:
    tokens = numbers(selection.pool.table, "tokens")
    longest = np.quantile(tokens[eligible], 0.995)
    width = max(1, int(np.ceil(longest / _BINS)))
    edges = np.arange(0, longest + 2 * width, width) - 0.5
    with new_grid(1, 2, width=10.5, height=3.7) as (figure, axes):
        _draw_strata(axes[0][0], selection, eligible, int(tokens[eligible].max()))
        _histograms(axes[0][1], edges, _sets(tokens, selection, eligible))
        axes[0][1].set(xlabel="completion tokens", title="Length")
        return Picture(
            "Hard for its length, not long",
            "Bars span the middle half, lines 5 to 95 percent, dots the median. The SFT set is drawn from "
            "the harder rows of every length, without the extreme tail.",
            _inline(figure),
        )


def _sets(values: Array, selection: Selection, eligible: Indices) -> list[Set]:
    """The values of pool, SFT set and RL set, if there is one."""
    sets = ((eligible, POOL, "pool"), (selection.sft, SFT, "SFT set"), (selection.rl, RL, "RL set"))
    return [(values[rows], color, name) for rows, color, name in sets if len(rows)]


def _draw_strata(axis: Axes, selection: Selection, eligible: Indices, longest: int) -> None:
    """Quantiles of the hardness in every length stratum, pool beside SFT set."""
    measures = selection.measures
    for rows, color, shift, name in ((eligible, GREY, -0.17, "pool"), (selection.sft, SFT, 0.17, "SFT set")):
        for stratum in range(len(measures.edges)):
            here = measures.hardness[rows[measures.stratum[rows] == stratum]]
            if len(here):
                low, first, middle, third, high = np.quantile(here, [0.05, 0.25, 0.5, 0.75, 0.95])
                x = stratum + shift
                axis.vlines(x, low, high, color=color, linewidth=1.1)
                axis.vlines(x, first, third, color=color, linewidth=4.5)
                axis.plot(x, middle, "o", color="white", markeredgecolor=color, markersize=3.5, zorder=3)
        axis.plot([], [], color=color, linewidth=5, label=name)
    ends = [*(edge - 1 for edge in measures.edges[1:]), longest]
    names = [f"{a}" if a >= b else f"{a}-{b}" for a, b in zip(measures.edges, ends, strict=True)]
    step = 1 + len(names) // 11
    axis.set_xticks(range(0, len(names), step), names[::step], rotation=30 if len(names) > 6 else 0)
    axis.set_xlim(-0.8, len(names) - 0.2)
    label = "NLL, nats per token" if selection.config.hardness == "nll" else "gradient sketch size per token"
    axis.set(xlabel="completion tokens (length stratum)", ylabel=label, title="Hardness by length")
    axis.legend()


def _directions(selection: Selection, eligible: Indices) -> Picture:
    measures = selection.measures
    by_gradient = selection.config.representation == "sketch"
    titles = (
        "What a step does to the target" if by_gradient else "Nearness to the target",
        "What a step does to the reference",
    )
    with new_grid(1, 2, width=10.5, height=3.5) as (figure, axes):
        panels = (("target", measures.alignment), ("reference", measures.interference))
        for axis, title, (other, values) in zip(axes[0], titles, panels, strict=True):
            sets = _sets(values, selection, eligible)[:2]
            if other == "target":
                sets.append((measures.target_alignment, TARGET, "target's own rows"))
            everything = np.concatenate([value for value, _, _ in sets])
            _histograms(axis, np.linspace(everything.min() - 1e-9, everything.max() + 1e-9, _BINS), sets)
            axis.axvline(0, **_DASHED)
            axis.set(title=title, xlabel=f"cosine with the {other}'s mean")
        return Picture(
            "Towards the target, not against what must be kept",
            "For gradient sketches a positive cosine means: a step on the row lowers that set's loss, to "
            "first order. Removed were rows against the target or less aligned with it than nearly all of "
            "its own rows, and the rows that pull hardest against the reference.",
            _inline(figure),
        )


def _pass_rates(selection: Selection, eligible: Indices) -> Picture:
    table, band = selection.pool.table, selection.rl_record.get("band", ())
    rate = numbers(table, "pass_rate")
    samples = int(np.nanmax(numbers(table, "pass_rate_total")))
    bins = min(samples, 32)
    edges = (np.arange(bins + 2) - 0.5) / bins
    with new_grid(1, 1, width=10.5, height=3.3) as (figure, axes):
        axis = axes[0][0]
        sets = [(v[np.isfinite(v)], c, n) for v, c, n in _sets(rate, selection, eligible)]
        _histograms(axis, edges, sets, share=False)
        above = axis.get_xaxis_transform()
        names = (("seldom mixed", "right"), ("seldom mixed", "left"))
        for edge, (name, side) in zip(band, names, strict=False):
            axis.axvline(edge, **_DASHED)
            axis.text(edge, 1.0, f" {name} ", transform=above, ha=side, va="bottom", color=GREY)
        axis.set(xlabel=f"pass rate of {samples} samples", xlim=edges[[0, -1]])
        return Picture(
            "Neither solved nor hopeless",
            "A group of samples teaches only if some pass and some fail. Prompts whose groups are mixed with "
            "less than the chance asked for leave the RL set; with a pass rate known for sure, those beyond "
            "the dashed lines.",
            _inline(figure),
        )


def _shift(selection: Selection) -> Picture:
    geometry, planner = selection.geometry, selection.planner
    curve = [(p["prompts"], p["predicted"]) for p in planner.get("curve", []) if p["predicted"] is not None]
    with new_grid(1, 2 if curve else 1, width=10.5 if curve else 6.5, height=3.4) as (figure, axes):
        _draw_spectrum(axes[0][0], geometry)
        text = (
            "Generalised eigenvalues of the target's covariance against the reference's. Shuffling which row "
            "belongs to which set reaches the dashed line in 5 of 100 cases."
        )
        if curve:
            _draw_curve(axes[0][1], curve, planner["size"])
            text += " Right: the planner's error for that shift against the number of rows, a heuristic."
        return Picture("What the target asks for", text, _inline(figure))


def _draw_spectrum(axis: Axes, geometry: dict[str, Any]) -> None:
    values, shifted = np.array(geometry["eigenvalues"]), geometry["shifted_directions"]
    place = np.arange(1, len(values) + 1)
    axis.axhline(1, color=GREY, linewidth=0.8)
    axis.axhline(geometry["threshold"], **_DASHED, label="chance, 95%")
    for part, color, size, label in (
        (slice(shifted), TARGET, 5, "shifted"),
        (slice(shifted, None), POOL, 3.5, "not told from chance"),
    ):
        axis.plot(place[part], values[part], "o", color=color, markersize=size, label=label)
    axis.set(yscale="log", xlabel="direction", ylabel="variance, target over reference")
    axis.set_title(f"{shifted} of {len(values)} directions shifted")
    axis.legend()


def _draw_curve(axis: Axes, curve: list[tuple[int, float]], size: int) -> None:
    prompts, errors = np.array(curve, dtype=float).T
    axis.plot(prompts, errors, color=SFT)
    axis.axvline(size, **_DASHED)
    axis.set_xscale("symlog")
    axis.set(yscale="log", xlabel="SFT rows", ylabel="predicted error / d", xlim=(0, None))
    # The peak, where rows equal directions, would hide the rest.
    axis.set_ylim(0.8 * errors.min(), 5 * max(errors[0], errors[-1]))
    axis.set_title(f"The planner's dose: {size} rows")


def _histograms(axis: Axes, edges: Floats, sets: list[Set], *, share: bool = True) -> None:
    """The first set filled, the others as steps; as shares of each set, or as counts."""
    for place, (values, color, name) in enumerate(sets):
        counts = np.histogram(values, edges)[0] / (max(1, len(values)) if share else 1)
        look: dict[str, Any] = {"linewidth": 1.8} if place else {"fill": True}
        axis.stairs(counts, edges, color=color, label=name, **look)
    axis.set_ylabel("share of rows" if share else "rows")
    axis.legend()


def _inline(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
