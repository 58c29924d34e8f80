"""torch's Muon, with all matrices of one shape in one product, and each matrix by itself where several are one weight.

Queries, keys and values learn faster when each has its own singular values brought near 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon


class GroupedMuon(Muon):
    """The same state and, in bf16, the same updates; small matrices are not multiplied one by one.

    The weights of a group with `parts` are that many matrices side by side. Singular values are brought near 1 in
    `dtype`. In bf16, which torch takes whatever a run is in, the last bits of gradients are seen in the loss, and those
    depend on how a step is cut into micro-batches.
    """

    def __init__(self, params: Any, *, dtype: torch.dtype, **options: Any) -> None:
        super().__init__(params, **options)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            matrices = sorted(self._matrices(group), key=lambda matrix: _wide(matrix.weight))
            for _, alike in groupby(matrices, key=lambda matrix: _wide(matrix.weight)):
                _update(list(alike), group, self._dtype)

    def _matrices(self, group: dict[str, Any]) -> Iterator[_Matrix]:
        for weight in group["params"]:
            if weight.grad is None:
                continue
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            whole = weight, weight.grad, self.state[weight]["momentum_buffer"]
            yield from map(_Matrix, *(tensor.chunk(group.get("parts", 1), dim=1) for tensor in whole))


@dataclass(frozen=True, slots=True)
class _Matrix:
    weight: Tensor
    gradient: Tensor
    momentum: Tensor


def _update(matrices: Sequence[_Matrix], group: dict[str, Any], dtype: torch.dtype) -> None:
    weights, gradients, momenta = zip(*((own.weight, own.gradient, own.momentum) for own in matrices), strict=True)
    torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
    ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
    directions = orthogonalize(
        torch.stack([_turned(update).to(dtype) for update in ahead]),
        group["ns_coefficients"],
        group["ns_steps"],
        group["eps"],
    )
    rate = group["lr"] * 0.2 * max(weights[0].shape) ** 0.5  # Liu et al. 2025: the size of AdamW's updates
    torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
    for weight, direction in zip(weights, directions, strict=True):
        _turned(weight).add_(direction, alpha=-rate)


def _wide(weight: Tensor) -> tuple[int, int]:
    return min(weight.shape), max(weight.shape)


def _turned(weight: Tensor) -> Tensor:
    return weight.T if weight.shape[0] > weight.shape[1] else weight


def orthogonalize(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Bring the singular values of wide matrices (count, rows, columns) near 1 by Newton-Schulz; Jordan et al. 2024."""
    a, b, c = coefficients
    matrices = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = torch.bmm(matrices, matrices.mT)
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        matrices = torch.baddbmm(matrices, update, matrices, beta=a)
    return matrices
