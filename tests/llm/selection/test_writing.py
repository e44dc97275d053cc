"""The files: what TRL and datasets read, the manifest, the report, and what the terminal shows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datadose.errors import InputError, RunError
from datadose.llm.scores import MEASURED, Scores, read_scores, write_scores
from datadose.llm.selection import Selection, SelectionConfig, describe, select, write_selection
from datadose.llm.selection import writing as module
from helpers.synthetic import MANIFEST, Pool, make, question_hashes

pytestmark = pytest.mark.usefixtures("quick_geometry")

FILES = ("sft", "control_sft", "rl", "control_rl")
CONFIG = SelectionConfig(method="filters", sft_size=30, rl_size=60, replay=0.25)


without_report = pytest.mark.usefixtures("no_report")


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time of writing."""
    monkeypatch.setattr(module, "write_report", lambda *_: None)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _load(path: Path, cache: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(cache))


def _saved(pool: Pool, folder: Path, change: Any = None) -> Scores:
    rows = pool.rows if change is None else [change(i, dict(row)) for i, row in enumerate(pool.rows)]
    questions = question_hashes(pool.rows)
    ids = [row["id"] for row in pool.rows]
    return write_scores(folder, rows, ids, questions, pool.embeddings, pool.sketches, dict(MANIFEST))


def _written(
    tmp_path: Path, *, change: Any = None, config: SelectionConfig = CONFIG, **options: Any
) -> tuple[Selection, Path]:
    """A selection of 400 rows and its folder; ``change`` alters rows of the pool and the reference."""
    pool = _saved(make(400, 0, (0.6, 0.4, 0, 0), **options), tmp_path / "pool", change)
    target = make(100, 1, name="target").scores
    reference = _saved(make(100, 2, (0, 1, 0, 0), name="reference"), tmp_path / "reference", change)
    selection = select(pool, target, reference=reference, config=config)
    write_selection(selection, pool, reference, tmp_path / "out")
    return selection, tmp_path / "out"


def _as_messages(_: int, row: dict[str, Any]) -> dict[str, Any]:
    turns = [("system", "Be brief."), ("user", row.pop("prompt")), ("assistant", row.pop("completion"))]
    messages = [{"role": role, "content": text} for role, text in turns]
    return {"messages": messages, "prompt": messages[:-1], "completion": messages[-1:], **row}


@without_report
def test_files_hold_the_chosen_rows_with_all_their_columns(tmp_path):
    selection, out = _written(tmp_path)
    for name in FILES:
        rows = _read(out / f"{name}.jsonl")
        own = [row for row in rows if row.get(module.ROLE) != "replay"]
        assert {row["id"] for row in own} == {f"pool-{i}" for i in getattr(selection, name)}
        source = {row["id"]: row for row in selection.pool.lines(getattr(selection, name))}
        for row in own:
            assert {key: value for key, value in row.items() if key != module.ROLE} == source[row["id"]]
            assert set(MEASURED) <= set(row)
        assert len(rows) == len(own) + (10 if "sft" in name else 0)
    for name in ("sft", "control_sft"):
        roles = [row[module.ROLE] for row in _read(out / f"{name}.jsonl")]
        assert roles.count("replay") == len(selection.replay) == 10
        # Spread evenly: no block of replay at the end.
        places = np.flatnonzero(np.array(roles) == "replay")
        assert np.diff(places).max() <= 8
        # The last of k evenly spread rows lies half a k-th before the end.
        assert places[-1] >= len(roles) * (1 - 1 / (2 * 9)) - 2
    for row in _read(out / "rl.jsonl"):
        assert isinstance(row["prompt"], str)
        assert row["answer"]


@without_report
@pytest.mark.parametrize("change", [None, _as_messages], ids=["strings", "messages"])
@pytest.mark.parametrize("samples", [16, 0])
def test_datasets_reads_them(tmp_path, change, samples):
    config = CONFIG if samples else replace(CONFIG, rl_size=0)
    _, out = _written(tmp_path, change=change, config=config, samples=samples)
    for name in FILES if samples else FILES[:2]:
        loaded = _load(out / f"{name}.jsonl", tmp_path / "cache")
        assert len(loaded) == len(_read(out / f"{name}.jsonl"))
        assert {"prompt", "completion", "nll", "pass_rate"} <= set(loaded.column_names)
        assert "messages" not in loaded.column_names
        if change:
            assert [m["role"] for m in loaded[0]["prompt"]] == ["system", "user"]
            assert [m["role"] for m in loaded[0]["completion"]] == ["assistant"]
        if name == "rl":
            assert isinstance(loaded[0]["answer"], str)


