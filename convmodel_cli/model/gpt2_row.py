"""One token of a single row through the layers of GPT-2, by few calls.

In a small model a call costs as much as the kernel behind it. So the tensors that are written, and the views of them,
are made once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from convmodel_cli.model.key_values import Step
from convmodel_cli.model.matrices import Matrix, writing_to

_attend = functional.scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Layer:
    """Norms and matrices of a layer: what they compute of (tokens, width)."""

    before_attention: Callable[[Tensor], Tensor]
    attention_in: Matrix
    attention_out: Matrix
    before_mlp: Callable[[Tensor], Tensor]
    mlp_in: Matrix
    mlp_out: Matrix


class RowStep:
    """For one thread at a time: a step overwrites what the one before has written."""

    def __init__(
        self, layers: Sequence[Layer], heads: int, width: int, inner: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        asked = torch.empty((1, 3 * width), dtype=dtype, device=device)
        wide, added = (torch.empty((1, size), dtype=torch.float32, device=device) for size in (inner, width))
        shaped = asked.view(1, 3, heads, 1, -1)
        self._query, self._key_and_value = shaped.select(1, 0), shaped.narrow(1, 1, 2)
        self._layers = [
            replace(
                layer,
                attention_in=writing_to(asked, layer.attention_in) or _copied(asked, layer.attention_in),
                attention_out=writing_to(added, layer.attention_out) or layer.attention_out,
                mlp_in=writing_to(wide, layer.mlp_in) or layer.mlp_in,
                mlp_out=writing_to(added, layer.mlp_out) or layer.mlp_out,
            )
            for layer in layers
        ]

    def __call__(self, x: Tensor, past: Step) -> Tensor:
        """Take the embedding (1, width) of a token through all layers, in place."""
        query, key_and_value = self._query, self._key_and_value
        for layer, place, keys, values in zip(self._layers, past.place, past.keys, past.values, strict=True):
            layer.attention_in(layer.before_attention(x))  # what query, key_and_value are views of
            place.copy_(key_and_value)
            x.add_(layer.attention_out(_attend(query, keys, values).view(1, -1)))
            x.add_(layer.mlp_out(layer.mlp_in(layer.before_mlp(x))))
        return x


def _copied(result: Tensor, matrix: Matrix) -> Matrix:
    return lambda x: result.copy_(matrix(x))
