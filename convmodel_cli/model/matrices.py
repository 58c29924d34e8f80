"""Products of a few rows with a large matrix: what decoding spends its time on, in each precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Matrix = Callable[[Tensor], Tensor]  # (rows, in) -> (rows, out)


_MOST_ROWS_OF_KERNEL = 8  # more are faster with weights of 16 bits
_LARGEST_INT8 = 127


def make_matrix(weight: Tensor, bias: Tensor | None, precision: str) -> Matrix:
    """x -> x @ weight + bias for a weight of shape (in, out); "int8" rounds each column on a scale of its own."""
    if precision == "bf16":
        return _Bf16(weight.T.to(torch.bfloat16).contiguous(), None if bias is None else bias.to(torch.bfloat16))
    if precision == "int8":
        return _Int8(weight, bias)
    return _Plain(weight, bias)


def make_head(weight: Tensor, precision: str) -> Matrix:
    """As `make_matrix`, for logits: their common part, which tells nothing but may be large, is kept from rounding."""
    if precision == "fp32":
        return make_matrix(weight, None, precision)
    common = weight.mean(dim=1, keepdim=True)
    return _Centred(make_matrix(weight - common, None, precision), common)


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


class _Int8:
    """Weights of 8 bits, activations of 16, sums in fp32: a quarter of the memory that fp32 reads for one row."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        largest = weight.abs().amax(dim=0)
        self._scales = (largest / _LARGEST_INT8).clamp(min=1e-30).to(torch.bfloat16)
        rounded = (weight / self._scales).round_().clamp_(-_LARGEST_INT8, _LARGEST_INT8)
        self._weight = rounded.to(torch.int8).T.contiguous()
        self._bias = bias
        self._for_many: _Bf16 | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) > _MOST_ROWS_OF_KERNEL:
            return self._many(x)
        product = torch._weight_int8pack_mm(x.to(torch.bfloat16), self._weight, self._scales)
        return product if self._bias is None else self._bias + product

    def _many(self, x: Tensor) -> Tensor:
        if self._for_many is None:
            bias = None if self._bias is None else self._bias.to(torch.bfloat16)
            self._for_many = _Bf16(self._weight.to(torch.bfloat16) * self._scales[:, None], bias)
        return self._for_many(x)


@dataclass(frozen=True, slots=True)
class _Centred:
    """The product with what all columns have in common, added to that with the rest."""

    rest: Matrix
    common: Tensor  # (in, 1)

    def __call__(self, x: Tensor) -> Tensor:
        return self.rest(x) + x @ self.common
