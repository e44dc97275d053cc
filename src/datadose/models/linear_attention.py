"""Linear self-attention that thinks in context (paper section 3): dense weights, and the sparse block form.

The prompt matrix Z has rows x (d), y (1), w (d), one (1) and columns: the n examples (x_i, y_i, 0, 0), then
the thoughts (0, 0, w_j, 1), w_0 = 0 first. f(Z) = Z + V Z (Z^T W Z) / n (3.1). Only the last column of f(Z)
is read: the next thought, appended with its x and y rows blanked (3.3).

:class:`LinearAttention` trains all entries of V and W. It never forms Z: the last column needs the prompt
only through products with its Gram matrix, whose example part is S, S w* and w*^T S w* and whose thought
part is a sum over the few thoughts. ``literal`` is the definition, for tests and benchmarks. It starts at
the sparse structure (3.8), which population training preserves: V maps x rows to w rows by V~, W maps w to x
by W~ and 'one' to y by -1, and a step is w + V~ S (W~ w - w*) (A.1). :class:`BlockLinearAttention` trains
V~ (and W~) alone.

Parameters may carry leading dimensions ``*runs``: independent runs that train side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from datadose.covariance import dense
from datadose.errors import reject, require_integer
from datadose.models.prompt_batch import Matrices, PerRun, PromptBatch, Thoughts, Vectors
from datadose.shapes import Float, Operator


def embed_prompts(
    inputs: Float[Tensor, "B n d"], labels: Float[Tensor, "B n"]
) -> Float[Tensor, "B 2*d+2 n+1"]:
    """The prompt matrix Z_0 of eq. (3.2): n columns (x_i, y_i, 0, 0), then the first thought (0, 0, 0, 1).

    ``inputs`` are x, shape (B, n, d), and ``labels`` y, shape (B, n). Z_0 has shape (B, 2d+2, n+1).
    """
    B, n, d = inputs.shape
    Z = inputs.new_zeros(B, 2 * d + 2, n + 1)
    Z[:, :d, :n] = inputs.transpose(1, 2)
    Z[:, d, :n] = labels
    Z[:, -1, n] = 1
    return Z


def chain_decay(eta: float, steps: int) -> list[float]:
    """The numbers c_i = 1 - (1-eta)^i for i = 0 .. k+1. The demonstrated chain is w_i = c_i w* (section 1).

    ``eta`` is the chain's step in (0, 2) and ``steps`` is k >= 0.
    """
    return [1 - (1 - eta) ** i for i in range(steps + 2)]


class ChainModel(nn.Module):
    """The methods that a stage requires of a model; runs are the leading dimensions of its parameters."""

    def teacher_forced_loss(self, batch: PromptBatch, eta: float, steps: int) -> PerRun:
        """Loss L_SFT of section 1 per run: 1/(2B) sum over prompts and i = 0..k of squared step residuals.

        ``eta`` is the step of the demonstrated chain, in (0, 2), and ``steps`` is k >= 0.
        """
        raise NotImplementedError

    def rollout(self, batch: PromptBatch, steps: int, noise: Thoughts | None = None) -> Thoughts:
        """The model's own thoughts w_1 .. w_k for k = ``steps`` >= 1, shape (*runs, B, k, d).

        ``noise``, of the same shape, is added to each thought before the next one is computed.
        """
        raise NotImplementedError

    def next_means(self, batch: PromptBatch, thoughts: Thoughts) -> Thoughts:
        """The mean of each thought given the earlier ones of ``thoughts``, shape (*runs, B, k, d)."""
        raise NotImplementedError

    def effective_operator(self) -> Matrices | None:
        """The operator V, (*runs, d, d), of which one thinking step from w_0 = 0 gives -V S w*.

        It is None for a model without such an operator.
        """
        raise NotImplementedError

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights of linear maps between hidden states, Muon's case; linear attention has none."""
        return []

    @property
    def run_dimensions(self) -> int:
        """How many leading dimensions of every parameter are runs; 0 without an effective operator."""
        operator = self.effective_operator()
        return 0 if operator is None else operator.ndim - 2


