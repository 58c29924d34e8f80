"""Gradients that go straight to where they are summed up, and copies of weights in a lower precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_VALUES_AT_ONCE = 2**19  # their copy stays in the processor's cache

_copies = WeakTensorKeyDictionary()


def gradient_of(weight: Tensor) -> Tensor:
    """Its `grad`, which is made if there is none."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def add_gradient(weight: Tensor, gradient: Tensor) -> None:
    """Add to its `grad`, some rows at a time: torch makes a copy in fp32 of what it adds."""
    rows = max(1, _VALUES_AT_ONCE // max(1, gradient[0].numel()))
    for total, part in zip(gradient_of(weight).split(rows), gradient.split(rows), strict=True):
        total.add_(part)


def working_copy(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in this type, computed anew only when it has changed."""
    if weight.dtype == dtype:
        return weight.detach()
    version: int
    copy: Tensor | None
    version, copy = _copies.get(weight, (-1, None))
    if copy is None or version != weight._version:
        with torch.inference_mode(False), torch.no_grad():
            copy = weight.to(dtype) if copy is None else copy.copy_(weight)
        _copies[weight] = (weight._version, copy)
    return copy
