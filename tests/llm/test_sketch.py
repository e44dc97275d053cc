"""The sketch against its definition, against autograd, and its error's rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from datadose.llm.sketch import TensorSketch

H, V, T = 6, 9, 5


def tokens(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """States (T, H), probabilities (T, V) and targets (T,)."""
    draw = torch.Generator().manual_seed(seed)
    h = torch.randn(T, H, generator=draw)
    p = torch.softmax(torch.randn(T, V, generator=draw), dim=-1)
    return h, p, torch.randint(V, (T,), generator=draw)


def gradient(h: Tensor, p: Tensor, targets: Tensor) -> Tensor:
    """sum_t (p_t - y_t) h_t^T, (V, H)."""
    return (p - torch.eye(V)[targets]).T @ h


def literal(sketch: TensorSketch, G: Tensor) -> Tensor:
    """Entry (v, i) of G, with both signs, goes to the bucket that is the sum of both hashes."""
    (left, left_sign), (right, right_sign) = sketch._left, sketch._right
    found = torch.zeros(sketch.size)
    for v in range(V):
        for i in range(H):
            found[(left[i] + right[v]) % sketch.size] += left_sign[i] * right_sign[v] * G[v, i]
    return found


def sketched(sketch: TensorSketch, *tokens: torch.Tensor, rows: int = 1) -> torch.Tensor:
    """Sketches (rows, D) of states, probabilities, targets, each token of the row that comes last."""
    *factors, owner = tokens
    return sketch.total(sketch.spectrum(*factors), owner, rows)


@pytest.mark.parametrize("size", [8, 33, 512])
def test_it_is_the_definition(size: int) -> None:
    h, p, targets = tokens()
    sketch = TensorSketch(H, V, size)
    found = sketched(sketch, h, p, targets, torch.zeros(T, dtype=torch.long))
    torch.testing.assert_close(found[0], literal(sketch, gradient(h, p, targets)), rtol=1e-5, atol=1e-5)


def test_rows_are_sketched_apart_and_probabilities_are_left_alone() -> None:
    h, p, targets = tokens()
    before = p.clone()
    sketch = TensorSketch(H, V, 64)
    found = sketched(sketch, h, p, targets, torch.tensor([0, 2, 2, 0, 2]), rows=3)
    for row, own in ((0, [0, 3]), (2, [1, 2, 4])):
        alone = sketched(sketch, h[own], p[own], targets[own], torch.zeros(len(own), dtype=torch.long))
        torch.testing.assert_close(found[row], alone[0], rtol=1e-5, atol=1e-5)
    assert float(found[1].abs().max()) == 0
    assert torch.equal(p, before)


def test_the_gradient_of_the_loss_is_the_sum_of_outer_products() -> None:
    h, _, targets = tokens()
    W = torch.randn(V, H, dtype=torch.float64, requires_grad=True)
    logits = h.double() @ W.T
    torch.nn.functional.cross_entropy(logits, targets, reduction="sum").backward()
    expected = gradient(h.double(), torch.softmax(logits.detach(), -1), targets.long()).double()
    assert W.grad is not None
    torch.testing.assert_close(W.grad, expected, rtol=1e-10, atol=1e-12)


def estimates(size: int, seeds: int) -> tuple[np.ndarray, float]:
    """Inner products of the sketches of two gradients under many hashes, and the true one."""
    one, other = tokens(1), tokens(2)
    other = (one[0] + 0.5 * other[0], *other[1:])
    truth = float((gradient(*one) * gradient(*other)).sum())
    owner = torch.zeros(T, dtype=torch.long)
    found = []
    for seed in range(seeds):
        sketch = TensorSketch(H, V, size, seed)
        first, second = (sketched(sketch, *given, owner) for given in (one, other))
        found.append(float((first * second).sum()))
    return np.array(found), truth


def test_inner_products_are_unbiased_and_their_error_falls_as_the_root_of_the_size() -> None:
    spread = {}
    for size in (16, 256):
        found, truth = estimates(size, 1500)
        # Four standard errors: by chance in 6 of 100,000 draws of the seeds, which are fixed.
        assert abs(found.mean() - truth) < 4 * found.std() / np.sqrt(len(found))
        spread[size] = float(np.sqrt(np.mean((found - truth) ** 2)))
    # Sixteen times the size: a quarter of the error. The ratio's own error here is about 5 percent.
    assert spread[16] / spread[256] == pytest.approx(4, rel=0.25)


def test_hashes_are_a_function_of_the_seed() -> None:
    h, p, targets = tokens()
    owner = torch.zeros(T, dtype=torch.long)
    found = [sketched(TensorSketch(H, V, 32, seed), h, p, targets, owner) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
