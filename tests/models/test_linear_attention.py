"""Fast linear attention against the literal Z matrices, and the block form against the dense one; float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datadose.errors import InputError
from datadose.models import BlockLinearAttention, ChainModel, LinearAttention, PromptBatch, embed_prompts
from datadose.models.linear_attention import chain_decay
from datadose.prompts import Prompts, draw_prompts, draw_wishart, random_stream
from datadose.stages import FixedData, Optimisation, Outcome, Sft, train
from datadose.stages.checkpoint import load_weights, save_weights
from helpers.literal import literal_sft_loss, random_psd

EXACT = 1e-10
"""Allowed difference, relative to the largest entry."""

shapes = given(
    d=st.integers(1, 5),
    n=st.integers(1, 8),
    B=st.integers(1, 4),
    k=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)


def assert_same(found: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    """Equal up to ``tolerance`` of the largest entry."""
    assert found.shape == expected.shape
    found, expected = found.detach(), expected.detach()
    scale = max(float(expected.abs().max()), 1e-30)
    assert float((found - expected).abs().max()) <= tolerance * scale


def normal(*shape: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def perturbed(d: int, seed: int) -> LinearAttention:
    """Dense attention with no zero entry in V or W."""
    model = LinearAttention(0.2 * normal(d, d, seed=seed) - 0.4 * torch.eye(d, dtype=torch.float64))
    with torch.no_grad():
        for offset, weights in enumerate((model.V, model.W)):
            weights.add_(0.2 * normal(*weights.shape, seed=seed + 1 + offset))
    return model


def task(d: int, n: int, B: int, seed: int) -> tuple[Prompts, PromptBatch]:
    """Explicit prompts of a dense covariance, and the batch that holds their S."""
    prompts = draw_prompts(random_psd(d, seed), n, B, seed=seed)
    inputs, weights = torch.from_numpy(prompts.inputs), torch.from_numpy(prompts.weights)
    return prompts, PromptBatch.from_inputs(inputs, weights)


def literal_columns(model: LinearAttention, prompts: Prompts, steps: int, noise: Tensor | None) -> Tensor:
    """The last column of f(Z) at every step of the model's own chain, (B, k, 2d+2), by (3.1)-(3.3)."""
    d, n = prompts.weights.shape[1], prompts.inputs.shape[1]
    Z = embed_prompts(torch.from_numpy(prompts.inputs), torch.from_numpy(prompts.labels))
    columns = []
    for i in range(steps):
        column = model.literal(Z, n)[:, :, -1]
        columns.append(column)
        if noise is not None:
            column = torch.cat(
                [column[:, : d + 1], column[:, d + 1 : -1] + noise[:, i], column[:, -1:]], dim=1
            )
        Z = model.append(Z, column)
    return torch.stack(columns, dim=1)


def gradients(model: ChainModel, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss.sum(), [p for p in model.parameters() if p.requires_grad]))


def test_embedding_is_equation_3_2() -> None:
    X, y = normal(2, 3, 4, seed=0), normal(2, 3, seed=1)
    Z = embed_prompts(X, y)
    assert Z.shape == (2, 10, 4)
    torch.testing.assert_close(Z[1, :, 2], torch.cat([X[1, 2], y[1, 2:], torch.zeros(5).double()]))
    torch.testing.assert_close(Z[1, :, 3], torch.eye(10, dtype=torch.float64)[9])


@settings(max_examples=40, deadline=None)
@shapes
def test_rollout_is_the_literal_rollout(d: int, n: int, B: int, k: int, seed: int) -> None:
    prompts, batch = task(d, n, B, seed)
    model, noise = perturbed(d, seed), 0.3 * normal(B, k, d, seed=seed + 9)
    for added in (None, noise):
        columns = literal_columns(model, prompts, k, added)
        thoughts = columns[..., d + 1 : -1] if added is None else columns[..., d + 1 : -1] + added
        assert_same(model.rollout(batch, k, added), thoughts)
        assert_same(model.next_means(batch, thoughts), columns[..., d + 1 : -1])


@settings(max_examples=20, deadline=None)
@shapes
def test_last_column_is_the_literal_one(d: int, n: int, B: int, k: int, seed: int) -> None:
    """All rows, after k - 1 arbitrary thoughts (w, one)."""
    prompts, batch = task(d, n, B, seed)
    model = perturbed(d, seed)
    start = torch.cat([torch.zeros(B, d), torch.ones(B, 1)], dim=1).double()
    thoughts = [start, *(normal(B, d + 1, seed=seed + 20 + i) for i in range(k - 1))]
    Z = embed_prompts(torch.from_numpy(prompts.inputs), torch.from_numpy(prompts.labels))
    for thought in thoughts[1:]:
        Z = model.append(Z, torch.cat([normal(B, d + 1, seed=3), thought], dim=1))
    assert_same(model.last_column(batch, thoughts), model.literal(Z, n)[:, :, -1])


