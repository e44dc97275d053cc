"""Muon for the matrices inside a model, AdamW for its other parameters, as one optimiser.

Muon (Jordan et al. 2024) steps along the momentum of a matrix with its singular values set near 1. Read-in,
read-out, positions, norms and biases are no maps within the network and have AdamW, as usual. torch's Muon
serves one kind of parameter at a time; here the two are one optimiser, with one learning rate: Muon's steps
have the size of AdamW's (Liu et al. 2025, arXiv 2502.16982).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from datadose.errors import reject


class RecordedMuon(torch.optim.Muon):
    """torch's Muon for steps in a CUDA graph: the rate is a tensor, matrices of one shape share each product.

    The same numbers up to the rounding of bfloat16, in which Muon's iteration works. ``learning_rate`` is a
    tensor of one entry; the other arguments are torch's.
    """

    def __init__(
        self, params: Iterable[torch.nn.Parameter], learning_rate: Tensor, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, float(learning_rate), weight_decay, adjust_lr_fn="match_rms_adamw")
        for group in self.param_groups:
            group["lr"] = learning_rate

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step, from the gradients that are there; a closure is not called."""
        del closure
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for alike in shapes.values():
                self._move([p for p in alike if p.grad is not None], group)

    def _move(self, matrices: list[Any], group: dict[str, Any]) -> None:
        """Move matrices of one shape (rows, columns)."""
        if not matrices:
            return
        gradients = torch.stack([p.grad for p in matrices])
        for p in matrices:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        kept = [self.state[p]["momentum_buffer"] for p in matrices]
        torch._foreach_lerp_(kept, [*gradients.unbind()], 1 - group["momentum"])
        ahead = torch.lerp(gradients, torch.stack(kept), group["momentum"])
        ways = _orthogonal(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"]
        torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        size = 0.2 * max(gradients.shape[-2:]) ** 0.5
        torch._foreach_sub_(matrices, [*(ways.to(gradients.dtype) * (rate * size)).unbind()])


def _orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Matrices (count, rows, columns) with singular values set near 1: Muon's Newton-Schulz iteration."""
    a, b, c = coefficients
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.to(torch.bfloat16)
    x = x.transpose(1, 2) if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon and AdamW in one; state and parameter groups are those of both, Muon's first.

    Args:
        matrices: two-dimensional parameters, at least one.
        others: all other parameters, if any.
        learning_rate: > 0, of both; a tensor on the parameters' CUDA device for steps in a CUDA graph.
        weight_decay: decoupled, of both.

    Raises:
        InputError: a matrix of more or fewer than two dimensions (copies of a model side by side have
            three), or none at all.
    """

    def __init__(
        self,
        matrices: list[torch.nn.Parameter],
        others: list[torch.nn.Parameter],
        learning_rate: float | Tensor,
        weight_decay: float = 0.0,
    ) -> None:
        shapes = sorted({p.ndim for p in matrices})
        if shapes != [2]:
            shown = f"muon on parameters of {shapes} dimensions" if shapes else "muon without a matrix"
            reject("optimiser", shown, "adam or adamw, or a single GPT, whose matrices have two dimensions")
        recorded = isinstance(learning_rate, Tensor)
        first = (
            RecordedMuon(matrices, learning_rate, weight_decay)
            if isinstance(learning_rate, Tensor)
            else torch.optim.Muon(matrices, learning_rate, weight_decay, adjust_lr_fn="match_rms_adamw")
        )
        self.parts: list[torch.optim.Optimizer] = [first]
        # Whatever is not a matrix may be frozen.
        if others:
            self.parts.append(
                torch.optim.AdamW(
                    others, learning_rate, weight_decay=weight_decay, capturable=recorded, fused=True
                )
            )
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on the state and the groups of the whole."""
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.state, part.param_groups = self.state, [group]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Any = None) -> Any:
        """One step of both, from the gradients that are there; a closure is refused."""
        if closure is not None:
            reject("closure", closure, "none")
        for part in self.parts:
            part.step()
