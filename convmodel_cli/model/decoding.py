"""Answering several contexts at once, token by token: a plain GPT-2 by our own, other networks by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from convmodel_cli.errors import UsageError
from convmodel_cli.model.compute import Compute, evaluating
from convmodel_cli.model.gpt2 import is_plain_gpt2
from convmodel_cli.model.gpt2_decoding import Gpt2, Part
from convmodel_cli.model.key_values import KeyValues
from convmodel_cli.model.language_model import LanguageModel

if TYPE_CHECKING:
    from convmodel_cli.model.generation import Context, Memory

_SPARE_PLACES = 64


class Decoder(Protocol):
    """The contexts that are being answered, each in a row."""

    def room(self, rows: int) -> int:
        """How many contexts may be read now where `rows` may be answered at once."""

    def read(self, contexts: Sequence[Context]) -> Tensor:
        """Read these contexts into new rows behind the others; logits (contexts, vocabulary) after each."""

    def step(self, tokens: list[int]) -> Tensor:
        """Append a token to each row; logits (rows, vocabulary) after it."""

    def leave(self, rows: list[int]) -> list[int]:
        """Remove rows; returns the former numbers of those that are left, in their new order."""


def make_decoder(model: LanguageModel, compute: Compute, with_types: bool, memory: Memory | None) -> Decoder:
    """With a `memory`, which takes a single context, only what it does not hold yet is computed."""
    plain = is_plain_gpt2(model.network) if model.decoding is None else not model.decoding.is_hooked
    if plain:
        return _OwnDecoder(model, compute, with_types, memory)
    _refuse_int8(model, compute)
    return _LibraryDecoder(model, compute, with_types, memory)


def prepared(model: LanguageModel, compute: Compute) -> LanguageModel:
    """The model with its weights ready to answer in this precision, once for all; it may not be trained any more.

    Raises UsageError if it cannot.
    """
    if is_plain_gpt2(model.network):
        return replace(model, decoding=Gpt2(model.network, compute.precision))
    _refuse_int8(model, compute)
    return model


def _refuse_int8(model: LanguageModel, compute: Compute) -> None:
    if compute.precision == "int8":
        kind = model.network.config.model_type
        raise UsageError(
            f"--precision: int8 needs a GPT-2 without variations, got a model of kind {kind}", "take bf16 or fp32"
        )


class _OwnDecoder:
    """Rows come and go one by one; a context is read at once, without padding."""

    def __init__(self, model: LanguageModel, compute: Compute, with_types: bool, memory: Memory | None) -> None:
        ready = model.decoding is not None and model.decoding.precision == compute.precision
        self._network = model.decoding if model.decoding and ready else Gpt2(model.network, compute.precision)
        self._with_types = with_types
        self._memory = memory
        self._cache = self._network.new_cache()
        if memory is not None:
            if not isinstance(memory.cache, KeyValues):
                memory.forget()
                memory.cache = self._cache
            self._cache = memory.cache
        self._types: list[int] = []
        self._lengths: list[int] = []

    def room(self, rows: int) -> int:
        return rows - len(self._lengths)

    @torch.inference_mode()
    def read(self, contexts: Sequence[Context]) -> Tensor:
        places = max(len(context.ids) + context.max_response for context in contexts)
        if self._memory is not None:
            logits = self._read_rest(contexts[0], self._memory)
        else:
            self._cache.reserve(len(self._lengths) + len(contexts), places + _SPARE_PLACES)
            logits = self._read_once(contexts, self._cache.enter([len(context.ids) for context in contexts]))
        self._types += [context.types[-1] for context in contexts]
        self._lengths += [len(context.ids) for context in contexts]
        return logits

    def step(self, tokens: list[int]) -> Tensor:
        types = self._types if self._with_types else None
        try:
            logits = self._network.step(tokens, types, self._lengths, self._cache)
        except BaseException:
            if self._memory is not None:
                self._memory.forget()
            raise
        self._lengths = [length + 1 for length in self._lengths]
        if self._memory is not None:
            self._memory.ids.append(tokens[0])
            self._memory.types.append(self._types[0])
        return logits

    @torch.inference_mode()
    def leave(self, rows: list[int]) -> list[int]:
        order = self._cache.leave(rows) if self._memory is None else []
        self._types = [self._types[row] for row in order]
        self._lengths = [self._lengths[row] for row in order]
        return order

    def _read_once(self, contexts: Sequence[Context], rows: Sequence[int]) -> Tensor:
        """Read contexts into these rows; what several have in all its tokens, for one of them."""
        keys = [(context.ids, context.types) for context in contexts]
        firsts = {key: number for number, key in reversed(list(enumerate(keys)))}
        read = sorted(firsts.values())
        logits = self._network.read(
            [self._part(contexts[number]) for number in read], [rows[n] for n in read], self._cache
        )
        for row, key in zip(rows, keys, strict=True):
            self._cache.copy(rows[firsts[key]], row)
        return logits[[read.index(firsts[key]) for key in keys]]

    def _read_rest(self, context: Context, memory: Memory) -> Tensor:
        """Read what the memory does not hold of the context."""
        known = memory.keep_common(context)
        try:
            self._cache.grow(len(context.ids) - known, context.max_response)
            logits = self._network.read([self._part(context, known)], [0], self._cache)
        except BaseException:
            memory.forget()
            raise
        memory.ids, memory.types = list(context.ids), list(context.types)
        return logits

    def _part(self, context: Context, known: int = 0) -> Part:
        types = context.types[known:] if self._with_types else None
        return Part(context.ids[known:], types, known)


class LibraryCache:
    """Keys and values of one row in transformers' own cache."""

    def __init__(self) -> None:
        self.entries = DynamicCache()

    def __len__(self) -> int:
        return int(self.entries.get_seq_length())

    def crop(self, length: int) -> None:
        surplus = len(self) - length
        if surplus > 0:
            self.entries.crop(-surplus)


