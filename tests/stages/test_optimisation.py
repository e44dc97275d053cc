"""Optimisers, rates, accumulation, precision, and models without runs or operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datadose.errors import InputError
from datadose.models import ChainModel, PromptBatch
from datadose.models.gpt_runs import GptRuns
from datadose.stages import FixedData, FreshData, Optimisation, Outcome, PolicyGradient, Sft, train
from datadose.stages.data import split
from datadose.stages.engine import Objective, StageLoss
from helpers.stage_examples import (
    CASES,
    B,
    D,
    N,
    TinyChain,
    dense_model,
    fixed,
    same,
    start,
    tiny_gpt,
    with_inputs,
)


def held(size: int | None = None) -> FixedData:
    return FixedData(with_inputs(), size, seed=5)


def test_rates_warm_up_and_decay() -> None:
    """Linear to the full rate at step 4, half way at the middle of the cosine, the floor at the last step."""
    cosine = Optimisation("adamw", 0.2, steps=25, warmup=4, schedule="cosine", floor=0.1)
    rates = [cosine.rate(step, 25) for step in range(25)]
    np.testing.assert_allclose(rates[:5], [0.05, 0.1, 0.15, 0.2, 0.2])
    assert rates[14] == pytest.approx(0.2 * 0.55)
    assert rates[24] == pytest.approx(0.02)
    assert (np.diff(rates[4:]) < 0).all()
    constant = Optimisation("sgd", 0.2, steps=9, warmup=2)
    assert [constant.rate(step, 9) for step in range(4)] == [0.1, 0.2, 0.2, 0.2]
    assert {Optimisation(steps=9).rate(step, 9) for step in range(9)} == {1e-3}
    for total in (1, 2, 4, 5):  # no decay left: no division by zero
        assert 0 < cosine.rate(total - 1, total) <= 0.2


def test_the_loop_follows_the_rates() -> None:
    """A gradient of ones: the parameters move by the sum of the rates."""

    def pull(model: ChainModel, batch: PromptBatch, step: int) -> StageLoss:
        return StageLoss(model.effective_operator().sum((-1, -2)))

    optimisation = Optimisation("sgd", 0.1, steps=7, warmup=3, schedule="cosine")
    model = start(2)
    train(model, pull, fixed(), optimisation)
    moved = sum(optimisation.rate(step, 7) for step in range(7))
    torch.testing.assert_close(model.V.detach(), start(2).V.detach() - moved)


@pytest.mark.parametrize("name", CASES)
def test_without_extras_the_loop_is_the_plain_one(name: str) -> None:
    """Bit for bit torch's optimiser, fused, on the sum of the runs' losses; the losses kept are those too."""
    objective, data, optimisation = CASES[name]
    optimisation = replace(optimisation, clip=None)
    model, twin = dense_model(), dense_model()
    found = train(model, objective, data, optimisation)
    kinds = {"adam": partial(torch.optim.Adam, fused=True), "sgd": torch.optim.SGD, "gd": torch.optim.SGD}
    optimiser = kinds[optimisation.optimiser](twin.parameters(), lr=optimisation.learning_rate)
    losses = []
    for step in range(12):
        loss = objective(twin, data.batch(step), step).loss
        losses.append(loss.tolist())
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    assert same(model, twin)
    assert [row["loss"] for row in found.history] == [losses[0], losses[11]]


def test_adamw_is_torchs_with_decay() -> None:
    model, twin = TinyChain(), TinyChain()
    settings: dict[str, Any] = {"betas": (0.8, 0.95), "weight_decay": 0.3}
    train(model, Sft(0.3, 2), held(), Optimisation("adamw", 0.02, steps=5, **settings))
    optimiser = torch.optim.AdamW(twin.parameters(), lr=0.02, fused=True, **settings)
    for _ in range(5):
        optimiser.zero_grad()
        twin.teacher_forced_loss(with_inputs(), 0.3, 2).backward()
        optimiser.step()
    assert same(model, twin)
    plain = TinyChain()
    train(plain, Sft(0.3, 2), held(), Optimisation("adamw", 0.02, steps=5, betas=(0.8, 0.95)))
    assert not same(model, plain)


def test_muon_moves_matrices_inside_blocks_and_adamw_the_rest() -> None:
    """The same numbers as torch's two optimisers, each on its own parameters."""
    model, twin = tiny_gpt(), tiny_gpt()
    train(model, Sft(0.3, 2), held(), Optimisation("muon", 0.02, steps=4, weight_decay=0.1))
    inside = [
        p for name, p in twin.named_parameters() if ".weight" in name and "blocks" in name and p.ndim == 2
    ]
    others = [p for p in twin.parameters() if not any(p is q for q in inside)]
    parts = (
        torch.optim.Muon(inside, 0.02, 0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, 0.02, weight_decay=0.1, fused=True),
    )
    for _ in range(4):
        twin.zero_grad()
        twin.teacher_forced_loss(with_inputs(), 0.3, 2).backward()
        for part in parts:
            part.step()
    assert same(model, twin)


