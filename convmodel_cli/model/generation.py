"""From contexts to responses, token by token: one loop that files, samples and the chat all consume."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.model.compute import Compute, evaluating
from convmodel_cli.model.language_model import LanguageModel
from convmodel_cli.model.sampling import Chooser, uniform_stream

_LEAST_TURN = 16


@dataclass(frozen=True, slots=True)
class Context:
    """What is answered: `ids` and `types` of the turns shown, ending with the sep in front of the response.

    The response may have `max_response` tokens; `candidate` tells several responses to the same turns apart.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...]
    max_response: int
    candidate: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """The next token of the response to context `row`.

    `id` is None when the response ends without one more: by the sep token (`finish` "stop"), or because it may not
    grow ("length"; then the last token came just before). `logprob` is under the model, before sampling settings.
    """

    row: int
    id: int | None
    logprob: float
    finish: str | None = None


@dataclass(slots=True)
class Memory:
    """Keys and values of the tokens that a chat has already computed.

    It is valid for `ids` and `types` and nothing else: what the next context shares with them is reused, the rest
    is dropped, so the state equals a fresh computation whatever was undone or cleared.
    """

    ids: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    cache: DynamicCache = field(default_factory=DynamicCache)

    def keep_common(self, context: Context) -> int:
        """Drop what differs from the context; returns how many of its tokens need no computation."""
        pairs = zip(self.ids, self.types, context.ids, context.types, strict=False)
        common = 0
        for had_id, had_type, new_id, new_type in pairs:
            if (had_id, had_type) != (new_id, new_type):
                break
            common += 1
        common = min(common, len(context.ids) - 1)  # the last token's output is needed
        self.cut_to(common)
        return common

    def forget(self) -> None:
        """Start over, when what the cache holds is not known any more."""
        self.ids.clear()
        self.types.clear()
        self.cache = DynamicCache()

    def cut_to(self, length: int) -> None:
        surplus = len(self.ids) - length
        if surplus > 0:
            self.cache.crop(-surplus)
            del self.ids[length:], self.types[length:]


def context_room(max_new_tokens: int, max_context: int, head: int = 1) -> int:
    """Tokens that the context may take: a quarter of all stays free for the response, or less if that is enough.

    Where `head` tokens (a sep and a persona) would leave little else, the turns come before the response.
    """
    room = max_context - min(max_new_tokens, max_context // 4)
    return max(room, min(max_context - 1, head + _LEAST_TURN))


def make_chooser(model: LanguageModel, sampling: SamplingSettings) -> Chooser:
    """The sampling settings for this model's control tokens and vocabulary."""
    ends = {model.sep_id, model.tokenizer.eos_token_id} - {None}
    unspeakable = set(model.tokenizer.all_special_ids) | set(range(len(model.tokenizer), model.vocab_size))
    return Chooser(sampling, tuple(sorted(ends)), tuple(sorted(unspeakable - ends)))


def respond(
    model: LanguageModel,
    contexts: Sequence[Context],
    sampling: SamplingSettings,
    compute: Compute,
    with_types: bool = True,
    memory: Memory | None = None,
    ended: Container[int] = (),
) -> Iterator[Token]:
    """Answer all contexts at once, yielding tokens as they are made; rows that have finished leave the batch.

    With a `memory`, which takes a single context, only what it does not hold yet is computed. Rows that the caller
    puts into `ended` get no more tokens.
    """
    decoder = _Decoder(model, contexts, compute, with_types, memory)
    chooser = make_chooser(model, sampling)
    uniforms = _uniforms(contexts, compute.seed)
    responses: list[list[int]] = [[] for _ in contexts]
    rows = list(range(len(contexts)))
    logits = decoder.read_contexts()
    for position in range(uniforms.shape[1]):
        chosen = chooser.choose(logits, [responses[row] for row in rows], uniforms[rows, position])
        logprobs = logits.log_softmax(-1).gather(-1, chosen[:, None]).squeeze(-1).tolist()
        stays = []
        for place, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            if token in chooser.end_ids:
                yield Token(row, None, logprobs[place], "stop")
                continue
            responses[row].append(token)
            yield Token(row, token, logprobs[place])
            if row in ended:
                continue
            if len(responses[row]) == contexts[row].max_response:
                yield Token(row, None, 0.0, "length")
            else:
                stays.append(place)
        rows = [rows[place] for place in stays]
        if not rows:
            return
        logits = decoder.advance(stays, [responses[row][-1] for row in rows])


def _uniforms(contexts: Sequence[Context], seed: int) -> Tensor:
    """The random numbers (rows, tokens of the longest response), each row's own."""
    longest = max(context.max_response for context in contexts)
    streams = [uniform_stream(seed, context.ids, context.candidate, longest) for context in contexts]
    return torch.from_numpy(np.stack(streams))


class _Decoder:
    """The network and its cache for the rows that are still being answered."""

    def __init__(
        self,
        model: LanguageModel,
        contexts: Sequence[Context],
        compute: Compute,
        with_types: bool,
        memory: Memory | None,
    ) -> None:
        self._model = model
        self._contexts = contexts
        self._compute = compute
        self._with_types = with_types
        self._memory = memory
        self._cache = DynamicCache() if memory is None else memory.cache
        self._types = torch.tensor([row.types[-1] for row in contexts])
        self._lengths = torch.tensor([len(row.ids) for row in contexts])
        longest = int(self._lengths.max())
        # Padding stands on the left, so that all rows go on at the same place.
        self._mask = (torch.arange(longest) >= (longest - self._lengths)[:, None]).long()

    def read_contexts(self) -> Tensor:
        """Compute the contexts; logits (rows, vocabulary) after each."""
        known = 0 if self._memory is None else self._memory.keep_common(self._contexts[0])
        longest = self._mask.shape[1]
        ids = torch.zeros((len(self._contexts), longest), dtype=torch.long)
        types = torch.zeros_like(ids)
        for row, context in enumerate(self._contexts):
            ids[row, longest - len(context.ids) :] = torch.tensor(context.ids)
            types[row, longest - len(context.ids) :] = torch.tensor(context.types)
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        logits = self._forward(ids[:, known:], types[:, known:], positions[:, known:])
        if self._memory is not None:
            self._memory.ids, self._memory.types = list(self._contexts[0].ids), list(self._contexts[0].types)
        return logits

    def advance(self, stays: list[int], tokens: list[int]) -> Tensor:
        """Keep the rows at these places, append a token to each; logits (rows, vocabulary) after it."""
        if len(stays) < len(self._lengths):
            kept = torch.tensor(stays)
            self._cache.batch_select_indices(kept.to(self._compute.device))
            self._types, self._lengths, self._mask = self._types[kept], self._lengths[kept], self._mask[kept]
        positions = self._lengths[:, None]
        self._lengths = self._lengths + 1
        self._mask = torch.cat([self._mask, torch.ones((len(stays), 1), dtype=torch.long)], dim=1)
        logits = self._forward(torch.tensor(tokens)[:, None], self._types[:, None], positions)
        if self._memory is not None:
            self._memory.ids.append(tokens[0])
            self._memory.types.append(int(self._types[0]))
        return logits

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
                output: Any = model.network(**inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        except BaseException:
            if self._memory is not None:
                self._memory.forget()
            raise
        logits: Tensor = output.logits[:, -1].float().clone()
        return logits
