"""A model linearised at its pretrained weights: its outputs there, plus Jacobian times change of the weights.

f(theta0) + J(theta0) (theta - theta0), with J never formed: the second term is one pass of forward-mode
differentiation, and the gradient of a loss one backward pass through the model at theta0. The change starts
at 0 and is what training moves, with the optimiser, batches and clipping of the real model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel


def _whole(found: Any) -> Any:
    return found


class Linearised(nn.Module):
    """The first-order expansion of a model's outputs in its weights, at their present values.

    Its parameters are the changes of the weights: as many, of the same shapes, under the same names with "/"
    for ".", and 0 at first. The model's own weights are copied, so it may be trained or dropped afterwards.

    Args:
        module: the model; it must give the same outputs for the same inputs (no dropout) and have
            forward derivatives without gradients (torch's own operations do).
        read: what is linearised of what the model returns, one tensor; all of it by default.
    """

    def __init__(self, module: nn.Module, read: Callable[[Any], Tensor] = _whole) -> None:
        super().__init__()
        self._model, self._read = (module,), read  # In a tuple, so that it is no part of this module.
        self._start = {name: weight.detach().clone() for name, weight in module.named_parameters()}
        for name, weight in self._start.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(torch.zeros_like(weight)))

    def outputs(self, *inputs: Any, **named: Any) -> Tensor:
        """The linearised outputs for what the model is called with; differentiable in the change, once.

        The value is that of the expansion. The graph is that of the model at its pretrained weights: their
        derivative is the Jacobian, which is all that an expansion of first order needs.
        """

        def run(weights: dict[str, Tensor]) -> Tensor:
            return self._read(functional_call(self._model[0], weights, inputs, named))

        change = {name: self.get_parameter(name.replace(".", "/")) for name in self._start}
        # Of torch's attention kernels, this one has a forward derivative.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            tangents = {name: weight.detach() for name, weight in change.items()}
            value, moved = cast("tuple[Tensor, Tensor]", jvp(run, (self._start,), (tangents,)))
        if not torch.is_grad_enabled():
            return value + moved
        # The value of c - c.detach() is 0 and its derivative 1: the pass runs at the pretrained weights.
        weights = {
            name: start + (change[name] - change[name].detach()) for name, start in self._start.items()
        }
        return run(weights) + moved.detach()

    forward = outputs
