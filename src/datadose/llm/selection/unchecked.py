"""What a selection could not check, in sentences for the manifest, the terminal and the report."""

from __future__ import annotations

from datadose.llm.selection.arrays import Usable, flags
from datadose.llm.selection.config import FILTERS, SelectionConfig
from datadose.llm.selection.duplicates import Repeats
from datadose.llm.selection.filters import NOT_ALIGNED, Funnel, find_filter
from datadose.llm.selection.size import SMALLEST

FEW_ROWS = 32
"""Rows of target or reference below which the selection warns that they are few."""


def not_checked(
    pool: Usable,
    target: Usable,
    reference: Usable,
    sft: Funnel,
    repeats: Repeats,
    config: SelectionConfig,
    *,
    given: bool,
) -> list[str]:
    """What could not be checked with these scores, a sentence each.

    Args:
        pool: scores, and the rows in use.
        target: the same of the target.
        reference: the same of what must be kept.
        sft: the filters of the SFT set.
        repeats: what was found of evaluation files and near duplicates.
        config: the method.
        given: whether the reference was given, and is no sample of the pool.
    """
    table, said, filtered = pool.scores.table, [], config.method == FILTERS
    label_passes, label_fails = flags(table, "label_passes")
    if not (label_passes | label_fails).any():
        why = "have a high loss and" if filtered else "on the target's kind of question"
        said.append(f"Labels: no verifier judged them; wrong ones {why} gather in the SFT set.")
    differs, agrees = flags(table, "own_differs")
    if filtered and not (differs | agrees).any():
        said.append("Conflicts: the model's own answers were not sampled (score with --samples).")
    if filtered and not (pool.numbers("pass_rate_total") > 0).any():
        said.append("Solved rows: there are no pass rates (score with --samples and a verifier).")
    said += [
        f"The {name} has {len(used.rows)} scored rows: its mean is noisy, and only a large shift can be told "
        "from chance."
        for name, used in (("target", target), ("reference", reference))
        if len(used.rows) < FEW_ROWS
    ]
    said += repeats.not_looked_for()
    if not given:
        said.append("What must be kept: no reference was given, a random sample of the pool stands for it.")
    aligned = find_filter(sft.filters, NOT_ALIGNED)
    if aligned is not None and aligned["left"] < SMALLEST and aligned["removed"]:
        asked = aligned["left"] + aligned["removed"]
        said.append(
            f"Whether the pool holds what the target asks for: only {aligned['left']} of {asked} rows that "
            "were compared are as aligned with the target as its own rows are."
        )
    return said
