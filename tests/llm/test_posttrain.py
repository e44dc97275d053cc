"""Training: TRL takes the selected files unchanged; our wrapper's losses, resumption, errors and rewards."""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
pytest.importorskip("peft")

from safetensors import SafetensorError

from datadose.errors import InputError, RunError
from datadose.llm import posttrain as module
from datadose.llm import trainers
from datadose.llm.language_model import LanguageModel
from datadose.llm.pool import read_pool
from datadose.llm.posttrain import PosttrainConfig, posttrain
from datadose.llm.silent_groups import find_silences, sentence

pytestmark = pytest.mark.usefixtures("one_thread")

Write = Callable[..., Path]
SFT = PosttrainConfig("sft", steps=4, batch=4, learning_rate=1e-2, lora_rank=2, checkpoint_every=0)
RL = PosttrainConfig("rl", steps=2, batch=4, learning_rate=1e-2, lora_rank=2, samples=2, max_tokens=3)

# As `select` writes rows: all columns of the pool, then what was measured, null where it was not.
MEASURED = {"nll": 1.5, "tokens": 3, "pass_rate": None, "label_passes": True, "issue": None}


def strings(count: int = 8) -> list[dict[str, Any]]:
    return [
        {"id": f"r{i}", "prompt": f"{i} + 1 =", "completion": f" {i + 1}", "answer": str(i + 1), **MEASURED}
        for i in range(count)
    ]


def messages(count: int = 8) -> list[dict[str, Any]]:
    rows = []
    for row in strings(count):
        prompt = [{"role": "user", "content": row["prompt"]}]
        completion = [{"role": "assistant", "content": row["completion"]}]
        rows.append({**row, "prompt": prompt, "completion": completion, "messages": prompt + completion})
    return rows


