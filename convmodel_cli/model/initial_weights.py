"""What the weights of a new GPT-2 begin with beside chance: it knows places, and some heads look at the tokens before.

To find again what was said, a model needs heads that look some tokens back (Olsson et al. 2022, In-context Learning
and Induction Heads), which a small one learns late in a short run, if at all. So some do so from the first step on, in
the spirit of Trockman and Kolter 2023, Mimetic Initialization of Self-Attention Layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

_SPREAD = 0.05  # the root mean square of embeddings; GPT-2's begin with 0.02
_SLOWEST = 1000  # times as long as the first wave
_OFFSETS = (1, 2, 3)
_SHARPNESS = 2.0  # how much of a place goes into queries, and into keys: scores grow with its square


@torch.no_grad()
def begin_with_places(network: GPT2LMHeadModel) -> None:
    """Let the embeddings of places be waves, and the first heads of the first layer look 1, 2 and 3 tokens back.

    The waves by which these find a place stand where the embeddings of tokens begin with 0, so that none is drowned.
    """
    net: Any = network
    table: Tensor = net.transformer.wpe.weight
    places, width = table.shape
    frequencies = _SLOWEST ** -(torch.arange(width // 2) * 2 / width)
    angles = torch.arange(places)[:, None] * frequencies
    # Vaswani et al. 2017, but for their order: all sines, then all cosines. A wave's own is the root of 1/2.
    table.copy_(torch.cat([angles.sin(), angles.cos()], dim=1) * _SPREAD * 2**0.5)
    size = width // network.config.n_head
    chosen = torch.arange(size // 2) * max(1, width // 8 // (size // 2))  # the fastest tell neighbours apart
    tokens: Tensor = net.transformer.wte.weight
    tokens.mul_(_SPREAD / network.config.initializer_range)
    tokens[:, torch.cat([chosen, width // 2 + chosen])] = 0.0
    projection: Tensor = net.transformer.h[0].attn.c_attn.weight  # (width, 3 * width)
    for head, offset in enumerate(_OFFSETS[: network.config.n_head]):
        query, key = _look_back(offset, frequencies, chosen)
        projection[:, head * size : (head + 1) * size] += query
        projection[:, width + head * size : width + (head + 1) * size] += key


def _look_back(offset: int, frequencies: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Projections (width, size) to queries and keys: the query at place p fits the key at place p - `offset` best.

    From the chosen waves f of place p the query has sin(fp - fo) and cos(fp - fo), and from those of place r the key
    has sin(fr) and cos(fr), which makes their product the sum of cos(f(p - o - r)); roughly, for between the embeddings
    and here comes a layer norm.
    """
    half, count = len(frequencies), len(chosen)
    sines, cosines = chosen, half + chosen
    first, second = torch.arange(count), count + torch.arange(count)
    turn = frequencies[chosen] * offset
    query, key = torch.zeros(2, 2 * half, 2 * count)
    key[sines, first] = key[cosines, second] = _SHARPNESS
    query[sines, first] = query[cosines, second] = _SHARPNESS * turn.cos()
    query[cosines, first] = -_SHARPNESS * turn.sin()
    query[sines, second] = _SHARPNESS * turn.sin()
    return query, key
