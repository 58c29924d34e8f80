"""Products of a few rows with a large matrix: what decoding spends its time on, in each precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Matrix = Callable[[Tensor], Tensor]  # (rows, in) -> (rows, out)


def make_matrix(weight: Tensor, bias: Tensor | None, precision: str) -> Matrix:
    """x -> x @ weight + bias for a weight of shape (in, out)."""
    if precision == "bf16":
        return _Bf16(weight.T.to(torch.bfloat16).contiguous(), None if bias is None else bias.to(torch.bfloat16))
    return _Plain(weight, bias)


@dataclass(frozen=True, slots=True)
class _Plain:
    """The weight as it is, in either layout: (in, out), or a view of (out, in)."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)


@dataclass(frozen=True, slots=True)
class _Bf16:
    weight: Tensor  # (out, in), which is the faster layout for few rows
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(torch.bfloat16), self.weight, self.bias)
