"""What GPT-2's blocks are made of, as a CPU does it fast: GELU and causal attention.

Each is the textbook function up to rounding. GELU and its derivative are made together, in cache-sized
pieces; without gradients and on other devices it is torch's own.
``python benchmarks/gpt.py`` shows what each takes of a training step, and what is left.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from datadose.shapes import Float

_PIECE = 1 << 17
"""Entries of a GELU piece: its few temporaries stay in the cache, and Python costs nothing yet."""


class _TanhGelu(torch.autograd.Function):
    """x sigma(v), v = 2 sqrt(2/pi) (x + 0.044715 x^3): GPT-2's GELU, as (1 + tanh(v/2)) / 2 = sigma(v).

    torch's tanh is slow on CPU, its sigmoid fast. The derivative sigma + x v' sigma (1 - sigma) is made
    along with the value and kept in place of x, so that the way back is one product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        flat = x.reshape(-1)
        value, slope = torch.empty_like(flat), torch.empty_like(flat)
        work = torch.promote_types(x.dtype, torch.float32)
        a = torch.tensor(2 * math.sqrt(2 / math.pi), dtype=work)
        b = 0.044715 * a.item()
        pieces = [torch.split(whole, _PIECE) for whole in (flat, value, slope)]
        for source, to_value, to_slope in zip(*pieces, strict=True):
            t = source.to(work)
            square = t * t
            gate = torch.add(a, square, alpha=b).mul_(t).sigmoid_()
            to_value.copy_(t * gate)
            moved = torch.add(a, square, alpha=3 * b, out=square).mul_(t).mul_(gate)
            to_slope.copy_(torch.addcmul(moved, moved, gate, value=-1).add_(gate))
        ctx.save_for_backward(slope.view(x.shape))
        return value.view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return cast("Tensor", gradient * slope)


def tanh_gelu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """GELU in GPT-2's tanh form, entry by entry; on CPU differentiable once."""
    if x.device.type != "cpu" or not (torch.is_grad_enabled() and x.requires_grad):
        return functional.gelu(x, approximate="tanh")
    made: Any = _TanhGelu
    return cast("Tensor", made.apply(x))


def softmax_weights(scores: Tensor, like: Tensor) -> Tensor:
    """Attention weights: softmax in float32 at least (in bfloat16 it is coarse and, on CPU, slow)."""
    precise = torch.promote_types(scores.dtype, torch.float32)
    return torch.softmax(scores, dim=-1, dtype=precise).to(like.dtype)


def attend(
    q: Float[Tensor, "B H m D"], k: Float[Tensor, "B H T D"], v: Float[Tensor, "B H T D"]
) -> Float[Tensor, "B H m D"]:
    """Causal attention of the last m of T tokens."""
    B, H, m, D = q.shape
    T = k.shape[-2]
    # On CPU the fused kernel wins in float32 alone: its bfloat16 backward is five times slower than products.
    if m == T and (q.dtype in (torch.float32, torch.float64) or q.device.type != "cpu"):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    q, k, v = q.reshape(B * H, m, D), k.reshape(B * H, T, D), v.reshape(B * H, T, D)
    hidden = torch.full((m, T), -math.inf, dtype=q.dtype, device=q.device).triu(T - m + 1)
    scores = torch.baddbmm(hidden, q, k.transpose(1, 2), alpha=1 / math.sqrt(D))
    return torch.bmm(softmax_weights(scores, v), v).view(B, H, m, D)
