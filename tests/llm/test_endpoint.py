"""Samples from a server: as many as asked for, whatever the order, with seeds of their own."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datadose.llm.language_model import LanguageModel
from datadose.llm.score import score
from datadose.llm.scores import SAMPLES
from helpers.endpoint_samples import lines_of, question, sampled
from helpers.loopback_server import Reply, completion, loopback, prompt_of, text_of
from helpers.scored_pool import ROWS, SETTINGS, Write

pytestmark = pytest.mark.usefixtures("hasty")

STRINGS = [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(3)]


def test_every_sample_is_asked_for_once_with_a_seed_of_its_own(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    rows = [*ROWS[:4], {**ROWS[0], "completion": [{"role": "assistant", "content": "one"}]}]
    with loopback() as server:
        scores = sampled(model, write_rows(rows), tmp_path / "out", server.url)
    assert {path for path, _, _ in server.requests} == {"/v1/chat/completions"}
    assert Counter(prompt_of(body) for body in server.bodies) == dict.fromkeys(map(question, ROWS[:4]), 4)
    seeds = [body.get("seed") for body in server.bodies if body["temperature"]]
    assert len(set(seeds)) == len(seeds) == 12
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)
    greedy = [body for body in server.bodies if not body["temperature"]]
    assert [("seed" in body, body["temperature"]) for body in greedy] == [(False, 0)] * 4
    assert {(body["model"], body["max_tokens"], body["top_p"]) for body in server.bodies} == {
        ("served", 6, 1)
    }
    found = lines_of(tmp_path / "out")
    answers = {(prompt_of(body), text_of(body)) for body in server.bodies if body["temperature"]}
    assert {
        (question(rows[i]), text) for i, line in enumerate(found) for text in line["completions"]
    } == answers
    # Rows of one prompt share its samples.
    assert found[0]["completions"] == found[4]["completions"]
    for i, (line, kept) in enumerate(zip(scores.lines(range(5)), found, strict=True)):
        assert (kept["id"], kept["finish"]) == (f"row-{i + 1}", ["stop"] * 3)
        assert line["pass_rate_passed"] == sum(kept["passed"])
        assert line["own_completion"] == next(text_of(b) for b in greedy if prompt_of(b) == question(rows[i]))
        assert (line["pass_rate_total"], line["truncated"]) == (3, 0)
    counts = {"engine": "endpoint", "samples": 15, "truncated": 0, "missing": 0, "rows_without": 0}
    assert counts.items() <= scores.manifest["sampling"].items()


def test_the_confidence_is_that_of_the_scored_model(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool = write_rows([*ROWS[:3], {"prompt": [{"role": "user", "content": "x"}], "completion": []}])
    own = score(model, pool, tmp_path / "own", config=replace(SETTINGS, samples=1), verifier="exact")
    texts = {question(ROWS[i]): line for i, line in enumerate(own.lines(range(3)))}

    def repeat(request: dict[str, Any], _: int) -> Reply:
        line = texts[prompt_of(request)]
        ended = len(line["own_completion"]) < SETTINGS.max_tokens
        return Reply(body=completion(request, line["own_completion"], "stop" if ended else "length"))

    with loopback(repeat) as server:
        found = sampled(model, pool, tmp_path / "out", server.url, samples=1)
    assert found.table["own_confidence"][:3].tolist() == pytest.approx(
        own.table["own_confidence"][:3].tolist(), rel=1e-4
    )


def test_strings_are_completed_and_options_and_the_key_are_sent(
    model: LanguageModel, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
    options = {"top_k": -1, "top_p": None}
    with loopback(models=("a", "b")) as server:
        url = server.url.removesuffix("/v1")
        sampled(model, write_rows(STRINGS), tmp_path / "out", url, model="b", options=options)
    assert {path for path, _, _ in server.requests} == {"/v1/completions"}
    assert {body["model"] for body in server.bodies} == {"b"}
    assert all(body["top_k"] == -1 and "top_p" not in body for body in server.bodies)
    assert {headers["Authorization"] for _, _, headers in server.requests} == {"Bearer sk-secret-key"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["endpoint"], manifest["endpoint_model"]) == (url, "b")
    assert manifest["endpoint_options"] == options
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes()


def test_the_order_of_answers_and_the_concurrency_do_not_matter(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool, first_eight = write_rows(ROWS), threading.Barrier(8)
    begun = itertools.count(1)

    def shuffled(request: dict[str, Any], _: int) -> Reply:
        if next(begun) <= 8:
            # On a busy machine the first would be answered before the eighth has come.
            first_eight.wait(60)
        return Reply(delay=int(text_of(request)) / 100)

    with loopback(shuffled) as many, loopback() as one:
        sampled(model, pool, tmp_path / "many", many.url, concurrency=8)
        sampled(model, pool, tmp_path / "one", one.url, concurrency=1)
    assert (many.busiest, one.busiest) == (8, 1)
    names = ("rows.jsonl", SAMPLES)
    first, second = (
        {name: (tmp_path / folder / name).read_bytes() for name in names} for folder in ("many", "one")
    )
    assert first == second


def test_truncated_samples_are_counted_and_said(
    model: LanguageModel, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(request: dict[str, Any], _: int) -> Reply:
        cut = prompt_of(request) == question(ROWS[0]) and bool(request["temperature"])
        return Reply(body=completion(request, None, "length" if cut else "stop"))

    with loopback(act) as server:
        scores = sampled(model, write_rows(ROWS[:3]), tmp_path / "out", server.url)
    assert scores.table["truncated"].tolist() == [3, 0, 0]
    assert [line["truncated"] for line in scores.lines(range(3))] == [3, 0, 0]
    assert [line["finish"] for line in lines_of(tmp_path / "out")] == [
        ["length"] * 3,
        ["stop"] * 3,
        ["stop"] * 3,
    ]
    counts = {"samples": 9, "truncated": 3, "truncated_rows": 1}
    assert counts.items() <= scores.manifest["sampling"].items()
    said = capsys.readouterr().err
    assert "3 of 9 samples, of 1 rows, were cut by --max-tokens 6" in said
    assert "raise --max-tokens" in said


def test_a_server_without_seeds_is_asked_without(
    model: LanguageModel, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(request: dict[str, Any], _: int) -> Reply:
        return Reply(400, {"error": {"message": "seed?"}}) if "seed" in request else Reply()

    with loopback(act) as server:
        scores = sampled(model, write_rows(ROWS[:4]), tmp_path / "out", server.url, concurrency=1)
    assert scores.manifest["sampling"]["missing"] == 0
    assert sum("seed" in body for body in server.bodies) == 1
    assert capsys.readouterr().err.count("the server takes no seed (HTTP 400: seed?)") == 1


def test_a_server_that_does_not_sample_is_said(
    model: LanguageModel, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback(lambda request, _: Reply(body=completion(request, "7"))) as server:
        sampled(model, write_rows(ROWS[:4]), tmp_path / "few", server.url)
        assert "all equal" not in capsys.readouterr().err
        sampled(model, write_rows(ROWS[:5]), tmp_path / "out", server.url)
    assert "the samples of every prompt are all equal" in capsys.readouterr().err


def test_more_samples_later_are_added_to_those_that_are_there(
    model: LanguageModel, write_rows: Write, tmp_path: Path
) -> None:
    pool = write_rows(ROWS[:4])
    with loopback() as server:
        sampled(model, pool, tmp_path / "out", server.url, samples=2)
        first = [line["completions"] for line in lines_of(tmp_path / "out")]
        assert len(server.requests) == 12
        sampled(model, pool, tmp_path / "out", server.url, samples=4)
        assert len(server.requests) == 20
        sampled(model, pool, tmp_path / "fresh", server.url, samples=4)
    assert [line["completions"][:2] for line in lines_of(tmp_path / "out")] == first
    assert (tmp_path / "out" / SAMPLES).read_bytes() == (tmp_path / "fresh" / SAMPLES).read_bytes()
    given = tmp_path / "out" / SAMPLES
    again = score(model, pool, tmp_path / "again", verifier="exact", completions=given)
    assert again.table["pass_rate"].tolist() == [
        sum(line["passed"]) / 4 for line in lines_of(tmp_path / "out")
    ]
    assert again.table["truncated"].tolist() == [0] * 4
