"""Layouts: every row of the table in the documentation is read, and what each becomes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datadose.errors import InputError
from datadose.llm.pool import LAYOUTS, Row, final_form, parse_columns, read_pool

Write = Callable[..., Path]

DOCS = Path(__file__).parents[3] / "docs" / "how_to" / "bring_your_data.md"


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def one(write_rows: Write, row: dict[str, Any], **options: Any) -> Row:
    """The row as it is read."""
    (found,) = read_pool(write_rows([row]), prompts_alone=True, **options)
    return found


def examples() -> list[tuple[str, dict[str, Any]]]:
    """(layout, row) of the table in the documentation."""
    found = re.findall(r"^\| ([^|]+?) \| `(\{.*?\})` \|", DOCS.read_text(), flags=re.MULTILINE)
    return [(name, json.loads(row)) for name, row in found]


def test_the_documentation_has_an_example_of_every_layout() -> None:
    named = {name for name, _ in examples()}
    assert {layout.name for layout in LAYOUTS} <= named


@pytest.mark.parametrize(("name", "row"), examples())
def test_the_examples_of_the_documentation_are_read_as_it_says(
    name: str, row: dict[str, Any], write_rows: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    found = one(write_rows, row)
    assert found.issue is None
    assert f"pool: read as {name} (" in capsys.readouterr().err
    assert found.columns["prompt"] == found.prompt
    assert "2 + 2" in found.question
    assert found.has_completion == ("only" not in name and name != "verl")
    if found.has_completion:
        assert found.completion_text.endswith("4") or found.columns["answer"] == "4"
    assert found.answer in ("4", "")


@pytest.mark.parametrize(
    ("row", "prompt", "completion", "answer"),
    [
        ({"question": "q?", "answer": "so\n#### 72"}, user("q?"), said("so\n#### 72"), "72"),
        ({"question": "q?", "answer": "72"}, user("q?"), said("72"), None),
        ({"question": "q?", "answer": 72}, user("q?"), said("72"), None),
        ({"question": "q?", "solution": "so", "answer": "7"}, user("q?"), said("so"), "7"),
        (
            {"problem": "p", "solution": "first \\boxed{1}, so \\boxed{\\frac{1}{2}}.", "level": "5"},
            user("p"),
            said("first \\boxed{1}, so \\boxed{\\frac{1}{2}}."),
            "\\frac{1}{2}",
        ),
        (
            {"problem": "p", "solution": "so", "answer": "3", "generations": ["a", "b"]},
            user("p"),
            said("so"),
            "3",
        ),
        ({"instruction": "i", "input": "x", "output": "o"}, user("i\nx"), said("o"), None),
        ({"instruction": "i", "input": "", "output": "o"}, user("i"), said("o"), None),
        (
            {"instruction": "i", "output": "o", "system": "s"},
            [{"role": "system", "content": "s"}, *user("i")],
            said("o"),
            None,
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            user("q"),
            said("a"),
            None,
        ),
        # Trainers do not read a column `system` beside messages.
        ({"messages": [*user("q"), *said("a")], "system": "s"}, user("q"), said("a"), None),
        ({"prompt": "p", "response": "r"}, "p", "r", None),
        ({"prompt": user("p"), "completion": "c"}, user("p"), said("c"), None),
        ({"prompt": "p", "completion": said("c")}, user("p"), said("c"), None),
        ({"problem": "p", "solution": "", "answer": "3"}, user("p"), said("3"), None),
    ],
)
def test_what_a_row_becomes(
    row: dict[str, Any], prompt: Any, completion: Any, answer: Any, write_rows: Write
) -> None:
    found = one(write_rows, row)
    assert (found.prompt, found.completion, found.columns.get("answer")) == (prompt, completion, answer)
    assert (found.columns["prompt"], found.columns["completion"]) == (prompt, completion)


def test_rows_of_prompts_alone(write_rows: Write) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": user("p"), "reward_model": {"ground_truth": "34", "style": "rule"}, "data_source": "x"},
        {"prompt": user("p"), "answer": "34"},
        {"question": "p"},
    ]
    found = read_pool(write_rows(rows), prompts_alone=True)
    assert [row.prompt for row in found] == [user("p")] * 3
    assert [row.completions for row in found] == [()] * 3
    assert [row.answer for row in found] == ["34", "34", ""]
    with pytest.raises(InputError, match="line 1: no completion"):
        read_pool(write_rows(rows))


def test_few_rows_without_a_completion_are_bad_and_few_with_one_keep_it(write_rows: Write) -> None:
    whole, alone = {"prompt": "p", "completion": "c"}, {"prompt": "q"}
    rows = read_pool(write_rows([whole, whole, alone]), prompts_alone=True, mark=True)
    assert str(rows[2].issue).startswith("no completion: line 3: ")
    rows = read_pool(write_rows([whole, alone, alone]), prompts_alone=True)
    assert [row.completions for row in rows] == [("c",), (), ()]


def test_a_list_of_completions_is_several_answers(write_rows: Write) -> None:
    strings = one(write_rows, {"prompt": "p", "completion": ["a", "b"]})
    assert (
        strings.completions == strings.with_completion(0).completions + strings.with_completion(1).completions
    )
    assert strings.completions == ("a", "b")
    assert strings.columns["completion"] == ["a", "b"]
    chat = one(write_rows, {"prompt": user("p"), "completion": [said("a"), "b"]})
    assert chat.completions == (said("a"), said("b"))
    messages = one(write_rows, {"prompt": user("p"), "completion": [*said("a"), *user("more"), *said("b")]})
    assert len(messages.completions) == 1
    alone = one(write_rows, {"prompt": "p", "completion": ["a"]})
    assert (alone.completions, alone.columns["completion"]) == (("a",), "a")
    with pytest.raises(InputError, match="column completion is number"):
        one(write_rows, {"prompt": "p", "completion": ["a", 3]})


def test_columns_name_what_is_not_recognised(write_rows: Write) -> None:
    row = {"ask": "q", "reply": {"text": "so 3"}, "final": 3, "uid": "u", "id": 9, "answer": "no"}
    roles = parse_columns("prompt=ask, completion=reply.text,answer=final,id=uid")
    found = one(write_rows, row, columns=roles)
    assert (found.id, found.prompt, found.completion, found.answer) == ("u", "q", "so 3", "3")
    kept = {"pool_id": 9, "pool_answer": "no", "id": "u", "answer": 3}
    assert {name: found.columns[name] for name in kept} == kept
    messages = {"talk": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]}
    assert one(write_rows, messages, columns={"messages": "talk"}).completion == said("a")
    assert one(write_rows, {"x": "q", "completion": "c"}, columns={"prompt": "x"}).completions == ()
    only_answer = one(write_rows, {"question": "q", "answer": "a", "gold": "7"}, columns={"answer": "gold"})
    assert (only_answer.completion, only_answer.answer) == (said("a"), "7")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("prompt", "ROLE=COLUMN"),
        ("nonsense=x", "each of prompt, completion, messages"),
        ("prompt=a,prompt=b", "at most once"),
        ("prompt=a,messages=b", "either messages, or prompt and completion"),
        ("completion=a", "a prompt beside the completion"),
    ],
)
def test_columns_of_another_form_are_refused(text: str, allowed: str) -> None:
    with pytest.raises(InputError, match=f"columns: got .*{allowed}"):
        parse_columns(text)


def test_a_column_that_no_row_has_is_refused_or_not_used_where_there_are_several_files(
    write_rows: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows([{"prompt": "p", "completion": "c"}])
    with pytest.raises(
        InputError, match=r"columns: got prompt=ask; allowed: a column of pool: prompt, compl"
    ):
        read_pool(path, columns={"prompt": "ask"})
    (row,) = read_pool(path, columns={"prompt": "ask"}, several=True)
    assert row.prompt == "p"
    assert "there is no column for prompt=ask: --columns is not used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a \\boxed{1} b \\boxed{x^{2}} c", "x^{2}"),
        ("#### 7", "7"),
        ("#### 7\n#### 8,000\n", "8,000"),
        ("\\boxed{3} #### 4", "3"),
        ("\\boxed{3", None),
        ("4", None),
    ],
)
def test_the_final_form_of_a_solution(text: str, answer: str | None) -> None:
    assert final_form(text) == answer
