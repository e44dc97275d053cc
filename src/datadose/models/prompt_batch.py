"""The prompts of a batch, in the smallest form that a model needs.

A linear model uses the inputs of a prompt only as products S u with its empirical covariance
S = (1/n) X^T X, and the labels y = X w* only as S w*. A batch therefore holds either S (d^2 numbers, one
product costs d^2) or X (n d numbers, a product costs 2 n d), whichever is cheaper. A transformer reads the
inputs and labels themselves, so its batches hold X.

Leading dimensions ``*runs`` are independent runs (seeds) that train side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from datadose.covariance import product, square_root
from datadose.errors import reject
from datadose.prompts import Seed, check_request, draw_wishart, random_stream
from datadose.shapes import Float, Int, Operator

PerRun: TypeAlias = Float[Tensor, "*runs"]
"""A number for each run."""
Matrices: TypeAlias = Float[Tensor, "*runs d d"]
"""A matrix for each run."""
Vectors: TypeAlias = Float[Tensor, "*runs B d"]
"""A vector for each prompt."""
Thoughts: TypeAlias = Float[Tensor, "*runs B k d"]
"""k thoughts for each prompt."""


class _SymmetricProduct(torch.autograd.Function):
    """u -> S u. S is symmetric and not trained, so the gradient is the same product."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, batch: PromptBatch) -> Tensor:
        ctx.batch = batch
        return batch._product(u)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.batch.apply(gradient), None


@dataclass(frozen=True)
class PromptBatch:
    """B prompts of length n: the tasks w*, and either the empirical covariances S or the inputs X."""

    weights: Vectors
    length: int
    covariances: Float[Tensor, "*runs B d d"] | None = None
    inputs: Float[Tensor, "*runs B n d"] | None = None

    def __post_init__(self) -> None:
        if self.covariances is None and self.inputs is None:
            msg = "a batch holds covariances or inputs"
            raise ValueError(msg)

    @property
    def prompts(self) -> int:
        """The number B of prompts in each run."""
        return self.weights.shape[-2]

    def held_inputs(self) -> Float[Tensor, "*runs B n d"]:
        """The inputs X, shape (*runs, B, n, d). Raises InputError for a batch without inputs."""
        if self.inputs is None:
            reject("batch", "covariances alone", "inputs X (PromptBatch.draw with hold_inputs=True)")
        return self.inputs

    def labels(self) -> Float[Tensor, "*runs B n"]:
        """The labels y = X w*, shape (*runs, B, n). Raises InputError for a batch without inputs."""
        return (self.held_inputs() * self.weights.unsqueeze(-2)).sum(-1)

    def apply(self, u: Vectors) -> Vectors:
        """The products S u of each prompt's empirical covariance with ``u``, shape (*runs, B, d)."""
        product: Any = _SymmetricProduct
        return cast("Tensor", product.apply(u, self))

    def _product(self, u: Tensor) -> Tensor:
        # Row vectors: batched products of a matrix with one column are an order slower on CPU.
        row = u.unsqueeze(-2)
        if self.covariances is not None:
            return (row @ self.covariances).squeeze(-2)
        X = self.held_inputs()
        seen = (X * row).sum(-1)
        return (seen.unsqueeze(-2) @ X).squeeze(-2) / self.length

    def mean_covariance(self) -> Matrices:
        """The mean of S over the batch, shape (*runs, d, d)."""
        if self.covariances is not None:
            return self.covariances.mean(-3)
        rows = self.held_inputs().flatten(-3, -2)
        return rows.transpose(-1, -2) @ rows / rows.shape[-2]

    def map(self, change: Callable[[Tensor, int], Tensor]) -> PromptBatch:
        """``change`` of every tensor that is held, each given with the axis of its prompts, -2 or -3."""
        S, X = (None if x is None else change(x, -3) for x in (self.covariances, self.inputs))
        return PromptBatch(change(self.weights, -2), self.length, S, X)

    def take(self, index: Int[Tensor, " b"]) -> PromptBatch:
        """The batch of the prompts at the places ``index``, shape (b,), which are the same in every run."""
        return self.map(lambda x, axis: x.index_select(axis, index))

    def repeat(self, group: int) -> PromptBatch:
        """The batch with each prompt ``group`` times in a row, shape (*runs, B * group, ...)."""
        return self.map(lambda x, axis: x.repeat_interleave(group, dim=axis))

    def expand(self, runs: int) -> PromptBatch:
        """The prompts of one run, shared by ``runs`` of them without a copy."""
        return self.map(lambda x, _: x.expand(runs, *x.shape[1:]))

    def to(self, device: torch.device) -> PromptBatch:
        """The same prompts with their tensors on ``device``; the same tensors if they are there."""
        return self.map(lambda x, _: x.to(device))

    @classmethod
    def draw(
        cls,
        covariance: Operator,
        length: int,
        prompts: int,
        *,
        seeds: Sequence[Seed],
        dtype: torch.dtype = torch.float32,
        hold_inputs: bool = False,
    ) -> PromptBatch:
        """New prompts x_i ~ N(0, A), w* ~ N(0, I), for each seed: tensors of shape (len(seeds), B, ...).

        The batch holds the inputs X where 2 n < d (cheaper in memory and arithmetic) or with ``hold_inputs``.
        Otherwise it holds S, drawn by Bartlett's method for n >= d.

        Args:
            covariance: A, a spectrum (d,) or a PSD matrix (d, d).
            length: prompt length n >= 1.
            prompts: B >= 1.
            seeds: one for each run.
            dtype: of the tensors.
            hold_inputs: whether X is held in any case, which a transformer requires.
        """
        covariance, length, prompts = check_request(covariance, length, prompts)
        d = len(covariance)
        weights = [random_stream(seed, "weights").standard_normal((prompts, d)) for seed in seeds]
        stacked = torch.stack([torch.from_numpy(w).to(dtype) for w in weights])
        if 2 * length >= d and not hold_inputs:
            S = [draw_wishart(covariance, length, prompts, seed=seed) for seed in seeds]
            covariances = torch.stack([torch.from_numpy(x).to(dtype) for x in S])
            return cls(stacked, length, covariances=covariances)
        root = square_root(covariance)
        shape = (prompts, length, d)
        X = [product(random_stream(seed, "inputs").standard_normal(shape), root) for seed in seeds]
        return cls(stacked, length, inputs=torch.stack([torch.from_numpy(x).to(dtype) for x in X]))

    @classmethod
    def join(cls, batches: Sequence[PromptBatch], dim: int) -> PromptBatch:
        """One batch from batches of one length and form, joined along ``dim``: 0 for runs, 1 for prompts."""

        def cat(parts: Sequence[Tensor | None]) -> Tensor | None:
            held = [part for part in parts if part is not None]
            return torch.cat(held, dim) if held else None

        weights = torch.cat([batch.weights for batch in batches], dim)
        covariances, inputs = (cat([getattr(b, name) for b in batches]) for name in ("covariances", "inputs"))
        return cls(weights, batches[0].length, covariances, inputs)

    @classmethod
    def from_inputs(
        cls, inputs: Float[Tensor, "*runs B n d"], weights: Vectors, *, use_covariances: bool = True
    ) -> PromptBatch:
        """The batch of given inputs X and tasks ``weights``, shape (*runs, B, d).

        It holds S = X^T X / n with ``use_covariances``, and X without.
        """
        n = inputs.shape[-2]
        if use_covariances:
            return cls(weights, n, covariances=inputs.transpose(-1, -2) @ inputs / n)
        return cls(weights, n, inputs=inputs)
