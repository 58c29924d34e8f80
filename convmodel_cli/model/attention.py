"""Causal attention that is fast in both directions on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from convmodel_cli.model.packed_attention import future_mask

_NAME = "convmodel"
# The fused kernel's backward pass on CPUs is 2 to 20 times slower than plain products up to about this length.
_LONGEST_PLAIN = 512


def use_fast_attention(network: PreTrainedModel) -> None:
    """Let the network attend through `_attend`, where its kind of model allows that."""
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    if network.config._attn_implementation == "sdpa":
        network.set_attn_implementation(_NAME)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Queries, keys and values of shape (rows, heads, tokens, width) -> (rows, tokens, heads, width)."""
    plain = (
        query.device.type == "cpu"
        and query.requires_grad
        and attention_mask is None
        and dropout == 0.0
        and query.shape == key.shape
        and query.shape[2] <= _LONGEST_PLAIN
    )
    if plain:
        return _attend_plainly(query, key, value, scaling or query.shape[-1] ** -0.5), None
    output: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return output


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    rows, heads, tokens, width = query.shape
    flat = (rows * heads, tokens, width)
    scores = torch.baddbmm(
        future_mask(tokens, query.dtype).expand(rows * heads, tokens, tokens),
        query.reshape(flat),
        key.reshape(flat).transpose(1, 2),
        alpha=scaling,
    )
    mixed = torch.bmm(scores.softmax(-1), value.reshape(flat))
    return mixed.view(rows, heads, tokens, width).transpose(1, 2)
