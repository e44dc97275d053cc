"""The report for somebody who decides: what was read, what to do, why each row is where it is."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.llm.scores import MEASURED, Scores
from datadose.llm.selection import Selection, SelectionConfig, describe, select, write_selection
from datadose.llm.selection import report as module
from datadose.llm.selection.decision import decide
from datadose.llm.selection.examples import find_examples
from datadose.llm.selection.sources import read_sampling, read_sources
from datadose.llm.spoiled import spoiled_samples
from helpers.synthetic import MANIFEST, Pool, make

pytestmark = pytest.mark.usefixtures("quick_geometry")

EVIL = "<script>alert('x')</script>"
RECORD: dict[str, Any] = {
    **MANIFEST,
    "model": f"models/{EVIL}",
    "pool": f"{EVIL}.jsonl",
    "dtype": "bfloat16",
    "device": "cpu",
    "loss": "all",
    "template": "chat",
    "template_date": "2025-01-31",
    "layout": {
        "name": "question/answer",
        "roles": {"prompt": "question", "completion": EVIL},
        "rows": {"question/answer": 390, "messages": 10},
        "notes": ["shards without rows: b.jsonl"],
    },
    "renamed_columns": {"nll": "pool_nll"},
    "unread_columns": {f"system{EVIL}": 7},
    "issues": {"empty completion": 3, EVIL: 27},
    "verifier": "judges:number",
    "samples": 16,
    "adaptive": True,
    "temperature": 0.7,
    "max_tokens": 64,
    "seed": 0,
    "unfinished": 3,
    "sampling": {"engine": "model", "samples": 3200, "truncated": 480, "truncated_rows": 60, "missing": 0},
}
CONFIG = SelectionConfig(method="filters", sft_size=30, rl_size=60)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time of a report."""
    monkeypatch.setattr(module, "pictures", lambda _: [])


def saved(folder: Path, pool: Pool, record: dict[str, Any]) -> Scores:
    scores = pool.saved(folder)
    return replace(scores, manifest={**scores.manifest, **record})


def evil(pool: Pool) -> Pool:
    """The first tenth of the rows could not be read, and all texts are markup."""
    for place, row in enumerate(pool.rows):
        row |= {"id": f"{EVIL}{place}", "prompt": f"{EVIL} {row['prompt']}", EVIL: EVIL}
        row |= {"completion": f"{EVIL} {row['completion']}", "own_completion": EVIL, "truncated": place % 2}
        if place < len(pool.rows) // 10:
            row |= {**dict.fromkeys(MEASURED), "issue": f"not JSON: {EVIL}"}
    return pool


def chosen(
    folder: Path, config: SelectionConfig = CONFIG, *, record: dict[str, Any] | None = None, **options: Any
) -> Selection:
    """A selection of 400 rows of which nothing is written yet."""
    pool = evil(make(400, 0, (0.6, 0.4, 0, 0), **options))
    scores = saved(folder / "pool", pool, RECORD if record is None else record)
    target = None if config.sft_size == 0 else replace(make(60, 1, name="target").scores, manifest=RECORD)
    return select(scores, target, config=config)


def page_of(selection: Selection, out: Path, form: str = "trl") -> str:
    write_selection(selection, selection.pool, None, out, form=form)
    return (out / "report.html").read_text()


@pytest.mark.usefixtures("no_pictures")
def test_what_was_read_is_shown_and_no_text_is_markup(tmp_path):
    page = page_of(chosen(tmp_path), tmp_path / "out")
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    text = re.sub(r"<[^>]*>", " ", page)
    for said in (
        "400 rows, 360 without an issue",
        "question/answer (prompt from question",
        "390 rows as question/answer, 10 rows as messages",
        "nll is pool_nll",
        "of 7 rows is not scored: trainers do not read it",
        "empty completion: 3",
        "bfloat16 on cpu",
        "the tokens of all assistant turns",
        "chat; its clock shows 2025-01-31",
        "up to 16 a prompt, temperature 0.7, at most 64 tokens, seed 0",
        "40 of 400 rows have an issue and are in no set",
        "8.9 a row of at most 16: drawn adaptively, 44 percent fewer",
        "15 percent: 480 of 3200 samples, of 60 rows, were cut by --max-tokens 64",
        "3 samples broke off inside a thought",
        "Draw the samples again, and select again",
    ):
        assert said in text, said


