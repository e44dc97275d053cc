"""The level of SmolLM2, on a tiny random model: its rows, its adapter, what a run measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datadose.llm.language_model import LanguageModel
from datadose.studies.levels.descent import Descent
from datadose.studies.levels.schema import LOWER_WEIGHT, SHARE_MISLEADING, Column
from datadose.studies.levels.smollm import Questions, SmolLevel, SmolRun, run_smol, smol_rows
from datadose.studies.llm_study.measure import encode_rows, pass_probabilities
from datadose.studies.llm_study.tasks import draw_mixture

QUESTIONS = Questions(target_rows=4, earlier_rows=4)
RUN = SmolRun(0, 10, 20, Descent(1e-2, (0, 2), batch=4, warmup=1), SHARE_MISLEADING, LOWER_WEIGHT)


def test_rows_are_nested_in_turn_and_wrong_where_they_mislead() -> None:
    rows, weights = smol_rows(RUN, QUESTIONS)
    assert weights == [1.0] * 7 + [LOWER_WEIGHT] * 3
    assert [row["level"] for row in rows[:4]] == [*QUESTIONS.target] * 2
    assert [row["completion"] == f" {row['answer']}\n" for row in rows] == [True] * 7 + [False] * 3
    assert smol_rows(replace(RUN, weight=0.0), QUESTIONS) == (rows[:7], [1.0] * 7)
    more, _ = smol_rows(replace(RUN, prompts=20), QUESTIONS)
    assert more[:7] == rows[:7]
    held = {row["prompt"] for row in draw_mixture(dict.fromkeys(QUESTIONS.target, 4), 9001)}
    assert held.isdisjoint(row["prompt"] for row in more)


def test_a_run_starts_at_the_untouched_model_and_a_look_changes_nothing(tiny: Path) -> None:
    often = run_smol(tiny, replace(RUN, descent=replace(RUN.descent, updates=(0, 1, 2))), QUESTIONS)
    seldom = run_smol(tiny, replace(RUN, descent=replace(RUN.descent, updates=(2,))), QUESTIONS)
    assert often[-1] == seldom[0]
    assert often[-1][2] != often[0][2]
    rows = draw_mixture(dict.fromkeys(QUESTIONS.target, 4), 9001)
    model = LanguageModel.load(tiny)
    probability, _ = pass_probabilities(model, rows)
    tokens = sum(row.targets for row in encode_rows(model, rows))
    assert often[0][2] == pytest.approx(-np.log(probability).sum() / tokens, rel=1e-5)


def test_a_preset_gives_a_cell_to_each_arm_and_seed(tmp_path: Path) -> None:
    level = SmolLevel.preset("paper")
    rows = [shared for _, shared in level.settings(tmp_path)]
    assert len({tuple(row.items()) for row in rows}) == len(rows)
    assert len(rows) == level.seeds * (len(level.prompts) + 2 * len(level.weighted_prompts))
    assert {row[Column.WEIGHT] for row in rows} == {1.0, LOWER_WEIGHT, 0.0}
