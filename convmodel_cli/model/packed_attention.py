"""Causal attention of sequences that stand one behind the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor, nn

from convmodel_cli.model.products import HAS_TILES

_LENGTH_STEP = 32
_TOKENS_AT_ONCE = 512  # their scores stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Span:
    """Sequences that are computed at once, padded to `length`: (first token, tokens) of each."""

    length: int
    sequences: tuple[tuple[int, int], ...]


Spans = tuple[Span, ...]


def spans_of(lengths: tuple[int, ...]) -> Spans:
    """Group sequences of like length; lengths and numbers are such that few different shapes occur."""
    starts = accumulate(lengths, initial=0)
    longest_first = sorted(zip(starts, lengths, strict=False), key=lambda sequence: -sequence[1])
    spans = []
    for length, alike in groupby(longest_first, key=lambda sequence: -(-sequence[1] // _LENGTH_STEP) * _LENGTH_STEP):
        waiting = tuple(alike)
        while waiting:
            most = max(1, min(len(waiting), _TOKENS_AT_ONCE // length))
            count = 1 << (most.bit_length() - 1)
            spans.append(Span(length, waiting[:count]))
            waiting = waiting[count:]
    return tuple(spans)


def attend(mixed: Tensor, spans: Spans, heads: int) -> Tensor:
    """Queries, keys and values side by side (tokens, 3 * width) -> (tokens, width); 0 where no sequence stands."""
    if not torch.is_grad_enabled() and (HAS_TILES or mixed.dtype != torch.bfloat16):
        return _attend_fused(mixed, spans, heads)
    output: Tensor = _Attend.apply(mixed, spans, heads)  # type: ignore[no-untyped-call]
    return output


def _attend_fused(mixed: Tensor, spans: Spans, heads: int) -> Tensor:
    """By torch's fused kernel, whose way forward is fast and whose way back is not."""
    width = mixed.shape[1] // 3
    output = mixed.new_zeros(len(mixed), width)
    for start, count in (sequence for span in spans for sequence in span.sequences):
        query, key, value = mixed[start : start + count].view(1, count, 3, heads, -1).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        output[start : start + count].view(1, count, heads, -1).copy_(attended.transpose(1, 2))
    return output


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mixed: Tensor, spans: Spans, heads: int) -> Tensor:
        width = mixed.shape[1] // 3
        output = mixed.new_zeros(len(mixed), width)
        scale = (width // heads) ** -0.5
        kept = []
        for span in spans:
            query, key, value = _gather(mixed, span, 3, heads)
            future = future_mask(span.length, mixed.dtype).expand(len(query), -1, -1)
            scores = torch.baddbmm(future, query, key.transpose(1, 2), alpha=scale)
            weights = torch._softmax(scores, -1, False, out=scores)
            _scatter(torch.bmm(weights, value)[None], output, span, heads)
            if ctx.needs_input_grad[0]:
                kept.append((query, key, value, weights))
        ctx.kept = spans, heads, scale, kept
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        spans, heads, scale, kept = ctx.kept
        ctx.kept = None
        of_mixed = grad.new_zeros(len(grad), 3 * grad.shape[1])
        for span, (query, key, value, weights) in zip(spans, kept, strict=True):
            [of_output] = _gather(grad, span, 1, heads)
            results = torch.empty((3, *query.shape), dtype=grad.dtype)
            torch.bmm(weights.transpose(1, 2), of_output, out=results[2])
            of_weights = torch.bmm(of_output, value.transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, grad.dtype, grad_input=of_weights)
            torch.bmm(of_scores, key, out=results[0])
            torch.bmm(of_scores.transpose(1, 2), query, out=results[1])
            results[:2] *= scale
            _scatter(results, of_mixed, span, heads)
        return of_mixed, None, None


@lru_cache(maxsize=64)
def future_mask(length: int, dtype: torch.dtype) -> Tensor:
    """What is added to scores: -inf for a key that comes after the query."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu(1)


def _gather(flat: Tensor, span: Span, parts: int, heads: int) -> Tensor:
    """(tokens, parts * width) -> (parts, sequences * heads, length, width of a head), padded with zeros."""
    width = flat.shape[1] // (parts * heads)
    padded = flat.new_empty((parts, len(span.sequences), heads, span.length, width))
    for row, (start, count) in enumerate(span.sequences):
        padded[:, row, :, :count] = flat[start : start + count].view(count, parts, heads, width).permute(1, 2, 0, 3)
        padded[:, row, :, count:] = 0
    return padded.flatten(1, 2)


def _scatter(padded: Tensor, flat: Tensor, span: Span, heads: int) -> None:
    """The way back from `_gather`, without the padding."""
    parts, _, length, width = padded.shape
    padded = padded.view(parts, len(span.sequences), heads, length, width)
    for row, (start, count) in enumerate(span.sequences):
        flat[start : start + count].view(count, parts, heads, width).copy_(
            padded[:, row, :, :count].permute(2, 0, 1, 3)
        )
