"""The linearised model: the model itself at no change, its derivative beside finite differences."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datadose.models.gpt import GptConfig, GptModel
from datadose.models.prompt_batch import PromptBatch
from datadose.studies.levels.linearised import Linearised
from datadose.studies.token_study.language import TARGET, TRAIN, draw_examples
from datadose.studies.token_study.model import DecoderShape, encode, new_model


class _NextMeans(nn.Module):
    """The nonlinear transformer's next thoughts as what the module is called for."""

    def __init__(self, model: GptModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PromptBatch, thoughts: Tensor) -> Tensor:
        return self.model.next_means(batch, thoughts)


Made: TypeAlias = tuple[nn.Module, Linearised, Callable[[nn.Module], Tensor]]
"""A model, its expansion, and outputs of either on the same inputs."""


def _gpt() -> Made:
    draw = torch.Generator().manual_seed(3)
    weights, thoughts, inputs = (
        torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((6, 5), (6, 3, 5), (6, 10, 5))
    )
    batch = PromptBatch(weights=weights, length=10, inputs=inputs)
    module = _NextMeans(GptModel(GptConfig(5, 2, 2, 16, 24), seed=0).double())
    return module, Linearised(module), lambda model: model(batch, thoughts)


def _language() -> Made:
    # Of one length: torch's embedding has no gradient at padding, though the outputs there depend on it.
    tokens = encode(draw_examples(np.random.default_rng(0), 6, {TARGET: 1.0}, TRAIN, lengths=(5,)))
    module = new_model(DecoderShape(16, 2, 2, 32), 0).double()

    def run(model: nn.Module) -> Tensor:
        found = model(input_ids=tokens.inputs, use_cache=False)
        return found if isinstance(found, Tensor) else found.logits

    return module, Linearised(module, read=lambda found: found.logits), run


def _move(module: nn.Module, linearised: Linearised, size: float) -> nn.Module:
    """A copy of the model whose weights are changed as those of the linearised one, by ``size`` x N(0, 1)."""
    draw, moved = torch.Generator().manual_seed(1), copy.deepcopy(module)
    with torch.no_grad():
        for weight, change in zip(moved.parameters(), linearised.parameters(), strict=True):
            change.copy_(size * torch.randn(change.shape, generator=draw, dtype=change.dtype))
            weight.add_(change)
    return moved


@pytest.mark.parametrize("make", [_gpt, _language])
def test_without_change_it_is_the_model_with_the_models_gradient(make: Callable[[], Made]) -> None:
    module, linearised, run = make()
    found = run(linearised)
    torch.testing.assert_close(found, run(module), rtol=0, atol=1e-12)
    found.square().sum().backward()  # type: ignore[no-untyped-call]
    run(module).square().sum().backward()  # type: ignore[no-untyped-call]
    for one, other in zip(linearised.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [_gpt, _language])
def test_it_parts_from_the_model_with_the_square_of_the_change(make: Callable[[], Made]) -> None:
    module, linearised, run = make()
    gaps, steps = [], (4e-3, 2e-3, 1e-3)
    for size in steps:
        moved = _move(module, linearised, size)
        with torch.no_grad():
            gaps.append(float((run(moved) - run(linearised)).norm()))
            shift = float((run(moved) - run(module)).norm())
    rates = [first / second for first, second in itertools.pairwise(gaps)]
    assert all(3.4 < rate < 4.6 for rate in rates), rates
    assert gaps[-1] < 0.1 * shift


@pytest.mark.parametrize("make", [_gpt, _language])
def test_the_gradient_of_a_loss_beside_finite_differences(make: Callable[[], Made]) -> None:
    module, linearised, run = make()
    _move(module, linearised, 0.05)
    run(linearised).square().sum().backward()  # type: ignore[no-untyped-call]
    draw, h = torch.Generator().manual_seed(2), 1.0  # A square of a linear function: any step is exact.
    weights = list(linearised.parameters())
    direction = [torch.randn(w.shape, generator=draw, dtype=w.dtype) for w in weights]
    slope = sum(float((w.grad * v).sum()) for w, v in zip(weights, direction, strict=True))  # type: ignore[operator, misc]
    sides = []
    with torch.no_grad():
        for sign in (1, -2):
            for w, v in zip(weights, direction, strict=True):
                w.add_(sign * h * v)
            sides.append(float(run(linearised).square().sum()))
    assert (sides[0] - sides[1]) / (2 * h) == pytest.approx(slope, rel=1e-5)


def test_it_keeps_its_own_start_and_leaves_the_model_alone() -> None:
    module, linearised, run = _language()
    before = run(module).detach()
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(1.1)
    torch.testing.assert_close(run(linearised).detach(), before)
    optimiser = torch.optim.AdamW(linearised.parameters(), 0.1)
    changed = run(module).detach()
    run(linearised).square().sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    torch.testing.assert_close(run(module).detach(), changed)
    assert not torch.equal(run(linearised).detach(), before)
