"""The curriculum and exact resume of pretraining."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datadose.errors import InputError
from datadose.models import BlockLinearAttention, ChainModel
from datadose.stages import Curriculum, CurriculumData, FreshData, Optimisation, Outcome, Sft, train
from datadose.stages.optimisation import Optimiser
from helpers.stage_examples import D, TinyChain, interrupt_at, same, tiny_gpt

GROWING = Curriculum(D, 9, start_dimension=2, start_length=4, length_increment=3, every=3)
COVARIANCE = np.array([2.0, 1.0, 0.5, 0.3])


def growing(covariance: Any = COVARIANCE, seeds: tuple[int, ...] = (7,)) -> CurriculumData:
    return CurriculumData(covariance, GROWING, 6, seeds)


def test_dimension_and_length_grow_to_their_ends() -> None:
    """Increments at steps 3, 6, ...; the length's last increment is cut at the end, 9."""
    assert [GROWING.dimension(step) for step in range(10)] == [2, 2, 2, 3, 3, 3, 4, 4, 4, 4]
    assert [GROWING.length(step) for step in range(10)] == [4, 4, 4, 7, 7, 7, 9, 9, 9, 9]
    garg = Curriculum(20, 41)
    assert [garg.dimension(step) for step in (0, 1999, 2000, 30_000, 10**6)] == [5, 5, 6, 20, 20]
    assert [garg.length(step) for step in (0, 1999, 2000, 28_000, 30_000)] == [11, 11, 13, 39, 41]
    flat = Curriculum.constant(3, 8)
    assert {(flat.dimension(step), flat.length(step)) for step in (0, 10**6)} == {(3, 8)}


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("end_dimension", {"end_dimension": 4}),
        ("end_length", {"end_length": 10}),
        ("start_dimension", {"start_dimension": 0}),
        ("length_increment", {"length_increment": 0}),
        ("every", {"every": 0}),
    ],
)
def test_bad_curricula_are_named(field: str, arguments: dict[str, int]) -> None:
    with pytest.raises(InputError) as caught:
        Curriculum(**{"end_dimension": 20, "end_length": 41, **arguments})
    assert caught.value.field == field


def test_the_curriculum_ends_at_the_full_dimension() -> None:
    for covariance in (np.ones(5), ((1.0, np.ones(4)), (1.0, np.ones(5)))):
        with pytest.raises(InputError, match="end_dimension: got 4"):
            growing(covariance)
    with pytest.raises(InputError, match="batch: got 0"):
        CurriculumData(COVARIANCE, GROWING, 0, (7,))


def test_prompts_are_cut_to_the_steps_dimension_and_length() -> None:
    """What is kept is the uncut draw of that length: the same law and the same numbers."""
    data = growing()
    assert data.prompts is None
    for step in range(8):
        batch, kept = data.batch(step), GROWING.dimension(step)
        assert batch.inputs.shape == (1, 6, GROWING.length(step), D)
        assert batch.length == GROWING.length(step)
        uncut = FreshData(COVARIANCE, batch.length, 6, (7,), hold_inputs=True).batch(step)
        assert torch.equal(batch.inputs[..., :kept], uncut.inputs[..., :kept])
        assert torch.equal(batch.weights[..., :kept], uncut.weights[..., :kept])
        assert batch.inputs[..., :kept].all()
        assert not batch.inputs[..., kept:].any()
        assert not batch.weights[..., kept:].any()
        assert torch.equal(batch.inputs, data.batch(step).inputs)
    assert not torch.equal(data.batch(0).inputs, data.batch(1).inputs)


def test_varied_lengths_cover_the_curriculum_so_far() -> None:
    """Every length from the start to n_t, none above; a function of the step. 60 draws of 6 lengths: one is
    missing with probability below 6 (5/6)^60 = 1e-4, and the seed is fixed.
    """
    data = replace(growing(), vary_length=True)
    assert all(4 <= data.batch(step).length <= GROWING.length(step) for step in range(6))
    lengths = [data.batch(step).length for step in range(6, 66)]
    assert set(lengths) == set(range(4, 10))
    assert lengths == [data.batch(step).inputs.shape[-2] for step in range(6, 66)]


@pytest.mark.parametrize("covariance", [COVARIANCE, ((1.0, COVARIANCE), (2.0, np.ones(D)))])
def test_runs_are_functions_of_their_own_seeds(covariance: Any) -> None:
    """Also for mixtures of covariances, which a batch holds by category."""
    pair, alone = growing(covariance, (3, 7)).batch(4), growing(covariance).batch(4)
    assert torch.equal(pair.weights[1], alone.weights[0])
    assert torch.equal(pair.inputs[1], alone.inputs[0])
    assert not torch.equal(pair.inputs[0], pair.inputs[1])


MODELS: dict[str, Callable[[], ChainModel]] = {
    "network": TinyChain,
    "linear": lambda: BlockLinearAttention(torch.zeros(1, D, D)),
    "gpt": tiny_gpt,
}


@pytest.mark.parametrize(("name", "optimiser"), [*((name, "adamw") for name in MODELS), ("gpt", "muon")])
def test_interrupted_pretraining_resumes_bit_for_bit(name: str, optimiser: Optimiser, tmp_path: Path) -> None:
    """Warm-up, cosine, accumulation and clipping, interrupted in warm-up and between dimensions."""
    build, path = MODELS[name], tmp_path / "state.safetensors"
    optimisation = Optimisation(
        optimiser, 0.01, steps=10, clip=1.0, weight_decay=0.1, warmup=4, schedule="cosine", accumulate=2
    )
    whole, broken = build(), build()
    expected = train(whole, Sft(0.3, 2), growing(), optimisation, record_every=1)
    for stop in (2, 6):
        with pytest.raises(KeyboardInterrupt):
            train(
                broken,
                Sft(0.3, 2),
                growing(),
                optimisation,
                record_every=1,
                checkpoint=path,
                progress=interrupt_at(stop),
            )
        broken = build()
    found = train(broken, Sft(0.3, 2), growing(), optimisation, record_every=1, checkpoint=path)
    assert found == expected
    assert same(broken, whole)
    assert not same(whole, build())


def test_pretraining_on_the_chain_learns_the_task() -> None:
    """400 steps of SFT under the curriculum halve the network's outcome loss on prompts of full size."""
    model, test = TinyChain(), FreshData(COVARIANCE, 9, 200, (99,), hold_inputs=True).batch(0)
    before = float(Outcome(3)(model, test, 0).loss.detach())
    optimisation = Optimisation("adamw", 0.01, steps=400, warmup=20, schedule="cosine")
    found = train(model, Sft(0.5, 3), CurriculumData(COVARIANCE, GROWING, 32, (7,)), optimisation)
    assert found.diverged == []
    assert float(Outcome(3)(model, test, 0).loss.detach()) < before / 2