@pytest.mark.usefixtures("no_pictures")
def test_a_terminal_says_the_same(tmp_path):
    selection = chosen(tmp_path)
    page = re.sub(r"\s+", " ", page_of(selection, tmp_path / "out"))
    told = [source.alarms for source in read_sources(selection, None)]
    sampling = read_sampling(selection)
    assert sampling is not None
    shown = describe(selection)
    sentences = [*told[0], *sampling.facts, *sampling.alarms, *decide(selection, sampling).unless]
    assert len(told[0]) == 2
    for sentence in sentences:
        assert sentence in shown
        escaped = sentence.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert escaped.replace("'", "&#39;") in page


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("config", "options", "absent"),
    [
        (replace(CONFIG, sft_size=0), {}, "Train SFT"),
        (replace(CONFIG, rl_size=0), {"samples": 0, "verified": False}, "Train RL"),
    ],
    ids=["RL only", "SFT only, no samples"],
)
def test_parts_that_are_missing_and_manifests_without_keys(tmp_path, config, options, absent):
    selection = chosen(tmp_path, config, record={}, **options)
    page = page_of(selection, tmp_path / "out")
    assert absent not in page
    assert ("None: the pool was scored without." in page) == ("samples" in options)
    assert "None</td>" not in page
    assert "nan" not in re.sub('data:image[^"]*', "", page).lower()
    assert ("SFT rows: none" in describe(selection)) == (config.sft_size == 0)


def test_every_row_has_its_own_reason(tmp_path):
    """Of a filter's rows the number is the row's own, and lies beyond the threshold that is named."""
    selection = chosen(tmp_path, replace(CONFIG, sft_size=100, interfering=0.3))
    table, groups = selection.pool.table, find_examples(selection, selection.pool, None)
    rows = {row.id: (group.title, row.reason) for group in groups for row in group.rows}
    places = {id_: place for place, id_ in enumerate(table["id"])}
    checked = set()
    for id_, (title, reason) in rows.items():
        place = places.get(id_)
        numbers = [float(number) for number in re.findall(r"[-+]?\d+\.\d+", reason)]
        if place is None:
            continue
        if title.endswith("too hard"):
            assert numbers[0] == pytest.approx(table["nll"][place], abs=0.006)
            assert numbers[0] >= numbers[1]
        elif title.endswith("not aligned"):
            assert numbers[0] == pytest.approx(selection.measures.alignment[place], abs=0.006)
            assert numbers[0] <= max([*numbers[1:], 0.0])
        elif title.endswith("already solved"):
            assert numbers[0] == pytest.approx(table["pass_rate_low"][place], abs=0.006)
            assert numbers[0] > numbers[1] == 0.5
        elif "mostly all" in title:
            assert numbers[0] < numbers[1] == 0.5 if len(numbers) > 1 else "threshold 0.5" in reason
        elif title.endswith("outside the hard stratum"):
            assert numbers[0] <= numbers[1]
        elif title == "Removed from the SFT set: unscored":
            assert reason == f"not JSON: {EVIL}"
        elif title == "In the SFT set" and "although" not in reason:
            assert numbers[0] >= numbers[1]
        else:
            continue
        checked.add(title.rpartition(": ")[2])
    assert {"too hard", "not aligned", "already solved", "unscored", "In the SFT set"} <= checked


def test_a_row_that_repeats_another_names_it(tmp_path):
    pool = make(400, 0, (0.6, 0.4, 0, 0), verified=False)
    words = np.random.default_rng(0)
    for row in pool.rows:
        row["prompt"] = " ".join(f"w{n}" for n in words.integers(0, 900, 40))
    pool.rows[7]["prompt"] = pool.rows[3]["prompt"]
    pool.rows[9]["prompt"] = pool.rows[5]["prompt"] + " please"
    scores, target = saved(tmp_path / "pool", pool, {}), make(60, 1, name="target").scores
    selection = select(scores, target, config=replace(CONFIG, near_duplicates=0.8))
    assert selection.repeats["near_duplicates"]["examples"] == [
        {"id": "pool-9", "of": "pool-5", "similarity": round(36 / 37, 3)}
    ]
    found = {group.title: group.rows for group in find_examples(selection, scores, None)}
    copies = [(row.id, row.reason) for row in found["Removed from the SFT set: near duplicate"]]
    assert copies == [("pool-9", "nearly the question of row pool-5: similarity 0.97")]
    same = [(row.id, row.reason) for row in found["Removed from the SFT set: duplicate question"]]
    assert same == [("pool-7", "the same question as row pool-3")]


