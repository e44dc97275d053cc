"""From a model's output layer to its logits: scaled (Cohere, Granite), capped (Gemma 2), or neither.

With x the output layer's values, the logits are s x, or c tanh(s x / c) with a cap c. Which numbers a model
has is read from its configuration, and how it uses them is measured: the form that agrees with the model's
own logits is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
_CAP = "final_logit_softcapping"

_AGREES = 2e-2
"""Largest deviation from the model's own logits, as a share of the largest: bfloat16 rounds to 4e-3."""


@dataclass(frozen=True)
class Output:
    """logits = cap tanh(scale x / cap) of the output layer's x; scale x without a cap."""

    scale: float = 1.0
    cap: float | None = None

    def logits(self, x: Tensor) -> Tensor:
        """Logits (..., V) float32 of the output layer's values ``x`` (..., V)."""
        scaled = x.float() if self.scale == 1 else x.float() * self.scale
        return scaled if self.cap is None else self.cap * torch.tanh(scaled / self.cap)

    def slope(self, logits: Tensor) -> Tensor | None:
        """Derivative of each logit by the output layer's value, (..., V); None where it is 1 everywhere."""
        if self.cap is not None:
            return self.scale * (1 - (logits / self.cap) ** 2)
        return None if self.scale == 1 else torch.full_like(logits, self.scale)


def find_output(config: Any, x: Tensor, logits: Tensor) -> Output | None:
    """The form by which ``logits`` (..., V) follow from the values ``x`` (..., V) of the output layer.

    ``config`` is the configuration of the text model. The result is None if no known form agrees.
    """
    known = torch.isfinite(logits)
    if not known.any():
        return Output()
    largest = logits[known].abs().max().clamp(min=torch.finfo(torch.float32).tiny)

    def deviation(form: Output) -> float:
        return float(((form.logits(x) - logits.float()).abs()[known].max() / largest).nan_to_num(torch.inf))

    best = min(_forms(config), key=deviation)
    return best if deviation(best) <= _AGREES else None


def _forms(config: Any) -> Iterator[Output]:
    """Those that the configuration's numbers allow. Where logits are too small to decide, the cap holds."""
    numbers = [float(s) for name in _SCALES if isinstance(s := getattr(config, name, None), (int, float))]
    cap = getattr(config, _CAP, None)
    caps = [float(cap), None] if isinstance(cap, (int, float)) and cap > 0 else [None]
    for scale in dict.fromkeys([1.0, *(form for s in numbers if s for form in (s, 1 / s))]):
        yield from (Output(scale, one) for one in caps)
