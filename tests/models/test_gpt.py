"""The transformer against Hugging Face's GPT-2, and its shortcuts against the long way round."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from datadose.errors import InputError
from datadose.models import GptConfig, GptModel, PromptBatch
from datadose.models.gpt import gpt2_shape, gpt2_state, load_gpt, save_gpt
from datadose.models.gpt_operations import attend, tanh_gelu
from datadose.models.linear_attention import chain_decay
from datadose.prompts import draw_prompts
from datadose.stages import (
    FixedData,
    Optimisation,
    Outcome,
    PolicyGradient,
    Sft,
    held_out_prompts,
    post_test,
    train,
)
from datadose.tensor_files import write_tensors

D, N, B, K, ETA = 3, 5, 4, 3, 0.3
CONFIG = GptConfig(D, layers=3, heads=2, width=16, positions=2 * N + K + 1)


def a_model(seed: int = 0, scale: float = 6.0) -> GptModel:
    """A float64 model whose weights (biases, norms and all) are far from their initial values."""
    model = GptModel(CONFIG, seed=seed).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale if p.ndim == 2 else 1).add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def a_batch(length: int = N, prompts: int = B, seeds: tuple[int, ...] = (0,)) -> PromptBatch:
    """A float64 batch (len(seeds), B, ..) that holds inputs."""
    return PromptBatch.draw(np.ones(D), length, prompts, seeds=seeds, dtype=torch.float64, hold_inputs=True)


def plain_outputs(model: GptModel, batch: PromptBatch, thoughts: Tensor) -> Tensor:
    """The definition: the whole sequence through every block, tokens made one by one; (B, 2n + m, d)."""
    X, w = batch.inputs[0], batch.weights[0]
    zero, columns = X.new_zeros(len(w)), []
    for i in range(X.shape[1]):
        columns.append(torch.cat([X[:, i], zero[:, None]], dim=1))
        y = (X[:, i] * w).sum(1)
        columns.append(torch.stack([y] + [zero] * D, dim=1))
    columns += [torch.cat([t, torch.ones_like(zero)[:, None]], dim=1) for t in thoughts.unbind(1)]
    tokens = torch.stack(columns, dim=1)
    x = model.read_in(tokens) + model.positions[: tokens.shape[1]]
    for block in model.blocks:
        x = block(x, x.shape[1])
    return model.read_out(model.final_norm(x))


def hugging_face(model: GptModel) -> torch.nn.Module:
    """``GPT2Model`` with our weights."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        **gpt2_shape(model),
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    theirs = GPT2Model(config).double()
    missing, unexpected = theirs.load_state_dict(gpt2_state(model), strict=False)
    assert (missing, unexpected) == (["wte.weight"], [])
    return theirs


def gradients(model: GptModel, loss: Tensor) -> list[Tensor]:
    """Gradients of ``loss`` by parameter."""
    return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))


