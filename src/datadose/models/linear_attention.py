"""Linear self-attention on the literal (2d+2)-row prompt matrix Z (paper section 3).

Rows of Z: x (d), y (1), w (d), one (1). Columns: the n examples (x_i, y_i, 0, 0), then the thoughts
(0, 0, w_j, 1), w_0 = 0 first. f(Z) = Z + V Z (Z^T W Z) / n (3.1), n being the number of examples. Only the
last column of f(Z) is read: it is the next thought, appended with its x and y rows blanked (3.3).

Initialised at the sparse structure (3.8), which population training preserves: V maps x rows to w rows
by V~, W maps w to x by W~ and 'one' to y by -1, so that a step is w + V~ S (W~ w - w*) (A.1). All entries of
V and W are trainable parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datadose.errors import reject, require_integer


def embed_prompts(inputs: Tensor, labels: Tensor) -> Tensor:
    """Z_0 of eq. (3.2), shape (B, 2d+2, n+1), from inputs (B, n, d) and labels (B, n)."""
    B, n, d = inputs.shape
    Z = inputs.new_zeros(B, 2 * d + 2, n + 1)
    Z[:, :d, :n] = inputs.transpose(1, 2)
    Z[:, d, :n] = labels
    Z[:, -1, n] = 1
    return Z


class LinearAttention(nn.Module):
    """One layer of linear self-attention with dense V and W of shape (2d+2, 2d+2).

    Args:
        operator: V~, shape (d, d), e.g. the pretrained -Gamma0^{-1}.
        attention: W~, shape (d, d); the identity unless given.
    """

    def __init__(self, operator: Tensor, attention: Tensor | None = None) -> None:
        super().__init__()
        if operator.ndim != 2 or operator.shape[0] != operator.shape[1]:
            reject("operator", f"shape {tuple(operator.shape)}", "a square matrix of shape (d, d)")
        d = self.dimension = operator.shape[0]
        V = operator.new_zeros(2 * d + 2, 2 * d + 2)
        W = torch.zeros_like(V)
        V[d + 1 : 2 * d + 1, :d] = operator
        W[:d, d + 1 : 2 * d + 1] = torch.eye(d, dtype=operator.dtype) if attention is None else attention
        W[d, 2 * d + 1] = -1
        self.V = nn.Parameter(V)
        self.W = nn.Parameter(W)

    @property
    def operator(self) -> Tensor:
        """The block V~ of V, shape (d, d)."""
        d = self.dimension
        return self.V[d + 1 : 2 * d + 1, :d]

    def forward(self, Z: Tensor, examples: int) -> Tensor:
        """f(Z) of eq. (3.1), all columns; ``examples`` is n."""
        return Z + self.V @ Z @ (Z.transpose(1, 2) @ self.W @ Z) / examples

    def last_column(self, Z: Tensor, examples: int) -> Tensor:
        """The last column of f(Z), shape (B, 2d+2), without the others."""
        last = Z[:, :, -1:]
        scores = Z.transpose(1, 2) @ (self.W @ last) / examples
        return (last + self.V @ (Z @ scores)).squeeze(-1)

    def append(self, Z: Tensor, column: Tensor) -> Tensor:
        """Z with ``column`` (B, 2d+2) as its next thought, x and y rows blanked (3.3)."""
        kept = torch.cat(
            [torch.zeros_like(column[:, : self.dimension + 1]), column[:, self.dimension + 1 :]], 1
        )
        return torch.cat([Z, kept.unsqueeze(-1)], dim=2)

    def rollout(self, Z: Tensor, steps: int) -> Tensor:
        """Thoughts w_1 .. w_k of the model's own chain of thought, shape (B, k, d)."""
        k = require_integer("steps", steps, 1)
        examples = Z.shape[2] - 1
        thoughts = []
        for _ in range(k):
            column = self.last_column(Z, examples)
            thoughts.append(column[:, self.dimension + 1 : -1])
            Z = self.append(Z, column)
        return torch.stack(thoughts, dim=1)
