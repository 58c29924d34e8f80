"""GPT-2 without padding, for training and evaluation on a CPU.

The sequences of a micro-batch stand one behind the other, as one long row of tokens:

    sequences  a a a, b b, c            everything but attention sees six tokens and needs to know no more
    attention  [a a a] [b b .] [c . .]  the sequences apart; padded, where several are computed at once

The weights are those of the network that transformers has loaded, and their gradients go straight into `grad`: a copy
of each in between would cost as much again. The row is filled up to one of few lengths, see `length_step`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from convmodel_cli.data.batching import MicroBatch
from convmodel_cli.model.activations import tanh_gelu_
from convmodel_cli.model.gpt2 import GELU, is_plain_gpt2, length_step
from convmodel_cli.model.gradients import add_gradient, gradient_of, working_copy
from convmodel_cli.model.packed_attention import Spans, attend, spans_of
from convmodel_cli.model.packed_head import head_losses
from convmodel_cli.model.products import linear, multiply


def packs(network: PreTrainedModel) -> bool:
    """Whether the network is one that this module computes, on a device for which it is written."""
    return network.device.type == "cpu" and is_plain_gpt2(network)


def row_length(network: PreTrainedModel) -> Callable[[int], int]:
    """The length of a row with so many tokens, see `length_step`."""
    parameters = network.num_parameters()
    return lambda tokens: tokens + _filler(tokens, parameters)


def packed_losses(network: Any, batch: MicroBatch, dtype: torch.dtype) -> Tensor:
    """Negative log-likelihood of each target in nats, of shape (targets,), fp32; matrix products are of `dtype`.

    After `backward` the gradients of the matrices and embeddings have been added to their `grad`.
    """
    parameters = network.num_parameters()
    places, starts = _places(batch, parameters)
    rows = batch.predict_from // batch.ids.shape[1]
    asked = _fill(starts[rows] + batch.predict_from % batch.ids.shape[1], parameters)
    hidden = _last_hidden(network, batch, places, asked, dtype)
    head = network.get_output_embeddings().weight
    targets = _fill(batch.target_ids, parameters)
    return head_losses(hidden, head, working_copy(head, dtype), targets)[: batch.num_targets]


def _places(batch: MicroBatch, parameters: int) -> tuple[Tensor, Tensor]:
    """(place in the flattened batch of each token of the row, place in the row where each sequence starts)"""
    lengths = torch.tensor(batch.lengths)
    real = torch.arange(batch.ids.shape[1]) < lengths[:, None]
    return _fill(real.flatten().nonzero().squeeze(1), parameters), lengths.cumsum(0) - lengths


def _fill(values: Tensor, parameters: int) -> Tensor:
    """Append zeros up to the next of the few lengths in use for a network of so many parameters."""
    return nn.functional.pad(values, (0, _filler(len(values), parameters)))


def _filler(tokens: int, parameters: int) -> int:
    return -tokens % length_step(tokens, parameters)


def _last_hidden(network: Any, batch: MicroBatch, places: Tensor, asked: Tensor, dtype: torch.dtype) -> Tensor:
    """What the head sees of the places in the row that are asked for, of shape (asked, width)."""
    body = network.transformer
    tokens = batch.ids.shape[1]
    ids = batch.ids.flatten()[places]
    x = _Embed.apply(body.wte.weight, body.wpe.weight, ids, places % tokens, _speakers(batch, places))  # type: ignore[no-untyped-call]
    drop = _dropout(body.drop.p if network.training else 0.0)
    spans = spans_of(batch.lengths)
    x = drop(x)
    *before, last = body.h
    for block in before:
        x = _block(block, x, spans, drop, dtype)
    x = _block(last, x, spans, drop, dtype, asked)
    return _norm(body.ln_f, x).to(dtype)


def _speakers(batch: MicroBatch, places: Tensor) -> Tensor | None:
    """(2, tokens of the row): 1 where the first, the second speaker's token type is shown."""
    if batch.types is None:
        return None
    types = batch.types.flatten()[places]
    shown = batch.with_types[places // batch.ids.shape[1]]
    return torch.stack([shown & (types == 0), shown & (types == 1)]).float()


def _block(
    block: Any,
    x: Tensor,
    spans: Spans,
    drop: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
    asked: Tensor | None = None,
) -> Tensor:
    """One layer: (tokens, width) -> the same, or of the rows that are asked for: only its attention needs them all."""
    attention, mlp = block.attn, block.mlp
    mixed = _linear(attention.c_attn, _norm(block.ln_1, x).to(dtype), dtype)
    attended = attend(mixed, spans, attention.num_heads)
    if asked is not None:
        x, attended = x.index_select(0, asked), attended.index_select(0, asked)
    x = x + drop(_linear(attention.c_proj, attended, dtype))
    approximate = GELU[attention.config.activation_function]
    inner = _inner(mlp, _norm(block.ln_2, x).to(dtype), approximate, dtype)
    return x + drop(_linear(mlp.c_proj, inner, dtype))


def _inner(mlp: Any, x: Tensor, approximate: str, dtype: torch.dtype) -> Tensor:
    """The wide layer of an MLP; GPT-2's activation within its product, where no gradient needs what it is made of."""
    is_gpt2s = approximate == "tanh" and x.dtype == torch.bfloat16
    if is_gpt2s and not torch.is_grad_enabled():
        weight, bias = working_copy(mlp.c_fc.weight, dtype), working_copy(mlp.c_fc.bias, dtype)
        return linear(x, weight.t(), bias, approximate)
    wide = _linear(mlp.c_fc, x, dtype)
    output: Tensor = tanh_gelu_(wide) if is_gpt2s and wide.requires_grad else mlp.act(wide)
    return output


def _norm(module: Any, x: Tensor) -> Tensor:
    return nn.functional.layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)