@without_report
def test_types_that_show_late_are_read(tmp_path):
    """datasets takes types from the first 10 MB: null, whole or empty there, something else in the end."""

    def change(i: int, row: dict[str, Any]) -> dict[str, Any]:
        late = i >= 370
        row |= {"filler": "x" * 400_000, "note": "seen" if late else None, "score": 0.5 if late else 1}
        row |= {"parts": ["a"] if late else [], "extra": {"b": 1} if late else {"a": "text"}}
        if late:
            row["rare"] = 1
        return row

    config = replace(CONFIG, rl_size=100, sft_size=5, replay=0)
    selection, out = _written(tmp_path, change=change, config=config)
    assert (selection.rl >= 370).any()
    assert (out / "rl.jsonl").stat().st_size > 3 * 10 * 2**20
    loaded = _load(out / "rl.jsonl", tmp_path / "cache")
    assert len(loaded) == 100
    assert set(loaded["note"]) == {None, "seen"}
    assert set(loaded["score"]) == {1.0, 0.5}


@without_report
def test_columns_that_trl_would_train_on_are_left_out(tmp_path):
    def change(i: int, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "text": f"all of {i}", "labels": [1], "topic": "sums"}

    _, out = _written(tmp_path, change=change)
    for name in FILES:
        row = _read(out / f"{name}.jsonl")[0]
        assert not {"text", "labels"} & set(row)
        assert row["topic"] == "sums"


@without_report
def test_an_answer_is_made_where_there_is_none(tmp_path):
    def change(_: int, row: dict[str, Any]) -> dict[str, Any]:
        del row["answer"]
        return row

    _, out = _written(tmp_path, change=change)
    rows = _read(out / "rl.jsonl")
    assert all(row["answer"] == row["completion"] for row in rows)


@without_report
def test_a_column_of_several_types_is_written_as_json_text(tmp_path, capsys):
    values = [1, "1", {"a": [1]}, None]

    def change(i: int, row: dict[str, Any]) -> dict[str, Any]:
        answer = int(row["answer"]) if i % 2 else row["answer"]
        return {**row, "mixed": values[i % 4], "answer": answer}

    _, out = _written(tmp_path, change=change)
    for name in FILES:
        rows = _load(out / f"{name}.jsonl", tmp_path / "cache")
        for row in rows:
            place = int(row["id"].rsplit("-", 1)[1])
            assert (None if row["mixed"] is None else json.loads(row["mixed"])) == values[place % 4]
            assert row["answer"] == str(place)
        said = f"{name}.jsonl: columns of several types are written as JSON text: answer, mixed\n"
        assert said in capsys.readouterr().err or name != FILES[0]


@without_report
def test_of_several_answers_the_best_one_is_written(tmp_path):
    def change(i: int, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "completion": ["no", row["completion"], "neither"], "best_completion": 1}

    _, out = _written(tmp_path, change=change)
    for name in FILES:
        assert {row["completion"].rsplit(" ", 1)[0] for row in _read(out / f"{name}.jsonl")} == {"answer"}


