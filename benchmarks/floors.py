"""What the machine would do if it did nothing but the matrix products of a GPT-2, or but the kernels that it needs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measure import Figures
from torch import Tensor
from torch.nn import functional

from convmodel_cli.model.activations import tanh_gelu_
from convmodel_cli.model.gpt2 import GELU
from convmodel_cli.model.matrices import make_matrix

_LOGITS = 2**24  # as many as are made at once


def products(config: Any, tokens: int, device: str, backward: bool) -> Figures:
    """Tokens per second in bf16 for `tokens` at once, in the products' own shapes, forward or also backward."""
    shapes = [*layer_shapes(config), head_shape(config)]
    alone = {shape: product_seconds(tokens, *shape, torch.device(device), backward) for shape in set(shapes)}
    seconds = sum(alone[shape] for shape in shapes)
    operations = sum((6 if backward else 2) * inner * outer for inner, outer in shapes)
    return {"tokens_per_second": tokens / seconds, "tera_operations_per_second": operations * tokens / seconds / 1e12}


def kernels(config: Any, tokens: int, length: int, backward: bool) -> Figures:
    """As `products` on a CPU, with all else that tokens in sequences of this length need: torch's kernels one by one.

    Each is measured alone, on the same tensors again and again, which caches hold as far as they can. Nothing is
    copied, gathered or padded; of torch's ways to attend the faster one counts.
    """
    width, layers, rows = config.n_embd, config.n_layer, tokens // length
    x, vector = drawn(tokens, width), drawn(width)
    queries = drawn(rows, config.n_head, length, width // config.n_head).bfloat16()
    of_logits = min(tokens, _LOGITS // config.vocab_size)
    targets = torch.randint(config.vocab_size, (of_logits,))

    def alone(function: Callable[..., Tensor], *inputs: Tensor) -> float:
        return kernel_seconds(function, inputs, backward)

    norm = alone(lambda x, w: functional.layer_norm(x, (width,), w, w), x, vector)
    residual = alone(torch.add, x, x.bfloat16())
    gelu = alone(activation(config.activation_function, backward), drawn(tokens, 4 * width).bfloat16())
    attention = min(alone(way, queries, queries, queries) for way in (attend_fused, attend_plainly))
    loss = alone(
        lambda x: functional.cross_entropy(x, targets, reduction="none"), drawn(of_logits, config.vocab_size).bfloat16()
    )
    rest = norm * (2 * layers + 1) + (2 * residual + gelu) * layers
    rest += attention * layers * tokens / (rows * length) + loss * tokens / of_logits
    seconds = tokens / products(config, tokens, "cpu", backward)["tokens_per_second"] + rest
    return {"tokens_per_second": tokens / seconds, "share_of_products": 1 - rest / seconds}


def activation(name: str, backward: bool) -> Callable[[Tensor], Tensor]:
    """torch's kernel, or what is faster where there is a way back."""
    approximate = GELU[name]
    if backward and approximate == "tanh":
        return lambda x: tanh_gelu_(x.clone())
    return lambda x: functional.gelu(x, approximate=approximate)


def optimizing(config: Any, repeats: int = 5) -> tuple[float, float]:
    """Seconds of a step of AdamW, a median, and of the first one, which takes memory for gradients, moments and copies.

    A step clears and measures the gradients and copies the weights to bf16, as every training in bf16 with weights in
    fp32 has to. The first one is what memory that is touched for the first time makes it, which is seldom the same.
    """
    tables = (config.vocab_size + config.n_positions) * config.n_embd
    weight = torch.nn.Parameter(drawn(tables + sum(inner * outer for inner, outer in layer_shapes(config))))
    optimizer = torch.optim.AdamW([weight], fused=True)
    seconds = []
    started = time.perf_counter()
    copy, weight.grad = weight.detach().bfloat16(), torch.zeros_like(weight)
    for _ in range(1 + repeats):
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        weight.grad.zero_()
        copy.copy_(weight.detach())
    return statistics.median(seconds[1:]), seconds[0]


def attend_fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, is_causal=query.shape[2] > 1)


def attend_plainly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    future = torch.full((query.shape[2],) * 2, -torch.inf, dtype=query.dtype).triu(1)
    scores = torch.baddbmm(
        future.expand(query.shape[0] * query.shape[1], -1, -1),
        query.flatten(0, 1),
        key.flatten(0, 1).mT,
        alpha=query.shape[-1] ** -0.5,
    )
    return scores.softmax(-1) @ value.flatten(0, 1)


def attend_with_one(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = torch.bmm(query.flatten(0, 1), key.flatten(0, 1).mT)
    return scores.softmax(-1) @ value.flatten(0, 1)


def kernel_seconds(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], backward: bool, repeats: int = 9
) -> float:
    """Of this function of these tensors, and of their gradients from one of its result; a median."""
    inputs = tuple(each.detach().requires_grad_(backward) for each in inputs)
    gradient = torch.ones_like(function(*inputs)) if backward else None
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        output = function(*inputs)
        if backward:
            torch.autograd.grad(output, inputs, gradient)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape)


