"""Messages: parts, calls, nulls that Arrow filled in, and what else reaches the template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from datadose.errors import InputError
from datadose.llm.pool import is_blank, read_pool

Write = Callable[..., Path]
USER = {"role": "user", "content": "2 + 2?"}
SAID = {"role": "assistant", "content": "4"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def test_all_keys_are_kept_but_those_of_null(write_rows: Write) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "content": "4", "name": "add", "tool_call_id": None}
    last = {**SAID, "reasoning_content": "2 and 2", "audio": None}
    row = {
        "messages": [{**USER, "name": "ann"}, call, result, last],
        "tools": json.dumps(TOOLS),
        "chat_template_kwargs": {"enable_thinking": False, "other": None},
    }
    (found,) = read_pool(write_rows([row]))
    tool = {"role": "tool", "content": "4", "name": "add"}
    assert found.prompt == [{**USER, "name": "ann"}, call, tool]
    assert found.completion == [{**SAID, "reasoning_content": "2 and 2"}]
    assert found.tools == found.columns["tools"] == TOOLS
    assert found.template_options == {"enable_thinking": False}


def test_what_arrow_fills_in_is_no_key(tmp_path: Path, write_rows: Write) -> None:
    rows = [
        {"messages": [USER, {**SAID, "content": None, "tool_calls": [CALL]}], "tools": TOOLS},
        {"messages": [{**USER, "name": "x"}, SAID], "tools": [{"type": "function", "strict": True}]},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    plain, arrow = read_pool(write_rows(rows)), read_pool(tmp_path / "pool.parquet")
    assert (
        [row.prompt for row in arrow]
        == [row.prompt for row in plain]
        == [rows[0]["messages"][:1], [rows[1]["messages"][0]]]
    )
    assert [row.completions for row in arrow] == [row.completions for row in plain]
    assert [row.tools for row in arrow] == [row.tools for row in plain] == [row["tools"] for row in rows]
    assert [row.key for row in arrow] == [row.key for row in plain]
    assert plain[0].completion[0]["content"] is None  # type: ignore[index]


def test_parts_of_text_are_joined_and_others_are_bad(write_rows: Write) -> None:
    parts = [{"type": "text", "text": "2 + "}, "2", {"text": "?"}]
    (row,) = read_pool(write_rows([{"prompt": [{"role": "user", "content": parts}], "completion": [SAID]}]))
    assert row.prompt == [USER]
    parts.append({"type": "image_url", "image_url": {"url": "x"}})
    with pytest.raises(InputError, match="line 1: prompt has a part of type image_url"):
        read_pool(write_rows([{"prompt": [{"role": "user", "content": parts}], "completion": [SAID]}]))


@pytest.mark.parametrize(
    "messages",
    [
        [USER, {"role": "assistant", "content": None}],
        [USER, {"role": "assistant"}],
        [{"role": 3, "content": "a"}, SAID],
        [{"from": "narrator", "value": "a"}, SAID],
        ["a", SAID],
        [],
        {"role": "user"},
        "[not a list",
    ],
)
def test_messages_of_another_form_are_bad(messages: Any, write_rows: Write) -> None:
    rows = [{"messages": [USER, SAID]}, {"messages": messages}]
    issues = [row.issue for row in read_pool(write_rows(rows), mark=True)]
    assert issues[0] is None
    assert str(issues[1]).startswith("malformed row: line 2: messages ")


def test_a_call_without_words_is_not_blank() -> None:
    assert is_blank(" ")
    assert is_blank([{"role": "assistant", "content": " ", "tool_calls": []}])
    assert not is_blank([{"role": "assistant", "content": None, "tool_calls": [CALL]}])
    assert not is_blank([{"role": "assistant", "content": "", "reasoning_content": "so"}])
