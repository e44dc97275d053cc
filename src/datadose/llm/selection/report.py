"""report.html: self-contained, for a reader who decides and did not run the selection.

It shows saved tables and manifests; nothing is measured here. Its text comes from the modules beside it,
so that a terminal prints the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datadose.drawing.page import render_page
from datadose.files import write_atomic
from datadose.llm.scores import Scores
from datadose.llm.selection.chosen import Selection
from datadose.llm.selection.commands import HELD_OUT, training_commands
from datadose.llm.selection.decision import decide, describe_size
from datadose.llm.selection.examples import find_examples
from datadose.llm.selection.filters import describe_beyond
from datadose.llm.selection.picture import pictures
from datadose.llm.selection.sources import (
    Source,
    alarms_of,
    evaluation_files,
    evaluation_sentence,
    read_sampling,
    read_sources,
)
from datadose.versions import versions


def write_report(
    selection: Selection, pool: Scores, reference: Scores | None, out: Path, written: Mapping[str, Any]
) -> None:
    """Write ``out/report.html``: advice, what was read, filters with reasons, pictures, example rows.

    ``written`` is the record of the files for a trainer, as the manifest has it under ``format``.
    """
    sampling, sources = read_sampling(selection), read_sources(selection, reference)
    commands = training_commands(selection, out, written["name"])
    page = render_page(
        "selection.html",
        selection=selection,
        decision=decide(selection, sampling),
        alarms=alarms_of(sources, sampling),
        commands=commands,
        held_out=any(HELD_OUT in one.text for one in commands),
        form=written,
        sources=sources,
        labels=_labels(sources),
        evaluation=[evaluation_sentence(file) for file in evaluation_files(selection)],
        sampling=sampling,
        funnels=_funnels(selection),
        pictures=pictures(selection),
        size=describe_size(selection),
        beyond=describe_beyond(selection.filters_of("sft"), selection.sizes["sft"]),
        examples=find_examples(selection, pool, reference),
        model=pool.manifest.get("model", "a model"),
        versions=versions(),
    )
    write_atomic(out / "report.html", page)


def _labels(sources: list[Source]) -> list[str]:
    """What is known of any of the sources, in order."""
    return list(dict.fromkeys(about for source in sources for about in source.facts))


def _funnels(selection: Selection) -> list[dict[str, Any]]:
    """The filters of each set, with the share of the pool that each removed and left."""
    total = max(1, selection.sizes["pool"])
    found = []
    for name, title in (("sft", "SFT set"), ("rl", "RL set")):
        rows = [
            {**f, "width": 100 * f["left"] / total, "cut": 100 * f["removed"] / total}
            for f in selection.filters_of(name)
        ]
        if rows:
            drawn = selection.sizes[name]
            found.append(
                {
                    "name": name,
                    "title": title,
                    "filters": rows,
                    "drawn": drawn,
                    "width": 100 * drawn / total,
                    "crossed": any(f["taken"] for f in rows),
                }
            )
    return found
