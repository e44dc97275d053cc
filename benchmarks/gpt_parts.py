"""What a training step of the transformer is made of: each part alone, in the shapes and types of the step.

A part runs as often as in the step, forward and backward, on three sets of tensors in turn (one alone would
stay in the cache). The step's own calls are used wherever they can be taken out of it. What the parts leave
over is printed as it is: calls, gradients of the last block's thoughts, caches that the parts share. The
operating system's part is what it charges the step for giving and taking memory.
"""

from __future__ import annotations

import itertools
import resource
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from datadose.models import GptModel
from datadose.models.gpt_operations import attend, tanh_gelu

Act: TypeAlias = Callable[[], object]
_SETS = 3


def map_shapes(model: GptModel) -> list[tuple[int, int]]:
    """(outside, inside) of all linear maps of all tokens in a step: those of all blocks but the last."""
    whole: list[Any] = [m for b in list(model.blocks)[:-1] for m in b.modules() if isinstance(m, nn.Linear)]
    # The last block needs keys and values of all tokens, and nothing else of the prompt's.
    return [tuple(m.weight.shape) for m in whole] + [(2 * model.config.width, model.config.width)]


class Products:
    """The products with weight matrices of one SFT step, forward and backward, and nothing else."""

    def __init__(self, model: GptModel, rows: int, dtype: torch.dtype) -> None:
        self.work = [
            tuple(torch.randn(*s).to(dtype) for s in ((o, i), (rows, i), (rows, o)))
            for o, i in map_shapes(model)
        ]

    def __call__(self) -> None:
        """All of them once."""
        for W, x, g in self.work:
            functional.linear(x, W)
            g @ W
            g.T @ x


def _in_turn(acts: Sequence[Act], times: int) -> Act:
    def run() -> None:
        for act in itertools.islice(itertools.cycle(acts), times):
            act()

    return run


def _there_and_back(function: Callable[..., Tensor], shapes: Sequence[tuple[int, ...]], dtype: Any) -> Act:
    """``function`` of random tensors and its gradient in all of them."""
    inputs = [torch.randn(*shape).to(dtype).requires_grad_() for shape in shapes]
    gradient = torch.randn_like(function(*inputs))

    def run() -> None:
        torch.autograd.grad(function(*inputs), inputs, gradient)

    return run


def _casts(rows: int, width: int, weights: int) -> Act:
    """Under autocast a block casts its norms' outputs, its weights and the gradients of all of them."""
    streams, maps = torch.randn(2 * rows, width), torch.randn(weights)
    low_streams, low_maps = streams.bfloat16(), maps.bfloat16()

    def run() -> None:
        for _ in range(2):
            streams.bfloat16()
        low_streams.float()
        maps.bfloat16()
        low_maps.float()

    return run


def _ends(model: GptModel, prompts: int, tokens: int, keep: int) -> Act:
    x = torch.randn(prompts, tokens, model.config.dimension + 1)

    def run() -> None:
        y = model.read_in(x) + model.positions[:tokens]
        found = model.read_out(model.final_norm(y[:, -keep:]))
        torch.autograd.grad(found.square().sum(), [*model.read_in.parameters(), *model.read_out.parameters()])

    return run


def parts(
    model: GptModel, optimiser: torch.optim.Optimizer, prompts: int, tokens: int, keep: int, low: bool
) -> dict[str, Act]:
    """The parts of a step on ``prompts`` sequences of ``tokens``, of which the last block keeps ``keep``."""
    C, H, blocks, rows = model.config.width, model.config.heads, len(model.blocks) - 1, prompts * tokens
    dtype = torch.bfloat16 if low else torch.float32

    def attention(joint: Tensor) -> Tensor:
        q, k, v = joint.view(prompts, tokens, 3, H, C // H).permute(2, 0, 3, 1, 4).unbind(0)
        return attend(q, k, v).transpose(1, 2).flatten(2)

    def norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return functional.layer_norm(x, (C,), scale, shift)

    def add(x: Tensor, y: Tensor) -> Callable[[], Tensor]:
        return lambda: x + y

    def sets(function: Callable[..., Tensor], shapes: Sequence[tuple[int, ...]], of: Any) -> list[Act]:
        return [_there_and_back(function, shapes, of) for _ in range(_SETS)]

    maps = [
        _there_and_back(functional.linear, [(rows, i), (o, i), (o,)], dtype) for o, i in map_shapes(model)
    ]
    stream = prompts, tokens, C
    # A residual sum forward, and where its two ways meet again backward.
    sums = [add(torch.randn(stream), torch.randn(stream).to(of)) for of in (dtype, torch.float32)]
    made: dict[str, Act] = {
        "linear maps": _in_turn(maps, len(maps)),
        "attention": _in_turn(sets(attention, [(prompts, tokens, 3 * C)], dtype), blocks),
        "GELU": _in_turn(sets(tanh_gelu, [(prompts, tokens, 4 * C)], dtype), blocks),
        "norms": _in_turn(sets(norm, [stream, (C,), (C,)], torch.float32), 2 * blocks + 1),
        "residual sums": _in_turn(sums, 4 * blocks),
        "optimiser": optimiser.step,
        "ends and loss": _ends(model, prompts, tokens, keep),
    }
    if low:
        weights = sum(o * i for o, i in map_shapes(model)) // blocks
        made["casts"] = _in_turn([_casts(rows, C, weights) for _ in range(_SETS)], blocks)
    return made


def system_seconds(act: Act) -> float:
    """What the operating system takes of a call."""
    start = resource.getrusage(resource.RUSAGE_SELF).ru_stime
    act()
    return resource.getrusage(resource.RUSAGE_SELF).ru_stime - start


def show(name: str, step: float, products: float, took: dict[str, float]) -> None:
    """One line: the shares of a step of ``step`` seconds."""
    left = step - sum(took.values())
    shares = ", ".join(f"{part} {s / step:.1%}" for part, s in sorted(took.items(), key=lambda p: -p[1]))
    print(f"  PARTS {name}: step {step:.2f} s; {shares}; unexplained {left / step:.1%}")
    print(f"  RATIO {name}, step against products alone: {step / products:.2f} times")
