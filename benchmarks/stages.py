"""One training step (forward, backward, Adam) of SFT and OS against the literal Z matrices, in one run.

Three ways to the same loss, checked to agree: ours (products with S); the literal form as (3.1) is written,
all columns of f(Z), with a pass for each of the k+1 teacher-forced or k own steps; and a smarter literal that
computes only the last column of f(Z) through Z. Also the cost of forming S from the inputs, once for a data
set, and ours on the inputs themselves. float32, one thread. At large B the literal forms also pay for their
memory (Z and its intermediates, 83 MB each at B = 512); B = 64 shows the arithmetic alone.

    OMP_NUM_THREADS=1 python benchmarks/stages.py [--repeats 3] [--prompts 64 512]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from datadose.models import LinearAttention, PromptBatch, embed_prompts
from datadose.models.linear_attention import chain_decay
from datadose.prompts import draw_prompts
from datadose.stages import Outcome, Sft
from datadose.stages.engine import Objective
from datadose.theory import pretrained_operator
from timing import seconds

DIMENSION, LENGTH, CHAIN, ETA = 100, 200, 3, 0.2
Column: TypeAlias = Callable[[LinearAttention, Tensor], Tensor]
Loss: TypeAlias = Callable[[LinearAttention], Tensor]


def all_columns(model: LinearAttention, Z: Tensor) -> Tensor:
    """The last column of f(Z), after all columns are computed."""
    return model.literal(Z, LENGTH)[:, :, -1]


def one_column(model: LinearAttention, Z: Tensor) -> Tensor:
    """The last column of f(Z) = Z + V Z (Z^T W Z) / n alone, in matrix-vector products with Z."""
    z = Z[:, :, -1]
    scores = (z @ model.W.T).unsqueeze(1) @ Z
    summed = (scores @ Z.transpose(1, 2)).squeeze(1)
    return z + summed @ model.V.T / LENGTH


def literal_sft(model: LinearAttention, Z: Tensor, weights: Tensor, column: Column) -> Tensor:
    """L_SFT with a pass for every teacher-forced step."""
    B, d = weights.shape
    c = chain_decay(ETA, CHAIN)
    loss = weights.new_zeros(())
    for i in range(CHAIN + 1):
        blank, one = weights.new_zeros(B, d + 1), weights.new_ones(B, 1)
        target = torch.cat([blank, c[i + 1] * weights, one], dim=1)
        loss = loss + (column(model, Z) - target).square().sum()
        Z = model.append(Z, target)
    return loss / (2 * B)


def literal_outcome(model: LinearAttention, Z: Tensor, weights: Tensor, column: Column) -> Tensor:
    """L_OS with a pass for every thought."""
    B, d = weights.shape
    for _ in range(CHAIN):
        Z = model.append(Z, column(model, Z))
    return (Z[:, d + 1 : -1, -1] - weights).square().sum() / (2 * B)


def fast(objective: Objective, batch: PromptBatch, model: LinearAttention) -> Tensor:
    """The library's loss."""
    return objective(model, batch, 0).loss


def training_step(model: LinearAttention, optimiser: torch.optim.Optimizer, loss: Loss) -> float:
    """Forward, backward and Adam; returns the loss before the step."""
    optimiser.zero_grad(set_to_none=True)
    found = loss(model)
    torch.autograd.backward(found)
    optimiser.step()
    return float(found.detach())


def measure(loss: Loss, repeats: int) -> tuple[float, float]:
    """Median time of a step, one step as a warm-up, and the loss of the pretrained model."""
    operator = torch.from_numpy(np.diag(pretrained_operator(spectrum(), LENGTH))).float()
    model = LinearAttention(operator)
    optimiser = torch.optim.Adam(model.parameters(), 1e-5)
    first = training_step(model, optimiser, loss)
    return seconds(partial(training_step, model, optimiser, loss), repeats), first


def spectrum() -> np.ndarray:
    """Figure 4's pretraining covariance: 0.1 on a fifth of the coordinates."""
    return np.where(np.arange(DIMENSION) < DIMENSION // 5, 0.1, 1.0)


def compare(prompts: int, repeats: int) -> None:
    """All ways at one number of prompts."""
    drawn = draw_prompts(spectrum(), LENGTH, prompts, seed=0)
    X, y, w = (torch.from_numpy(a).float() for a in (drawn.inputs, drawn.labels, drawn.weights))
    batch, by_inputs = PromptBatch.from_inputs(X, w), PromptBatch.from_inputs(X, w, use_covariances=False)
    Z = embed_prompts(X, y)
    forming = seconds(partial(PromptBatch.from_inputs, X, w), 5)
    print(f"d={DIMENSION} n={LENGTH} B={prompts} k={CHAIN}: forming S once {forming * 1e3:.1f} ms")
    for name, objective, literal in (
        ("SFT", Sft(ETA, CHAIN), literal_sft),
        ("OS", Outcome(CHAIN), literal_outcome),
    ):
        ways: dict[str, tuple[Loss, int]] = {
            "ours": (partial(fast, objective, batch), 15 * repeats),
            "ours, inputs": (partial(fast, objective, by_inputs), 5 * repeats),
            "last column": (partial(literal, Z=Z, weights=w, column=one_column), 5 * repeats),
            "literal": (partial(literal, Z=Z, weights=w, column=all_columns), repeats),
        }
        found = {way: measure(loss, number) for way, (loss, number) in ways.items()}
        for way, (_, loss) in found.items():
            if abs(loss / found["ours"][1] - 1) > 1e-3:
                msg = f"{name}, {way}: loss {loss} is not ours, {found['ours'][1]}"
                raise ArithmeticError(msg)
        times = {way: took for way, (took, _) in found.items()}
        print(f"  {name}: " + ", ".join(f"{way} {took * 1e3:.2f} ms" for way, took in times.items()))
        ours, last = times["ours"], times["last column"]
        for against, ratio in (
            ("the literal form", times["literal"] / ours),
            ("its last column alone", last / ours),
            ("its last column alone, S formed anew", last / (ours + forming)),
        ):
            print(f"  RATIO {name} B={prompts} to {against}: {ratio:.1f} times")


def main() -> None:
    """Run all sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, nargs="+", default=[64, 512])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for prompts in arguments.prompts:
        compare(prompts, arguments.repeats)


if __name__ == "__main__":
    main()
