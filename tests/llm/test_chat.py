"""What is scored is what TRL trains on: the same ids and labels as its own trainers prepare, row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datadose.errors import InputError
from datadose.llm.chat import TEMPLATE_DATE
from datadose.llm.pool import Row, read_pool
from datadose.llm.posttrain import posttrain
from datadose.llm.posttrain_config import PosttrainConfig
from datadose.llm.score import ScoreConfig, score
from datadose.llm.trainers import Run, make_trainer
from helpers.tiny_llama import make_model
from helpers.trl_tokens import TEMPLATES, grpo_tokens, sft_tokens

if TYPE_CHECKING:
    from datadose.llm.language_model import LanguageModel

USER = {"role": "user", "content": "what is 2+2?"}
SYSTEM = {"role": "system", "content": "be brief"}


def says(content: str, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **keys}


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "id": "abcdefghi", "function": {"name": name, "arguments": arguments}}


def tool(name: str, **parameters: str) -> dict[str, Any]:
    properties = {parameter: {"type": kind} for parameter, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": sorted(properties)}
    return {"type": "function", "function": {"name": name, "description": "It does.", "parameters": schema}}


CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one turn": {"prompt": [USER], "completion": [says("It is 4.")]},
    "turns": {
        "prompt": [SYSTEM, USER, says("4 it is"), {"role": "user", "content": "and 3+3?"}],
        "completion": [says("six")],
    },
    "object": {
        "prompt": [USER],
        "completion": [says("", tool_calls=[call("add", {"a": 2, "b": "two"})])],
        "tools": [tool("add", a="integer", b="string")],
    },
    "string": {
        "prompt": [USER],
        "completion": [says("I add.", tool_calls=[call("add", '{"a": 2}')])],
        "tools": json.dumps([tool("add", a="integer")]),
    },
    "no tools": {"prompt": [USER], "completion": [says("4")], "tools": []},
    "answered call": {
        "prompt": [USER, says("", tool_calls=[call("add", {"a": 2})]), {"role": "tool", "content": "4"}],
        "completion": [says("four")],
        "tools": [tool("add", a="integer")],
    },
    "reasoning": {"prompt": [USER], "completion": [says("four", reasoning_content="two and two")]},
    "thinking": {"prompt": [USER], "completion": [says("four", thinking="two and two")]},
    "thought": {"prompt": [USER], "completion": [says("<think>\ntwo and two\n</think>\n\nfour")]},
    "named": {"prompt": [{**USER, "name": "Ann"}], "completion": [says("four", name="Bob")]},
    "options": {
        "prompt": [USER],
        "completion": [says("four")],
        "chat_template_kwargs": {"enable_thinking": False, "date_string": "1 Jan 2000"},
    },
}


def as_row(record: dict[str, Any]) -> Row:
    tools = record.get("tools")
    return Row(
        "a",
        record["prompt"],
        (record["completion"],),
        record,
        1,
        None,
        json.loads(tools) if isinstance(tools, str) else tools,
        record.get("chat_template_kwargs", {}),
    )


@pytest.fixture
def templated(model: LanguageModel) -> Iterator[Callable[[str], LanguageModel]]:
    """``templated(name)``: the tiny model under a chat template that TRL carries, or one given as text."""
    before = model.tokenizer.chat_template

    def change(template: str) -> LanguageModel:
        file = TEMPLATES / f"{template}.jinja"
        model.tokenizer.chat_template = file.read_text() if "{" not in template else template
        return replace(model.with_chat("last", TEMPLATE_DATE), context_length=4096)

    yield change
    model.tokenizer.chat_template = before


def assert_same(model: LanguageModel, record: dict[str, Any], out: Path) -> None:
    """The row is scored as TRL prepares it, or both refuse it."""
    every = model.chat.loss == "all"
    try:
        (expected,) = sft_tokens(model, [record], out, every_turn=every)
    except Exception:
        with pytest.raises(InputError, match="messages: got"):
            model.encode(as_row(record))
        return
    found = model.encode(as_row(record))
    assert (found.ids.tolist(), found.labels) == expected
    assert found.targets == sum(label >= 0 for label in expected[1][1:])


@pytest.mark.parametrize("loss", ["last", "all"])
@pytest.mark.parametrize("template", ["qwen3", "deepseek_r1_distill", "gptoss"])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_messages_are_scored_as_sft_trainer_prepares_them(
    template: str, name: str, loss: str, templated: Callable[[str], LanguageModel], tmp_path: Path
) -> None:
    model = templated(template).with_chat(loss, TEMPLATE_DATE)
    assert_same(model, CONVERSATIONS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("template", sorted(path.stem for path in TEMPLATES.glob("*.jinja")))
def test_every_template_of_trl(
    template: str, templated: Callable[[str], LanguageModel], tmp_path: Path
) -> None:
    last = templated(template)
    try:
        models = [last, last.with_chat("all", TEMPLATE_DATE)]
    except InputError:
        # TRL refuses it too.
        with pytest.raises(ValueError, match="patching is not supported"):
            sft_tokens(last, [CONVERSATIONS["one turn"]], tmp_path, every_turn=True)
        models = [last]
    for model in models:
        for record in CONVERSATIONS.values():
            assert_same(model, record, tmp_path)


def test_strings_are_scored_as_sft_trainer_prepares_them(
    templated: Callable[[str], LanguageModel], tmp_path: Path
) -> None:
    model = templated("qwen3")
    records = [
        {"prompt": "2+2=", "completion": "4"},
        {"prompt": "2+2=", "completion": "4<|im_end|>"},
        {"prompt": "Question: what?\n", "completion": " that"},
    ]
    for record, expected in zip(records, sft_tokens(model, records, tmp_path), strict=True):
        found = model.encode(as_row(record))
        assert (found.ids.tolist(), found.labels) == expected
        # One turn: the same for all turns.
        again = model.with_chat("all", TEMPLATE_DATE).encode(as_row(record))
        assert (again.ids.tolist(), again.labels) == expected


def test_all_turns_of_the_messages_layout(
    templated: Callable[[str], LanguageModel], tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    model = templated("qwen3").with_chat("all", TEMPLATE_DATE)
    turns = CONVERSATIONS["turns"]
    record = {"messages": [*turns["prompt"], *turns["completion"]]}
    (expected,) = sft_tokens(model, [record], tmp_path / "out", every_turn=True)
    (row,) = read_pool(write_rows([record]))
    found = model.encode(row)
    assert (found.ids.tolist(), found.labels) == expected
    said = model.tokenizer.decode([label for label in expected[1] if label >= 0])
    assert all(text in said for text in ("4 it is", "six"))
    assert "2+2" not in said


def test_a_file_is_scored_as_trl_reads_it(
    templated: Callable[[str], LanguageModel], tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    """Objects and strings as arguments, tools with other parameters: one file, through its readers."""
    from datasets import load_dataset

    model = templated("qwen3")
    records = [CONVERSATIONS[name] for name in ("object", "one turn", "reasoning")]
    records += [{**CONVERSATIONS["string"], "tools": json.loads(CONVERSATIONS["string"]["tools"])}]
    path = write_rows(records)
    data: Any = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    expected = sft_tokens(model, data, tmp_path / "out")
    found = [model.encode(row) for row in read_pool(path)]
    assert [(one.ids.tolist(), one.labels) for one in found] == expected


def test_nulls_of_arrow_are_no_keys(
    templated: Callable[[str], LanguageModel], tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    model = templated("qwen3")
    other = {**CONVERSATIONS["object"], "tools": [tool("say", words="string")]}
    other["completion"] = [says("", tool_calls=[call("say", {"words": "hello"})])]
    records = [CONVERSATIONS["object"], other, CONVERSATIONS["one turn"], CONVERSATIONS["reasoning"]]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "pool.parquet")
    assert pq.read_table(tmp_path / "pool.parquet").to_pylist() != records  # keys of all in each
    plain, filled = read_pool(write_rows(records)), read_pool(tmp_path / "pool.parquet")
    for one, same in zip(plain, filled, strict=True):
        assert model.encode(same).ids.tolist() == model.encode(one).ids.tolist()


@pytest.mark.parametrize("template", ["qwen3", "gptoss", "llama3_2"])
def test_prompts_are_sampled_from_as_grpo_trainer_does(
    template: str, templated: Callable[[str], LanguageModel], tmp_path: Path
) -> None:
    model = templated(template)
    prompts = [CONVERSATIONS[name]["prompt"] for name in ("one turn", "turns")]
    assert [model.encode_prompt(prompt) for prompt in prompts] == grpo_tokens(model, prompts, tmp_path)
    texts = ["2+2=", "what is new?"]
    assert [model.encode_prompt(text) for text in texts] == grpo_tokens(model, texts, tmp_path)


def test_posttrain_trains_on_what_is_scored(
    templated: Callable[[str], LanguageModel], tmp_path: Path
) -> None:
    """Rows whose calls and tools have other keys, which one Arrow table cannot hold apart."""
    model = templated("qwen3")
    names = ("object", "reasoning", "turns", "options", "answered call")
    rows = [as_row(CONVERSATIONS[name]) for name in names]
    forward = model.model.forward
    for loss in ("last", "all"):
        model = model.with_chat(loss, TEMPLATE_DATE)
        run = Run(PosttrainConfig("sft", lora_rank=0, loss=loss), rows, None, None, None, print)
        data = make_trainer(model, tmp_path, run, fresh=True).train_dataset
        model.model.forward = forward
        found = [model.encode(row) for row in rows]
        assert [one["input_ids"] for one in data] == [one.ids.tolist() for one in found]
        assert [one["labels"] for one in data] == [one.labels for one in found]


def test_grpo_of_posttrain_gives_the_template_tools_and_options(
    templated: Callable[[str], LanguageModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = templated("qwen3")
    rows = [as_row(CONVERSATIONS[name]) for name in ("object", "options", "turns")]
    config = PosttrainConfig("rl", steps=2, batch=2, samples=2, lora_rank=0, max_tokens=2)
    run = Run(config, rows, [0, 1, 2], None, lambda *_: 0.0, lambda *_: None)
    forward = model.model.forward
    trainer = make_trainer(model, tmp_path, run, fresh=True)
    seen: list[list[int]] = []
    tokenize = trainer._tokenize_prompts

    def watched(prompts: list[Any]) -> Any:
        found = tokenize(prompts)
        seen.extend(found[0])
        return found

    monkeypatch.setattr(trainer, "_tokenize_prompts", watched)
    trainer.train()
    model.model.forward = forward
    expected = [model.encode_prompt(row.prompt, row.tools, row.template_options) for row in rows[:2]]
    assert seen == [expected[0], expected[0], expected[1], expected[1]]
    assert "add" in model.tokenizer.decode(expected[0])
    # TRL's own trainer gives the template neither.
    assert grpo_tokens(model, [rows[0].prompt], tmp_path) != [expected[0]]


@pytest.mark.parametrize("loss", ["last", "all"])
def test_the_first_loss_of_a_run_is_the_scored_one_and_its_adapter_can_be_scored(
    loss: str, tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    folder = make_model(tmp_path / "model", context=4096)
    (folder / "chat_template.jinja").write_text((TEMPLATES / "qwen3.jinja").read_text())
    names = ("object", "reasoning", "turns", "options")
    pool = write_rows([{"chat_template_kwargs": {}, **CONVERSATIONS[name]} for name in names])
    config = ScoreConfig(loss=loss)
    found = score(folder, pool, tmp_path / "scores", config=config)
    tokens = found.table["tokens"].to_numpy()
    settings = PosttrainConfig("sft", steps=1, batch=len(names), lora_rank=2, loss=loss)
    result = posttrain(folder, pool, tmp_path / "run", config=settings)
    expected = float(found.table["nll"].to_numpy() @ tokens / tokens.sum())
    assert result["history"][0]["loss"] == pytest.approx(expected, rel=1e-4)
    trained = score(tmp_path / "run" / "adapter", pool, tmp_path / "again", config=config)
    assert trained.manifest["scored"] == len(names)
    assert trained.table["tokens"].tolist() == tokens.tolist()
    assert trained.table["nll"].tolist() != found.table["nll"].tolist()


TWICE = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "completion", "lost"),
    [
        ("qwen3", says("<think>two and two</think>four"), None),  # written with other white space
        ("qwen3", says("four", reasoning_content="two"), None),
        ("qwen3", says('say "a"\n', tool_calls=[call("add", {"a": 'x "y"\nz', "b": None})]), None),
        ("qwen3", says("", tool_calls=[call("add", '{"a": 2}')]), None),
        ("deepseek_r1_distill", says("<think>two and two</think>four"), 'content of message 2: "<think>'),
        (TWICE, says("four", tool_calls=[call("add", {"a": 2})]), 'tool_calls of message 2: "add"'),
        # All that the call says is in the text already.
        (TWICE, says("s is 2 a", tool_calls=[call("s", {"a": 2})]), "tool_calls of message 2"),
        (TWICE, says("two", reasoning_content="two"), 'reasoning_content of message 2: "two"'),
        (TWICE, says("two", thinking="a", reasoning="b"), 'thinking of message 2: "a"'),
        # The prompt has the same words.
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}.",
            says("2"),
            "content",
        ),
        (TWICE.replace("m.content", "m.content[:9]"), says("a text of more"), "content of message 2"),
    ],
)
def test_what_a_template_drops_marks_the_row(
    template: str, completion: dict[str, Any], lost: str | None, templated: Callable[[str], LanguageModel]
) -> None:
    issue = templated(template).encode(as_row({"prompt": [USER], "completion": [completion]})).issue
    if lost is None:
        assert issue is None
    else:
        assert issue is not None
        assert issue.startswith("template drops part of the completion: ")
        assert lost in issue


REFUSING = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def test_a_refused_role_and_a_dropped_thought_mark_their_rows(
    templated: Callable[[str], LanguageModel], write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    records = [
        {"prompt": [USER], "completion": [says("4")]},
        {"prompt": [SYSTEM, USER], "completion": [says("4")]},
        {"prompt": [USER], "completion": [says("four", reasoning_content="two and two")]},
        {"prompt": [USER], "completion": [says("five")], "system": "be brief"},
    ]
    scores = score(templated(REFUSING), write_rows(records), tmp_path / "out")
    issues = scores.table["issue"].fillna("").tolist()
    assert (issues[0], issues[3]) == ("", "")
    assert "no system role" in issues[1]
    assert issues[2].startswith("template drops part of the completion: reasoning_content")
    assert scores.manifest["scored"] == 2
    assert scores.manifest["issues"] == {"messages": 1, "template drops part of the completion": 1}
    assert scores.manifest["unread_columns"] == {"system": 1}


def test_a_call_alone_is_a_completion(
    templated: Callable[[str], LanguageModel], write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    scores = score(templated("qwen3"), write_rows([CONVERSATIONS["object"]]), tmp_path / "out")
    assert scores.manifest["scored"] == 1


def test_the_clock_of_a_template_is_frozen(
    templated: Callable[[str], LanguageModel], write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    model = templated("llama3_2")
    row = as_row(CONVERSATIONS["one turn"])
    assert "Today Date: 26 Jul 2024" in model.tokenizer.decode(model.encode(row).prompt_ids)
    later = model.with_chat("last", "2031-02-03")
    assert "Today Date: 03 Feb 2031" in model.tokenizer.decode(later.encode(row).prompt_ids)
    assert later.template_digest != model.template_digest
    assert later.tokenizer_digest != model.tokenizer_digest
    pool = write_rows([CONVERSATIONS["one turn"]])
    dates = (TEMPLATE_DATE, "2031-02-03")
    found = [score(model, pool, tmp_path / day, config=ScoreConfig(template_date=day)) for day in dates]
    assert [scores.manifest["template_date"] for scores in found] == list(dates)
    assert found[0].table["nll"][0] != found[1].table["nll"][0]


def test_bad_options_are_refused(templated: Callable[[str], LanguageModel], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="loss: got first; allowed: last, all"):
        ScoreConfig(loss="first")
    for date in ("3 Feb 2031", "2031-2-3", "2031-02-30"):
        with pytest.raises(InputError, match=r"template-date: got .*; allowed: a day as YYYY-MM-DD"):
            ScoreConfig(template_date=date)
    with pytest.raises(InputError, match="loss: got all; allowed: last for stage rl"):
        PosttrainConfig("rl", loss="all")
    unmarked = templated(REFUSING)
    with pytest.raises(InputError, match=r"loss: got all; allowed: last with .* does not mark"):
        unmarked.with_chat("all", TEMPLATE_DATE)
    odd = {**CONVERSATIONS["one turn"], "chat_template_kwargs": {"max_length": 3}}
    with pytest.raises(InputError, match="messages: got chat_template_kwargs with max_length"):
        unmarked.encode(as_row(odd))
    silent = make_model(tmp_path / "silent", template=False)
    from datadose.llm.language_model import LanguageModel

    assert LanguageModel.load(silent).with_chat("all", TEMPLATE_DATE).template_digest is None
