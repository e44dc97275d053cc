"""Rows with several answers, and rows of prompts alone, in a scored pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.errors import InputError
from datadose.llm.language_model import LanguageModel
from datadose.llm.measured import best_answers
from datadose.llm.represent import scores_of
from datadose.llm.score import ScoreConfig, score
from datadose.llm.scores import read_scores
from helpers.scored_pool import SAMPLED, Write, chat


def test_of_several_answers_the_best_verified_one_stands_for_the_row(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    answers = ["so 9", "5", "it is 5", " ", "5" * 400]
    several = {"prompt": chat("2+3?", "")["prompt"], "completion": answers, "answer": "5"}
    alone = [chat("2+3?", answer, answer="5") for answer in answers]
    scores = score(model, write_rows([several, *alone]), tmp_path / "out", verifier="last-number")
    (row, *single) = scores.lines(range(6))
    nll = [one["nll"] for one in single]
    assert row["completion_nlls"] == nll
    assert [loss is None for loss in nll] == [False, False, False, True, True]
    assert (row["issue"], row["label_passes"]) == (None, True)
    best = row["best_completion"]
    assert best == min((1, 2), key=nll.__getitem__)
    assert (row["nll"], row["tokens"]) == (nll[best], single[best]["tokens"])
    assert row["completion"] == [[{"role": "assistant", "content": answer}] for answer in answers]
    np.testing.assert_array_equal(scores.embeddings[0], scores.embeddings[best + 1])
    np.testing.assert_array_equal(scores.sketches[0], scores.sketches[best + 1])
    assert (
        {one["best_completion"] for one in single}
        == {one["completion_nlls"] and 1 for one in single}
        == {None}
    )
    assert len(scores.embeddings) == 6


def test_without_a_verifier_the_first_answer_that_has_a_loss_stands_for_the_row(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    rows = [
        {"prompt": "1+1=", "completion": ["2", "two"]},
        {"prompt": "1+1=", "completion": ["", "two"]},
        {"prompt": "1+1=", "completion": ["", " "]},
    ]
    found = score(model, write_rows(rows), tmp_path / "out").lines(range(3))
    assert [row["best_completion"] for row in found] == [0, 1, 0]
    assert [row["issue"] for row in found] == [None, None, "empty completion"]
    assert found[1]["nll"] == found[0]["completion_nlls"][1] == found[1]["completion_nlls"][1]
    assert (found[2]["nll"], found[2]["completion_nlls"]) == (None, [None, None])


def test_of_answers_that_pass_the_likeliest_is_best() -> None:
    starts = np.array([0, 3, 4, 6])
    nll = np.array([1.0, 3.0, 2.0, 5.0, np.nan, 7.0])
    verdicts: list[Any] = [
        {"label_passes": [False, True, True]},
        {"label_passes": []},
        {"label_passes": [True, None]},
    ]
    assert best_answers(starts, nll, verdicts).tolist() == [2, 0, 1]


def test_rows_of_prompts_alone_are_sampled_and_have_no_loss(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": chat(text, "")["prompt"], "reward_model": {"ground_truth": answer}}
        for text, answer in (("0+0?", "0"), ("1+1?", "2"), ("2+2?", "4"), ("1" * 300, "1"))
    ]
    scores = score(model, write_rows(rows), tmp_path / "out", **SAMPLED)
    found = scores.lines(range(4))
    assert [row["issue"] for row in found[:3]] == [None] * 3
    assert str(found[3]["issue"]).startswith("prompt too long: ")
    assert [row["pass_rate_total"] for row in found[:3]] == [3] * 3
    assert {row[name] for row in found for name in ("nll", "tokens", "label_passes")} == {None}
    assert [row["answer"] for row in found[:3]] == ["0", "2", "4"]
    assert np.isnan(scores.embeddings).all()
    assert scores.manifest["layout"]["name"] == "verl"


def test_a_target_in_another_layout_is_scored_once(
    tiny_llama: Path,
    write_rows: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = score(
        tiny_llama, write_rows([chat("1+1?", "2")]), tmp_path / "out", config=ScoreConfig(sketch_size=64)
    )
    (tmp_path / "target").mkdir()
    write_rows([{"ask": "2+2?", "reply": "4"}], "target/1.jsonl")
    columns = {"prompt": "ask", "completion": "reply"}
    found = scores_of(tmp_path / "target", "target", pool, columns=columns)
    assert "target: read as given (prompt from ask, completion from reply)" in capsys.readouterr().err
    assert found.lines([0])[0]["prompt"] == "2+2?"
    assert found.manifest["columns"] == columns
    assert scores_of(tmp_path / "target", "target", pool, columns=columns).folder == found.folder
    with pytest.raises(InputError, match=r"target: got .*line 1: columns ask, reply"):
        scores_of(tmp_path / "target", "target", pool)
    assert read_scores(found.folder or tmp_path).manifest == found.manifest
    # What a version with other embeddings has measured does not stand in the way.
    monkeypatch.setattr("datadose.llm.represent.EMBEDDING", "of another version")
    assert scores_of(tmp_path / "target", "target", pool, columns=columns).folder != found.folder


def test_an_answer_that_was_taken_from_the_completion_does_not_verify_it(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    """GSM8K's form, the first label wrong: its own #### is no witness; a column for the answer is."""
    rows = [
        {"question": "1+1?", "answer": "So\n#### 7"},
        {"question": "1+2?", "answer": "So\n#### 3", "final_answer": "3"},
        {"question": "1+3?", "answer": "So\n#### 5", "final_answer": "4"},
    ]
    pool = write_rows(rows)
    given = write_rows([{"id": f"row-{i}", "completions": ["7", "3", "4"]} for i in (1, 2, 3)], "given.jsonl")
    for verifier in ("number", "math", "exact"):
        found = score(model, pool, tmp_path / verifier, verifier=verifier, completions=given)
        labels = [line["label_passes"] for line in found.lines(range(3))]
        assert labels == [None, verifier != "exact", False]
        assert found.table["pass_rate_passed"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("verifier", ["exact", "number", "math"])
def test_a_prompt_without_an_answer_has_nothing_to_be_compared_with(
    verifier: str, model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    """Not even an empty sample passes."""
    rows = [{"id": "a", "prompt": "1+1?", "answer": None}, {"id": "b", "prompt": "1+2?", "answer": "3"}]
    given = write_rows([{"id": id_, "completions": ["", "3"]} for id_ in "ab"], "given.jsonl")
    found = score(model, write_rows(rows), tmp_path / "out", verifier=verifier, completions=given)
    assert found.table["pass_rate_total"].tolist() == [0, 2]
    assert found.lines([0])[0]["issue"] == "no answer: the row has none to compare with"
    assert found.lines([1])[0]["pass_rate"] == 0.5
