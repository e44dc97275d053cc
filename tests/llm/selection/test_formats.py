"""Files for other trainers: what their documented readers take, row for row, and what these leave out.

The readers that are cited in ``formats.py`` need other releases of our own dependencies, so most machines do
not have them: the parts of them that decide (keys, alternation of turns, JSON texts) are checked here.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from datadose.errors import InputError
from datadose.llm.scores import write_scores
from datadose.llm.selection import FORMATS, SelectionConfig, select, write_selection
from datadose.llm.selection import writing as module
from helpers.synthetic import MANIFEST, make, question_hashes

pytestmark = pytest.mark.usefixtures("quick_geometry", "no_report")

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}]
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "write_report", lambda *_: None)


def _chat(i: int, row: dict[str, Any]) -> dict[str, Any]:
    """By thirds: a question; an earlier turn; a call, its result and an answer with a thought."""
    prompt, answer = [SYSTEM, {"role": "user", "content": row["prompt"]}], row["completion"]
    completion: list[dict[str, Any]] = [{"role": "assistant", "content": answer}]
    if i % 3 == 1:
        prompt += [{"role": "assistant", "content": "Go on."}, {"role": "user", "content": "Which?"}]
    if i % 3 == 2:
        row["tools"] = TOOLS
        prompt += [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
        prompt += [{"role": "tool", "content": "3"}, {"role": "tool", "content": "4"}]
        completion = [{"role": "assistant", "content": answer, "reasoning_content": "so"}]
    return {**row, "prompt": prompt, "completion": completion}


def _written(
    folder: Path, name: str, *, chat: bool, verifier: str | None = None, answers: Sequence[Any] = ()
) -> Path:
    """The selection of a pool of one kind; ``answers`` take the place of the rows' own by turns."""
    pool = make(400, 0, (0.6, 0.4, 0, 0))
    rows = [_chat(i, dict(row)) if chat else row for i, row in enumerate(pool.rows)]
    if answers:
        rows = [{**row, "answer": answers[i % len(answers)]} for i, row in enumerate(rows)]
    ids, questions = [row["id"] for row in pool.rows], question_hashes(pool.rows)
    scores = write_scores(
        folder / "pool",
        rows,
        ids,
        questions,
        pool.embeddings,
        pool.sketches,
        {**MANIFEST, "verifier": verifier},
    )
    target = make(100, 1, name="target").scores
    selection = select(scores, target, config=SelectionConfig(method="filters", sft_size=60, rl_size=50))
    write_selection(selection, scores, None, folder / "out", form=name)
    return folder / "out"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _parquet(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return list(parquet.read_table(path).to_pylist())


def _whole(value: Any) -> Any:
    """Without what Arrow filled in."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items() if inner is not None}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


def _loads(path: Path, cache: Path, kind: str) -> int:
    import datasets

    datasets.disable_progress_bars()
    return len(datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(cache)))


@pytest.mark.parametrize("chat", [False, True], ids=["strings", "messages"])
def test_verl(tmp_path, chat):
    out = _written(tmp_path, "verl", chat=chat)
    taught, asked = _parquet(out / "verl" / "sft.parquet"), _parquet(out / "verl" / "rl.parquet")
    assert (len(taught), len(asked)) == (60, 50)
    for row, own in zip(taught, _lines(out / "sft.jsonl"), strict=True):
        prompt, completion = own["prompt"], own["completion"]
        if not chat:
            prompt = [{"role": "user", "content": prompt}]
            completion = [{"role": "assistant", "content": completion}]
        assert _whole(row["messages"]) == _whole(prompt + completion)
        assert _whole(row.get("tools")) == own.get("tools")
    for place, (row, own) in enumerate(zip(asked, _lines(out / "rl.jsonl"), strict=True)):
        assert row["reward_model"] == {"style": "rule", "ground_truth": own["answer"]}
        assert row["data_source"] == "datadose"
        assert {"index": place, "id": own["id"]}.items() <= row["extra_info"].items()
        assert json.loads(row["extra_info"]["row"])["answer"] == own["answer"]
        assert row["prompt"][-1]["role"] in ("user", "tool")
    assert _loads(out / "verl" / "rl.parquet", tmp_path / "cache", "parquet") == 50
    assert "reward.custom_reward_function.path" in (out / "verl" / "rl.sh").read_text()
    notes = json.loads((out / "manifest.json").read_text())["format"]["notes"]
    assert any("plain strings" in said for said in notes) == (not chat)
    assert any("earlier turns" in said for said in notes) == chat


@pytest.mark.parametrize("chat", [False, True], ids=["strings", "messages"])
def test_openrlhf(tmp_path, chat):
    out = _written(tmp_path, "openrlhf", chat=chat)
    for row, own in zip(_lines(out / "openrlhf" / "sft.jsonl"), _lines(out / "sft.jsonl"), strict=True):
        assert row == {"input": own["prompt"], "output": own["completion"]}
    for row, own in zip(_lines(out / "openrlhf" / "rl.jsonl"), _lines(out / "rl.jsonl"), strict=True):
        assert row == {"input": own["prompt"], "label": own["answer"], "datasource": "datadose"}
    for stage, key in (("sft", "--data.output_key output"), ("rl", "--data.label_key label")):
        command = (out / "openrlhf" / f"{stage}.sh").read_text()
        assert key in command
        assert ("--data.apply_chat_template" in command) == chat
        assert ('--data.input_template ""' in command) == (not chat)
        assert _loads(out / "openrlhf" / f"{stage}.jsonl", tmp_path / "cache", "json") > 0
    notes = json.loads((out / "manifest.json").read_text())["format"]["notes"]
    assert any("tools" in said for said in notes) == chat


@pytest.mark.parametrize("chat", [False, True], ids=["strings", "messages"])
def test_llama_factory(tmp_path, chat):
    """Its converter takes the columns that dataset_info.json names, and turns that alternate."""
    out = _written(tmp_path, "llama-factory", chat=chat)
    folder = out / "llama-factory"
    about = json.loads((folder / "dataset_info.json").read_text())["sft"]
    rows = _lines(folder / about["file_name"])
    assert len(rows) == 60
    assert set(about["columns"].values()) == set(rows[0])
    settings = yaml.safe_load((folder / "sft.yaml").read_text())
    assert (settings["dataset"], settings["dataset_dir"], settings["mask_history"]) == ("sft", ".", True)
    assert not (folder / "rl.jsonl").exists()
    notes = json.loads((out / "manifest.json").read_text())["format"]["notes"]
    unnamed = ["sft.yaml: put the name of the model's template in place of NAME"] * chat
    assert notes == [
        *(f"{name}.jsonl: llama-factory has no RL with a verifier" for name in ("rl", "control_rl")),
        *unnamed,
    ]
    if not chat:
        assert about["formatting"] == "alpaca"
        return
    tags = about["tags"]
    odd = (tags["user_tag"], tags["observation_tag"])
    even = (tags["assistant_tag"], tags["function_tag"])
    for row in rows:
        turns = row["messages"]
        assert turns[0] == SYSTEM
        roles = [turn["role"] for turn in turns[1:]]
        assert all(role in (odd, even)[place % 2] for place, role in enumerate(roles))
        assert len(roles) % 2 == 0
        assert isinstance(row["tools"], str)
        for turn in turns:
            assert turn.keys() == {"role", "content"}
            if turn["role"] == "function_call":
                assert json.loads(turn["content"]) == [{"name": "add", "arguments": {"a": 1}}]
            if turn["role"] == "tool":
                assert turn["content"] == "3\n</tool_response>\n<tool_response>\n4"
    called = [row for row in rows if row["tools"]]
    assert called
    assert all(row["messages"][-1]["content"].startswith("<think>\nso\n</think>\n\nanswer") for row in called)
    assert all(json.loads(row["tools"]) == TOOLS for row in called)


@pytest.mark.parametrize("chat", [False, True], ids=["strings", "messages"])
def test_axolotl(tmp_path, chat):
    out = _written(tmp_path, "axolotl", chat=chat)
    folder = out / "axolotl"
    source = yaml.safe_load((folder / "sft.yaml").read_text())["datasets"][0]
    rows, own = _lines(folder / source["path"]), _lines(out / "sft.jsonl")
    if not chat:
        kind = source["type"]
        assert kind["format"] == kind["no_input_format"] == "{instruction}"
        taught = [(row[kind["field_instruction"]], row[kind["field_output"]]) for row in rows]
        assert taught == [(row["prompt"], row["completion"]) for row in own]
    else:
        assert source["type"] == "chat_template"
        for row, one in zip(rows, own, strict=True):
            turns = row[source["field_messages"]]
            learnt = [turn[source["message_field_training"]] for turn in turns]
            assert learnt == [False] * len(one["prompt"]) + [True] * len(one["completion"])
            bare = [{k: v for k, v in turn.items() if k != "training"} for turn in turns]
            assert bare == one["prompt"] + one["completion"]
            assert row.get(source["field_tools"]) == one.get("tools")
    asked = yaml.safe_load((folder / "rl.yaml").read_text())
    assert (asked["rl"], asked["datasets"][0]["type"]) == ("grpo", None)
    assert _lines(folder / asked["datasets"][0]["path"]) == _lines(out / "rl.jsonl")
    assert _loads(folder / "sft.jsonl", tmp_path / "cache", "json") == 60


def test_what_arrow_fills_in_is_told(tmp_path, monkeypatch):
    """Arguments by other names, and none: parquet has one set of keys, and no empty object."""
    plain = _chat

    def odd(i: int, row: dict[str, Any]) -> dict[str, Any]:
        row = plain(i, row)
        if i % 3 == 2:
            arguments = [{"a": 1}, {"b": 2}, {}][i % 9 // 3]
            row["prompt"][-3]["tool_calls"] = [{**CALL, "function": {"name": "f", "arguments": arguments}}]
        return row

    monkeypatch.setattr(f"{__name__}._chat", odd)
    out = _written(tmp_path, "verl", chat=True)
    notes = json.loads((out / "manifest.json").read_text())["format"]["notes"]
    called = sum(bool(row.get("tools")) for row in _lines(out / "sft.jsonl"))
    assert called > 5
    assert any(said.startswith(f"sft: {called} rows have tools or calls that Arrow") for said in notes)


def test_turns_that_a_reader_would_leave_out_are_told(tmp_path, monkeypatch):
    """Two questions in a row, text beside a call, several turns to learn."""

    def odd(i: int, row: dict[str, Any]) -> dict[str, Any]:
        call = {"role": "assistant", "content": "I add.", "tool_calls": [CALL]}
        said = {"role": "user", "content": row["prompt"]}
        answer = {"role": "assistant", "content": row["completion"]}
        prompt = [[said, said], [said, call, {"role": "tool", "content": "3"}], [said]][i % 3]
        completion = [answer, said, answer] if i % 3 == 2 else [answer]
        return {**row, "prompt": prompt, "completion": completion}

    monkeypatch.setattr(f"{__name__}._chat", odd)
    out = _written(tmp_path, "llama-factory", chat=True)
    notes = "\n".join(json.loads((out / "manifest.json").read_text())["format"]["notes"])
    for words in ("do not alternate", "text beside a call", "several turns to learn"):
        assert words in notes


def test_another_format_leaves_nothing_of_the_first(tmp_path):
    out = _written(tmp_path / "a", "verl", chat=False)
    before = (out / "sft.jsonl").read_bytes()
    assert (out / "verl" / "sft.parquet").is_file()
    out = _written(tmp_path / "a", "trl", chat=False)
    # A configuration without its rows would start nothing.
    assert not list(out.glob("*/*"))
    assert (out / "sft.jsonl").read_bytes() == before
    assert json.loads((out / "manifest.json").read_text())["format"] == {
        "name": "trl",
        "files": [],
        "notes": [],
    }
    with pytest.raises(
        InputError, match="format: got nemo; allowed: trl, verl, openrlhf, llama-factory, axolotl"
    ):
        _written(tmp_path / "b", "nemo", chat=False)
    assert FORMATS[0] == "trl"


def _reward(out: Path, name: str, function: str) -> Callable[..., Any]:
    """The function that the trainer calls, from the file beside its rows."""
    spec = importlib.util.spec_from_file_location(f"reward_of_{name}", out / name / "reward.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Callable[..., Any]", getattr(module, function))


def test_the_reward_is_the_verifier_of_the_pass_rates(tmp_path):
    """As each trainer calls it, on rows of its own file: right, wrong, unfinished."""
    outs = {
        name: _written(tmp_path / name, name, chat=False, verifier="number")
        for name in ("verl", "openrlhf", "axolotl")
    }
    for name, out in outs.items():
        assert f"{name}/reward.py" in json.loads((out / "manifest.json").read_text())["format"]["files"]
    row = _lines(outs["verl"] / "rl.jsonl")[0]
    said = [f"It is \\boxed{{{row['answer']}}}", "no idea", f"<think>maybe {row['answer']}"]
    verl = _parquet(outs["verl"] / "verl" / "rl.parquet")[0]
    score = _reward(outs["verl"], "verl", "compute_score")
    given = (verl["data_source"], verl["reward_model"]["ground_truth"], verl["extra_info"])
    assert [score(given[0], text, *given[1:]) for text in said] == [1.0, 0.0, 0.0]
    reward = _reward(outs["openrlhf"], "openrlhf", "reward_func")
    found = reward([row["prompt"] + text for text in said], [row["prompt"]] * 3, [row["answer"]] * 3)
    assert found["rewards"].tolist() == found["scores"].tolist() == [1.0, 0.0, 0.0]
    reward = _reward(outs["axolotl"], "axolotl", "reward")
    columns = {name: [value] * 3 for name, value in row.items() if name not in ("prompt", "completion")}
    for texts in (said, [[{"role": "assistant", "content": text}] for text in said]):
        assert reward(prompts=[row["prompt"]] * 3, completions=texts, trainer_state=None, **columns) == [
            1,
            0,
            0,
        ]


def test_a_verifier_of_the_users_gets_the_row_where_the_trainer_has_it(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text("def check(completion, row):\n    return row['prompt'] == completion\n")
    monkeypatch.syspath_prepend(tmp_path)
    out = _written(tmp_path / "v", "verl", chat=False, verifier="mine:check")
    row = _parquet(out / "verl" / "rl.parquet")[0]
    prompt = _lines(out / "rl.jsonl")[0]["prompt"]
    score = _reward(out, "verl", "compute_score")
    assert [score("", text, "?", row["extra_info"]) for text in (prompt, "other")] == [1.0, 0.0]
    assert "verl: rl: reward.py needs the module mine where verl runs" in capsys.readouterr().err
    _written(tmp_path / "o", "openrlhf", chat=False, verifier="mine:check")
    assert "sees a row's prompt and answer alone, and mine:check may read other" in capsys.readouterr().err


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("name", ["verl", "axolotl"])
def test_the_reward_gives_the_verifier_the_answer_that_scoring_gave_it(name, mixed, tmp_path, monkeypatch):
    """Text, whatever the column holds, in a module and a function of odd names."""
    source = "def check(completion, row):\n    return row['answer'] == completion\n"
    source += "globals()['a \"b\\\\'] = check\n"
    (tmp_path / 'odd"$name.py').write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    answers = [True, 7, 1e20, ["a", 1], {"b": None}, "t"] if mixed else [7]
    texts = ["True", "7", "1e+20", '["a", 1]', '{"b": null}', "t"] if mixed else ["7"]
    out = _written(
        tmp_path / name,
        name,
        chat=False,
        verifier='odd"$name:a "b\\',
        answers=answers,
    )
    seen = set()
    for place, row in enumerate(_lines(out / "rl.jsonl")):
        text = texts[int(row["id"].rpartition("-")[2]) % len(texts)]
        seen.add(text)
        if name == "verl":
            theirs = _parquet(out / "verl" / "rl.parquet")[place]
            truth = theirs["reward_model"]["ground_truth"]
            score = _reward(out, name, "compute_score")
            assert [score("", said, truth, theirs["extra_info"]) for said in (text, "x")] == [1.0, 0.0]
        else:
            columns = {key: [value] * 2 for key, value in row.items() if key not in ("prompt", "completion")}
            reward = _reward(out, name, "reward")
            assert reward(prompts=["q"] * 2, completions=[text, "x"], **columns) == [1.0, 0.0]
    assert seen == set(texts)