@settings(max_examples=30, deadline=None)
@shapes
def test_losses_and_gradients_are_the_literal_ones(d: int, n: int, B: int, k: int, seed: int) -> None:
    """SFT (several eta, k from 0) and OS, with the gradients in every entry of V and W."""
    prompts, batch = task(d, n, B, seed)
    model, w = perturbed(d, seed), batch.weights
    eta = float(np.random.default_rng(seed).uniform(0.05, 1.95))
    answer = literal_columns(model, prompts, k, None)[:, -1, d + 1 : -1]
    literal = {"sft": literal_sft_loss(model, prompts, eta, k - 1), "os": (answer - w).square().sum() / 2 / B}
    fast = {"sft": Sft(eta, k - 1)(model, batch, 0).loss, "os": Outcome(k)(model, batch, 0).loss}
    for name, expected in literal.items():
        assert_same(fast[name], expected)
        for found, twin in zip(gradients(model, fast[name]), gradients(model, expected), strict=True):
            assert found.shape == (2 * d + 2, 2 * d + 2)
            assert_same(found, twin)


@settings(max_examples=30, deadline=None)
@shapes
def test_block_form_is_the_dense_form_at_the_sparse_structure(
    d: int, n: int, B: int, k: int, seed: int
) -> None:
    """Thoughts, losses, gradients of V~ and W~; fixed attention has the same V~ gradient."""
    _, batch = task(d, n, B, seed)
    V = 0.2 * normal(d, d, seed=seed) - 0.4 * torch.eye(d, dtype=torch.float64)
    W = torch.eye(d, dtype=torch.float64) + 0.3 * normal(d, d, seed=seed + 1)
    for attention in (None, W):
        dense = LinearAttention(V, attention)
        block = BlockLinearAttention(V, attention)
        fixed = BlockLinearAttention(V, attention, train_attention=False)
        noise = 0.3 * normal(B, k, d, seed=seed + 2)
        thoughts = block.rollout(batch, k, noise)
        assert_same(dense.rollout(batch, k, noise), thoughts)
        assert_same(fixed.rollout(batch, k, noise), thoughts)
        assert_same(dense.next_means(batch, thoughts), block.next_means(batch, thoughts))
        assert_same(dense.effective_operator(), block.effective_operator())
        for objective in (Sft(0.3, k - 1), Outcome(k)):
            losses = [objective(m, batch, 0).loss for m in (dense, block, fixed)]
            assert_same(losses[0], losses[1])
            assert_same(losses[2], losses[1])
            (dV, dW), (bV, bW), (fV,) = (
                gradients(m, x) for m, x in zip((dense, block, fixed), losses, strict=True)
            )
            assert_same(dV[d + 1 : 2 * d + 1, :d], bV)
            assert_same(fV, bV)
            if bW.abs().max() > 1e-12:  # w_0 = 0: one step says nothing about W~
                assert_same(dW[:d, d + 1 : 2 * d + 1], bW)


@settings(max_examples=20, deadline=None)
@shapes
def test_next_means_are_the_means_of_a_noisy_rollout(d: int, n: int, B: int, k: int, seed: int) -> None:
    _, batch = task(d, n, B, seed)
    noise = normal(B, k, d, seed=seed)
    for model in (perturbed(d, seed), BlockLinearAttention(-0.3 * normal(d, d, seed=seed))):
        thoughts = model.rollout(batch, k, noise)
        means = model.next_means(batch, thoughts)
        scale = float(thoughts.detach().abs().max())
        assert float((thoughts - noise - means).detach().abs().max()) <= EXACT * scale


@settings(max_examples=20, deadline=None)
@shapes
def test_inputs_and_covariances_are_one_batch(d: int, n: int, B: int, k: int, seed: int) -> None:
    prompts, by_covariance = task(d, n, B, seed)
    inputs, weights = torch.from_numpy(prompts.inputs), torch.from_numpy(prompts.weights)
    by_inputs = PromptBatch.from_inputs(inputs, weights, use_covariances=False)
    assert by_inputs.covariances is None
    assert by_covariance.inputs is None
    assert_same(by_inputs.mean_covariance(), by_covariance.mean_covariance())
    for model in (perturbed(d, seed), BlockLinearAttention(-0.3 * normal(d, d, seed=seed))):
        assert_same(model.rollout(by_inputs, k), model.rollout(by_covariance, k))
        for objective in (Sft(0.3, k - 1), Outcome(k)):
            one, two = (objective(model, b, 0).loss for b in (by_inputs, by_covariance))
            assert_same(one, two)
            for found, twin in zip(gradients(model, one), gradients(model, two), strict=True):
                assert float((found - twin).abs().max()) <= EXACT * max(1.0, float(twin.abs().max()))


