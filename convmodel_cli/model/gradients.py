"""Gradients that go straight to where they are summed up, and copies of weights in a lower precision."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_VALUES_AT_ONCE = 2**19  # their copy stays in the processor's cache

_copies = WeakTensorKeyDictionary()
_memory = WeakTensorKeyDictionary()  # of gradients that have been cleared


def gradient_of(weight: Tensor) -> Tensor:
    """Its `grad`, which is 0 everywhere if there was none."""
    if weight.grad is None:
        weight.grad = _memory_for(weight).zero_()
    return weight.grad


def add_gradient(weight: Tensor, gradient: Tensor) -> None:
    """Add to its `grad`, some rows at a time: torch makes a copy in fp32 of what it adds."""
    rows = max(1, _VALUES_AT_ONCE // max(1, gradient[0].numel()))
    add_parts(weight, gradient.split(rows))


def add_parts(weight: Tensor, parts: Iterable[Tensor]) -> None:
    """Add to its `grad` what comes row by row, some rows in each part, and every row in one."""
    is_first = weight.grad is None
    total = weight.grad = _memory_for(weight) if weight.grad is None else weight.grad
    first_row = 0
    for part in parts:
        rows = total[first_row : first_row + len(part)]
        rows.copy_(part) if is_first else rows.add_(part)
        first_row += len(part)
    assert first_row == len(total)


def clear_gradients(weights: Iterable[Tensor]) -> None:
    """Leave none of them behind but their memory, which the next ones are written to without being set to 0 before.

    Vectors keep theirs as zeros: small ones that are freed and made again cut memory into pieces.
    """
    for weight in weights:
        if weight.grad is not None and weight.ndim == 1:
            weight.grad.zero_()
        elif weight.grad is not None:
            _memory[weight] = weight.grad
            weight.grad = None


def _memory_for(weight: Tensor) -> Tensor:
    memory: Tensor | None = _memory.pop(weight, None)
    is_fit = memory is not None and memory.device == weight.device and memory.dtype == weight.dtype
    return memory if memory is not None and is_fit else torch.empty_like(weight)


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
