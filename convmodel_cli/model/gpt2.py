"""What training and decoding know of a GPT-2 that they compute without transformers' modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from torch import nn
from transformers import GPT2LMHeadModel, PreTrainedModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.pytorch_utils import Conv1D

GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}  # name in a config -> torch's approximation

_AFFORDABLE = 2**32  # parameters times tokens to fill up with: 1,024 for a model of 4 x 256, 32 for one of 124M


def is_plain_gpt2(network: PreTrainedModel) -> bool:
    """Whether the network is a GPT-2 without its variants, adapters, wrappers or hooks."""
    if type(network) is not GPT2LMHeadModel or is_hooked(network.modules()):
        return False
    config, net = network.config, cast(Any, network)
    varies = config.scale_attn_by_inverse_layer_idx or config.reorder_and_upcast_attn or config.add_cross_attention
    if varies or not config.scale_attn_weights or config.activation_function not in GELU:
        return False
    matrices = [module for block in net.transformer.h for module in (*block.attn.children(), *block.mlp.children())]
    kinds = {type(module) for module in matrices if any(True for _ in module.parameters())}
    return kinds == {Conv1D} and type(net.lm_head) is nn.Linear and net.lm_head.bias is None


def is_hooked(modules: Iterable[nn.Module]) -> bool:
    """Whether anything is called beside the forward pass of one of them."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def fused_projections(network: nn.Module) -> list[nn.Parameter]:
    """The weights that hold the matrices of queries, keys and values side by side, three in each."""
    attentions = (module for module in network.modules() if type(module) is GPT2Attention)
    return [attention.c_attn.weight for attention in attentions if not attention.is_cross_attention]


def length_step(count: int, parameters: int = 0) -> int:
    """Of what a number of tokens is made a multiple, so that few shapes occur, for a network of so many parameters.

    There are eight between two powers of two, and from 4,096 on all multiples of 256; finer ones for a large network,
    where each token to fill up with is more work. oneDNN prepares a kernel for every shape of a product that it has
    not met, which takes longer than a small product.
    """
    eighth = 1 << max(0, (count - 1).bit_length() - 4)
    affordable = 1 << max(0, (_AFFORDABLE // max(1, parameters)).bit_length() - 1)
    return max(16, min(256, eighth, affordable))
