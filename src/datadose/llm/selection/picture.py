"""The report's pictures: the pool, and what was taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from datadose.covariance import Array
from datadose.drawing.style import GREY, new_grid
from datadose.llm.selection.arrays import Indices, numbers
from datadose.llm.selection.chosen import Selection
from datadose.llm.selection.config import FILTERS
from datadose.llm.selection.drawing import (
    DASHED,
    POOL,
    SFT,
    TARGET,
    Picture,
    draw_histograms,
    draw_thresholds,
    inline,
    sets_of,
)
from datadose.llm.selection.filters import INTERFERING, NOT_ALIGNED, TOO_EASY, TOO_HARD, cuts_of
from datadose.llm.selection.picture_rates import draw_rates
from datadose.llm.selection.rates import pass_rates_of

_BINS = 40


def pictures(selection: Selection) -> list[Picture]:
    """The report's pictures, in order; one about pass rates only where there are some."""
    eligible = np.flatnonzero(selection.eligible)
    compared = bool(selection.geometry)
    found = [_hardness(selection, eligible), _directions(selection, eligible)] if compared else []
    if (rates := pass_rates_of(selection)) is not None:
        found.append(draw_rates(selection, eligible, rates))
    return [*found, _shift(selection)] if compared else found


def _hardness(selection: Selection, eligible: Indices) -> Picture:
    tokens = numbers(selection.pool.table, "tokens")
    by_loss = selection.config.hardness == "nll"
    with new_grid(1, 2 if by_loss else 3, width=11.5, height=3.9) as (figure, axes):
        nll = selection.measures.hardness if by_loss else numbers(selection.pool.table, "nll")
        tail, hard = {TOO_HARD: "too hard from"}, {TOO_EASY: "hard above"}
        draw_strata(axes[0][0], selection, nll, {**tail, **hard} if by_loss else tail)
        axes[0][0].set(ylabel="NLL, nats per token", title="Loss by length")
        if not by_loss:
            draw_strata(axes[0][1], selection, selection.measures.hardness, hard)
            axes[0][1].set(ylabel="gradient sketch size per token", title="Hardness by length")
        draw_lengths(axes[0][-1], selection, tokens, eligible)
        filtered = selection.config.method == FILTERS
        ranks = (
            "Every rank is taken within a length stratum: rows at the solid mark and above are the extreme "
            "tail, which is mostly noise; the SFT set is drawn from the rows above the dashed mark, as far "
            "as they suffice. "
        )
        return Picture(
            "Hard for its length, not long" if filtered else "Loss and length",
            f"Bars span the middle half, lines 5 to 95 percent, dots the median. {ranks if filtered else ''}"
            "Dotted on the right: where the strata begin.",
            inline(figure),
        )


def draw_strata(axis: Axes, selection: Selection, values: Array, marks: Mapping[str, str]) -> None:
    """Quantiles of ``values`` in every length stratum, pool beside SFT set, and the thresholds there.

    ``marks`` are names of filters of the SFT set, and what the legend calls their thresholds.
    """
    measures, eligible = selection.measures, np.flatnonzero(selection.eligible)
    for rows, color, shift, name in ((eligible, GREY, -0.17, "pool"), (selection.sft, SFT, 0.17, "SFT set")):
        for stratum in range(len(measures.edges)):
            here = values[rows[measures.stratum[rows] == stratum]]
            if len(here):
                low, first, middle, third, high = np.quantile(here, [0.05, 0.25, 0.5, 0.75, 0.95])
                x = stratum + shift
                axis.vlines(x, low, high, color=color, linewidth=1.1)
                axis.vlines(x, first, third, color=color, linewidth=4.5)
                axis.plot(x, middle, "o", color="white", markeredgecolor=color, markersize=3.5, zorder=3)
        axis.plot([], [], color=color, linewidth=5, label=name)
    for name, label in marks.items():
        of_strata = enumerate(cuts_of(selection.filters_of("sft"), name))
        known = [(place, cut) for place, cut in of_strata if cut is not None]
        if known:
            places, cuts = np.array(known).T
            dash: Any = "-" if name == TOO_HARD else (0, (2.5, 1.2))
            look: dict[str, Any] = {"color": "#202124", "linewidth": 1.4, "linestyle": dash}
            axis.hlines(cuts, places - 0.42, places + 0.42, label=label, **look)
    longest = int(numbers(selection.pool.table, "tokens")[eligible].max())
    ends = [*(edge - 1 for edge in measures.edges[1:]), longest]
    names = [f"{a}" if a >= b else f"{a}-{b}" for a, b in zip(measures.edges, ends, strict=True)]
    step = 1 + len(names) // 11
    axis.set_xticks(range(0, len(names), step), names[::step], rotation=30 if len(names) > 6 else 0)
    axis.set_xlim(-0.8, len(names) - 0.2)
    axis.set_xlabel("completion tokens (length stratum)")
    axis.legend(ncols=2)