@pytest.mark.parametrize("use_covariances", [True, False])
@pytest.mark.parametrize("kind", [LinearAttention, BlockLinearAttention])
def test_runs_side_by_side_are_the_runs_one_by_one(
    kind: Callable[[Tensor], ChainModel], *, use_covariances: bool
) -> None:
    """Two leading dimensions; losses, thoughts, means and gradients."""
    d, n, B, k = 3, 5, 4, 3
    X, w = normal(2, 3, B, n, d, seed=0), normal(2, 3, B, d, seed=1)
    noise, V = 0.2 * normal(2, 3, B, k, d, seed=2), 0.2 * normal(2, 3, d, d, seed=3)
    many = kind(V)
    batch = PromptBatch.from_inputs(X, w, use_covariances=use_covariances)
    thoughts, mean_covariance = many.rollout(batch, k, noise), batch.mean_covariance()
    means = many.next_means(batch, thoughts)
    losses = [objective(many, batch, 0).loss for objective in (Sft(0.3, k), Outcome(k))]
    assert thoughts.shape == (2, 3, B, k, d)
    assert all(loss.shape == (2, 3) for loss in losses)
    together = [gradients(many, loss) for loss in losses]
    for run in np.ndindex(2, 3):
        one = kind(V[run])
        alone = PromptBatch.from_inputs(X[run], w[run], use_covariances=use_covariances)
        assert_same(thoughts[run], one.rollout(alone, k, noise[run]))
        assert_same(means[run], one.next_means(alone, thoughts[run]))
        assert_same(mean_covariance[run], alone.mean_covariance())
        for objective, loss, gradient in zip((Sft(0.3, k), Outcome(k)), losses, together, strict=True):
            expected = objective(one, alone, 0).loss
            assert_same(loss[run], expected)
            for found, twin in zip(gradient, gradients(one, expected), strict=True):
                assert_same(found[run], twin)


def test_ground_truth_chain() -> None:
    assert chain_decay(0.5, 2) == [0, 0.5, 0.75, 0.875]
    assert chain_decay(1.0, 0) == [0, 1]


@pytest.mark.usefixtures("any_shape")
def test_bad_operators_and_steps_are_named() -> None:
    for kind in (LinearAttention, BlockLinearAttention):
        for shape in ((3,), (2, 3)):
            with pytest.raises(InputError, match="operator"):
                kind(torch.zeros(shape))
        with pytest.raises(InputError, match="steps"):
            kind(torch.zeros(2, 2)).rollout(PromptBatch.draw(np.ones(2), 4, 3, seeds=[0]), 0)


@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_draw_holds_the_cheaper_form(length: int) -> None:
    """d = 6: inputs while 2 n < d, else the S of draw_wishart; weights from their own stream."""
    A, B = random_psd(6, 5), 4
    batch = PromptBatch.draw(A, length, B, seeds=[7, (8, 2)], dtype=torch.float64)
    assert (batch.inputs is not None) == (2 * length < 6) == (batch.covariances is None)
    assert batch.length == length
    assert batch.prompts == B
    for run, seed in enumerate((7, (8, 2))):
        weights = random_stream(seed, "weights").standard_normal((B, 6))
        np.testing.assert_array_equal(batch.weights[run].numpy(), weights)
        S = draw_wishart(A, length, B, seed=seed)
        if batch.covariances is not None:
            np.testing.assert_array_equal(batch.covariances[run].numpy(), S)
        else:  # the same stream of inputs, so the same S
            X = batch.inputs[run]
            np.testing.assert_allclose((X.mT @ X / length).numpy(), S, atol=1e-12)
        alone = PromptBatch.draw(A, length, 2, seeds=[seed], dtype=torch.float64)
        probe = normal(1, 2, 6, seed=0)
        assert_same(batch.take(torch.arange(2)).apply(probe.expand(2, -1, -1))[run], alone.apply(probe)[0])
    assert PromptBatch.draw(A, length, B, seeds=[7]).weights.dtype == torch.float32


@pytest.mark.parametrize("n", [2, 8])
def test_draw_has_the_moments_of_the_task(n: int) -> None:
    """E[S u] = A u and E|S u|^2 = u^T E[S^2] u, with fixed u: 7 + 7 means within 5 standard errors.

    Two-sided failure probability below 14 * 6e-7; E[S^2] = (1 + 1/n) A^2 + tr(A)/n A.
    """
    d, B = 6, 20_000
    A, u = random_psd(d, 3), normal(d, seed=4)
    batch = PromptBatch.draw(A, n, B, seeds=[11], dtype=torch.float64)
    seen = batch.apply(u.expand(1, B, d))[0]
    C = torch.from_numpy(A)
    second = (1 + 1 / n) * C @ C + C.trace() / n * C
    for sample, expected in ((seen, C @ u), (seen.square().sum(-1, keepdim=True), (u @ second @ u)[None])):
        error = sample.std(dim=0) / B**0.5
        assert ((sample.mean(dim=0) - expected).abs() < 5 * error).all()


