"""Contexts in words -> responses in words: what fit's samples, eval's probes and generate have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convmodel_cli.data.context import encode_context
from convmodel_cli.data.encoding import turns_to_encode
from convmodel_cli.errors import UsageError
from convmodel_cli.events import Dropped, Response
from convmodel_cli.settings import SamplingSettings

if TYPE_CHECKING:
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.generation import Context, Token
    from convmodel_cli.model.language_model import LanguageModel

LEAST_AFTER_PERSONA = 4  # two seps, a token to answer and one to answer with


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a response may be, and context and response together, in tokens."""

    max_new_tokens: int
    max_context: int


def make_context(
    model: LanguageModel, turns: Sequence[str], persona: str, limits: Limits, candidate: int = 0
) -> tuple[Context, Dropped | None]:
    """(context, what did not fit into it), encoded as in training; raises UsageError for a persona that is too long."""
    vocabulary = model.vocabulary
    persona_ids = vocabulary.encode_persona(persona)
    encoded = vocabulary.encode(turns_to_encode(turns, persona))
    return fit_context(encoded, persona_ids, vocabulary.sep_id, limits, candidate)


def check_persona(persona: Sequence[int], max_context: int) -> None:
    """Refuse a persona that leaves no room for a turn and a response; raises UsageError."""
    most = max_context - LEAST_AFTER_PERSONA
    if len(persona) > most:
        raise UsageError(
            f"the persona: expected at most {most} tokens, for the model can be shown {max_context}, "
            f"got {len(persona)}",
            "shorten it",
        )


def fit_context(
    turns: Sequence[Sequence[int]], persona: Sequence[int], sep_id: int, limits: Limits, candidate: int = 0
) -> tuple[Context, Dropped | None]:
    """As `make_context`, for encoded turns."""
    from convmodel_cli.model.generation import Context, context_room

    check_persona(persona, limits.max_context)
    room = context_room(limits.max_new_tokens, limits.max_context, 1 + len(persona))
    shown = encode_context(turns, persona, sep_id, room)
    max_response = min(limits.max_new_tokens, limits.max_context - len(shown.ids))
    dropped = Dropped(shown.dropped_turns, shown.cut_tokens)
    fits = not (shown.dropped_turns or shown.cut_tokens)
    return Context(tuple(shown.ids), tuple(shown.types), max_response, candidate), None if fits else dropped


def answer_all(
    model: LanguageModel,
    contexts: Sequence[Context],
    sampling: SamplingSettings,
    compute: Compute,
    with_types: bool,
    batch_size: int,
) -> Iterator[tuple[int, Response]]:
    """(index, response) of each context as its batch is done; contexts of like length are answered together."""
    from convmodel_cli.model.generation import respond

    order = sorted(range(len(contexts)), key=lambda index: -len(contexts[index].ids))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        builders = [ResponseBuilder(model) for _ in rows]
        chosen = [contexts[row] for row in rows]
        for token in respond(model, chosen, sampling, compute, with_types):
            builders[token.row].add(token)
        for row, builder in zip(rows, builders, strict=True):
            yield row, builder.response()


def answer_one(
    model: LanguageModel,
    turns: Sequence[str],
    persona: str,
    sampling: SamplingSettings,
    compute: Compute,
    max_context: int,
    with_types: bool,
) -> Response:
    """The response to one context."""
    context, _ = make_context(model, turns, persona, Limits(sampling.max_new_tokens, max_context))
    [(_, response)] = answer_all(model, [context], sampling, compute, with_types, batch_size=1)
    return response


class ResponseBuilder:
    """Gathers the tokens of one response."""

    def __init__(self, model: LanguageModel) -> None:
        from convmodel_cli.model.text import TextStream

        self._stream = TextStream(model.tokenizer)
        self._logprobs: list[float] = []
        self._finish = "interrupted"

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self._stream.ids)

    def add(self, token: Token) -> str:
        """Take the next token; returns the characters it finishes."""
        if token.id is not None or token.finish == "stop":  # the sep that ends a response is a choice like any other
            self._logprobs.append(token.logprob)
        self._finish = token.finish or self._finish
        return "" if token.id is None else self._stream.add(token.id)

    def response(self) -> Response:
        """The response so far; "interrupted" unless its last token said otherwise."""
        mean = sum(self._logprobs) / len(self._logprobs) if self._logprobs else 0.0
        return Response(self._stream.text, self._finish, mean, len(self._stream.ids))