def test_muon_moves_matrices_alone_where_all_else_is_frozen() -> None:
    model, start = tiny_gpt(), tiny_gpt()
    inside = {id(p) for p in model.hidden_matrices()}
    for p in model.parameters():
        p.requires_grad_(id(p) in inside)
    train(model, Sft(0.3, 2), held(), Optimisation("muon", 0.02, steps=1))
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    assert all(torch.equal(p, q) is (id(p) not in inside) for p, q in pairs)


@pytest.mark.parametrize("build", [dense_model, lambda: GptRuns(tiny_gpt(), 2)])
def test_muon_is_for_single_gpts(build: Callable[[], ChainModel]) -> None:
    with pytest.raises(InputError, match="optimiser: got muon"):
        Optimisation("muon", steps=1).build(build())


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("weight_decay", {"optimiser": "adamw", "weight_decay": -1}),
        ("weight_decay", {"optimiser": "adam", "weight_decay": 0.1}),
        ("betas", {"betas": (0.9, 1.0)}),
        ("betas", {"betas": (0.9,)}),
        ("betas", {"optimiser": "sgd", "betas": (0.8, 0.9)}),
        ("warmup", {"warmup": -1}),
        ("warmup", {"warmup": 1.5}),
        ("schedule", {"schedule": "linear"}),
        ("floor", {"floor": 1.1}),
        ("accumulate", {"accumulate": 0}),
        ("precision", {"precision": "fp16"}),
    ],
)
def test_bad_values_are_named(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        Optimisation(**{"steps": 3, **arguments})
    assert caught.value.field == field


@pytest.mark.parametrize("parts", [1, 2, 3, 7, B])
def test_batches_are_split_by_prompts(parts: int) -> None:
    """Nothing lost, nothing twice, in order; the weighted mean of the shares is the mean of the batch."""
    whole = with_inputs()
    shares = split(whole, parts)
    assert len(shares) == parts
    assert torch.equal(torch.cat([share.weights for share, _ in shares], dim=1), whole.weights)
    assert torch.equal(torch.cat([share.inputs for share, _ in shares], dim=1), whole.inputs)
    mean = sum(weight * share.weights.mean(1) for share, weight in shares)
    torch.testing.assert_close(mean, whole.weights.mean(1))
    sizes = {share.prompts for share, _ in shares}
    assert max(sizes) - min(sizes) <= 1
    with pytest.raises(InputError, match="batch: got 10"):
        split(whole, B + 1)


@pytest.mark.parametrize("accumulate", [2, 3, B + 5])
@pytest.mark.parametrize("objective", [Sft(0.3, 2), Outcome(3)])
def test_accumulated_gradients_are_the_whole_batchs(objective: Objective, accumulate: int) -> None:
    """Also with parts of unequal size, clipping and runs side by side; the recorded loss is the whole one."""
    for build, batch in ((lambda: start(2), fixed().whole), (lambda: TinyChain().double(), with_inputs())):
        tensors = (batch.covariances, batch.inputs)
        held_tensors = (None if x is None else x.double() for x in tensors)
        data = FixedData(PromptBatch(batch.weights.double(), N, *held_tensors))
        whole, parts = build(), build()
        expected, found = (
            train(
                model,
                objective,
                data,
                Optimisation("sgd", 0.01, steps=6, clip=0.7, accumulate=number),
                record_every=1,
            )
            for model, number in ((whole, 1), (parts, accumulate))
        )
        for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
            torch.testing.assert_close(q, p, rtol=1e-11, atol=1e-13)
        for row, other in zip(expected.history, found.history, strict=True):
            np.testing.assert_allclose(other["loss"], row["loss"], rtol=1e-12)


def test_parts_draw_noise_of_their_own() -> None:
    """Part i of a step is called as step * parts + i; metrics are means over the parts."""
    seen: list[int] = []
    rl = PolicyGradient(2, (3, 4), group=4)

    def watched(model: ChainModel, batch: PromptBatch, step: int) -> StageLoss:
        seen.append(step)
        return rl(model, batch, step)

    train(dense_model(), watched, fixed(), Optimisation(steps=3, accumulate=2))
    assert seen == list(range(6))
    row = train(dense_model(), rl, fixed(), Optimisation(steps=1, accumulate=2)).history[0]
    halves = [half for half, _ in split(fixed().whole, 2)]
    rewards = [rl(dense_model(), half, part).metrics["reward"] for part, half in enumerate(halves)]
    np.testing.assert_allclose(row["reward"], torch.stack(rewards).mean(0), rtol=1e-6)


@pytest.mark.parametrize(
    "objective", [Sft(0.5, 2), Outcome(2), PolicyGradient(2, (0,), every_step=True, group=4, noise=0.3)]
)
@pytest.mark.parametrize("build", [TinyChain, tiny_gpt])
def test_bf16_trains_near_fp32(objective: Objective, build: Callable[[], ChainModel]) -> None:
    """Parameters and optimiser state stay fp32; the moves differ by bfloat16's rounding, not in direction."""
    moves = []
    for precision in ("fp32", "bf16"):
        model = build()
        before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        train(model, objective, held(), Optimisation("sgd", 0.01, steps=3, precision=precision))
        after = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        assert after.dtype == torch.float32
        moves.append(after - before)
    assert not torch.equal(*moves)
    assert float(torch.cosine_similarity(*moves, dim=0)) > 0.95
    assert 0.8 < float(moves[1].norm() / moves[0].norm()) < 1.25


def test_bf16_is_not_for_linear_attention() -> None:
    with pytest.raises(InputError, match="precision: got bf16"):
        train(dense_model(), Sft(0.3, 1), fixed(), Optimisation(steps=1, precision="bf16"))


@pytest.mark.parametrize("scalar", [True, False])
def test_models_without_runs_or_operator(*, scalar: bool) -> None:
    """Losses of shape () and (1,) give one run; the whole gradient is clipped."""
    model = TinyChain(scalar=scalar)
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    found = train(model, Sft(0.3, 2), held(), Optimisation("sgd", 0.1, steps=1, clip=0.01))
    after = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    assert float((after - before).norm()) == pytest.approx(0.1 * 0.01, rel=1e-4)
    assert [len(row["loss"]) for row in found.history] == [1]
    lost = train(model, Sft(0.3, 2), held(), Optimisation("sgd", 1e6, steps=20)).diverged
    assert [(d.run, d.divergence_radius) for d in lost] == [(0, None)]


def test_every_stage_trains_a_nonlinear_model() -> None:
    """SFT, OS and RL lower the post-test loss of one and the same small network."""
    model, data = TinyChain(), held()
    stages: list[Objective] = [Sft(0.5, 3), Outcome(3), PolicyGradient(3, (0,), noise=0.2, advantage="rloo")]

    def loss() -> float:
        return float(Outcome(3)(model, data.whole, 0).loss.detach())

    losses = [loss()]
    for objective in stages:
        train(model, objective, data, Optimisation("adamw", 0.01, steps=80, schedule="cosine"))
        losses.append(loss())
    assert losses[1] < losses[0]
    assert losses[2] < losses[1] / 2
    assert losses[3] < 1.1 * losses[2]


def test_batches_go_to_the_models_device() -> None:
    """The meta device has shapes and no numbers: enough to see where a batch would be, without a GPU."""
    for batch in (fixed().whole, with_inputs()):
        moved = batch.to(torch.device("meta"))
        tensors = [x for x in (moved.weights, moved.covariances, moved.inputs) if x is not None]
        assert len(tensors) == 2
        assert {x.device.type for x in tensors} == {"meta"}
        assert moved.length == batch.length
        stayed = batch.to(torch.device("cpu"))
        assert stayed.weights is batch.weights


def test_fresh_data_with_inputs_are_the_same_task() -> None:
    """Weights of the same stream, and inputs whose mean outer product is the covariance."""
    covariance = np.array([2.0, 1.0, 0.5, 0.1])
    data = FreshData(covariance, N, 400, (3,), hold_inputs=True)
    batch = data.batch(2)
    assert batch.covariances is None
    assert batch.inputs.shape == (1, 400, N, D)
    assert torch.equal(batch.weights, FreshData(covariance, N, 400, (3,)).batch(2).weights)
    # 2,400 inputs: relative standard error sqrt(2 / 2400) = 3 percent.
    np.testing.assert_allclose(batch.mean_covariance()[0].diagonal(), covariance, rtol=0.15)


def test_a_checkpoint_of_another_schedule_is_refused(tmp_path: Path) -> None:
    objective, data, _ = CASES["gd"]
    path = tmp_path / "state.safetensors"
    plain = {"optimiser": "adamw", "learning_rate": 0.01, "steps": 4}
    train(dense_model(), objective, data, Optimisation(**plain), checkpoint=path)
    assert train(dense_model(), objective, data, Optimisation(**plain), checkpoint=path).steps == 4
    for change in (
        {"warmup": 2},
        {"schedule": "cosine"},
        {"weight_decay": 0.1},
        {"betas": (0.8, 0.999)},
        {"accumulate": 2},
    ):
        with pytest.raises(InputError, match=next(iter(change))):
            train(dense_model(), objective, data, Optimisation(**{**plain, **change}), checkpoint=path)
