"""Losses along training: what they are, which step is kept, early stopping, and runs that were killed."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("trl")
pytest.importorskip("peft")

from datadose.errors import InputError, RunError
from datadose.llm import posttrain as module
from datadose.llm import trainers
from datadose.llm.evaluation import Evaluation
from datadose.llm.language_model import LanguageModel
from datadose.llm.pool import read_pool
from datadose.llm.posttrain import PosttrainConfig, posttrain

pytestmark = pytest.mark.usefixtures("one_thread")

Write = Callable[..., Path]
Rows = list[dict[str, Any]]
SFT = PosttrainConfig("sft", steps=7, batch=4, learning_rate=3e-2, lora_rank=2)


def answers(start: int, completions: list[str]) -> Rows:
    return [
        {"id": f"r{start + i}", "prompt": f"{start + i}?", "completion": c} for i, c in enumerate(completions)
    ]


@pytest.fixture
def files(write_rows: Write) -> dict[str, Path]:
    """Every training row says 7; half of the validation rows say 8, and what is to be kept is a word.

    The first steps learn that an answer is a digit, the later ones only that it is 7.
    """
    return {
        "data": write_rows(answers(10, ["7"] * 10), "data.jsonl"),
        "validation": write_rows(answers(30, ["7", "8"] * 3 + ["888888"]), "validation.jsonl"),
        "keep": write_rows(answers(50, ["word", "w", "a longer one"]), "keep.jsonl"),
    }


def loss(model: Path, rows: Path) -> float:
    """The mean of what `score` measures."""
    loaded = LanguageModel.load(model)
    return float(loaded.measure([loaded.encode(row) for row in read_pool(rows)]).nll.mean())


@pytest.mark.parametrize("rank", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_the_curve_is_of_the_losses_that_score_measures_and_its_best_step_is_kept(
    rank: int, tiny_llama: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    evaluation = Evaluation(files["validation"], keep=files["keep"], keep_weight=0.1, every=2)
    config = replace(SFT, lora_rank=rank, learning_rate=3e-2 if rank else 1e-2, steps=11)
    out = tmp_path / "out"
    result = posttrain(tiny_llama, files["data"], out, config=config, evaluation=evaluation)
    records, best = result["evaluations"], result["best_step"]
    assert [record["step"] for record in records] == [0, 2, 4, 6, 8, 10, 11]
    weighted = {record["step"]: record["weighted_loss"] for record in records}
    assert best == min(weighted, key=weighted.__getitem__)
    assert 0 < best < 11
    # Step 0 is the untouched model, and what is saved is the model of the best step.
    for step, model in ((0, tiny_llama), (best, out / config.weights)):
        found = next(record for record in records if record["step"] == step)
        for name in ("validation", "keep"):
            assert found[f"{name}_loss"] == pytest.approx(loss(model, files[name]), rel=1e-5)
        assert found["weighted_loss"] == pytest.approx(
            0.9 * found["validation_loss"] + 0.1 * found["keep_loss"], rel=1e-12
        )
    accuracy = [entry["mean_token_accuracy"] for entry in result["history"]]
    assert records[0]["train_token_accuracy"] is None
    assert records[-1]["train_token_accuracy"] == accuracy[-1]
    assert records[2]["train_token_accuracy"] == pytest.approx(sum(accuracy[2:4]) / 2)
    table = pd.read_csv(out / "curve.csv")
    assert list(table) == list(records[0])
    assert table["weighted_loss"].to_list() == pytest.approx(list(weighted.values()), rel=1e-11)
    assert (out / "curve.png").stat().st_size > 10_000
    if rank:
        # Measuring changes nothing of the training.
        plain = posttrain(tiny_llama, files["data"], tmp_path / "plain", config=config)
        assert plain["history"] == result["history"]
        assert (plain["evaluations"], plain["best_step"]) == ([], None)


def everything(out: Path) -> tuple[str, bytes, bytes]:
    """What a run leaves, but for its own place."""
    weights = (out / "adapter" / "adapter_model.safetensors").read_bytes()
    return (out / "result.json").read_text(), weights, (out / "curve.csv").read_bytes()


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def stopped_early(tiny_llama: Path, files: dict[str, Path]) -> Callable[[Path], dict[str, Any]]:
    """A run into a folder that early stopping ends, three evaluations after the best one."""
    evaluation = Evaluation(files["validation"], keep=files["keep"], keep_weight=0.1, every=2, patience=3)
    config = replace(SFT, steps=40)
    return lambda out: posttrain(tiny_llama, files["data"], out, config=config, evaluation=evaluation)


def test_a_run_killed_in_an_evaluation_and_moved_ends_like_an_uninterrupted_one(
    stopped_early: Callable[[Path], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer.sft_trainer import SFTTrainer

    whole = stopped_early(tmp_path / "whole")
    last, best = len(whole["history"]), whole["best_step"]
    assert 0 < best == last - 6
    assert last < 40
    expected = everything(tmp_path / "whole")
    measure: Any = SFTTrainer.prediction_step
    # In the last set of an evaluation after the best one; one set is of two batches, the other of one.
    left = 3 * (best // 2 + 1) + 2

    def killed(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        return interrupt() if left < 0 else measure(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(SFTTrainer, "prediction_step", killed)
        with pytest.raises(KeyboardInterrupt):
            stopped_early(tmp_path / "killed")
    moved = (tmp_path / "killed").rename(tmp_path / "moved")
    assert (moved / "curve.csv").read_text().count("\n") == best // 2 + 2
    assert not (moved / "result.json").exists()
    stopped_early(moved)
    assert everything(moved) == expected


@pytest.mark.slow
def test_a_run_killed_when_it_has_stopped_early_ends_like_an_uninterrupted_one(
    stopped_early: Callable[[Path], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stopped_early(tmp_path / "whole")
    expected = everything(tmp_path / "whole")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("transformers.Trainer._finalize_training", interrupt)
        with pytest.raises(KeyboardInterrupt):
            stopped_early(out)
    steps = (whole["best_step"], len(whole["history"]))
    checkpoints = [out / "checkpoints" / f"checkpoint-{step}" for step in steps]
    assert sorted((out / "checkpoints").glob("checkpoint-*")) == sorted(checkpoints)
    # The last checkpoint is of no use where the best one is damaged.
    damaged = shutil.copytree(out, tmp_path / "damaged")
    (damaged / "checkpoints" / checkpoints[0].name / "adapter_model.safetensors").write_bytes(b"")
    stopped_early(damaged)
    assert everything(damaged) == expected
    # With both, nothing is trained or measured again.
    monkeypatch.setattr(trainers.Run, "step", interrupt)
    stopped_early(out)
    assert everything(out) == expected


def test_a_run_killed_after_its_last_step_takes_no_other(
    tiny_llama: Path, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 10 rows in batches of 4 the last step is not that of an epoch."""
    config = replace(SFT, steps=5, checkpoint_every=2)
    whole = posttrain(tiny_llama, files["data"], tmp_path / "whole", config=config)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_history", interrupt)
        with pytest.raises(KeyboardInterrupt):
            posttrain(tiny_llama, files["data"], tmp_path / "out", config=config)
    assert posttrain(tiny_llama, files["data"], tmp_path / "out", config=config) == whole
    saved = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "out")]
    assert saved[0].read_bytes() == saved[1].read_bytes()


