"""GPT-2's activation in bf16, with what the way back needs of it.

    gelu(x) = x * s,  s = sigmoid(z),  z = 2 * sqrt(2 / pi) * (x + 0.044715 * x^3)

(Hendrycks & Gimpel 2016). torch computes it by a tanh, which takes longer than a sigmoid, and once again on the way
back.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_LINEAR = 2 * math.sqrt(2 / math.pi)  # z = _LINEAR * x + _CUBIC * x^3
_CUBIC = 0.044715 * _LINEAR
_VALUES_A_THREAD = 3 * 2**16  # at once; in fp32 they stay in the caches of its core


def tanh_gelu_(x: Tensor) -> Tensor:
    """The activation of a matrix of bf16, which it overwrites; all in between is fp32."""
    output: Tensor = _TanhGelu.apply(x)  # type: ignore[no-untyped-call]
    return output


class _TanhGelu(torch.autograd.Function):
    """Keeps the derivative, which costs little where the activation is computed, instead of its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        derivative = torch.empty_like(x)
        rows = min(len(x), max(1, _VALUES_A_THREAD * torch.get_num_threads() // x.shape[1]))
        memory = torch.empty(3, rows, x.shape[1], dtype=torch.float32)
        for part, of_part in zip(x.split(rows), derivative.split(rows), strict=True):
            _activate(part, of_part, memory[:, : len(part)])
        ctx.mark_dirty(x)
        ctx.derivative = derivative
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        derivative: Tensor = ctx.derivative
        ctx.derivative = None
        return derivative.mul_(grad)


def _activate(x: Tensor, derivative: Tensor, memory: Tensor) -> None:
    """Overwrite `x` by x * s, `derivative` by s + x * dz/dx * s * (1 - s), and all three parts of `memory`."""
    exact, z, slope = memory
    exact.copy_(x)
    torch.addcmul(torch.tensor(_LINEAR, dtype=torch.float32), exact, exact, value=_CUBIC, out=z).mul_(exact)
    torch.sub(z, exact, alpha=2 / 3 * _LINEAR, out=slope)  # a third of x * dz/dx = 3 * z - 2 * _LINEAR * x
    s = torch.sigmoid(z, out=z)
    x.copy_(exact.mul_(s))
    torch.ops.aten.sigmoid_backward.grad_input(slope, s, grad_input=slope)  # times s * (1 - s)
    derivative.copy_(s.add_(slope, alpha=3))
