"""Pretrained models on disk, post-training runs and what is measured of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datadose.models.baselines import pretrained_lsa
from datadose.models.gpt import load_gpt
from datadose.stages import Sft, pretrain
from datadose.studies.gpt import runs as gpt_runs
from datadose.studies.gpt.data import GptData, measure_baselines, theory_slopes
from datadose.studies.gpt.runs import (
    Pretraining,
    Task,
    Work,
    measure,
    pretrain_all,
    pretrained_file,
    run_gpt,
    run_lsa,
)
from datadose.sweep import Workers
from datadose.theory.post_test import post_test_error
from datadose.theory.pretraining import pretrained_operator

TASK = Task(5, 6, 2, 1, eta=0.5, test_prompts=400)
PRETRAINING = Pretraining("tiny", 6, batch=8, warmup=2, every=2)
WORK = Work("sft", "delta", 16, 6, 2, 3, 1e-3, batch=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pretrained")
    pretrain_all(TASK, [PRETRAINING], path, Workers(1))
    return path


def test_pretrained_models_are_made_once_and_named_after_what_made_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pretrained_file(TASK, PRETRAINING, folder)
    assert [path.name for path in folder.iterdir()] == [made.name]
    monkeypatch.setattr(gpt_runs, "run_calls", lambda *_: pytest.fail("made twice"))
    pretrain_all(TASK, [PRETRAINING], folder, Workers(1))
    others = [
        replace(PRETRAINING, steps=7),
        replace(PRETRAINING, seed=1),
        replace(PRETRAINING, learning_rate=1.0),
    ]
    assert len({made, *(pretrained_file(TASK, p, folder) for p in others)}) == 4
    assert pretrained_file(replace(TASK, eta=0.4), PRETRAINING, folder) != made


def test_an_interrupted_pretraining_ends_with_the_same_weights(folder: Path, tmp_path: Path) -> None:
    calls = {"n": 0}
    real = Sft.__call__

    def stop_at_step_four(self: object, model: object, batch: object, step: int) -> object:
        calls["n"] += 1
        if calls["n"] == 5:
            raise KeyboardInterrupt
        return real(self, model, batch, step)  # type: ignore[arg-type]

    train = pretrain.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sft, "__call__", stop_at_step_four)
        patch.setattr(pretrain, "train", lambda *a, **k: train(*a, **{**k, "checkpoint_every": 1}))
        with pytest.raises(KeyboardInterrupt):
            gpt_runs._pretrain(TASK, PRETRAINING, tmp_path)
    assert not pretrained_file(TASK, PRETRAINING, tmp_path).exists()
    gpt_runs._pretrain(TASK, PRETRAINING, tmp_path)
    whole = load_gpt(pretrained_file(TASK, PRETRAINING, folder)).state_dict()
    resumed = load_gpt(pretrained_file(TASK, PRETRAINING, tmp_path)).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not list(tmp_path.glob("*.checkpoint"))


def test_the_linear_models_slopes_are_its_operator_and_its_error_the_theorem() -> None:
    found = measure(pretrained_lsa(TASK.sigma0, TASK.length), TASK, TASK.length)
    slopes = theory_slopes(TASK)
    for group in ("rare", "common"):
        assert found[f"target_slope_{group}_phi"] == pytest.approx(slopes[group], rel=1e-4)
        assert found[f"target_fit_{group}_phi"] == pytest.approx(1, abs=1e-6)
        assert found[f"target_fit_{group}_w"] < 0.9
    V0 = pretrained_operator(TASK.sigma0, TASK.length)
    exact = post_test_error(V0, TASK.sigma0 + TASK.delta, TASK.length)
    # 400 prompts with heavy-tailed errors: 40 percent is over four standard errors of the mean.
    assert found["target"] == pytest.approx(exact, rel=0.4)
    assert found["target"] == pytest.approx((found["target_rare"] + 4 * found["target_common"]) / 5)


@pytest.mark.parametrize("stage", ["sft", "outcome", "rl"])
def test_runs_repeat_and_depend_on_their_seed(folder: Path, stage: str) -> None:
    path = str(pretrained_file(TASK, PRETRAINING, folder))
    work = replace(WORK, stage=stage)
    first = run_gpt(path, TASK, work, 0, 6)
    assert first == run_gpt(path, TASK, work, 0, 6)
    assert first != run_gpt(path, TASK, work, 1, 6)
    untouched = run_gpt(path, TASK, replace(work, prompts=0), 0, 6)
    assert first["target"] != untouched["target"]
    assert run_lsa(TASK, work, 0, 6)["target"] is not None


def test_replay_is_half_of_the_pretraining_distribution() -> None:
    batch = gpt_runs._draw(TASK, replace(WORK, variant="replay", prompts=400), 0)
    assert batch.inputs is not None
    spread = batch.inputs.square().mean(dim=(0, 2)).numpy()
    rare = TASK.delta > 0
    assert np.abs(spread[:200][:, ~rare]).max() == 0
    assert spread[200:][:, ~rare].mean() == pytest.approx(1, rel=0.1)


def test_a_lost_run_has_no_numbers(folder: Path) -> None:
    lost = run_lsa(TASK, replace(WORK, stage="outcome", learning_rate=1e30, steps=8), 0, 6)
    assert set(lost.values()) == {None}


def test_exact_predictors_stand_beside() -> None:
    found = measure_baselines(TASK)
    assert found["zero"]["target"] == pytest.approx(1, rel=0.2)
    assert found["least squares"]["target"] < found["ridge"]["target"] < found["zero"]["target"]
    assert GptData.preset("quick").pretrainings