@pytest.mark.usefixtures("no_pictures")
def test_rows_beyond_a_threshold_are_counted_and_shown_as_such(tmp_path):
    selection = chosen(tmp_path, replace(CONFIG, sft_size=200, rl_size=20))
    taken = {f["name"]: f["taken"] for f in selection.filters_of("sft") if f["taken"]}
    crossed = selection.sft_crossed[selection.sft]
    assert (crossed >= 0).sum() == sum(taken.values()) > 0
    assert (selection.sft_crossed[np.setdiff1d(np.arange(400), selection.sft)] == -1).all()
    page = page_of(selection, tmp_path / "out")
    assert "Taken all the same" in page
    assert "taken although it lies beyond `" in page
    within = 200 - sum(taken.values())
    assert f"{sum(taken.values())} SFT rows of 200 lie beyond a threshold: with --sft-size {within}" in page


def test_the_decision_follows_what_was_found(tmp_path):
    clean = {**RECORD, "unfinished": 0, "sampling": {"samples": 3200, "truncated": 3, "truncated_rows": 1}}
    selection = chosen(tmp_path / "a", record=clean)
    decision = decide(selection, read_sampling(selection))
    assert decision.first.startswith("Train SFT on the 30 rows of sft.jsonl, then RL on the 60 prompts")
    assert "random controls" in decision.first
    few = replace(selection, sizes={**selection.sizes, "target": 3})
    assert any("The target has 3 rows" in said for said in decide(few, None).unless)
    whole = replace(selection, sizes={**selection.sizes, "eligible": 40})
    assert any("The SFT set is 75 percent of the rows" in said for said in decide(whole, None).unless)
    assert not any("percent of the rows" in said for said in decision.unless if "SFT set" in said)
    blind = chosen(tmp_path / "b", replace(CONFIG, rl_size=0), samples=0, verified=False)
    assert any("No verifier has judged the labels" in said for said in decide(blind, None).unless)
    for directions in (0, 3):
        moved = replace(selection, geometry={**selection.geometry, "shifted_directions": directions})
        said = any("Give more rows of the target" in one for one in decide(moved, None).unless)
        assert said is (directions == 0)
    heuristic = chosen(tmp_path / "c", replace(CONFIG, sft_size="auto"), record=clean)
    assert any("is a heuristic" in said for said in decide(heuristic, None).unless)


def test_what_is_said_of_empty_and_of_measured_sets_is_true(tmp_path):
    """All labels fail: that is said, and nothing of an alignment that no row was asked for."""
    wrong = saved(tmp_path / "wrong", make(400, 0, (0, 0, 1, 0)), RECORD)
    target = replace(make(60, 1, name="target").scores, manifest=RECORD)
    none = select(wrong, target, config=replace(CONFIG, sft_size="auto"))
    assert len(none.sft) == 0
    said = "100 percent of the labels fail the verifier: mend the labels, or the verifier, first."
    assert said in describe(none)
    assert "Whether the pool holds what the target asks for" not in describe(none)
    few = select(saved(tmp_path / "few", make(400, 0, (0.1, 0.9, 0, 0)), RECORD), target, config=CONFIG)
    aligned = next(f for f in few.filters if f["name"] == "not aligned")
    compared = aligned["left"] + aligned["removed"]
    assert f"only {aligned['left']} of {compared} rows that were compared" in describe(few)
    tokens = chosen(tmp_path / "tokens", replace(CONFIG, sft_size="auto", sft_tokens=500))
    had = tokens.sizes["sft_tokens"]
    assert f"SFT rows: {len(tokens.sft)} with {had} completion tokens, of 500 asked for." in describe(tokens)
    assert "random controls of as many tokens and prompts" in describe(tokens)
    never = select(wrong, config=SelectionConfig(method="filters", sft_size=0, rl_size=5, rl_mixed=0.99))
    assert "5 RL prompts will seldom have a mixed group, and no other prompt" in describe(never)


def test_a_share_of_spoiled_samples_is_large_from_a_twentieth():
    counts = {"samples": 1000, "truncated_rows": 9}
    for cut, large in ((49, False), (50, True)):
        (found,) = spoiled_samples({**counts, "truncated": cut}, 256)
        assert found.large is large
        assert f"{cut} of 1000 samples, of 9 rows, were cut by --max-tokens 256" in found.text
    missing = spoiled_samples({"samples": 30, "missing": 10, "missing_rows": 4, "reasons": {"busy": 10}}, 8)
    assert [one.share for one in missing] == [0.25]
    assert "10 samples of 4 rows are missing, most for: busy" in missing[0].text
    assert spoiled_samples({}, None) == []
    assert [one.share for one in spoiled_samples({"samples": 8}, None, unfinished=2)] == [0.25]
