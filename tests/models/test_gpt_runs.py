"""GPTs side by side are the GPTs alone: losses, gradients, thoughts and training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datadose.configs import Stage
from datadose.errors import InputError
from datadose.models import PromptBatch
from datadose.models.gpt import GptConfig, GptModel
from datadose.models.gpt_runs import GptRuns
from datadose.stages import FixedData, Optimisation, stage_objective, train
from datadose.stages.data import SideBySide

CONFIG = GptConfig(dimension=3, layers=2, heads=2, width=8, positions=20)
RUNS, K = 3, 3


def models() -> tuple[GptRuns, list[GptModel]]:
    """Runs whose parameters differ, and the same models one by one, in float64."""
    start = GptModel(CONFIG, seed=0).double()
    together = GptRuns(start, RUNS)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in together.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * noise)
    alone = []
    for run in range(RUNS):
        one = GptModel(CONFIG, seed=0).double()
        one.load_state_dict({name: value[run] for name, value in together.state_dict().items()})
        alone.append(one)
    return together, alone


def prompts(count: int = 5) -> PromptBatch:
    return PromptBatch.draw(np.ones(3), 4, count, seeds=range(RUNS), dtype=torch.float64, hold_inputs=True)


def of_run(batch: PromptBatch, run: int) -> PromptBatch:
    return batch.map(lambda x, _: x[run : run + 1])


def test_copies_start_at_the_model_and_leave_it_alone() -> None:
    start = GptModel(CONFIG, seed=0)
    together = GptRuns(start, RUNS)
    ours, theirs = together.state_dict(), start.state_dict()
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert torch.equal(ours[name], value.expand(RUNS, *value.shape))
    assert together.run_dimensions == 1


def test_losses_and_gradients_are_those_of_the_models_alone() -> None:
    together, alone = models()
    batch = prompts()
    loss = together.teacher_forced_loss(batch, 0.5, K)
    assert loss.shape == (RUNS,)
    torch.autograd.backward(loss.sum())
    named = dict(together.named_parameters())
    for run, one in enumerate(alone):
        own = one.teacher_forced_loss(of_run(batch, run), 0.5, K)
        torch.testing.assert_close(loss[run : run + 1], own, rtol=1e-10, atol=1e-10)
        torch.autograd.backward(own.sum())
        for name, parameter in one.named_parameters():
            gradient = named[name].grad
            assert gradient is not None
            torch.testing.assert_close(gradient[run], parameter.grad, rtol=1e-8, atol=1e-10)


def test_thoughts_and_means_are_those_of_the_models_alone() -> None:
    together, alone = models()
    batch = prompts()
    thoughts = together.rollout(batch, K)
    means = together.next_means(batch, thoughts)
    for run, one in enumerate(alone):
        torch.testing.assert_close(thoughts[run : run + 1], one.rollout(of_run(batch, run), K))
        torch.testing.assert_close(
            means[run : run + 1], one.next_means(of_run(batch, run), thoughts[run : run + 1])
        )


@pytest.mark.parametrize("stage", ["sft", "outcome"])
def test_training_side_by_side_is_training_alone(stage: Stage) -> None:
    """Runs with different numbers of prompts, clipped run by run; a lost run leaves the others alone."""
    together, alone = models()
    data = [
        FixedData(
            PromptBatch.draw(np.ones(3), 4, B, seeds=[B], dtype=torch.float64, hold_inputs=True), 4, seed=B
        )
        for B in (4, 8, 12)
    ]
    optimisation = Optimisation("adam", 1e-2, steps=5, batch=4, clip=0.5)
    with torch.no_grad():
        together.positions[1] = torch.nan
    objective = stage_objective(stage, K, eta=0.5, seeds=range(RUNS))
    done = train(together, objective, SideBySide(tuple(data)), optimisation)
    assert [entry.run for entry in done.diverged] == [1]
    for run in (0, 2):
        train(alone[run], objective, data[run], optimisation)
        for name, value in alone[run].state_dict().items():
            torch.testing.assert_close(together.state_dict()[name][run], value, rtol=1e-6, atol=1e-8)


def test_batches_of_other_runs_are_refused() -> None:
    together, _ = models()
    with pytest.raises(InputError, match=r"batch: .*one of 3 runs"):
        together.rollout(of_run(prompts(), 0), K)
    with pytest.raises(InputError, match="runs"):
        GptRuns(GptModel(CONFIG, seed=0), 0)
