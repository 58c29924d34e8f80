"""What the machine would do if it did nothing but the matrix products of a GPT-2's layers and its head."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from measure import Figures

from convmodel_cli.model.matrices import make_matrix


def products(config: Any, tokens: int, device: str, backward: bool) -> Figures:
    """Tokens per second in bf16 for `tokens` at once, in the products' own shapes, forward or also backward."""
    shapes = [*layer_shapes(config), head_shape(config)]
    alone = {shape: product_seconds(tokens, *shape, torch.device(device), backward) for shape in set(shapes)}
    seconds = sum(alone[shape] for shape in shapes)
    operations = sum((6 if backward else 2) * inner * outer for inner, outer in shapes)
    return {"tokens_per_second": tokens / seconds, "tera_operations_per_second": operations * tokens / seconds / 1e12}


def products_of_decoding(config: Any, precision: str, rows: int = 1, head: bool = True, repeats: int = 99) -> Figures:
    """Tokens per second for `rows` at once by the matrices of decoding, on a CPU; all of them, as no cache holds."""
    shapes = [*layer_shapes(config), head_shape(config)] if head else layer_shapes(config)
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