class LinearAttention(ChainModel):
    """One layer with dense V and W of shape (*runs, 2d+2, 2d+2).

    Args:
        operator: V~, e.g. the pretrained -Gamma0^{-1} as :func:`starting_operator` gives it.
        attention: W~; the identity unless given.
    """

    def __init__(self, operator: Matrices, attention: Matrices | None = None) -> None:
        super().__init__()
        d = self.dimension = _square(operator)
        V = operator.new_zeros(*operator.shape[:-2], 2 * d + 2, 2 * d + 2)
        W = torch.zeros_like(V)
        V[..., d + 1 : 2 * d + 1, :d] = operator
        W[..., :d, d + 1 : 2 * d + 1] = _identity(operator) if attention is None else attention
        W[..., d, 2 * d + 1] = -1
        self.V = nn.Parameter(V)
        self.W = nn.Parameter(W)

    @property
    def operator(self) -> Matrices:
        """The block V~ of V, shape (*runs, d, d)."""
        d = self.dimension
        return self.V[..., d + 1 : 2 * d + 1, :d]

    def effective_operator(self) -> Matrices:
        """-V~ W[y, one]: what multiplies S w* (to leading order) in the first thought."""
        return -self.operator * self.W[..., self.dimension : self.dimension + 1, -1:]

    def literal(self, Z: Float[Tensor, "B rows columns"], examples: int) -> Float[Tensor, "B rows columns"]:
        """f(Z) of eq. (3.1), all columns: those of n = ``examples`` examples and of thoughts."""
        return Z + self.V @ Z @ (Z.transpose(1, 2) @ self.W @ Z) / examples

    def append(
        self, Z: Float[Tensor, "B rows columns"], column: Float[Tensor, "B rows"]
    ) -> Float[Tensor, "B rows columns+1"]:
        """Z with ``column`` as its next thought; its x and y rows are set to 0 (3.3)."""
        blank = torch.zeros_like(column[:, : self.dimension + 1])
        kept = torch.cat([blank, column[:, self.dimension + 1 :]], dim=1)
        return torch.cat([Z, kept.unsqueeze(-1)], dim=2)

    def last_column(
        self, batch: PromptBatch, thoughts: list[Float[Tensor, "*runs B {self.dimension}+1"]]
    ) -> Float[Tensor, "*runs B 2*{self.dimension}+2"]:
        """The last column of f(Z) in eq. (3.1), shape (*runs, B, 2d+2); ``thoughts`` are rows (w, one)."""
        d, z = self.dimension, thoughts[-1]
        u = z @ self.W[..., :, d + 1 :].transpose(-1, -2)
        own = u[..., d + 1 :]
        past = torch.zeros_like(own)
        for t in thoughts:
            past = past + t * (t * own).sum(-1, keepdim=True) / batch.length
        column = torch.cat([self._seen(batch, u), past], dim=-1) @ self.V.transpose(-1, -2)
        return torch.cat([column[..., : d + 1], column[..., d + 1 :] + z], dim=-1)

    def rollout(self, batch: PromptBatch, steps: int, noise: Thoughts | None = None) -> Thoughts:
        """See :class:`ChainModel`. The 'one' row of a thought is the model's own output too."""
        k = require_integer("steps", steps, 1)
        return torch.stack([w for w, _ in self._think(batch, k, noise, None)], dim=-2)

    def next_means(self, batch: PromptBatch, thoughts: Thoughts) -> Thoughts:
        """See :class:`ChainModel`."""
        k = thoughts.shape[-2]
        return torch.stack([mean for _, mean in self._think(batch, k, None, thoughts)], dim=-2)

    def _think(
        self, batch: PromptBatch, steps: int, noise: Tensor | None, forced: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (thought, its mean) per step, with noise added or the thought forced."""
        d = self.dimension
        start = torch.zeros_like(batch.weights[..., :1]) + 1
        thoughts = [torch.cat([torch.zeros_like(batch.weights), start], dim=-1)]
        for i in range(steps):
            column = self.last_column(batch, thoughts)[..., d + 1 :]
            mean, one = column[..., :d], column[..., d:]
            thought = mean if noise is None else mean + noise[..., i, :]
            if forced is not None:
                thought = forced[..., i, :]
            thoughts.append(torch.cat([thought, one], dim=-1))
            yield thought, mean

    def teacher_forced_loss(self, batch: PromptBatch, eta: float, steps: int) -> PerRun:
        """See :class:`ChainModel`. The k+1 forced steps cost two products with S, whatever k.

        Along the ground-truth chain z_i = (c_i w*, 1), so every attention score is affine in c_i and every
        step residual is a combination of five vectors of the prompt with scalars per step.
        """
        d, w, n = self.dimension, batch.weights, batch.length
        p = w @ self.W[..., :, d + 1 : 2 * d + 1].transpose(-1, -2)
        q = self.W[..., :, -1].unsqueeze(-2).expand_as(p)
        moved = [self._seen(batch, u) @ self.V[..., :, : d + 1].transpose(-1, -2) for u in (p, q)]
        own = [(w * u[..., d + 1 : 2 * d + 1]).sum(-1, keepdim=True) for u in (p, q)]
        ones = [u[..., -1:] for u in (p, q)]
        from_w = w @ self.V[..., :, d + 1 : 2 * d + 1].transpose(-1, -2)
        from_one = self.V[..., :, -1].unsqueeze(-2)
        target = torch.cat([torch.zeros_like(w), torch.zeros_like(ones[0]), w, torch.zeros_like(ones[0])], -1)
        c = chain_decay(eta, steps)
        total = w.new_zeros(w.shape[:-2])
        first, second = 0.0, 0.0
        for i in range(steps + 1):
            first, second = first + c[i], second + c[i] ** 2
            scored_w, scored_one = (c[i] * s[0] + s[1] for s in (own, ones))
            on_w = (second * scored_w + first * scored_one) / n
            on_one = (first * scored_w + (i + 1) * scored_one) / n
            residual = c[i] * moved[0] + moved[1] + on_w * from_w + on_one * from_one
            residual = residual - (c[i + 1] - c[i]) * target
            total = total + residual.square().sum(dim=(-1, -2))
        return total / (2 * batch.prompts)

    def _seen(self, batch: PromptBatch, u: Vectors) -> Float[Tensor, "*runs B {self.dimension}+1"]:
        """The x and y rows of the examples' part of Z Z^T u / n for the query u = W z."""
        d = self.dimension
        seen = batch.apply(u[..., :d] + batch.weights * u[..., d : d + 1])
        return torch.cat([seen, (batch.weights * seen).sum(-1, keepdim=True)], dim=-1)


class BlockLinearAttention(ChainModel):
    """The sparse structure alone: w <- w + V~ S (W~ w - w*).

    ``train_attention`` False keeps W~ fixed, as Thm 4.2 does; SFT then costs one product with S.
    """

    def __init__(
        self, operator: Matrices, attention: Matrices | None = None, *, train_attention: bool = True
    ) -> None:
        super().__init__()
        self.dimension = _square(operator)
        self.V = nn.Parameter(operator.clone())
        W = _identity(operator) if attention is None else attention.clone()
        self.W = nn.Parameter(W, requires_grad=train_attention)
        self.identity = attention is None and not train_attention
        hook: Any = self.register_load_state_dict_post_hook
        hook(lambda *_: self._note_identity())

    def effective_operator(self) -> Matrices:
        """The trained operator V~, shape (*runs, d, d)."""
        return self.V

    def _note_identity(self) -> None:
        """Loaded weights may hold another W~: the shortcut of W~ = I goes by the weights, not by the call."""
        eye = torch.eye(self.dimension, dtype=self.W.dtype, device=self.W.device)
        self.identity = not self.W.requires_grad and bool((self.W == eye).all())

    def _step(self, batch: PromptBatch, w: Tensor) -> Tensor:
        pulled = w if self.identity else w @ self.W.transpose(-1, -2)
        return w + batch.apply(pulled - batch.weights) @ self.V.transpose(-1, -2)

    def rollout(self, batch: PromptBatch, steps: int, noise: Thoughts | None = None) -> Thoughts:
        """See :class:`ChainModel`."""
        w, thoughts = torch.zeros_like(batch.weights), []
        for i in range(require_integer("steps", steps, 1)):
            w = self._step(batch, w)
            if noise is not None:
                w = w + noise[..., i, :]
            thoughts.append(w)
        return torch.stack(thoughts, dim=-2)

    def next_means(self, batch: PromptBatch, thoughts: Thoughts) -> Thoughts:
        """See :class:`ChainModel`."""
        earlier = [torch.zeros_like(batch.weights), *thoughts[..., :-1, :].unbind(-2)]
        return torch.stack([self._step(batch, w) for w in earlier], dim=-2)

    def teacher_forced_loss(self, batch: PromptBatch, eta: float, steps: int) -> PerRun:
        """See :class:`ChainModel`; two products with S whatever k, one if W~ is fixed to I."""
        w, c = batch.weights, chain_decay(eta, steps)
        label = batch.apply(w) @ self.V.transpose(-1, -2)
        pulled = label
        if not self.identity:
            pulled = batch.apply(w @ self.W.transpose(-1, -2)) @ self.V.transpose(-1, -2)
        total = w.new_zeros(w.shape[:-2])
        for i in range(steps + 1):
            residual = c[i] * pulled - label - (c[i + 1] - c[i]) * w
            total = total + residual.square().sum(dim=(-1, -2))
        return total / (2 * batch.prompts)


def starting_operator(V: Operator, runs: int | None = None, dtype: torch.dtype = torch.float32) -> Matrices:
    """The operator V~ = ``V`` as a tensor (runs, d, d), one copy a run, or (d, d) if ``runs`` is None."""
    one = torch.from_numpy(dense(V).copy()).to(dtype)
    return one if runs is None else one.expand(runs, -1, -1).clone()


def _square(operator: Tensor) -> int:
    if operator.ndim < 2 or operator.shape[-1] != operator.shape[-2]:
        reject("operator", f"shape {tuple(operator.shape)}", "square matrices of shape (..., d, d)")
    return operator.shape[-1]


def _identity(operator: Tensor) -> Tensor:
    eye = torch.eye(operator.shape[-1], dtype=operator.dtype, device=operator.device)
    return eye.expand_as(operator).clone()