def assert_same(ours: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(ours, wanted, rtol=tolerance, atol=tolerance)


def assert_same_gradients(model: GptModel, ours: Tensor, wanted: Tensor) -> None:
    for one, other in zip(gradients(model, ours), gradients(model, wanted), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_same(one, other)
            assert one.abs().sum() > 0


def test_every_block_is_gpt2s() -> None:
    """All tokens, read-in and positions included, after each block, after the final norm, and gradients."""
    model, generator = a_model(), torch.Generator().manual_seed(3)
    tokens = torch.randn(B, 2 * N + K, D + 1, generator=generator, dtype=torch.float64)
    theirs = hugging_face(model)(inputs_embeds=model.read_in(tokens), output_hidden_states=True)
    x = model.read_in(tokens) + model.positions[: tokens.shape[1]]
    for place, block in enumerate(model.blocks):
        assert_same(x, theirs.hidden_states[place])
        x = block(x, x.shape[1])
    ours = model.final_norm(x)
    assert_same(ours, theirs.last_hidden_state)
    assert ours.std() > 0.1
    ours_in, theirs_in = (
        torch.autograd.grad(x.square().sum(), model.read_in.weight, retain_graph=True)[0]
        for x in (ours * torch.arange(16), theirs.last_hidden_state * torch.arange(16))
    )
    assert_same(ours_in, theirs_in)


def test_the_exported_model_is_gpt2s() -> None:
    """The same through the public methods: outputs at thought tokens, the shortcut of the last block too."""
    model, batch = a_model(), a_batch()
    thoughts = model.rollout(batch, K).detach()[0]
    X, w = batch.inputs[0], batch.weights[0]
    x_tokens = functional.pad(X, (0, 1))
    y_tokens = functional.pad((X @ w[:, :, None]), (0, D))
    prompt = torch.stack([x_tokens, y_tokens], dim=2).reshape(B, 2 * N, D + 1)
    chain = functional.pad(functional.pad(thoughts, (0, 0, 1, 0))[:, :K], (0, 1), value=1)
    hidden = hugging_face(model)(inputs_embeds=model.read_in(torch.cat([prompt, chain], 1)))
    assert_same(model.read_out(hidden.last_hidden_state)[:, 2 * N :], thoughts)


def test_presets_have_the_stated_size() -> None:
    def count(name: str) -> float:
        model = GptModel(GptConfig.preset(name, 20, 41, 8), seed=0)
        return sum(p.numel() for p in model.parameters()) / 1e6

    assert count("paper") == pytest.approx(9.5, abs=0.05)
    assert 0.9 < count("small") < 1.3
    assert 0.15 < count("tiny") < 0.25
    assert GptConfig.preset("paper", 20, 41, 8).positions == 2 * 41 + 9


def test_weights_follow_the_seed_and_gpt2s_scales() -> None:
    config = GptConfig.preset("small", 5, 10, 3)
    one, same, other = (GptModel(config, seed=s).state_dict() for s in (1, 1, 2))
    torch.manual_seed(5)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["read_in.weight"], other["read_in.weight"])
    for name, tensor in one.items():
        if tensor.ndim == 2 and tensor.numel() > 500:
            std = 0.02 / (12**0.5 if name.endswith(("mix.weight", "down.weight")) else 1)
            std = std if name.startswith(("blocks", "positions")) else 1 / (3 * tensor.shape[1]) ** 0.5
            assert tensor.std().item() == pytest.approx(std, rel=0.1), name
        elif tensor.ndim == 1:
            assert torch.equal(tensor, torch.full_like(tensor, float(name.endswith("norm.weight")))), name


def test_nothing_looks_ahead() -> None:
    model, batch = a_model(), a_batch()
    thoughts = torch.randn(1, B, K, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    means = model.next_means(batch, thoughts)
    for i in range(K):
        moved = thoughts.clone()
        moved[:, :, i] += 1
        changed = (model.next_means(batch, moved) - means).abs().amax(dim=(0, 1, 3)) > 1e-9
        assert changed.tolist() == [j > i for j in range(K)]
    x = torch.randn(2, 9, 16, dtype=torch.float64, requires_grad=True)
    (seen,) = torch.autograd.grad(model.blocks[0](x, 9)[:, 4].sum(), x)
    assert (seen.abs().sum(dim=(0, 2)) > 0).tolist() == [True] * 5 + [False] * 4


@pytest.mark.parametrize("k", [0, 1, K])
def test_one_sft_pass_is_k_plus_one_passes(k: int) -> None:
    model, batch = a_model(), a_batch()
    w, c = batch.weights[0], chain_decay(ETA, k)
    wanted = torch.zeros(())
    for i in range(k + 1):
        past = torch.stack([c[j] * w for j in range(i + 1)], dim=1)
        wanted = wanted + (plain_outputs(model, batch, past)[:, -1] - c[i + 1] * w).square().sum()
    ours = model.teacher_forced_loss(batch, ETA, k)
    assert ours.shape == (1,)
    assert_same(ours[0], wanted / (2 * B))
    assert_same_gradients(model, ours.sum(), wanted / (2 * B))


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("k", [1, 2, K + 1])
def test_a_cached_rollout_is_a_recomputed_one(k: int, noisy: bool) -> None:
    """Values, and gradients of a loss that meets every thought."""
    model, batch = a_model(), a_batch()
    generator = torch.Generator().manual_seed(k)
    noise = torch.randn(1, B, k, D, dtype=torch.float64, generator=generator) if noisy else None
    thoughts = [torch.zeros(B, D, dtype=torch.float64)]
    for i in range(k):
        mean = plain_outputs(model, batch, torch.stack(thoughts, dim=1))[:, -1]
        thoughts.append(mean if noise is None else mean + noise[0, :, i])
    wanted = torch.stack(thoughts[1:], dim=1)[None]
    ours = model.rollout(batch, k, noise)
    assert_same(ours, wanted)
    scale = torch.arange(1.0, k + 1, dtype=torch.float64)[:, None]
    assert_same_gradients(model, (ours * scale).square().sum(), (wanted * scale).square().sum())
    own = noise if noise is not None else torch.zeros_like(ours)
    assert_same(model.next_means(batch, ours.detach()) + own, ours)
    with torch.no_grad():
        assert_same(model.rollout(batch, k, noise), ours)


def test_leading_dimensions_are_kept() -> None:
    model, batch = a_model(), a_batch(seeds=(0, 1))
    noise = torch.randn(2, B, K, D, dtype=torch.float64)
    loss, chain = model.teacher_forced_loss(batch, ETA, K), model.rollout(batch, K, noise)
    means = model.next_means(batch, chain)
    assert (loss.shape, chain.shape, means.shape) == ((2,), (2, B, K, D), (2, B, K, D))
    assert model.run_dimensions == 0
    assert model.effective_operator() is None
    for run in range(2):
        alone = PromptBatch(batch.weights[run], N, inputs=batch.inputs[run])
        assert_same(model.teacher_forced_loss(alone, ETA, K), loss[run])
        assert_same(model.rollout(alone, K, noise[run]), chain[run])
        assert_same(model.next_means(alone, chain[run]), means[run])
    shared = held_out_prompts(np.ones(D), N, B, runs=2, dtype=torch.float64, hold_inputs=True)
    assert post_test(model, shared, [1, K]).shape == (2, 2)


def test_lengths_share_a_model() -> None:
    model = a_model()
    for n in (1, 2, N):
        batch = a_batch(n)
        assert batch.labels().shape == (1, B, n)
        past = torch.zeros(B, 1, D, dtype=torch.float64)
        assert_same(model.rollout(batch, 1)[0, :, 0], plain_outputs(model, batch, past)[:, -1])


def test_held_inputs_are_the_explicit_prompts() -> None:
    spectrum = np.array([0.5, 1.0, 2.0])
    for n in (1, 6):
        batch = PromptBatch.draw(spectrum, n, B, seeds=[7], dtype=torch.float64, hold_inputs=True)
        drawn = draw_prompts(spectrum, n, B, seed=7)
        for ours, wanted in ((batch.inputs, drawn.inputs), (batch.labels(), drawn.labels)):
            assert_same(ours[0], torch.from_numpy(wanted), 1e-12)
        assert batch.covariances is None
    assert PromptBatch.draw(spectrum, 6, B, seeds=[7]).inputs is None


@pytest.mark.parametrize(
    ("field", "act"),
    [
        ("batch", lambda m: m.rollout(PromptBatch.draw(np.ones(D), N, B, seeds=[0]), 1)),
        ("batch", lambda m: PromptBatch.draw(np.ones(D), N, B, seeds=[0]).labels()),
        ("batch", lambda m: m.rollout(PromptBatch.draw(np.ones(9), 2, B, seeds=[0]), 1)),
        ("batch", lambda m: m.double().rollout(held_out_prompts(np.ones(D), N, hold_inputs=True), 1)),
        ("length", lambda m: m.double().rollout(a_batch(N + 1), K)),
        ("steps", lambda m: m.double().rollout(a_batch(), 0)),
        ("steps", lambda m: m.double().teacher_forced_loss(a_batch(), ETA, -1)),
        ("noise", lambda m: m.double().rollout(a_batch(), K, torch.zeros(1, B, K - 1, D))),
        ("thoughts", lambda m: m.double().next_means(a_batch(), torch.zeros(B, K, D))),
        ("thoughts", lambda m: m.double().next_means(a_batch(), torch.zeros(1, B, 0, D))),
        ("seed", lambda m: GptModel(CONFIG, seed=-1)),
        ("heads", lambda m: dataclasses.replace(CONFIG, heads=0)),
        ("width", lambda m: dataclasses.replace(CONFIG, heads=3)),
        ("layers", lambda m: dataclasses.replace(CONFIG, layers=1.5)),
        ("positions", lambda m: dataclasses.replace(CONFIG, positions=2)),
        ("preset", lambda m: GptConfig.preset("huge", D, N, K)),
        ("length", lambda m: GptConfig.preset("tiny", D, 0, K)),
        ("chain_steps", lambda m: GptConfig.preset("tiny", D, N, -1)),
    ],
)
def test_bad_input_is_named(field: str, act: Callable[[GptModel], object]) -> None:
    with pytest.raises(InputError) as caught:
        act(GptModel(CONFIG, seed=0))
    assert caught.value.field == field


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gelu_is_torchs(dtype: torch.dtype) -> None:
    """Over several pieces, a strided input among them, and where GELU saturates."""
    x = (8 * torch.randn(3, 100_003, dtype=torch.float64)).to(dtype).T
    x[0] = torch.tensor([0.0, 300.0, -300.0])
    ours, theirs = (x.detach().clone().requires_grad_() for _ in range(2))
    values = tanh_gelu(ours), functional.gelu(theirs.double(), approximate="tanh")
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 1e-2}[dtype]
    assert_same(values[0].double(), values[1], tolerance)
    slopes = [
        torch.autograd.grad(v.sum(), x)[0].double() for v, x in zip(values, (ours, theirs), strict=True)
    ]
    assert_same(slopes[0], slopes[1], tolerance)
    assert values[0].dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("m", [1, 4, 7])
def test_attention_is_torchs(dtype: torch.dtype, m: int) -> None:
    q, k, v = (torch.randn(2, 3, size, 5, dtype=torch.float64) for size in (m, 7, 7))
    seen = torch.ones(m, 7, dtype=torch.bool).tril(7 - m)
    wanted = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    ours = attend(q.to(dtype), k.to(dtype), v.to(dtype))
    assert_same(ours.double(), wanted, 1e-12 if dtype == torch.float64 else 5e-2)


def test_bfloat16_autocast_trains_float32_parameters() -> None:
    batch = held_out_prompts(np.ones(D), N, 32, hold_inputs=True)
    model = GptModel(GptConfig.preset("tiny", D, N, K), seed=0)
    acts = (
        lambda: model.teacher_forced_loss(batch, ETA, K).sum(),
        lambda: model.rollout(batch, K).square().sum(),
    )
    for act in acts:
        exact = torch.cat([g.flatten() for g in gradients(model, act()) if g is not None])
        with torch.autocast("cpu", torch.bfloat16):
            loss = act()
        low = torch.cat([g.flatten() for g in gradients(model, loss) if g is not None])
        assert loss.dtype == low.dtype == torch.float32
        assert functional.cosine_similarity(low, exact, dim=0) > 0.999
        assert loss.item() == pytest.approx(act().item(), rel=1e-2)


def test_stages_train_it() -> None:
    """SFT from scratch learns something, OS and RL move it, and an epoch's order changes nothing here."""
    batch = PromptBatch.draw(np.ones(2), 4, 64, seeds=[0], hold_inputs=True)
    model = GptModel(GptConfig.preset("tiny", 2, 4, 2), seed=0)
    done = train(model, Sft(0.5, 2), FixedData(batch), Optimisation("adam", 3e-3, steps=40))
    first, last = (row["loss"][0] for row in (done.history[0], done.history[-1]))
    assert last < 0.6 * first
    for objective in (Outcome(2), PolicyGradient(2, (0,), group=2, every_step=True)):
        before = model.positions.detach().clone()
        moved = train(model, objective, FixedData(batch), Optimisation("adam", 1e-3, steps=2, clip=1.0))
        assert moved.diverged == []
        assert not torch.equal(before, model.positions)


def test_weights_survive_a_file(tmp_path: Path) -> None:
    for model in (GptModel(CONFIG, seed=3), a_model()):
        save_gpt(tmp_path / "gpt.safetensors", model)
        loaded = load_gpt(tmp_path / "gpt.safetensors")
        assert loaded.config == model.config
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[name])
            assert tensor.dtype == loaded.state_dict()[name].dtype


