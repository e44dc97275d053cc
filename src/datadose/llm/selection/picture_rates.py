"""The picture of the pass rates: observed and fitted, the learning signal, the chance of a mixed group."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.stats import beta

from datadose.drawing.style import GREY, LOOKS, new_grid
from datadose.llm.selection.arrays import Indices, numbers
from datadose.llm.selection.chosen import Selection
from datadose.llm.selection.drawing import RL, THRESHOLD, Picture, draw_histograms, inline, sets_of
from datadose.llm.selection.rates import PassRates, kept_counts, table_of
from datadose.llm.selection.rl_set import describe_prior, describe_rl

_LAW = LOOKS[3].color
_BINS = 32


def draw_rates(selection: Selection, eligible: Indices, rates: PassRates) -> Picture:
    """The histogram with the fitted law and the band, and what K samples show by the count that passed."""
    with new_grid(1, 3, width=11.5, height=3.5, width_ratios=(1.5, 1, 1)) as (figure, axes):
        draw_observed(axes[0][0], selection, eligible, rates)
        draw_by_count(axes[0][1], rates.signal, "expected p(1 - p)", "Learning signal")
        draw_by_count(axes[0][2], rates.chance, "chance", f"Is a group of {rates.group} mixed?")
        axes[0][1].set_ylim(0, 0.27)
        axes[0][2].axhline(rates.mixed, label=f"threshold {rates.mixed:g}", **THRESHOLD)
        axes[0][2].set_ylim(0, 1.15)
        axes[0][2].legend(loc="upper right", borderaxespad=0)
        header, table = table_of(rates)
        return Picture(
            "Neither solved nor hopeless",
            "Left: observed pass rates with the law fitted to all of them, as a density (curve, on the scale "
            "of the bars) and as the counts to expect by it. Prompts whose groups are mixed with less than "
            "the chance asked for leave the RL set; with a pass rate known for sure, those beyond the dashed "
            f"lines. Middle and right: what {rates.samples} samples say of a prompt by how many passed.",
            inline(figure),
            [*describe_rates(selection, rates), kept_counts(rates)],
            header,
            table,
        )


def describe_rates(selection: Selection, rates: PassRates) -> list[str]:
    """The law and the RL set together; without an RL set, the law alone."""
    told = describe_rl(selection.rl_record, selection.sizes["rl"])
    return told or [describe_prior(rates.prior.to_json())]


def draw_observed(axis: Axes, selection: Selection, eligible: Indices, rates: PassRates) -> None:
    """Counts of rows by pass rate, the fitted law over them, and the band of rates whose groups are mixed."""
    rate = numbers(selection.pool.table, "pass_rate")
    bins = min(rates.samples, _BINS)
    edges = (np.arange(bins + 2) - 0.5) / bins
    sets = [(v[np.isfinite(v)], color, name) for v, color, name in sets_of(rate, selection, eligible)]
    draw_histograms(axis, edges, sets, share=False)
    top, shown = axis.get_ylim()[1], len(sets[0][0])
    if bins == rates.samples and rates.alike:
        expected = shown * rates.expected / rates.rows.sum()
        look: dict[str, Any] = {"color": "white", "markeredgecolor": _LAW, "markersize": 4}
        axis.plot(np.arange(bins + 1) / bins, expected, "o", label="expected counts", **look)
        top = max(top, 1.05 * float(expected.max()))
    p = np.linspace(0.002, 0.998, 400)
    density = beta.pdf(p, rates.prior.a, rates.prior.b) * shown / bins
    label = f"Beta({rates.prior.a:.2g}, {rates.prior.b:.2g})"
    axis.plot(p, density, color=_LAW, linewidth=1.4, label=label)
    _draw_band(axis, selection)
    # The density has no bound at an end where a parameter is below 1; the legend stands above all.
    axis.set(xlim=edges[[0, -1]], ylim=(0, 1.02 * top))
    axis.set_xlabel(f"pass rate of {'' if rates.alike else 'up to '}{rates.samples} samples")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def _draw_band(axis: Axes, selection: Selection) -> None:
    band = selection.rl_record.get("band", ())
    above = axis.get_xaxis_transform()
    for edge in band:
        axis.axvline(edge, **THRESHOLD)
    if len(band) == 2 and band[0] < band[1]:
        said = f"groups mixed: {band[0]:.2f} to {band[1]:.2f}"
        axis.text(0.5, 1.02, said, transform=above, ha="center", color=GREY)


def draw_by_count(axis: Axes, values: Any, label: str, title: str) -> None:
    """A quantity by how many samples passed, 0 ... K."""
    k = np.arange(len(values))
    axis.vlines(k, 0, values, color=RL, linewidth=1.2)
    axis.plot(k, values, "o", color=RL, markersize=4)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel=f"passed of {len(values) - 1}", ylabel=label, title=title)
