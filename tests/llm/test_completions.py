"""Completions made elsewhere: our own form, and the results of batch jobs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datadose.errors import InputError
from datadose.llm.completions import read_completions
from datadose.llm.pool import Row, read_pool
from datadose.llm.sampling import Texts


def pool(write_rows: Callable[..., Path]) -> list[Row]:
    """Rows a, b of one prompt and c of another."""
    content = [("a", "1+1=", "2"), ("b", "1+1=", "two"), ("c", "1+2=", "3")]
    rows = [{"id": id_, "prompt": prompt, "completion": answer} for id_, prompt, answer in content]
    return read_pool(write_rows(rows))


def test_completions_are_found_by_id_or_prompt(write_rows: Callable[..., Path]) -> None:
    rows = pool(write_rows)
    given = [{"prompt": "1+1=", "completions": ["2", "3"]}, {"id": "c", "completions": ["3"]}]
    found = read_completions(write_rows(given, "given.jsonl"), rows)
    assert [texts.samples for texts in found] == [["2", "3"], ["2", "3"], ["3"]]


def chat_result(id_: str, *choices: tuple[str | None, str], **changes: Any) -> dict[str, Any]:
    """A line of a batch's results, in OpenAI's form for chats."""
    found = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        for i, (text, finish) in enumerate(choices)
    ]
    response = {"status_code": 200, "request_id": "r", "body": {"choices": found}}
    return {"id": "batch_req_1", "custom_id": id_, "response": response, "error": None, **changes}


FAILED: list[dict[str, Any]] = [
    {"response": {"status_code": 0, "request_id": "r", "body": None}},
    {"response": {"status_code": 0, "body": {}}},
    {"response": {"status_code": 400, "body": {"error": {"message": "too long"}}}},
    {"response": {"status_code": 200, "body": {"choices": []}}},
    {"response": {"status_code": 200}},
    {"response": None, "error": {"code": "batch_expired", "message": "expired"}},
    {"response": {"status_code": 200, "body": {"choices": [{"text": "2"}]}}, "error": "cut"},
]
"""How a request of a batch can fail."""


def test_results_of_a_batch_are_read(write_rows: Callable[..., Path]) -> None:
    rows = pool(write_rows)
    plain = {"choices": [{"index": 1, "text": "4", "finish_reason": "length"}, {"index": 0, "text": "3"}]}
    lines = [
        chat_result("c", ("3", "stop"), (None, "length")),
        chat_result("a", ("2", "stop")),
        chat_result("a", ("", "content_filter")),
        {"custom_id": "b", "response": {"status_code": 200, "body": plain}},
    ]
    found = read_completions(write_rows(lines, "given.jsonl"), rows)
    assert list(found) == [
        Texts(["2", ""], finish=["stop", "stop"]),
        Texts(["3", "4"], finish=[None, "length"]),
        Texts(["3", ""], finish=["stop", "length"]),
    ]
    assert [texts.truncated for texts in found] == [0, None, 1]


@pytest.mark.parametrize("failed", FAILED)
def test_a_failed_request_of_a_batch_is_a_missing_sample(
    failed: dict[str, Any], write_rows: Callable[..., Path]
) -> None:
    lines = [chat_result("a", ("2", "stop")), {"custom_id": "a", **failed}, {"custom_id": "c", **failed}]
    a, b, c = read_completions(write_rows(lines, "given.jsonl"), pool(write_rows))
    assert (a.samples, a.missing) == (["2"], 1)
    assert (b.samples, b.missing, b.issue) == ([], 0, None)
    assert (c.samples, c.missing, c.truncated) == ([], 1, None)
    assert c.issue is not None
    assert c.issue.startswith("samples missing: 1 of 1: ")
    assert c.reason
    assert "None" not in c.reason


def test_a_part_of_the_pool_in_a_packed_file(write_rows: Callable[..., Path], tmp_path: Path) -> None:
    content = json.dumps({"id": "b", "completions": ["2", "3"], "finish": ["stop", "length"]})
    packed = tmp_path / "given.jsonl.gz"
    packed.write_bytes(gzip.compress(content.encode()))
    found = read_completions(packed, pool(write_rows))
    assert list(found) == [Texts([]), Texts(["2", "3"], finish=["stop", "length"]), Texts([])]
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"given\.jsonl\.gz; allowed: a file that can be read"):
        read_completions(packed, pool(write_rows))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"id": "x", "completions": ["2"]}], "line 1: id x; allowed: the id of a row of the pool"),
        ([{"prompt": "x", "completions": ["2"]}], "line 1: prompt x; allowed: the prompt of a row"),
        ([{"completions": ["2"]}], "line 1: no id and no prompt"),
        ([{"id": "a", "completions": []}], "line 1: completions; allowed: a list of at least one string"),
        ([{"id": "a", "completions": "2"}], "line 1: completions"),
        ([{"id": "a", "completions": [2]}], "line 1: completions"),
        ([{"id": "a"}], "line 1: completions"),
        (
            [{"id": "a", "completions": ["2"]}, {"prompt": "1+1=", "completions": ["2"]}],
            "line 2: row a again",
        ),
        (
            [{"id": "a", "completions": ["2"], "finish": ["stop", "stop"]}],
            r"line 1: finish \['stop', 'stop'\]; allowed: .* one for each completion",
        ),
        ([{"id": "a", "completions": ["2"], "finish": ["cut"]}], "line 1: finish"),
        ([{"custom_id": "x", "response": {}}], "line 1: custom_id x; allowed: the id"),
        (
            [{"custom_id": "a", "error": {"message": "down"}}],
            "with failed requests alone: down; allowed: compl",
        ),
        ([[1]], "line 1: list"),
    ],
)
def test_bad_completions_are_named(write_rows: Callable[..., Path], lines: list[Any], message: str) -> None:
    rows = pool(write_rows)
    with pytest.raises(InputError, match="completions: got .*" + message):
        read_completions(write_rows(lines, "given.jsonl"), rows)


def test_a_missing_or_malformed_completions_file(write_rows: Callable[..., Path], tmp_path: Path) -> None:
    rows = pool(write_rows)
    with pytest.raises(InputError, match=r"an existing file \(a JSONL file\)"):
        read_completions(tmp_path / "nothing.jsonl", rows)
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "completions": ["2"]}\n{"id"\n')
    with pytest.raises(InputError, match=r"bad.jsonl, line 2: .*; allowed: well-formed JSON"):
        read_completions(tmp_path / "bad.jsonl", rows)
