"""Pools: accepted forms, what identifies a row, and errors that name the line."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from datadose.errors import InputError
from datadose.llm import parquet as module
from datadose.llm.pool import Row, read_pool

USER = {"role": "user", "content": "2 + 2?"}
ASSISTANT = {"role": "assistant", "content": "4"}


def test_three_forms_give_the_same_text(write_rows: Callable[..., Path]) -> None:
    rows = [
        {"prompt": "2 + 2?", "completion": "4"},
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"messages": [{"role": "system", "content": "Be brief."}, USER, ASSISTANT]},
    ]
    plain, split, messages = (read_pool(write_rows([row]))[0] for row in rows)
    assert (plain.prompt, plain.completion) == ("2 + 2?", "4")
    assert (split.prompt, split.completion) == ([USER], [ASSISTANT])
    assert messages.prompt == [{"role": "system", "content": "Be brief."}, USER]
    assert messages.completion == [ASSISTANT]
    assert [row.question for row in (plain, split)] == ["2 + 2?"] * 2
    assert messages.question == "system: be brief. user: 2 + 2?"
    assert {row.completion_text for row in (plain, split, messages)} == {"4"}
    assert len({row.key for row in (plain, split, messages)}) == 3
    assert [row.columns for row in (plain, split)] == rows[:2]
    assert messages.columns == {**rows[2], "prompt": messages.prompt, "completion": messages.completion}


def test_questions_fold_case_and_space(write_rows: Callable[..., Path]) -> None:
    rows = read_pool(
        write_rows(
            [{"prompt": "What  is\nTWO?", "completion": "2"}, {"prompt": "what is two? ", "completion": "ii"}]
        )
    )
    assert rows[0].question == rows[1].question
    assert rows[0].key != rows[1].key


def test_the_whole_prompt_makes_the_question(write_rows: Callable[..., Path]) -> None:
    turns = [USER, ASSISTANT, {"role": "user", "content": "Why?"}]
    system = {"role": "system", "content": "Be brief."}
    tools = [{"type": "function", "function": {"name": "add"}}]
    prompts: list[dict[str, Any]] = [
        {"prompt": turns},
        {"prompt": [{"role": "user", "content": "3 + 3?"}, *turns[1:]]},
        {"prompt": [system, *turns]},
        {"prompt": turns, "tools": tools},
        {"prompt": [{**USER, "name": "ann"}, *turns[1:]]},
    ]
    rows = read_pool(write_rows([{**prompt, "completion": [ASSISTANT]} for prompt in prompts]))
    assert rows[0].question == "user: 2 + 2? assistant: 4 user: why?"
    assert len({row.question for row in rows}) == len({row.key for row in rows}) == len(rows)


def test_the_answer_column_wins(write_rows: Callable[..., Path]) -> None:
    rows = [
        {"id": 7, "prompt": "p", "completion": "so 4", "answer": 4},
        {"id": 8, "prompt": "p", "completion": "so 4", "answer": None},
    ]
    first, second = read_pool(write_rows(rows))
    assert (first.id, first.answer, second.answer) == ("7", "4", "so 4")


def test_parquet_equals_jsonl(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    rows = [{"prompt": [USER], "completion": [ASSISTANT], "level": i, "id": str(i)} for i in range(3)]
    pd.DataFrame(rows).to_parquet(tmp_path / "pool.parquet")

    def content(path: Path) -> list[tuple[Any, ...]]:
        return [(r.id, r.prompt, r.completion, r.key, r.columns["level"]) for r in read_pool(path)]

    assert content(tmp_path / "pool.parquet") == content(write_rows(rows))


def test_values_that_json_lacks_matter_in_used_columns_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day = pd.Timestamp("2026-01-01")
    rows = [
        {"prompt": "a", "completion": "b", "when": day, "raw": b"\xff", "share": float("nan"), "id": 1},
        {"prompt": "a", "completion": "b", "when": day, "raw": b"", "share": 0.5, "id": 2},
    ]
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "pool.parquet")
    first, second = read_pool(tmp_path / "pool.parquet")
    assert first.columns == {**rows[0], "when": "2026-01-01T00:00:00", "raw": "/w==", "share": None}
    assert second.columns == {**rows[1], "when": "2026-01-01T00:00:00", "raw": ""}
    said = capsys.readouterr().err
    assert "column when has a date or a time, which JSON does not have (2 rows)" in said
    assert "column share has a number without a finite value (1 rows)" in said
    parquet.write_table(table.rename_columns({"when": "answer"}), tmp_path / "pool.parquet")
    with pytest.raises(InputError, match=r"row 1: column answer has a date.*values that JSON has"):
        read_pool(tmp_path / "pool.parquet")


def test_blank_lines_count_but_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text('\n{"prompt": "a", "completion": ""}\n\n{"prompt": "b", "completion": "c"}\n')
    assert [(row.line, row.id) for row in read_pool(path)] == [(2, "row-2"), (4, "row-4")]


GOOD = {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("second", "parts"),
    [
        ('{"prompt": "a", "completion": ', ("line 2", "well-formed JSON")),
        ('["a"]', ("line 2", "list", "an object")),
        ('{"prompt": "a", "completion": "b", "answer": NaN}', ("line 2", "column answer has a number")),
        ('{"question": "a"}', ("line 2", "columns question", "prompt and completion")),
        ('{"prompt": "a"}', ("line 2", "no completion")),
        (
            '{"prompt": "a", "completion": 3}',
            ("line 2", "column completion is number", "a string, or messages"),
        ),
        ('{"prompt": "a", "completion": []}', ("line 2", "no completion")),
        ('{"prompt": " ", "completion": "b"}', ("line 2", "empty prompt")),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, second: str, parts: tuple[str, ...]) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + second + "\n")
    with pytest.raises(InputError) as caught:
        read_pool(path, "pool")
    assert str(caught.value).startswith("pool: got")
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([{**GOOD, "id": 1}, {**GOOD, "id": 1}], ("line 2", "id 1", "line 1")),
        ([{**GOOD, "id": True}], ("line 1", "id True")),
        ([{"prompt": [USER], "completion": [USER]}], ("line 1", "assistant")),
        ([{"prompt": [{"role": "user"}], "completion": [ASSISTANT]}], ("line 1", "role, content")),
        ([{"prompt": [USER], "completion": [ASSISTANT], "tools": 3}], ("line 1", "tools is 3")),
        ([{"messages": [USER]}], ("line 1", "at least two messages")),
        ([{"messages": [ASSISTANT, USER]}], ("line 1", "last one of the assistant")),
        ([], ("at least one row",)),
    ],
)
def test_bad_rows_are_named(
    write_rows: Callable[..., Path], rows: list[dict[str, Any]], parts: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        read_pool(write_rows(rows))
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pool.txt", b"a"),
        ("pool.parquet", b"PAR1"),
        ("pool.jsonl", b"\xff"),
        ("pool.jsonl.gz", b"{}"),
        ("pool.json", b"[1"),
        ("pool.json", b"3"),
        ("pool.json", b"\xff\xfe"),
        ("pool.csv", b"prompt,prompt\n1,2\n"),
        ("pool.csv", b'prompt,completion\n"a,b\n'),
        ("pool.csv", b"prompt,completion\na,b,c\n"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_pool(tmp_path / name)
    for absent in (tmp_path / "absent.jsonl", tmp_path / ("x" * 300 + ".jsonl"), tmp_path / "a\0.jsonl"):
        with pytest.raises(
            InputError, match=r"pool: got .*; allowed: (the path of an existing file|a .jsonl)"
        ):
            read_pool(absent)


def test_a_file_that_may_not_be_read_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, mode: str = "r", **_: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("pool.jsonl", "pool.parquet"):
        (tmp_path / name).write_bytes(b"{}")
    monkeypatch.setattr(Path, "open", refused)
    for name in ("pool.jsonl", "pool.parquet"):
        with pytest.raises(InputError, match=r"that can be read \(Permission denied\)"):
            read_pool(tmp_path / name, mark=True)


@pytest.mark.parametrize(
    ("text", "issue"),
    [
        (
            '{"prompt": "a", "completion": "b", "answer": [-1e999]}',
            "unwritable value: line 2: column answer has a number",
        ),
        ('{"prompt": "a", "completion": 1e999}', "unwritable value: line 2: column completion has a number"),
        (
            '{"prompt": "a\\ud800", "completion": "b"}',
            "unwritable value: line 2: column prompt has half a character",
        ),
        (
            '{"prompt": "a", "completion": "b", "x": %s}' % ("9" * 6000),
            "not JSON: line 2: a number of too many",
        ),
        (
            '{"prompt": "a", "completion": "b", "answer": %s}' % ("[" * 101 + "]" * 101),
            "unwritable value: line 2: column answer has too many levels",
        ),
        (
            '{"prompt": "a", "completion": "b", "x": %s}' % ("[" * 10**5 + "]" * 10**5),
            "not JSON: line 2: nested",
        ),
        ('{"prompt": "a", "completion": ', "not JSON: line 2: "),
        (
            '{"prompt": "a", "completion": "b", "prompt": "c"}',
            "not JSON: line 2: the key 'prompt' twice; allowed: each key of an object once",
        ),
        ("3", "no object: line 2: int"),
        ('{"prompt": "a"}', "no completion: line 2: "),
        ('{"prompt": " ", "completion": "b"}', "empty prompt: line 2: "),
        (
            '{"prompt": "a", "completion": "b", "id": "x"}',
            "repeated id: line 2: id x; allowed: ids that differ (line 1",
        ),
    ],
)
def test_a_bad_line_is_marked_and_nothing_of_it_is_unwritable(tmp_path: Path, text: str, issue: str) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join([json.dumps({**GOOD, "id": "x"}), text, json.dumps(GOOD)]))
    rows = read_pool(path, mark=True)
    assert [row.line for row in rows] == [1, 2, 3]
    assert rows[0].issue is rows[2].issue is None
    assert rows[1].issue is not None
    assert rows[1].issue.startswith(issue), rows[1].issue
    assert rows[1].prompt == rows[1].completion == ""
    json.dumps(rows[1].columns, allow_nan=False, ensure_ascii=False).encode()
    with pytest.raises(InputError, match=r"pool\.jsonl, line 2: "):
        read_pool(path)


def test_nesting_up_to_the_limit_is_kept(write_rows: Callable[..., Path]) -> None:
    deep: Any = "[" * 98
    for _ in range(98):
        deep = [deep]
    (row,) = read_pool(write_rows([{**GOOD, "x": deep}]))
    assert row.columns["x"] == deep


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("1e999", None),
        ("NaN", None),
        ("[1, Infinity]", [1, None]),
        ('"a\\ud800"', None),
        ("[" * 101 + "]" * 101, None),
    ],
)
def test_an_unused_column_may_hold_anything(value: str, kept: Any, tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text(json.dumps(GOOD)[:-1] + f', "x": {value}, "\\ud800": 1}}')
    (row,) = read_pool(path)
    assert row.issue is None
    assert row.columns == {**GOOD, "x": kept}


def test_ids_and_answers_of_several_kinds_are_text_and_other_columns_are_left(
    write_rows: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    values: list[Any] = [1, "2", 1.5, "x"]
    rows = [{**GOOD, "id": i, "answer": v, "x": v} for i, v in zip((1, "2", 3, "4"), values, strict=True)]
    found = read_pool(write_rows(rows))
    assert [row.id for row in found] == [row.columns["id"] for row in found] == ["1", "2", "3", "4"]
    assert [row.columns["answer"] for row in found] == ["1", "2", "1.5", "x"]
    assert [row.columns["x"] for row in found] == values
    said = capsys.readouterr().err
    assert "id has several kinds of values: all are read as text" in said
    assert "answer has several kinds" in said
    (same,) = read_pool(write_rows([{**GOOD, "id": 1, "answer": 1.5}]))
    assert (same.columns["id"], same.columns["answer"], same.id) == (1, 1.5, "1")


def test_the_first_of_rows_with_one_id_is_kept_whatever_its_kind(write_rows: Callable[..., Path]) -> None:
    rows = [
        {**GOOD, "id": 1},
        {**GOOD, "id": "1"},
        GOOD,
        {**GOOD, "id": "row-3"},
        {"id": "z"},
        {**GOOD, "id": "z"},
    ]
    issues = [str(row.issue).split(":")[0] for row in read_pool(write_rows(rows), mark=True)]
    assert issues == ["None", "repeated id", "None", "repeated id", "malformed row", "None"]


def test_strings_become_messages_where_most_rows_are_and_are_bad_where_few_are(
    write_rows: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    strings: dict[str, Any] = {"prompt": "2 + 2?", "completion": "4"}
    messages: dict[str, Any] = {"prompt": [USER], "completion": [ASSISTANT]}
    whole = {"messages": [USER, ASSISTANT]}
    rows = read_pool(write_rows([strings, messages, whole]))
    assert len({row.key for row in rows}) == 1
    assert rows[0].columns == messages
    said = capsys.readouterr().err
    assert "most rows are messages: strings are read as messages of a user and an assistant" in said
    assert "2 rows as prompt/completion, 1 rows as messages" in said
    found = read_pool(write_rows([strings, strings, messages]), mark=True)
    assert [row.issue for row in found] == [
        None,
        None,
        "another type: line 3: messages; allowed: strings, as in most rows",
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(json.dumps(GOOD).encode("utf-8-sig"))
    assert [row.prompt for row in read_pool(path)] == ["a"]
    path.write_bytes(json.dumps(GOOD).encode("utf-16"))
    with pytest.raises(InputError, match=r"line 1: byte 1 of the line is not UTF-8"):
        read_pool(path, mark=True)


def test_parquet_rows_are_marked_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "pool.parquet"
    numbers = pa.array([1.0, float("inf"), 2.0, 3.0])
    texts = unchecked_text()
    parquet.write_table(pa.table({"prompt": ["a"] * 4, "completion": texts, "x": numbers}), path)
    issues = [row.issue for row in read_pool(path, mark=True)]
    assert issues[0] is issues[3] is None
    assert issues[1] is None
    assert str(issues[2]).startswith(
        "unwritable value: row 3: column completion has a value that cannot be read"
    )


def unchecked_text() -> Any:
    """Four texts, of which the third is not UTF-8: Arrow does not look."""
    offsets, data = np.arange(5, dtype=np.int32), b"bb\xffb"
    return pa.Array.from_buffers(pa.string(), 4, [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)])


def test_a_small_parquet_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pool.parquet"
    text = pa.array(["y" * 100_000]).dictionary_encode()
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, dtype=np.int32)), text.dictionary)
    prompts = pa.array(["a"] * 20_000)
    parquet.write_table(pa.table({"prompt": prompts, "completion": column}), path, compression="zstd")
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match=r"decodes to more than 1,073,741,824; allowed: at most 1 GiB"):
        read_pool(path)
    monkeypatch.setattr(module, "MOST_ROWS", 19_999)
    with pytest.raises(InputError, match=r"with 20,000 rows; allowed: a pool of at most 19,999 rows"):
        read_pool(path)


def test_a_row_is_hashable_content() -> None:
    row = Row("a", "p", ("c",), {}, 1)
    assert row.key == Row("b", "p", ("c",), {"x": 1}, 9).key != Row("a", "p", ("d",), {}, 1).key
