"""The GPT's level: its loss and thoughts beside the model's own, wrong answers, the linearised model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datadose.models.gpt import GptConfig, GptModel, save_gpt
from datadose.studies.gpt.runs import GptTask
from datadose.studies.levels.gpt import GptLevel, NextMeans, Rows, run_gpt, think
from datadose.studies.levels.linearised import Linearised
from datadose.studies.levels.schema import Pool
from datadose.studies.levels.trajectory import Trajectory

TASK = GptTask(3, 4, 2, 2, eta=0.5, test_prompts=32)


def _model() -> GptModel:
    return GptModel(GptConfig(3, 2, 2, 16, 11), seed=0)


def test_the_loss_is_the_stages_and_a_weight_a_number_of_copies() -> None:
    model = _model()
    rows = Rows.drawn(TASK, Pool.ONE_KIND, 1.0, 6, 0)
    own = model.teacher_forced_loss(rows.prompts, TASK.eta, TASK.chain_steps)[0]
    torch.testing.assert_close(rows.loss(NextMeans(model)), own)
    heavy = replace(rows, weights=torch.tensor([1.0, 1.0, 1.0, 1.0, 3.0, 2.0]))
    copies = rows.take(torch.tensor([0, 1, 2, 3, 4, 4, 4, 5, 5]))
    gradients = []
    for one in (heavy, copies):
        module = NextMeans(_model())
        (one.loss(module) * one.count).backward()  # type: ignore[no-untyped-call]
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_misleading_rows_teach_the_chain_of_another_answer() -> None:
    alike, lower, removed = (Rows.drawn(TASK, Pool.MISLEADING, w, 20, 0) for w in (1.0, 0.2, 0.0))
    clean = Rows.drawn(TASK, Pool.ONE_KIND, 1.0, 20, 0)
    ends = [rows.chains[0, :, -1] / 0.875 - rows.prompts.weights[0] for rows in (alike, clean)]
    wrong, right = (end.abs().amax(dim=-1) for end in ends)
    assert float(right.max()) < 1e-6
    assert (wrong > 1e-3).tolist() == [False] * 14 + [True] * 6
    assert lower.weights.tolist() == pytest.approx([1.0] * 14 + [0.2] * 6)
    assert removed.count == 14
    torch.testing.assert_close(removed.prompts.weights, clean.prompts.weights[:, :14])


def test_thoughts_without_a_cache_are_the_models_own() -> None:
    module = NextMeans(_model())
    batch = Rows.drawn(TASK, Pool.ONE_KIND, 1.0, 6, 1).prompts
    with torch.no_grad():
        own, told = (think(model, batch, 2) for model in (module, Linearised(module)))
    torch.testing.assert_close(own, told, rtol=1e-4, atol=1e-5)


def _run(file: Path, **changes: Any) -> list[list[Any]]:
    trajectory = Trajectory("adamw", changes.pop("rate", 1e-3), 4, (0, 3), clip=1.0)
    given = {"pool": Pool.ONE_KIND, "weight": 1.0, "prompts": 8, "models": 1, "linearised": False, "seed": 0}
    return run_gpt(file, TASK, trajectory, **{**given, **changes})


def test_at_a_small_rate_the_linearised_model_is_the_model(tmp_path: Path) -> None:
    """What separates them shrinks with the rate faster than what both move by."""
    file = tmp_path / "gpt.safetensors"
    save_gpt(file, _model())
    shares = []
    for rate in (3e-3, 3e-4):
        real, told = (_run(file, rate=rate, linearised=flag) for flag in (False, True))
        moved = np.array(real[1][2:]) - np.array(real[0][2:])
        np.testing.assert_allclose(told[0][2:], real[0][2:], rtol=1e-5)
        shares.append(np.abs(np.array(told[1][2:]) - np.array(real[1][2:])).max() / np.abs(moved).max())
    assert shares[1] < 0.1
    assert shares[1] < 0.3 * shares[0]


def test_an_average_of_models_is_one_of_their_own_rows(tmp_path: Path) -> None:
    file = tmp_path / "gpt.safetensors"
    save_gpt(file, _model())
    one, mean = (_run(file, models=models) for models in (1, 2))
    assert one[0] == mean[0]
    assert one[1][2] != mean[1][2]
    assert (one[1][1], mean[1][1]) == (1.5, 3.0)


def test_every_setting_names_what_its_cell_does(tmp_path: Path) -> None:
    level = GptLevel.preset("quick")
    settings = list(level.settings(tmp_path))
    for cell, shared in settings:
        for key in ("pool", "weight", "prompts", "models", "seed"):
            assert cell.arguments[key] == shared[key]
        assert cell.arguments["linearised"] == (shared["model"] == "linearised")
    assert len({repr(shared) for _, shared in settings}) == len(settings)
    once = level.trajectory
    assert once.epochs(max(level.prompts), once.updates[-1]) <= 1
