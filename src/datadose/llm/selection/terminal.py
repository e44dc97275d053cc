"""A selection for a terminal: what was read, sizes, filters, histograms, and what to do with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from datadose.covariance import Array
from datadose.llm.scores import Scores
from datadose.llm.selection.arrays import numbers
from datadose.llm.selection.chosen import Selection
from datadose.llm.selection.commands import Command, in_lines
from datadose.llm.selection.decision import decide, describe_size
from datadose.llm.selection.filters import describe_beyond
from datadose.llm.selection.rl_set import describe_rl
from datadose.llm.selection.sources import (
    alarms_of,
    evaluation_files,
    evaluation_sentence,
    read_sampling,
    read_sources,
    source_sentence,
)

_BARS = "▁▂▃▄▅▆▇█"


def describe(selection: Selection, reference: Scores | None = None, commands: Sequence[Command] = ()) -> str:
    """The selection for a terminal: sizes, what was read, filters, histograms, what was not checked, advice.

    Args:
        selection: what was chosen.
        reference: the scores of what must be kept, if they were given.
        commands: what to train with, listed at the end.
    """
    sizes, sampling = selection.sizes, read_sampling(selection)
    controls = "random controls of the same sizes"
    if selection.config.sft_tokens is not None:
        controls = "random controls of as many tokens and prompts"
    if selection.weights is not None:
        controls = "the control is the same rows, drawn equally often"
    lines = [
        f"SFT set {sizes['sft']} rows"
        + (f" and {sizes['replay']} replayed" if sizes["replay"] else "")
        + f", RL set {sizes['rl']} prompts, of {sizes['pool']} rows; {controls}",
    ]
    sources = read_sources(selection, reference)
    lines += [source_sentence(source) for source in sources]
    lines += [f"against: {evaluation_sentence(file)}" for file in evaluation_files(selection)]
    if sampling is not None:
        lines.append(f"samples: {'; '.join(sampling.facts)}")
    lines += [f"Warning: {alarm}" for alarm in alarms_of(sources, sampling)]
    if geometry := selection.geometry:
        lines.append(f"shift: {geometry['shifted_directions']} of {geometry['dimensions']} directions")
    lines.append(describe_size(selection))
    if beyond := describe_beyond(selection.filters_of("sft"), sizes["sft"]):
        lines.append(beyond)
    lines += describe_rl(selection.rl_record, sizes["rl"])
    width = max(len(f["name"]) for f in selection.filters)
    for name in ("sft", "rl"):
        if rows := selection.filters_of(name):
            lines += ["", f"{name.upper() + ' filter':<{width}}  {'removed':>8}  {'left':>8}  why"]
            lines += [f"{f['name']:<{width}}  {f['removed']:>8}  {f['left']:>8}  {f['why']}" for f in rows]
    lines += ["", *_histograms(selection)]
    if selection.unchecked:
        lines += ["", "Not checked:", *(f"- {sentence}" for sentence in selection.unchecked)]
    decision = decide(selection, sampling)
    lines += ["", decision.first, *(f"- {sentence}" for sentence in decision.unless)]
    if commands:
        lines += ["", *in_lines(commands)]
    return "\n".join(lines)


def _histograms(selection: Selection, bins: int = 32) -> list[str]:
    table, measures = selection.pool.table, selection.measures
    columns: list[tuple[str, Array]] = [
        ("NLL, nats per token", numbers(table, "nll")),
        ("completion tokens", numbers(table, "tokens")),
        ("alignment with the target", measures.alignment),
        ("alignment with the reference", measures.interference),
        ("pass rate", numbers(table, "pass_rate")),
    ]
    sets = [("pool", np.flatnonzero(selection.eligible)), ("SFT", selection.sft), ("RL", selection.rl)]
    lines = []
    for title, values in columns:
        known = values[selection.eligible]
        known = known[np.isfinite(known)]
        if len(known) == 0:
            continue
        low, high = np.quantile(known, [0.005, 0.995])
        # No more bins than values: a rate of K samples has K + 1.
        edges = np.linspace(low, high if high > low else low + 1, min(bins, len(np.unique(known))) + 1)
        lines.append(f"{title}: {low:.3g} to {high:.3g}")
        for name, rows in sets:
            if len(rows):
                # The outermost half percent on either side is shown in the end bins.
                shown = np.clip(values[rows][np.isfinite(values[rows])], edges[0], edges[-1])
                counts = np.histogram(shown, edges)[0]
                lines.append(f"  {name:<5}{_bars(counts)}")
    return lines


def _bars(counts: Any) -> str:
    top = max(1, counts.max())
    return "".join(" " if c == 0 else _BARS[min(7, int(8 * c / top))] for c in counts)