@pytest.mark.parametrize("rows", [strings(), messages()], ids=["strings", "messages"])
def test_trl_takes_the_files_unchanged(
    rows: list[dict[str, Any]], tiny_llama: Path, write_rows: Write, tmp_path: Path
) -> None:
    from datasets import load_dataset
    from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    path = write_rows(rows, "sft.jsonl")
    cache = str(tmp_path / "cache")
    data = load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
    common = {"max_steps": 1, "report_to": "none", "use_cpu": True, "bf16": False, "save_strategy": "no"}
    sft = SFTConfig(str(tmp_path / "sft"), **common)
    trainer = SFTTrainer(str(tiny_llama), args=sft, train_dataset=data)
    ours = LanguageModel.load(tiny_llama)
    # The loss covers the completion's tokens alone, and exactly those that `score` measures.
    for row, seen in zip(read_pool(path), sorted(trainer.train_dataset, key=lambda r: r["id"]), strict=True):
        labels = [label for label in seen["labels"] if label != -100]
        assert labels == ours.encode(row).completion_ids
    trainer.train()
    told: list[Any] = []

    def reward(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
        told.extend(answer)
        return [float(len(str(completion)) % 2) for completion in completions]

    rl = GRPOConfig(
        str(tmp_path / "rl"),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=3,
        **common,
    )
    GRPOTrainer(str(tiny_llama), args=rl, train_dataset=data, reward_funcs=reward).train()
    assert set(told) <= {row["answer"] for row in rows}
    assert len(told) == 4


@pytest.mark.parametrize("rank", [2, 0])
def test_training_lowers_the_loss_and_what_is_saved_has_it(
    rank: int, tiny_llama: Path, write_rows: Write, tmp_path: Path
) -> None:
    path, out = write_rows(strings()), tmp_path / "out"
    config = replace(SFT, steps=40, batch=8, lora_rank=rank)
    result = posttrain(tiny_llama, path, out, config=config)
    losses = [entry["loss"] for entry in result["history"]]
    assert [entry["step"] for entry in result["history"]] == list(range(1, 41))
    assert losses[-1] < losses[0] - 0.3
    assert json.loads((out / "result.json").read_text()) == result
    before = LanguageModel.load(tiny_llama)
    encoded = [before.encode(row) for row in read_pool(path)]
    # The first step's loss is that of the untouched model: a mean over completion tokens.
    tokens = [row.targets for row in encoded]
    expected = sum(before.measure(encoded).nll * tokens) / sum(tokens)
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    if rank:
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(before.model, out / "adapter").merge_and_unload()
        after = replace(before, model=adapted)
    else:
        after = LanguageModel.load(out / "model")
    assert after.measure(encoded).nll.mean() < expected - 0.3


def test_a_stopped_run_ends_like_an_uninterrupted_one(
    tiny_llama: Path, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(messages())
    config = replace(SFT, steps=6, checkpoint_every=2)
    whole = posttrain(tiny_llama, path, tmp_path / "whole", config=config)

    def stop(name: str, step: int, steps: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        posttrain(tiny_llama, path, out, config=config, progress=stop)
    assert (out / "checkpoints" / "checkpoint-4").is_dir()
    # A kill while a checkpoint is written leaves one without the trainer's state; others are changed since.
    (out / "checkpoints" / "checkpoint-6").mkdir()
    (out / "checkpoints" / "checkpoint-last").mkdir()
    for step, name in ((7, "adapter_model.safetensors"), (8, "trainer_state.json")):
        damaged = out / "checkpoints" / f"checkpoint-{step}"
        shutil.copytree(out / "checkpoints" / "checkpoint-4", damaged)
        content = bytearray((damaged / name).read_bytes())
        content[-9] ^= 1
        (damaged / name).write_bytes(content)
    shutil.copytree(out / "checkpoints" / "checkpoint-4", out / "checkpoints" / "checkpoint-9")
    (out / "checkpoints" / "checkpoint-9" / "trainer_state.json").write_text("[]")
    steps: list[int] = []
    again = posttrain(
        tiny_llama, path, out, config=config, progress=lambda name, step, total: steps.append(step)
    )
    assert min(steps) == 5
    assert capsys.readouterr().err.count("is damaged and dropped") == 4
    assert [e["loss"] for e in again["history"]] == [e["loss"] for e in whole["history"]]
    assert not (out / "checkpoints").exists()
    # Finished: nothing is trained again; other settings need another folder.
    assert posttrain(tiny_llama, path, out, config=config, progress=stop) == again
    with pytest.raises(InputError, match="another run is there"):
        posttrain(tiny_llama, path, out, config=replace(config, seed=1))
    # So is one that was finished before runs were measured and files mixed.
    older = {name: value for name, value in again.items() if name not in ("shares", "evaluation")}
    for name in ("setting.json", "result.json"):
        (out / name).write_text(json.dumps(older))
    assert posttrain(tiny_llama, path, out, config=config, progress=stop) == older


@pytest.mark.parametrize("name", ["setting.json", "result.json"])
def test_a_record_of_another_kind_is_refused(
    name: str, tiny_llama: Path, write_rows: Write, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("[]")
    with pytest.raises(InputError, match=f"out: got .*{name}; allowed: a record"):
        posttrain(tiny_llama, write_rows(strings()), tmp_path / "out", config=SFT)


@pytest.mark.parametrize("layout", ["prompt only", "verl", "columns"])
def test_rl_takes_prompts_alone_and_sft_refuses_them(
    layout: str, tiny_llama: Path, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(4):
        prompt, answer = [{"role": "user", "content": f"{i}+{i}?"}], str(2 * i)
        rows.append(
            {"prompt": prompt, "answer": answer}
            if layout == "prompt only"
            else {"prompt": prompt, "reward_model": {"ground_truth": answer}}
            if layout == "verl"
            else {"ask": f"{i}+{i}?", "gold": answer}
        )
    columns = {"prompt": "ask", "answer": "gold"} if layout == "columns" else None
    path = write_rows(rows)
    seen: list[tuple[str, str]] = []

    def check(text: str, row: Any) -> float:
        seen.append((str(row["prompt"]), row["answer"]))
        return 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_verifier", lambda *_: check)
        patch.setattr(module, "verifier_digest", lambda _: "0")
        posttrain(tiny_llama, path, tmp_path / "out", config=RL, verifier="own:check", columns=columns)
    asked = {(prompt, answer) for prompt, answer in seen if f"{int(answer) // 2}+" in prompt}
    assert asked == set(seen)
    assert len(seen) == 2 * 4
    assert f"data: read as {'given' if columns else layout} (" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"data: got .*line 1: no completion"):
        posttrain(tiny_llama, path, tmp_path / "sft", config=SFT, columns=columns)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("transformers.Trainer._save_checkpoint", FULL),
        (
            "transformers.Trainer._save_checkpoint",
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 93760 vs 93652"),
        ),
        ("peft.PeftModel.save_pretrained", SafetensorError("I/O error: No space left on device")),
        ("transformers.PreTrainedTokenizerBase.save_pretrained", FULL),
    ],
)
def test_a_full_disk_is_one_error(
    target: str,
    error: Exception,
    tiny_llama: Path,
    write_rows: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(target, full)
    config = replace(SFT, steps=1, checkpoint_every=1)
    with pytest.raises(
        RunError, match=r"out: could not be read or written \(.*(No space left|unexpected pos)"
    ):
        posttrain(tiny_llama, write_rows(strings()), tmp_path / "out", config=config)


@pytest.mark.parametrize("rows", [strings(), messages()], ids=["strings", "messages"])
def test_rewards_come_from_the_verifier(
    rows: list[dict[str, Any]],
    tiny_llama: Path,
    write_rows: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, Any]] = []

    def check(completion: str, columns: Any) -> float:
        seen.append((completion, columns))
        if len(seen) == 2:
            msg = "no idea"
            raise ValueError(msg)
        return math.nan if len(seen) == 3 else float(len(seen) % 2)

    monkeypatch.setattr(module, "load_verifier", lambda *_: check)
    result = posttrain(tiny_llama, write_rows(rows), tmp_path / "out", config=RL, verifier="exact")
    assert len(seen) == 8
    assert all(isinstance(text, str) for text, _ in seen)
    assert all(columns in rows for _, columns in seen)
    assert result["verifier_errors"] == {
        "verifier raised: ValueError: no idea": 1,
        "verifier returned: nan": 1,
    }
    # Calls 1 and 5, 7 passed: one of the first four, two of the next.
    assert [entry["reward"] for entry in result["history"]] == [0.25, 0.5]


def test_a_loss_that_is_not_finite_names_its_step(
    tiny_llama: Path, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = trainers.Run.step

    def poisoned(self: Any, number: int, logs: dict[str, Any]) -> None:
        step(self, number, {**logs, "loss": math.nan} if number == 3 else logs)

    monkeypatch.setattr(trainers.Run, "step", poisoned)
    with pytest.raises(RunError, match="loss is nan at step 3"):
        posttrain(tiny_llama, write_rows(strings()), tmp_path / "out", config=SFT)
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_broken_model_is_not_trained(tiny_llama: Path, write_rows: Write, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_llama, broken)
    model = LanguageModel.load(tiny_llama).model
    model.model.norm.weight.data[0] = math.nan
    model.save_pretrained(broken)
    with pytest.raises(RunError, match="loss is nan at step 1"):
        posttrain(broken, write_rows(strings()), tmp_path / "out", config=SFT)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stage": "dpo"}, "stage"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"stage": "rl", "batch": 3, "samples": 2}, "batch"),
        ({"stage": "rl", "samples": 1}, "samples"),
    ],
)
def test_bad_settings(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=f"^{named}"):
        PosttrainConfig(**{"stage": "sft", **changes})


def test_bad_data_and_missing_parts(
    tiny_llama: Path, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(
        rows: list[dict[str, Any]], config: PosttrainConfig, match: str, verifier: str | None = None
    ) -> None:
        with pytest.raises(InputError, match=match):
            posttrain(tiny_llama, write_rows(rows), tmp_path / "out", config=config, verifier=verifier)

    fails([*strings(2), {**strings(1)[0], "id": "x", "completion": " "}], SFT, "line 3: empty completion")
    fails([{"prompt": "1" * 300, "completion": "2"}], SFT, "line 1: 30. tokens.*context of 256")
    fails([{"prompt": "1" * 255, "completion": "2"}], RL, "line 1: 258 tokens", "exact")
    fails(strings(1), RL, "at least 2 prompts", "exact")
    fails(strings(), RL, "verifier")
    fails(strings(), SFT, "verifier", "exact")
    assert not (tmp_path / "out").exists()
    find = module.require_extra.__globals__["importlib"].util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "peft" else find(name, *a)
    )
    fails(strings(), SFT, r"pip install 'datadose\[train\]'")


@pytest.mark.parametrize(
    ("reward", "says"), [(0.0, "every completion failed"), (1.0, "every completion passed")]
)
def test_steps_that_teach_nothing_are_warned_of(
    reward: float,
    says: str,
    tiny_llama: Path,
    write_rows: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "load_verifier", lambda *_: lambda *_: reward)
    result = posttrain(tiny_llama, write_rows(strings()), tmp_path / "out", config=RL, verifier="exact")
    (warning,) = result["warnings"]
    assert (warning["first"], warning["last"], warning["reward"]) == (1, 2, reward)
    assert says in warning["warning"]
    assert capsys.readouterr().err.count(f"warning: {warning['warning']}") == 1
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result


def test_mixed_groups_are_not_warned_of(
    tiny_llama: Path,
    write_rows: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[str] = []

    def by_turns(completion: str, _: Any) -> float:
        calls.append(completion)
        return float(len(calls) % 2)

    monkeypatch.setattr(module, "load_verifier", lambda *_: by_turns)
    result = posttrain(tiny_llama, write_rows(strings()), tmp_path / "out", config=RL, verifier="exact")
    assert result["warnings"] == []
    assert "warning:" not in capsys.readouterr().err


def test_only_long_silences_count() -> None:
    """Five steps in a row, or all steps of a shorter run; a step with a mixed group ends a stretch."""

    def history(shares: list[float]) -> list[dict[str, float]]:
        return [
            {"step": i + 1, "reward": i / 10, "frac_reward_zero_std": share} for i, share in enumerate(shares)
        ]

    found = find_silences(history([1, 1, 1, 1, 0.5, 1, 1, 1, 1, 1, 1]), 11)
    assert [(one["first"], one["last"]) for one in found] == [(6, 11)]
    assert found[0]["reward"] == pytest.approx(0.75)
    assert "every group passed or failed as a whole" in sentence(found[0])
    assert find_silences(history([1, 1, 1, 1, 0]), 100) == []
    assert len(find_silences(history([1, 1, 1]), 3)) == 1
    assert find_silences([{"step": 1, "loss": 2.0}], 1) == []