@without_report
def test_replay_must_have_the_pools_types(tmp_path):
    pool = _saved(make(400, 0, (0.6, 0.4, 0, 0)), tmp_path / "pool")
    other = _saved(make(100, 2, (0, 1, 0, 0), name="r"), tmp_path / "r", _as_messages)
    selection = select(pool, make(100, 1, name="target").scores, reference=other, config=CONFIG)
    with pytest.raises(InputError, match=r"column: got prompt as list and as str in sft.jsonl"):
        write_selection(selection, pool, other, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


@without_report
def test_no_rl_set_leaves_no_file_of_an_earlier_one(tmp_path):
    selection, out = _written(tmp_path)
    assert (out / "rl.jsonl").is_file()
    without = select(selection.pool, selection.target, config=replace(CONFIG, rl_size=0, replay=0))
    write_selection(without, selection.pool, None, out)
    assert not (out / "rl.jsonl").exists()
    assert not (out / "control_rl.jsonl").exists()
    assert json.loads((out / "manifest.json").read_text())["sizes"]["rl"] == 0


@without_report
def test_a_disk_that_refuses_is_a_run_error(tmp_path):
    selection, _ = _written(tmp_path)
    (tmp_path / "other" / "sft.jsonl").mkdir(parents=True)
    with pytest.raises(RunError, match=r"sft\.jsonl: could not be written"):
        write_selection(selection, selection.pool, None, tmp_path / "other")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out: got"):
        write_selection(selection, selection.pool, None, tmp_path / "file")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["sft.jsonl"]


@without_report
def test_the_manifest_says_how_it_came_about(tmp_path):
    selection, out = _written(tmp_path, config=replace(CONFIG, sft_size="auto"))
    saved = json.loads((out / "manifest.json").read_text())
    assert saved["config"] == json.loads(json.dumps(vars(selection.config)))
    assert saved["sizes"]["sft"] == len(_read(out / "sft.jsonl")) - len(selection.replay)
    assert saved["filters"] == selection.filters
    assert all(f["why"] for f in saved["filters"])
    assert {"size", "eta", "interference", "length", "max_prompts", "clipped"} <= set(saved["planner"])
    assert "heuristic" in saved["planner"]["note"]
    assert len(saved["geometry"]["eigenvalues"]) == saved["geometry"]["dimensions"] == 8
    for name in ("pool", "reference"):
        assert saved["scores"][name] == read_scores(tmp_path / name).manifest
        assert saved["scores"][name].items() >= MANIFEST.items()
    assert saved["versions"]["datadose"]
    assert saved["unchecked"] == selection.unchecked


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (CONFIG, {}),
        (replace(CONFIG, sft_size="auto", rl_size="auto", representation="embedding", hardness="sketch"), {}),
        (replace(CONFIG, rl_size=0, replay=0), {"samples": 0, "verified": False}),
    ],
)
def test_the_report_stands_alone_and_names_every_filter(tmp_path, config, options):
    selection, out = _written(tmp_path, config=config, **options)
    page = (out / "report.html").read_text()
    for word in ("http://", "https://", "<script", "<link", "@import"):
        assert word not in page
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src &#39;none&#39;" in policy[0]
    assert "script-src" not in policy[0]
    assert page.count("data:image/svg+xml;base64,") == (4 if options.get("samples", 1) else 3)
    for f in selection.filters:
        assert f["name"] in page
    assert ("Not checked" in page) == bool(selection.unchecked)
    assert "nan" not in page.split("Rows to look at")[1].lower()


def test_what_lies_beyond_a_threshold_is_in_report_and_manifest(tmp_path):
    selection, out = _written(tmp_path, config=replace(CONFIG, sft_size=250, rl_size=20))
    manifest = json.loads((out / "manifest.json").read_text())
    beyond = {f["name"]: f["taken"] for f in manifest["filters"] if f["set"] == "sft" and f["taken"]}
    within = selection.sizes["hard_stratum"]
    assert sum(beyond.values()) == 250 - within > 0
    page = (out / "report.html").read_text()
    for name, count in beyond.items():
        assert f"{count} lie beyond `{name}`" in page
    assert "all rows within the thresholds, and some beyond" in page
    assert "lie beyond" not in (_written(tmp_path / "few")[1] / "report.html").read_text()


def test_rows_are_shown_as_text_not_as_markup(tmp_path):
    def change(_: int, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "prompt": "<img src=x onerror=alert(1)>" + "y" * 2000}

    _, out = _written(tmp_path, change=change)
    page = (out / "report.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "y" * 700 not in page


def test_rows_that_could_not_be_read_are_shown_by_their_issue(tmp_path):
    def change(place: int, row: dict[str, Any]) -> dict[str, Any]:
        unread = {**dict.fromkeys(MEASURED), "issue": "not JSON: line 1: nested too deep"}
        return unread if place < 2 else row

    _, out = _written(tmp_path, change=change)
    assert "nested too deep" in (out / "report.html").read_text()


def test_the_terminal_shows_sizes_filters_and_histograms(tmp_path):
    selection, _ = _written(tmp_path)
    shown = describe(selection)
    assert "SFT set 30 rows and 10 replayed, RL set 60 prompts, of 400 rows" in shown
    for f in selection.filters:
        assert f"{f['name']}" in shown
        assert f["why"] in shown
    for title in ("NLL", "completion tokens", "alignment with the target", "pass rate"):
        assert title in shown
    assert "█" in shown
    blind = replace(CONFIG, rl_size=0, replay=0)
    pool = make(400, 0, (0.6, 0.4, 0, 0), samples=0, verified=False).scores
    shown = describe(select(pool, selection.target, config=blind))
    assert "pass rate:" not in shown
    assert "Not checked:" in shown
