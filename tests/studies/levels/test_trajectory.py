"""Training with looks on the way: the stages' own batches and updates, whatever is looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from datadose.models import ChainModel, PromptBatch
from datadose.models.baselines import lsa
from datadose.stages import FixedData, Optimisation, train
from datadose.stages.optimisation import Optimiser
from datadose.stages.sft import Sft
from datadose.studies.levels.trajectory import Trajectory, batch_rows, follow

ETA = 0.3


def _prompts() -> PromptBatch:
    return PromptBatch.draw(np.array([1.0, 0.5, 0.2]), 6, 7, seeds=[3], dtype=torch.float64)


def test_the_rows_of_an_update_are_those_of_the_stages() -> None:
    prompts = _prompts()
    data = FixedData(prompts, 3, seed=11)
    for update in range(8):
        chosen = batch_rows(7, 3, 11, update)
        torch.testing.assert_close(prompts.take(chosen).weights, data.batch(update).weights)
    assert batch_rows(7, 7, 11, 0).tolist() == [*range(7)]


@pytest.mark.parametrize(("optimiser", "batch"), [("gd", None), ("sgd", 3), ("adam", 3)])
def test_the_updates_are_those_of_the_stages(optimiser: Optimiser, batch: int | None) -> None:
    prompts = _prompts()
    followed, staged = (lsa(np.array([-0.5, -0.5, -0.5]), 1).double() for _ in range(2))
    trajectory = Trajectory(optimiser, 0.05, batch, (0, 2, 9))

    def loss(rows: Tensor) -> Tensor:
        return followed.teacher_forced_loss(prompts.take(rows), ETA, 1).sum()

    seen = follow(followed, trajectory, 7, 5, loss, lambda: followed.V.detach().clone())
    how = Optimisation(optimiser, 0.05, steps=9, batch=batch)
    train(staged, Sft(ETA, 1), FixedData(prompts, batch, seed=5), how)
    torch.testing.assert_close(followed.V, staged.V, rtol=1e-12, atol=1e-14)
    assert [updates for updates, _, _ in seen] == [0, 2, 9]
    assert [epochs for _, epochs, _ in seen] == pytest.approx([u * (batch or 7) / 7 for u in (0, 2, 9)])
    assert not torch.equal(seen[1][2], seen[2][2])


def test_a_look_on_the_way_is_a_shorter_run() -> None:
    found = []
    for updates in ((0, 4), (0, 4, 10)):
        model, prompts = lsa(np.array([-0.5, -0.5, -0.5]), 1).double(), _prompts()

        def loss(rows: Tensor, model: ChainModel = model, prompts: PromptBatch = prompts) -> Tensor:
            return model.teacher_forced_loss(prompts.take(rows), ETA, 1).sum()

        def look(V: Tensor = model.V) -> Tensor:
            return V.detach().clone()

        found.append(follow(model, Trajectory("adam", 0.05, 3, updates), 7, 0, loss, look))
    torch.testing.assert_close(found[0][1][2], found[1][1][2], rtol=0, atol=0)


def test_a_gradient_is_clipped() -> None:
    model = lsa(np.array([-0.5, -0.5, -0.5]), 1).double()
    before = model.V.detach().clone()
    prompts = _prompts()
    trajectory = Trajectory("gd", 1.0, None, (0, 1), clip=1e-3)
    follow(
        model, trajectory, 7, 0, lambda rows: model.teacher_forced_loss(prompts.take(rows), ETA, 1).sum(), int
    )
    assert float((model.V.detach() - before).norm()) == pytest.approx(1e-3, rel=1e-4)
