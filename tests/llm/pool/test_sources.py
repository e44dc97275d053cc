"""Kinds of files, folders and globs of shards, data sets; and the pool that stays on disk."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from datadose.errors import InputError
from datadose.llm.pool import Row, open_pool, read_pool
from datadose.llm.pool.sources import find_source, parse_hub_name

Write = Callable[..., Path]
ROWS = [{"prompt": f"{i} + {i}?", "completion": str(2 * i), "x": i} for i in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def content(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [(row.prompt, row.completions, row.columns["x"], row.key) for row in rows]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", "\ufeff" + LINES),
        ("p.ndjson", LINES),
        ("p.json", json.dumps(ROWS, indent=1)),
        ("p.json", "\ufeff" + json.dumps({"version": 1, "data": ROWS})),
        ("p.json", LINES),
        ("P.JSONL.gz", LINES),
        ("p.json.gz", json.dumps(ROWS)),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(
    name: str, text: str, tmp_path: Path, write_rows: Write
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert content(read_pool(path)) == content(read_pool(write_rows(ROWS, "plain.jsonl")))


def test_text_of_a_csv_file_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    text = '\ufeffid,prompt,completion,answer\r\n007,"a ""b""\nc, d",NA,1.10\r\n8,None,,3\r\n9,q,nan,\r\n'
    path.write_bytes(text.encode())
    rows = read_pool(path, mark=True)
    assert (rows[0].id, rows[0].prompt, rows[0].completion, rows[0].answer) == (
        "007",
        'a "b"\nc, d',
        "NA",
        "1.10",
    )
    assert str(rows[1].issue).startswith("no completion: row 2: ")
    assert (rows[2].prompt, rows[2].completion, rows[2].answer) == ("q", "nan", "nan")


def test_bad_rows_of_a_csv_file_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b"prompt,completion\na,b\na\na,\xff\na,b,c\n" + b"a," + b"x" * 200_000 + b"\n")
    rows = read_pool(path, mark=True)
    issues = [str(row.issue)[:30] for row in rows]
    assert issues[0] == issues[4] == "None"
    assert issues[1:4] == [
        "malformed row: row 2: 1 fields",
        "not text: row 3: completion is",
        "malformed row: row 4: 3 fields",
    ]


def test_rows_of_a_json_file_that_are_no_objects_are_marked(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps([*ROWS, [1]]))
    issues = [row.issue for row in read_pool(tmp_path / "p.json", mark=True)]
    assert issues == [None] * 3 + ["no object: row 4: list; allowed: an object with the columns of a row"]


@pytest.mark.parametrize("pattern", ["", "*.*", "**/[ab].*"])
def test_shards_of_a_folder_or_glob_are_one_pool(
    pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shards"
    (folder / ".hidden").mkdir(parents=True)
    (folder / ".hidden" / "z.jsonl").write_text("nonsense")
    (folder / "b.jsonl").write_text(json.dumps({**ROWS[0], "y": 1}) + "\n{\n")
    (folder / "a.csv").write_text("prompt,completion\nq,r\n")
    if not pattern:
        (folder / "README.md").write_text("no shard")
        (folder / "c.jsonl").write_text("")
    rows = read_pool(folder / pattern if pattern else folder, mark=True)
    assert [(row.place, row.id) for row in rows] == [
        ("a.csv, row 1", "row-1-1"),
        ("b.jsonl, line 1", "row-2-1"),
        ("b.jsonl, line 2", "row-2-2"),
    ]
    assert str(rows[2].issue).startswith("not JSON: b.jsonl, line 2: ")
    said = capsys.readouterr().err
    assert "shard a.csv has no column x, y: null there" in said
    assert ("shards without rows: c.jsonl" in said) == (not pattern)


def test_where_there_is_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.txt").write_text("a")
    for name, allowed in (
        ("empty", "a folder without such files"),
        ("*.jsonl", "matches no file"),
        ("*.txt", "which matches .*x.txt; allowed: shards that are .jsonl, .json, .csv"),
        ("nothing", "a .jsonl, .json, .csv"),
    ):
        with pytest.raises(InputError, match=allowed):
            read_pool(tmp_path / name)


def test_a_digest_is_of_what_is_read(tmp_path: Path, write_rows: Write) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_rows(ROWS[:2], f"{name}/1.jsonl")
        write_rows(ROWS[2:], f"{name}/2.jsonl")
    before = [find_source(tmp_path / name, "pool").digest() for name in ("a", "b")]
    assert before[0] == before[1]
    write_rows(ROWS, "a/2.jsonl")
    assert find_source(tmp_path / "a", "pool").digest() != before[0]


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and nothing outside the test's folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("hub_cache")
def test_data_sets_are_loaded_by_their_library(tmp_path: Path, write_rows: Write) -> None:
    from datasets import load_dataset

    folder = tmp_path / "set"
    folder.mkdir()
    mixed = [{**row, "mixed": value} for row, value in zip(ROWS, (1, "x", {"a": 1}), strict=True)]
    write_rows(mixed, "set/train.jsonl")
    write_rows(ROWS[:1], "set/test.jsonl")
    rows = read_pool(f"hf:{folder}")
    assert content(rows) == content(read_pool(write_rows(ROWS)))
    assert [row.columns["mixed"] for row in rows] == [1, "x", {"a": 1}]
    assert len(read_pool(f"hf:{folder}:test")) == 1
    assert find_source(f"hf:{folder}", "pool").digest() != find_source(f"hf:{folder}:test", "pool").digest()
    load_dataset(str(folder)).save_to_disk(str(tmp_path / "saved"))
    for name in (str(tmp_path / "saved"), f"hf:{tmp_path / 'saved'}"):
        assert content(read_pool(name)) == content(rows)
    assert len(read_pool(f"hf:{tmp_path / 'saved'}:test")) == 1


@pytest.mark.usefixtures("hub_cache")
def test_data_sets_that_cannot_be_loaded_are_one_error(tmp_path: Path, write_rows: Write) -> None:
    (tmp_path / "set").mkdir()
    for split in ("test", "validation"):
        write_rows(ROWS, f"set/{split}.jsonl")
    for name, allowed in (
        (f"hf:{tmp_path / 'set'}", "a split, as in hf:NAME:SPLIT, of (test, validation|validation, test)"),
        (f"hf:{tmp_path / 'set'}:none", "a data set that can be loaded .*none"),
        ("hf:owner/name", "a data set that can be loaded"),
        ("hf:a/b/c/d", "hf:owner/name"),
        ("hf:/nowhere/at-all", "hf:owner/name"),
    ):
        with pytest.raises(InputError, match=f"^pool: got hf:.*allowed: {allowed}"):
            read_pool(name)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hf:openai/gsm8k", ("openai/gsm8k", None, None)),
        ("hf:openai/gsm8k/main", ("openai/gsm8k", "main", None)),
        ("hf:openai/gsm8k/main:test", ("openai/gsm8k", "main", "test")),
        ("hf:owner/name:train[:10%]", ("owner/name", None, "train[:10%]")),
        ("hf:imdb", ("imdb", None, None)),
    ],
)
def test_names_of_data_sets(name: str, parts: tuple[str, ...]) -> None:
    assert parse_hub_name(name, "pool") == parts


def test_a_pool_on_disk_has_the_same_rows(tmp_path: Path, write_rows: Write) -> None:
    user = {"role": "user", "content": "q"}
    rows: list[Any] = [
        {"prompt": [user], "completion": [{"role": "assistant", "content": "é\u2028"}], "tools": [{"a": 1}]},
        {"question": "q", "answer": "so #### 4", "chat_template_kwargs": {"x": True}},
        {"prompt": "p", "completion": ["a", "b"], "id": "x"},
        {"prompt": "p", "completion": "c", "id": "x"},
        {"prompt": 3},
    ]
    path = write_rows(rows)
    pool = open_pool(path, tmp_path / "kept", prompts_alone=False)
    whole = read_pool(path, mark=True)
    assert list(pool) == pool[:] == [pool[place] for place in range(-5, 0)] == whole
    assert [row.issue is None for row in pool] == [True, True, True, False, False]
    assert pool.layout["rows"] == {"prompt/completion": 2, "question/answer": 1}
    assert pool.digest() == find_source(path, "pool").digest()
    with pytest.raises(IndexError):
        pool[5]
    pool.remove()
    assert not (tmp_path / "kept").exists()
    with open_pool(path, tmp_path / "new" / ".cache") as pool:
        assert len(pool) == 5
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="line 1: column prompt is number"):
        open_pool(write_rows([{"prompt": 3, "completion": "a"}]), tmp_path / "new" / ".cache")
    assert not (tmp_path / "new").exists()


def test_reserved_names_are_kept_under_others(tmp_path: Path, write_rows: Write) -> None:
    path = write_rows([{"prompt": "p", "completion": "c", "nll": 1, "pool_nll": 2}])
    pool = open_pool(path, tmp_path, reserved=("nll", "issue"))
    assert pool[0].columns == {"prompt": "p", "completion": "c", "pool_pool_nll": 1, "pool_nll": 2}
    assert pool.layout["renamed"] == {"nll": "pool_pool_nll"}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_memory_does_not_grow_with_the_pool(kind: str, tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.{kind}"
        text = "x" * 2000
        table = pd.DataFrame({"id": [f"i{i}" for i in range(rows)], "prompt": "p", "completion": text})
        if kind == "jsonl":
            table.to_json(path, orient="records", lines=True)
        else:
            table.to_parquet(path, row_group_size=500)
        del table
        tracemalloc.start()
        pool = open_pool(path, tmp_path / "kept")
        assert sum(1 for _ in pool) == rows
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = 1_000, 5_000
    peak(few)  # imports, caches
    assert (peak(many) - peak(few)) / (many - few) < 100
