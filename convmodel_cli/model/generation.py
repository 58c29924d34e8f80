"""From contexts to responses, token by token: one loop that files, samples and the chat all consume."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.model.compute import Compute
from convmodel_cli.model.decoding import LibraryCache, make_decoder
from convmodel_cli.model.key_values import KeyValues
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
    cache: KeyValues | LibraryCache | None = None

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
        self.cache = None

    def cut_to(self, length: int) -> None:
        surplus = len(self.ids) - length
        if surplus > 0:
            if self.cache is not None:
                self.cache.crop(length)
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
    batch_size: int | None = None,
) -> Iterator[Token]:
    """Answer contexts, `batch_size` or all at once, yielding tokens as they are made.

    The longest come first, and the next comes in when a row has finished. With a `memory`, which takes a single
    context, only what it does not hold yet is computed. Rows that the caller puts into `ended` get no more tokens.
    """
    decoder = make_decoder(model, compute, with_types, memory)
    chooser = make_chooser(model, sampling)
    waiting = sorted(range(len(contexts)), key=lambda row: -len(contexts[row].ids))
    growing: list[_Growing] = []
    while waiting or growing:
        logits = [decoder.step([each.ids[-1] for each in growing])] if growing else []
        if entering := waiting[: decoder.room(batch_size or len(contexts))]:
            logits.append(decoder.read([contexts[row] for row in entering]))
            growing += [_Growing(row, contexts[row], compute.seed) for row in entering]
            del waiting[: len(entering)]
        leaving = []
        for place, (token, logprob) in enumerate(_choose(chooser, _joined(logits), growing)):
            each = growing[place]
            if token in chooser.end_ids:
                yield Token(each.row, None, logprob, "stop")
                leaving.append(place)
                continue
            each.ids.append(token)
            yield Token(each.row, token, logprob)
            if each.row in ended:
                leaving.append(place)
            elif len(each.ids) == each.context.max_response:
                yield Token(each.row, None, 0.0, "length")
                leaving.append(place)
        if leaving:
            growing = [growing[place] for place in decoder.leave(leaving)]


class _Growing:
    """A response so far, and the random numbers it has before it."""

    def __init__(self, row: int, context: Context, seed: int) -> None:
        self.row = row
        self.context = context
        self.ids: list[int] = []
        self._uniforms: list[float] = uniform_stream(
            seed, context.ids, context.candidate, context.max_response
        ).tolist()

    @property
    def uniform(self) -> float:
        """The number that decides the next token."""
        return self._uniforms[len(self.ids)]


def _joined(logits: list[Tensor]) -> Tensor:
    return logits[0] if len(logits) == 1 else torch.cat(logits)


@torch.inference_mode()
def _choose(chooser: Chooser, logits: Tensor, growing: Sequence[_Growing]) -> list[tuple[int, float]]:
    """The next token of each response, and its log-probability under the model."""
    chosen = chooser.choose(logits, [each.ids for each in growing], [each.uniform for each in growing])
    logprobs = logits.log_softmax(-1).gather(-1, chosen[:, None])  # (rows, 1)
    return [(token, logprob) for token, [logprob] in zip(chosen.tolist(), logprobs.tolist(), strict=True)]