@pytest.mark.parametrize(
    ("field", "length", "prompts"),
    [("length", 0, 3), ("length", -1, 3), ("length", 1.5, 3), ("prompts", 9, -1)],
)
def test_draw_names_bad_sizes(field: str, length: int, prompts: int) -> None:
    with pytest.raises(InputError, match=field):
        PromptBatch.draw(np.ones(8), length, prompts, seeds=[0])


@pytest.mark.parametrize("length", [2, 9])
def test_draw_names_a_bad_covariance(length: int) -> None:
    """In either form of the batch."""
    with pytest.raises(InputError, match="covariance"):
        PromptBatch.draw(-np.ones(6), length, 3, seeds=[0])


@pytest.mark.parametrize("n", [2, 9])
def test_take_repeat_and_mean(n: int) -> None:
    d, B = 6, 5
    batch = PromptBatch.draw(random_psd(d, 1), n, B, seeds=[0, 1], dtype=torch.float64)
    u = normal(2, B, d, seed=2)
    index = torch.tensor([4, 0, 4])
    taken = batch.take(index)
    assert taken.prompts == 3
    assert torch.equal(taken.weights, batch.weights[:, index])
    assert_same(taken.apply(u[:, index]), batch.apply(u)[:, index])
    wide = batch.repeat(3)
    assert wide.prompts == 3 * B
    assert torch.equal(wide.weights[:, 3:6], batch.weights[:, 1:2].expand(2, 3, d))
    assert_same(wide.apply(u.repeat_interleave(3, 1)), batch.apply(u).repeat_interleave(3, 1))
    identity = torch.eye(d, dtype=torch.float64)
    columns = torch.stack([batch.apply(e.expand(2, B, d)).mean(1) for e in identity], dim=-1)
    assert_same(batch.mean_covariance(), columns)
    assert_same(wide.mean_covariance(), batch.mean_covariance())


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="covariances or inputs"):
        PromptBatch(torch.zeros(2, 3), 4)


@pytest.mark.parametrize("kind", [LinearAttention, BlockLinearAttention])
def test_saved_weights_come_back_bit_for_bit(kind: Callable[[Tensor], ChainModel], tmp_path: Path) -> None:
    """Saved after 3 gradient steps, loaded into a fresh model, 3 more steps: as 6 in a row."""
    V = -0.3 * torch.eye(4).expand(2, 4, 4)
    data = FixedData(PromptBatch.draw(np.ones(4), 6, 5, seeds=[0, 1]))
    models = {name: kind(V.clone()) for name in ("whole", "first", "second")}
    for name, steps in (("whole", 6), ("first", 3)):
        train(models[name], Sft(0.3, 2), data, Optimisation("gd", 0.01, steps=steps))
    save_weights(tmp_path / "w.safetensors", models["first"])
    load_weights(tmp_path / "w.safetensors", models["second"])
    batch = data.whole
    assert torch.equal(models["first"].rollout(batch, 3), models["second"].rollout(batch, 3))
    train(models["second"], Sft(0.3, 2), data, Optimisation("gd", 0.01, steps=3))
    for found, expected in zip(models["second"].parameters(), models["whole"].parameters(), strict=True):
        assert torch.equal(found, expected)


def test_bad_weight_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    model = LinearAttention(torch.eye(3))
    with pytest.raises(InputError, match=r"w\.safetensors"):
        load_weights(path, model)
    save_weights(path, model)
    for other in (LinearAttention(torch.eye(4)), BlockLinearAttention(torch.eye(3))):
        with pytest.raises(InputError, match=r"w\.safetensors"):
            load_weights(path, other)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"w\.safetensors"):
        load_weights(path, model)


def test_loaded_attention_is_used_where_it_is_fixed(tmp_path: Path) -> None:
    """A model trained in V~ and W~, loaded into one that keeps W~ fixed, answers the same."""
    V, W = -0.3 * torch.eye(3), torch.eye(3) + 0.2 * normal(3, 3, seed=0).float()
    trained, fixed = BlockLinearAttention(V, W), BlockLinearAttention(V, train_attention=False)
    save_weights(tmp_path / "w.safetensors", trained)
    load_weights(tmp_path / "w.safetensors", fixed)
    batch = PromptBatch.draw(np.ones(3), 6, 5, seeds=[0])
    torch.testing.assert_close(fixed.rollout(batch, 3), trained.rollout(batch, 3))
