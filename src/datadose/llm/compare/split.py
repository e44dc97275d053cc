"""The target in three: what the selectors see, what chooses the step, and what the result is measured on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datadose.errors import reject
from datadose.llm.scores import Scores
from datadose.llm.selection.arrays import Indices, among_these, numbers

LEAST = 8
"""Questions that a target must have: four for the selectors, two for each of the other parts."""
FEW = 32
"""Test rows below which the report says that they are few."""


@dataclass(frozen=True)
class Split:
    """Positions of the target's rows, ascending; no question is in two parts."""

    seen: Indices
    """Half of the questions: the examples that selectors are given."""
    validation: Indices
    """A quarter: the best step has the lowest loss on it."""
    test: Indices
    """A quarter."""


def split_target(target: Scores, seed: int) -> Split:
    """Split the scored rows of the target at random, all rows of a question together.

    Args:
        target: its scores; rows with an issue or without a finite loss are in no part.
        seed: of the draw.

    Raises InputError for fewer than LEAST questions.
    """
    scored = target.table["issue"].isna().to_numpy(dtype=bool) & np.isfinite(numbers(target.table, "nll"))
    hashes = target.table["question_hash"].to_numpy()
    questions = np.unique(hashes[scored])
    if len(questions) < LEAST:
        value = f"{len(questions)} scored questions"
        reject(
            "target", value, f"at least {LEAST}: half to select by, a quarter to stop by, a quarter to test"
        )
    order = np.random.default_rng([seed, len(questions)]).permutation(questions)
    quarter = len(questions) // 4
    ends = (len(questions) - 2 * quarter, len(questions) - quarter)
    parts = (np.flatnonzero(scored & among_these(hashes, part)) for part in np.split(order, ends))
    return Split(*parts)