def _linear(module: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    weight, bias = working_copy(module.weight, dtype), working_copy(module.bias, dtype)
    output: Tensor = _Linear.apply(x, module.weight, module.bias, weight, bias)  # type: ignore[no-untyped-call]
    return output


class _Linear(torch.autograd.Function):
    """(tokens, in) -> (tokens, out), with the copies of weight (in, out) and bias that are computed with."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, weight_copy: Tensor, bias_copy: Tensor) -> Tensor:
        ctx.kept = x, weight, bias, weight_copy
        return multiply(x, weight_copy, bias_copy)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias, weight_copy = ctx.kept
        ctx.kept = None
        if weight.requires_grad:
            add_gradient(weight, x.t() @ grad)
            add_gradient(bias, grad.sum(0))
        return grad @ weight_copy.t(), None, None, None, None


class _Embed(torch.autograd.Function):
    """Embeddings of ids, positions and the shown token types: ids of shape (tokens,) -> (tokens, width)."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, places: Tensor, ids: Tensor, positions: Tensor, speakers: Tensor | None
    ) -> Tensor:
        ctx.kept = table, places, ids, positions, speakers
        x = table.index_select(0, ids).add_(places.index_select(0, positions))
        return x if speakers is None else x.addmm_(speakers.t(), table[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        table, places, ids, positions, speakers = ctx.kept
        if places.requires_grad:
            gradient_of(places).index_add_(0, positions, grad)
        if table.requires_grad:
            gradient_of(table).index_add_(0, ids, grad)
            if speakers is not None:
                gradient_of(table)[:2].addmm_(speakers, grad)
        return None, None, None, None, None


def _dropout(rate: float) -> Callable[[Tensor], Tensor]:
    if rate == 0.0:
        return lambda x: x
    # torch's own random numbers are slow on a CPU; they decide where these start
    random = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
    return lambda x: x * _scales(x.shape, x.dtype, rate, random)


def _scales(shape: torch.Size, dtype: torch.dtype, rate: float, random: np.random.Generator) -> Tensor:
    """0 for a value that is dropped, 1 / (1 - rate) for one that is kept."""
    count = shape.numel()
    words = random.integers(0, 2**64, -(-count // 4), dtype=np.uint64)  # of four numbers each
    numbers = torch.from_numpy(words.view(np.int16)[:count]).view(shape)
    first = min(max(round(rate * 2**16), 1), 2**16 - 1) - 2**15  # of those that are kept
    kept = numbers.clamp_(first - 1, first).sub_(first - 1)  # 0 or 1
    scale = torch.tensor(1 / (1 - rate), dtype=dtype)
    if dtype == torch.bfloat16:  # its bits, or none of them: a third of the time of a conversion
        return kept.mul_(int(scale.view(torch.int16))).view(dtype)
    return kept.to(dtype).mul_(scale)
