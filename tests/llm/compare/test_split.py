"""The target in three parts: every scored row in one, no question in two, drawn by seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.llm.compare.split import split_target
from datadose.llm.scores import Scores
from helpers.synthetic import make


def target(rows: int) -> Scores:
    return make(rows, 1, name="target").scores


def test_every_scored_row_is_in_one_part_and_a_question_with_all_its_rows() -> None:
    scores = target(50)
    table = scores.table.copy()
    # Two questions stand twice; two rows were not scored.
    table.loc[[10, 11], "question_hash"] = table.loc[[20, 21], "question_hash"].to_numpy()
    table.loc[40, "nll"] = np.nan
    table.loc[41, "issue"] = "too long"
    split = split_target(replace(scores, table=table), 3)
    parts = (split.seen, split.validation, split.test)
    assert sorted(np.concatenate(parts)) == [row for row in range(50) if row not in (40, 41)]
    questions = [set(table["question_hash"].to_numpy()[part]) for part in parts]
    assert [len(one) for one in questions] == [24, 11, 11]
    assert len(set.union(*questions)) == 46


def test_seeds_split_differently_and_each_always_alike() -> None:
    scores = target(40)
    first, again, other = (split_target(scores, seed) for seed in (0, 0, 1))
    assert (first.test == again.test).all()
    assert set(first.test) != set(other.test)


def test_a_small_target_is_refused_with_the_least() -> None:
    assert [len(part) for part in vars(split_target(target(8), 0)).values()] == [4, 2, 2]
    with pytest.raises(InputError, match=r"^target: got 7 scored questions; allowed: at least 8: half to"):
        split_target(target(7), 0)