def draw_lengths(axis: Axes, selection: Selection, tokens: Array, eligible: Indices) -> None:
    """Histograms of the completions' tokens, and where the length strata begin."""
    longest = np.quantile(tokens[eligible], 0.995)
    width = max(1, int(np.ceil(longest / _BINS)))
    edges = np.arange(0, longest + 2 * width, width) - 0.5
    draw_histograms(axis, edges, sets_of(tokens, selection, eligible))
    for edge in selection.measures.edges[1:]:
        axis.axvline(edge - 0.5, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0.9)
    axis.set(xlabel="completion tokens", title="Length", xlim=(edges[0], edges[-1]))


def _directions(selection: Selection, eligible: Indices) -> Picture:
    measures = selection.measures
    by_gradient = selection.config.representation == "sketch"
    titles = (
        "What a step does to the target" if by_gradient else "Nearness to the target",
        "What a step does to the reference",
    )
    with new_grid(1, 2, width=11.5, height=3.9) as (figure, axes):
        panels = (
            ("target", measures.alignment, NOT_ALIGNED, "needed"),
            ("reference", measures.interference, INTERFERING, "out below"),
        )
        for axis, title, (other, values, name, label) in zip(axes[0], titles, panels, strict=True):
            sets = sets_of(values, selection, eligible)[:2]
            if other == "target":
                sets.append((measures.target_alignment, TARGET, "target's own rows"))
            everything = np.concatenate([value for value, _, _ in sets])
            edges = np.linspace(everything.min() - 1e-9, everything.max() + 1e-9, _BINS)
            draw_histograms(axis, edges, sets)
            axis.axvline(0, **DASHED)
            draw_thresholds(axis, cuts_of(selection.filters_of("sft"), name), label)
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=4)
            axis.set(title=title, xlabel=f"cosine with the {other}'s mean")
        filtered = selection.config.method == FILTERS
        removed = (
            "Removed were rows against the target or less aligned with it than nearly all of its own rows, "
            "and the rows that pull hardest against the reference: those left of the dashed line, or of the "
            "one for their length where there are two with the span between them in grey."
        )
        kept = f"The method {selection.config.method} removes no row for it."
        aims = "Towards the target, not against what must be kept"
        return Picture(
            aims if filtered else "What the rows would do to target and reference",
            "For gradient sketches a positive cosine means: a step on the row lowers that set's loss, to "
            f"first order. {removed if filtered else kept}",
            inline(figure),
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
        return Picture("What the target asks for", text, inline(figure))


def _draw_spectrum(axis: Axes, geometry: dict[str, Any]) -> None:
    values, shifted = np.array(geometry["eigenvalues"]), geometry["shifted_directions"]
    place = np.arange(1, len(values) + 1)
    axis.axhline(1, color=GREY, linewidth=0.8)
    axis.axhline(geometry["threshold"], **DASHED, label="chance, 95%")
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
    axis.axvline(size, **DASHED)
    axis.set_xscale("symlog")
    axis.set(yscale="log", xlabel="SFT rows", ylabel="predicted error / d", xlim=(0, None))
    # The peak, where rows equal directions, would hide the rest.
    axis.set_ylim(0.8 * errors.min(), 5 * max(errors[0], errors[-1]))
    axis.set_title(f"The planner's dose: {size} rows")