def test_bad_files_are_named(tmp_path: Path) -> None:
    whole, broken = tmp_path / "gpt.safetensors", tmp_path / "broken.safetensors"
    save_gpt(whole, GptModel(CONFIG, seed=3))
    tensors, config = load_file(whole), dataclasses.asdict(CONFIG)

    def rejected(shown: str) -> None:
        with pytest.raises(InputError, match=shown) as caught:
            load_gpt(broken)
        assert caught.value.field in ("weights", "width")

    rejected("existing")
    data = whole.read_bytes()
    for size in (0, 5, 100, len(data) // 2, len(data) - 1):
        broken.write_bytes(data[:size])
        rejected("whole")
    for place in range(len(data) - 400, len(data), 40):
        broken.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        rejected("as it was written")
    save_file(tensors, broken, {"gpt": json.dumps(config)})
    rejected("this package wrote")
    for metadata in (None, {"gpt": "{"}, {"gpt": "[1]"}, {"gpt": json.dumps({**config, "depth": 2})}):
        write_tensors(broken, tensors, metadata)
        rejected("save_gpt")
    write_tensors(broken, tensors, {"gpt": json.dumps({**config, "layers": 2})})
    rejected("layers=2")
    write_tensors(broken, {**tensors, "positions": torch.zeros(3, 3)}, {"gpt": json.dumps(config)})
    rejected("positions")
    write_tensors(broken, tensors, {"gpt": json.dumps({**config, "width": 15})})
    rejected("multiple")
