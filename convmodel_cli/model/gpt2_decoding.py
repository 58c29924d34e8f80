"""GPT-2's forward pass for decoding: the network's own weights without its modules.

A token of a small model costs transformers milliseconds of Python; here it costs the kernels. What is computed is the
same, so that the tokens are too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from convmodel_cli.model.gpt2 import GELU, is_hooked, length_step
from convmodel_cli.model.gpt2_row import Layer, RowStep
from convmodel_cli.model.key_values import KeyValues
from convmodel_cli.model.matrices import Matrix, make_head, make_matrix
from convmodel_cli.model.products import HAS_TILES, by_onednn

_attend = functional.scaled_dot_product_attention
_FEWEST_ROWS = 4
_TOKENS_READ_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class _Norm:
    shape: tuple[int]
    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True)
class Part:
    """The tokens of one row that are read at once, with their types (or none) and the place of the first.

    The row holds all places before it.
    """

    ids: Sequence[int]
    types: Sequence[int] | None
    position: int


class Gpt2:
    """The weights of a plain GPT-2, ready for products in one precision.

    Valid until the network is trained: some are its own tensors, others copies. Embeddings, norms and the sum of the
    layers are fp32 always.
    """

    def __init__(self, network: PreTrainedModel, precision: str) -> None:
        net: Any = network
        self._heads = int(network.config.n_head)
        self._inner = int(network.config.n_inner or 4 * network.config.n_embd)
        self._tokens: Tensor = net.transformer.wte.weight.detach()
        self._positions: Tensor = net.transformer.wpe.weight.detach()
        self._layers = [_layer(block, precision) for block in net.transformer.h]
        self._last_norm = _norm(net.transformer.ln_f)
        self._head = make_head(net.lm_head.weight.detach().T, precision)
        self.precision = precision
        self._modules = list(network.modules())
        self.device = self._tokens.device
        # Of keys and values. Without tiles bf16 takes the fused kernel two to seven times as long as fp32.
        in_bf16 = precision == "bf16" and (HAS_TILES or self.device.type != "cpu")
        self.dtype = torch.bfloat16 if in_bf16 else torch.float32
        of_many = torch.float32 if precision == "fp32" else torch.bfloat16  # products of several rows
        self._fills = by_onednn(torch.empty(0, dtype=of_many, device=self.device))
        self._of_thread = threading.local()

    @property
    def is_hooked(self) -> bool:
        """Whether hooks have come to the network since; to look for its modules anew takes a while."""
        return is_hooked(self._modules)

    def new_cache(self) -> KeyValues:
        width = self._tokens.shape[1]
        return KeyValues(len(self._layers), self._heads, width // self._heads, self.dtype, self.device)

    @torch.inference_mode()
    def read(self, parts: Sequence[Part], rows: Sequence[int], cache: KeyValues) -> Tensor:
        """Read into these rows of the cache; logits (rows, vocabulary) after the last token of each."""
        logits = [self._read_together(parts[first:end], rows[first:end], cache) for first, end in _groups(parts)]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _read_together(self, parts: Sequence[Part], rows: Sequence[int], cache: KeyValues) -> Tensor:
        """The tokens of all parts follow each other without padding: each row attends to its own.

        a b c d e | f g | h i j        products over 10 tokens, attention over 5, 2 and 3
        """
        lengths = [len(part.ids) for part in parts]
        fill = self._fill(sum(lengths), length_step(sum(lengths)))
        filler = [torch.zeros((fill, self._tokens.shape[1]), dtype=self.dtype, device=self.device)] if fill else []
        hidden = [self._hidden(part) for part in parts]
        x = self._embed(parts, fill)
        last = [end - 1 for end in accumulate(lengths)] + [0] * self._fill(len(parts), _FEWEST_ROWS)
        for number, layer in enumerate(self._layers):
            asked = layer.attention_in(layer.before_attention(x)).view(len(x), 3, self._heads, -1).to(self.dtype)
            own = asked.permute(1, 2, 0, 3)[:, :, : sum(lengths)].split(lengths, dim=2)
            mixed = [
                _attend_to_past(each, *cache.write(number, row, each[1:]), mask)
                for each, row, mask in zip(own, rows, hidden, strict=True)
            ]
            joined = torch.cat(mixed + filler)
            if layer is self._layers[-1]:  # of which nothing but the last tokens is needed
                x, joined = _rows(x, last), _rows(joined, last)
            x = self._finish_layer(layer, x, joined)
        return self._logits(x)[: len(parts)]

    @torch.inference_mode()
    def step(self, ids: list[int], types: list[int] | None, positions: list[int], cache: KeyValues) -> Tensor:
        """Append a token to each row of the cache; logits (rows, vocabulary) after it."""
        rows = len(ids)
        fill = self._fill(rows, _FEWEST_ROWS)
        x = self._embed_places(ids, types, positions, fill)
        past = cache.open_place()
        if rows == 1:
            return self._logits(self._row_step()(x, past))
        for layer, place, keys, values in zip(self._layers, past.place, past.keys, past.values, strict=True):
            asked = layer.attention_in(layer.before_attention(x))
            asked = asked[:rows].view(rows, 3, self._heads, 1, -1).to(self.dtype)
            place.copy_(asked[:, 1:])
            mixed = _attend(asked[:, 0], keys, values, attn_mask=past.hidden).view(rows, -1)
            x = self._finish_layer(layer, x, functional.pad(mixed, (0, 0, 0, fill)) if fill else mixed)
        return self._logits(x)[:rows]

    def _row_step(self) -> RowStep:
        found: RowStep | None = getattr(self._of_thread, "row_step", None)
        if found is None:
            found = self._of_thread.row_step = RowStep(
                self._layers,
                heads=self._heads,
                width=self._tokens.shape[1],
                inner=self._inner,
                dtype=self.dtype,
                device=self.device,
            )
        return found

    def _fill(self, count: int, step: int) -> int:
        """Rows that are added for nothing: for every shape that oneDNN has not met it prepares a kernel, in 3 ms."""
        return -count % step if self._fills and count > 1 else 0

    def _hidden(self, part: Part) -> Tensor | None:
        """What is added to the scores (tokens, places) of tokens behind others: -inf where a place is still to come."""
        count, past = len(part.ids), part.position
        if not past or count == 1:
            return None
        scores = torch.full((count, past + count), -torch.inf, dtype=self.dtype, device=self.device)
        return scores.triu_(past + 1)

    def _embed(self, parts: Sequence[Part], fill: int) -> Tensor:
        ids = [id_ for part in parts for id_ in part.ids]
        types = None if parts[0].types is None else [type_ for part in parts for type_ in part.types or ()]
        places = [place for part in parts for place in range(part.position, part.position + len(part.ids))]
        return self._embed_places(ids, types, places, fill)

    def _embed_places(self, ids: list[int], types: list[int] | None, positions: list[int], fill: int) -> Tensor:
        """Embeddings (tokens, width), added in the order of transformers, and `fill` rows of no meaning."""
        filler = [0] * fill
        x = _rows(self._tokens, ids + filler)
        if types is not None:
            x = x + _rows(self._tokens, types + filler)
        return x + _rows(self._positions, positions + filler)

    def _finish_layer(self, layer: Layer, x: Tensor, mixed: Tensor) -> Tensor:
        x = x.add_(layer.attention_out(mixed))
        return x.add_(layer.mlp_out(layer.mlp_in(layer.before_mlp(x))))

    def _logits(self, x: Tensor) -> Tensor:
        return self._head(self._last_norm(x)).float()  # (rows, vocabulary)


def _groups(parts: Sequence[Part]) -> list[tuple[int, int]]:
    """(first, end) of the parts that are read at once: about as many tokens in each, or a single part."""
    borders, tokens = [0], 0
    for number, part in enumerate(parts):
        if tokens and tokens + len(part.ids) > _TOKENS_READ_AT_ONCE:
            borders.append(number)
            tokens = 0
        tokens += len(part.ids)
    return list(zip(borders, [*borders[1:], len(parts)], strict=True))


def _rows(table: Tensor, numbers: list[int]) -> Tensor:
    """Rows of a table; of a single one, a view."""
    if len(numbers) == 1:
        return table.narrow(0, numbers[0], 1)
    return table[torch.tensor(numbers, device=table.device)]


def _attend_to_past(own: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None) -> Tensor:
    """Queries own[0] of (3, heads, tokens, width) at the end of (heads, places, width) -> (tokens, heads * width)."""
    is_causal = keys.shape[1] == own.shape[2]
    mixed = _attend(own[:1], keys[None], values[None], attn_mask=hidden, is_causal=is_causal)
    return mixed[0].transpose(0, 1).flatten(1)


def _norm(module: Any) -> _Norm:
    return _Norm((len(module.weight),), module.weight.detach(), module.bias.detach(), module.eps)


def _layer(block: Any, precision: str) -> Layer:
    def matrix(module: Any, gelu: str | None = None) -> Matrix:
        return make_matrix(module.weight.detach(), module.bias.detach(), precision, gelu)

    return Layer(
        before_attention=_norm(block.ln_1),
        attention_in=matrix(block.attn.c_attn),
        attention_out=matrix(block.attn.c_proj),
        before_mlp=_norm(block.ln_2),
        mlp_in=matrix(block.mlp.c_fc, GELU[block.attn.config.activation_function]),
        mlp_out=matrix(block.mlp.c_proj),
    )
