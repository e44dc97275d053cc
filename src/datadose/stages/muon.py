"""Muon for the matrices inside a model, AdamW for its other parameters, as one optimiser.

Muon (Jordan et al. 2024) steps along the momentum of a matrix with its singular values set near 1. Read-in,
read-out, positions, norms and biases are no maps within the network and have AdamW, as usual. torch's Muon
serves one kind of parameter at a time; here the two are one optimiser, with one learning rate: Muon's steps
have the size of AdamW's (Liu et al. 2025, arXiv 2502.16982).
"""

from __future__ import annotations

from typing import Any

import torch

from datadose.errors import reject


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon and AdamW in one; state and parameter groups are those of both, Muon's first.

    Args:
        matrices: two-dimensional parameters, at least one.
        others: all other parameters.
        learning_rate: > 0, of both.
        weight_decay: decoupled, of both.

    Raises:
        InputError: a matrix of more or fewer than two dimensions (copies of a model side by side have
            three), or none at all.
    """

    def __init__(
        self,
        matrices: list[torch.nn.Parameter],
        others: list[torch.nn.Parameter],
        learning_rate: float,
        weight_decay: float = 0.0,
    ) -> None:
        shapes = sorted({p.ndim for p in matrices})
        if shapes != [2]:
            shown = f"muon on parameters of {shapes} dimensions" if shapes else "muon without a matrix"
            reject("optimiser", shown, "adam or adamw, or a single GPT, whose matrices have two dimensions")
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, learning_rate, weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, learning_rate, weight_decay=weight_decay),
        ]
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

    def step(self, closure: Any = None) -> None:
        """One step of both, from the gradients that are there; a closure is refused."""
        if closure is not None:
            reject("closure", closure, "none")
        for part in self.parts:
            part.step()