class _LibraryDecoder:
    """Rows begin together: others may come in when all have left."""

    def __init__(self, model: LanguageModel, compute: Compute, with_types: bool, memory: Memory | None) -> None:
        self._model = model
        self._compute = compute
        self._with_types = with_types
        self._memory = memory
        self._cache = LibraryCache()
        if memory is not None:
            if not isinstance(memory.cache, LibraryCache):
                memory.forget()
                memory.cache = self._cache
            self._cache = memory.cache
        self._types = self._lengths = torch.empty(0, dtype=torch.long)
        self._mask = torch.empty((0, 0), dtype=torch.long)

    def room(self, rows: int) -> int:
        return 0 if len(self._lengths) else rows

    def read(self, contexts: Sequence[Context]) -> Tensor:
        known = 0
        if self._memory is None:
            self._cache = LibraryCache()
        else:
            known = self._memory.keep_common(contexts[0])
        self._types = torch.tensor([row.types[-1] for row in contexts])
        self._lengths = torch.tensor([len(row.ids) for row in contexts])
        longest = int(self._lengths.max())
        # Padding stands on the left, so that all rows go on at the same place.
        self._mask = (torch.arange(longest) >= (longest - self._lengths)[:, None]).long()
        ids = torch.zeros((len(contexts), longest), dtype=torch.long)
        types = torch.zeros_like(ids)
        for row, context in enumerate(contexts):
            ids[row, longest - len(context.ids) :] = torch.tensor(context.ids)
            types[row, longest - len(context.ids) :] = torch.tensor(context.types)
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        logits = self._forward(ids[:, known:], types[:, known:], positions[:, known:])
        if self._memory is not None:
            self._memory.ids, self._memory.types = list(contexts[0].ids), list(contexts[0].types)
        return logits

    def step(self, tokens: list[int]) -> Tensor:
        positions = self._lengths[:, None]
        self._lengths = self._lengths + 1
        self._mask = torch.cat([self._mask, torch.ones((len(tokens), 1), dtype=torch.long)], dim=1)
        logits = self._forward(torch.tensor(tokens)[:, None], self._types[:, None], positions)
        if self._memory is not None:
            self._memory.ids.append(tokens[0])
            self._memory.types.append(int(self._types[0]))
        return logits

    def leave(self, rows: list[int]) -> list[int]:
        order = [row for row in range(len(self._lengths)) if row not in rows]
        kept = torch.tensor(order, dtype=torch.long)
        if order:
            self._cache.entries.batch_select_indices(kept.to(self._compute.device))
        self._types, self._lengths, self._mask = self._types[kept], self._lengths[kept], self._mask[kept]
        return order

    def _forward(self, ids: Tensor, types: Tensor, positions: Tensor) -> Tensor:
        device = self._compute.device
        model = self._model
        inputs: dict[str, Any] = {}
        if not bool(self._mask.all()):
            inputs["attention_mask"] = self._mask.to(device)
            inputs["position_ids"] = positions.to(device)
        try:
            with evaluating(model.network), self._compute.forward():
                if model.takes_types:
                    shown = types.to(device) if self._with_types else None
                    inputs["inputs_embeds"] = model.embed(ids.to(device), shown)
                else:
                    inputs["input_ids"] = ids.to(device)
                output: Any = model.network(
                    **inputs, past_key_values=self._cache.entries, use_cache=True, logits_to_keep=1
                )
        except BaseException:
            if self._memory is not None:
                self._memory.forget()
            raise
        logits: Tensor = output.logits[:, -1].float().clone()
        return logits