def products_of_decoding(
    config: Any, precision: str, rows: int = 1, reading: bool = False, repeats: int = 99
) -> Figures:
    """Tokens per second for `rows` at once by the matrices of decoding, on a CPU; all of them, as no cache holds.

    Of tokens that are only read, the last layer needs keys and values and nothing else.
    """
    layers = layer_shapes(config)
    keys_and_values = (config.n_embd, 2 * config.n_embd)
    shapes = [*layers[:-4], keys_and_values] if reading else [*layers, head_shape(config)]
    with torch.inference_mode():
        made = [make_matrix(torch.randn(shape), None, precision) for shape in shapes]
        inputs = [torch.randn(rows, inner) for inner, _ in shapes]
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            for matrix, x in zip(made, inputs, strict=True):
                matrix(x)
            seconds.append(time.perf_counter() - started)
    return {"tokens_per_second": rows / statistics.median(seconds)}


def attention_of_decoding(config: Any, rows: int, tokens: int, places: int, repeats: int = 5) -> float:
    """Seconds for a token of each of `rows`, or all of them, to attend in all layers, on a CPU by the fastest way.

    Fused or plain, in fp32 or bf16; `tokens` is 1 or `places`. Each layer has keys and values of its own.
    """
    assert tokens in (1, places)
    heads, width = config.n_head, config.n_embd // config.n_head
    ways = (attend_fused, attend_plainly if tokens > 1 else attend_with_one)
    medians = []
    for dtype in (torch.float32, torch.bfloat16):
        query = drawn(rows, heads, tokens, width).to(dtype)
        held = [drawn(2, rows, heads, places, width).to(dtype).unbind() for _ in range(config.n_layer)]
        medians += [kernel_seconds(partial(through_layers, way, held), (query,), False, repeats) for way in ways]
    return min(medians)


def through_layers(way: Callable[..., Tensor], held: list[tuple[Tensor, ...]], query: Tensor) -> Tensor:
    for keys, values in held:
        output = way(query, keys, values)
    return output


def layer_shapes(config: Any) -> list[tuple[int, int]]:
    """(in, out) of each matrix of the layers, in order."""
    width = config.n_embd
    return [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)] * config.n_layer


def head_shape(config: Any) -> tuple[int, int]:
    return config.n_embd, config.vocab_size


def product_seconds(
    tokens: int, inner: int, outer: int, device: torch.device, backward: bool, repeats: int = 9
) -> float:
    """Of one layer's product, and of the two of its backward pass; a median."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.bfloat16, device=device)

    inputs, weights, gradients = draw(tokens, inner), draw(inner, outer), draw(tokens, outer)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        inputs @ weights
        if backward:
            gradients @ weights.t()
            inputs.t() @ gradients
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