def test_where_no_step_is_better_the_untouched_weights_are_kept(
    tiny_llama: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    """A model that has learned the words forgets them while it learns that an answer is 7."""
    keep = files["keep"]
    learning = replace(SFT, lora_rank=0, learning_rate=1e-2, batch=3, steps=20)
    posttrain(tiny_llama, keep, tmp_path / "base", config=learning)
    base = tmp_path / "base" / "model"
    before = loss(base, keep)
    evaluation = Evaluation(files["validation"], keep=keep, keep_weight=1.0, every=3, patience=2)
    for rank in (2, 0):
        out, config = tmp_path / f"rank-{rank}", replace(SFT, lora_rank=rank, steps=30)
        result = posttrain(base, files["data"], out, config=config, evaluation=evaluation)
        assert result["best_step"] == 0
        assert result["history"][-1]["step"] == 6
        assert min(record["keep_loss"] for record in result["evaluations"][1:]) > before + 0.1
        assert loss(out / config.weights, keep) == pytest.approx(before, rel=1e-6)


def test_validation_alone_decides_without_a_kept_loss(
    tiny_llama: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    config = replace(SFT, steps=5, checkpoint_every=0)
    evaluation = Evaluation(files["validation"])
    assert (evaluation.interval(40), evaluation.interval(41), evaluation.interval(5)) == (2, 3, 1)
    result = posttrain(tiny_llama, files["data"], tmp_path / "out", config=config, evaluation=evaluation)
    records = result["evaluations"]
    assert [record["step"] for record in records] == list(range(6))
    assert all(r["keep_loss"] is None and r["weighted_loss"] == r["validation_loss"] for r in records)
    assert pd.read_csv(tmp_path / "out" / "curve.csv")["keep_loss"].isna().all()
    # Another evaluation is another run, and so is none.
    for other in (Evaluation(files["validation"], every=3), Evaluation(files["keep"]), None):
        with pytest.raises(InputError, match=r"differs in evaluation"):
            posttrain(tiny_llama, files["data"], tmp_path / "out", config=config, evaluation=other)


def test_a_loss_on_validation_that_is_not_finite_names_its_step(
    tiny_llama: Path, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = trainers.Run.step

    def poisoned(self: Any, number: int, logs: dict[str, Any]) -> None:
        bad = {"eval_validation_loss": math.nan} if "eval_validation_loss" in logs and number == 2 else {}
        step(self, number, {**logs, **bad})

    monkeypatch.setattr(trainers.Run, "step", poisoned)
    evaluation = Evaluation(files["validation"], every=2)
    with pytest.raises(RunError, match="eval_validation_loss is nan at step 2"):
        posttrain(tiny_llama, files["data"], tmp_path / "out", config=SFT, evaluation=evaluation)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"keep_weight": 0.5}, "keep_weight: got 0.5; allowed: none without a file to keep"),
        ({"keep": Path("a"), "keep_weight": 1.5}, "keep_weight: got 1.5"),
        ({"keep": Path("a"), "keep_weight": math.nan}, "keep_weight: got nan"),
        ({"every": 0}, "evaluate_every: got 0"),
        ({"patience": 0}, "patience: got 0"),
    ],
)
def test_bad_settings_of_an_evaluation(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Evaluation(Path("validation.jsonl"), **changes)


def test_bad_rows_to_measure(
    tiny_llama: Path, files: dict[str, Path], write_rows: Write, tmp_path: Path
) -> None:
    def fails(match: str, config: PosttrainConfig = SFT, verifier: str | None = None, **sets: Path) -> None:
        evaluation = Evaluation(sets.get("validation", files["validation"]), keep=sets.get("keep"))
        out = tmp_path / "out"
        with pytest.raises(InputError, match=match):
            posttrain(tiny_llama, files["data"], out, config=config, evaluation=evaluation, verifier=verifier)

    shared = write_rows([*answers(70, ["7"]), *answers(12, ["8", "8"])], "shared.jsonl")
    fails(r"validation: got .*shared.jsonl, line 2: the question of .*data.jsonl, line 3 \(and 1 more\)",
          validation=shared)  # fmt: skip
    fails("keep: got .*the question of", keep=shared)
    empty = write_rows([{"prompt": "a", "completion": " "}], "empty.jsonl")
    fails("keep: got line 1: empty completion", keep=empty)
    long = write_rows([{"prompt": "1" * 300, "completion": "2"}], "long.jsonl")
    fails("validation: got line 1: 30. tokens", validation=long)
    fails("validation: got .*missing.jsonl", validation=tmp_path / "missing.jsonl")
    rl = PosttrainConfig("rl", steps=1, batch=4, samples=2, max_tokens=2, lora_rank=2)
    fails("validation: got .*; allowed: none for stage rl", rl, "exact")
    assert not (tmp_path / "out").exists()
