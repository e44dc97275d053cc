"""Near copies and rows of evaluation files: found where they are, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.llm.pool import Row
from datadose.llm.scores import Scores, hash_question, write_scores
from datadose.llm.selection import SelectionConfig, duplicates, select
from datadose.llm.selection.duplicates import COPY_WORDS, find_near_copies, find_overlaps, grams_of, words_of
from helpers.synthetic import MANIFEST, make

pytestmark = pytest.mark.usefixtures("quick_geometry")

FRAME = "Solve the following problem step by step and put the final answer in a box at the end please."
VOCABULARY = [f"word{i}" for i in range(5000)]


def _texts(count: int, length: int, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[VOCABULARY[i] for i in rng.integers(0, len(VOCABULARY), length)] for _ in range(count)]


def _scores(
    folder: Path, prompts: Sequence[Any], completions: Sequence[Any] | None = None, **options: Any
) -> Scores:
    """Scored rows with these prompts; ``options`` are columns by name, a value a row."""
    pool = make(len(prompts), 0, name=folder.name)
    answers = completions or [row["completion"] for row in pool.rows]
    rows = [
        {**row, "prompt": p, "completion": c} for row, p, c in zip(pool.rows, prompts, answers, strict=True)
    ]
    for name, values in options.items():
        rows = [{**row, name: value} for row, value in zip(rows, values, strict=True)]
    questions = [hash_question(str(prompt)) for prompt in prompts]
    return write_scores(
        folder, rows, [row["id"] for row in rows], questions, pool.embeddings, pool.sketches, dict(MANIFEST)
    )


def _evaluation(prompts: Sequence[Any]) -> dict[str, list[Row]]:
    return {
        "test.jsonl": [Row(str(i), p, (), {}, i + 1, place=f"line {i + 1}") for i, p in enumerate(prompts)]
    }


def test_words_are_numbers_signs_and_single_ideographs():
    assert words_of("What is 3+5, Ada's x^2?") == ["what", "is", "3", "+", "5", "ada", "s", "x", "^", "2"]
    assert words_of("求 x 的值") == ["求", "x", "的", "值"]
    assert grams_of(list("abcd"), 3) == ["a b c", "b c d"]
    assert grams_of(list("ab"), 3) == ["a b"]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8])
def test_near_copies_agree_with_the_exact_similarity(tmp_path, threshold):
    """Pairs of every similarity, by their sets of 5-grams; only those close to the threshold may differ."""
    texts = _texts(300, 60, 0)
    rng = np.random.default_rng(1)
    changed = []
    for text in texts:
        other = list(text)
        for place in rng.choice(60, rng.integers(0, 8), replace=False):
            other[place] = "changed"
        changed.append(other)
    pool = _scores(tmp_path / "pool", [" ".join(t) for t in texts + changed])
    copies, record = find_near_copies(pool, np.arange(600), threshold)
    assert not copies[:300].any()
    first, second = ([set(grams_of(text, COPY_WORDS)) for text in part] for part in (texts, changed))
    exact = np.array([len(a & b) / len(a | b) for a, b in zip(first, second, strict=True)])
    alike, unlike = exact > threshold + 0.12, exact < threshold - 0.12
    assert min(alike.sum(), unlike.sum()) >= 20
    assert copies[300:][alike].all()
    assert not copies[300:][unlike].any()
    assert record["found"] == copies.sum()


def test_a_shared_frame_makes_no_copies(tmp_path):
    """One instruction, long, before questions that differ: as a whole these are similar."""
    questions = [" ".join(text) for text in _texts(200, 12, 2)]
    framed = [f"{FRAME} {FRAME} {FRAME} {question}" for question in questions]
    pool = _scores(tmp_path / "pool", [*framed, framed[7] + " again"])
    copies, record = find_near_copies(pool, np.arange(201), 0.8)
    assert np.flatnonzero(copies).tolist() == [200]
    assert record["frame"] > 10
    systems = [
        [{"role": "system", "content": FRAME * 9}, {"role": "user", "content": q}] for q in questions[:3]
    ]
    pool = _scores(tmp_path / "few", systems)
    assert not find_near_copies(pool, np.arange(3), 0.8)[0].any()


def test_other_numbers_in_a_short_question_are_no_copy(tmp_path):
    pool = _scores(tmp_path / "pool", ["What is 3 + 5?", "What is 3 - 5?", "What is 3 + 6?", "what is 3+5"])
    assert find_near_copies(pool, np.arange(4), 0.8)[0].tolist() == [False, False, False, True]


def test_of_near_copies_the_verified_one_stays(tmp_path):
    texts = [" ".join(text) for text in _texts(300, 40, 3)]
    copied = [text + " please" for text in texts[:60]]
    passes = [False] * 30 + [None] * 30 + [True] * 240 + [True] * 60
    pool = _scores(tmp_path / "pool", texts + copied, label_passes=passes)
    target = make(100, 1, name="target").scores
    found = select(
        pool, target, config=SelectionConfig(method="filters", sft_size=250, rl_size=20, near_duplicates=0.8)
    )
    assert not found.eligible[:60].any()
    assert found.eligible[60:].all()
    for rows in (found.sft, found.rl, found.control_sft, found.control_rl):
        assert (rows >= 60).all()
    funnel = {f["name"]: f["removed"] for f in found.filters_of("sft")}
    assert funnel["near duplicate"] == 60
    assert {f["name"]: f["removed"] for f in found.filters_of("rl")}["near duplicate"] == 60
    assert found.repeats["near_duplicates"]["found"] == 60
    assert not any("Near duplicates" in said for said in found.unchecked)
    plain = select(pool, target, config=SelectionConfig(method="filters", sft_size=250, rl_size=20))
    assert any("Near duplicates" in said for said in plain.unchecked)


def test_rows_that_repeat_an_evaluation_file_are_out(tmp_path):
    """In the prompt or the completion, in part or whole; with a frame that all share, and short questions."""
    own = [" ".join(text) for text in _texts(200, 30, 4)]
    tested = [" ".join(text) for text in _texts(50, 30, 5)]
    prompts = [f"{FRAME} {text}" for text in own]
    completions = [f"answer {i}" for i in range(200)]
    prompts[0] = f"{FRAME} {tested[0].upper()}!"
    prompts[1] = [{"role": "user", "content": "Another: " + " ".join(tested[1].split()[:24])}]
    completions[2] = [{"role": "assistant", "content": f"As in: {tested[2]}"}]
    prompts[2] = [{"role": "user", "content": prompts[2]}]
    prompts[3] = "What is 2 + 2 ?"
    prompts[4] = "What is 2 + 3 ?"
    prompts[5] = f"{FRAME} {' '.join(tested[3].split()[:14])} {own[5]}"
    against = _evaluation([f"{FRAME} {text}" for text in tested] + ["what is 2+2"])
    pool = _scores(tmp_path / "pool", prompts, completions)
    found, record = find_overlaps(pool, against, 0.5)
    assert np.flatnonzero(found).tolist() == [0, 1, 2, 3]
    assert record["found"] == 4
    assert record["files"] == [{"file": "test.jsonl", "rows": 51, "unread": 0, "repeated": 4}]
    assert {(e["id"], e["place"]) for e in record["examples"]} == {
        ("pool-0", "line 1"),
        ("pool-1", "line 2"),
        ("pool-2", "line 3"),
        ("pool-3", "line 51"),
    }
    # 7 of the 23 n-grams are in row 5.
    assert np.flatnonzero(find_overlaps(pool, against, 0.25)[0]).tolist() == [0, 1, 2, 3, 5]
    assert not find_overlaps(pool, {"none.jsonl": []}, 0.5)[0].any()


def test_blocks_change_nothing(tmp_path, monkeypatch):
    texts = _texts(150, 25, 6)
    prompts = [" ".join(text) for text in texts + [text[1:] for text in texts[:40]]]
    pool, against = _scores(tmp_path / "pool", prompts), _evaluation(prompts[100:130])
    whole = find_overlaps(pool, against, 0.5)[0], find_near_copies(pool, np.arange(190), 0.7)[0]
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    parts = find_overlaps(pool, against, 0.5)[0], find_near_copies(pool, np.arange(190), 0.7)[0]
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert np.flatnonzero(whole[0]).tolist() == list(range(100, 130))
    assert np.flatnonzero(whole[1]).tolist() == list(range(150, 190))


def test_no_set_holds_a_row_of_an_evaluation_file(tmp_path):
    texts = [" ".join(text) for text in _texts(300, 30, 7)]
    pool = _scores(tmp_path / "pool", texts)
    target = make(100, 1, name="target").scores
    found = select(
        pool,
        target,
        against=_evaluation(texts[:120]),
        config=SelectionConfig(method="filters", sft_size=120, rl_size=40),
    )
    for rows in (found.sft, found.rl, found.control_sft, found.control_rl):
        assert (rows >= 120).all()
    for name in ("sft", "rl"):
        assert {f["name"]: f["removed"] for f in found.filters_of(name)}["in an evaluation file"] == 120
    assert found.repeats["against"]["files"][0]["repeated"] == 120


def test_a_row_of_an_evaluation_file_stands_for_no_near_copy(tmp_path):
    """Both searches at once: the copy of a row that is out is not out for that."""
    texts = [" ".join(text) for text in _texts(300, 60, 8)]
    # So little of the evaluation question is left in the copy that it is no overlap by itself.
    copied = texts[0].split()
    copied[::12] = ["other"] * 5
    pool = _scores(tmp_path / "pool", [*texts, " ".join(copied), texts[1] + " please"])
    target = make(100, 1, name="target").scores
    config = SelectionConfig(method="filters", sft_size=50, rl_size=40, near_duplicates=0.3, overlap=0.9)
    found = select(pool, target, against=_evaluation(texts[:1]), config=config)
    assert np.flatnonzero(~found.eligible).tolist() == [0, 301]
    assert np.flatnonzero(~select(pool, target, config=config).eligible).tolist() == [300, 301]
