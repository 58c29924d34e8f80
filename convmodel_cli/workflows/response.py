"""A response as it grows from tokens, and what it is when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convmodel_cli.answer_events import Response

if TYPE_CHECKING:
    from convmodel_cli.model.generation import Token
    from convmodel_cli.model.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class Written:
    """A response with the ids it was made of: encoding its text again could give others."""

    ids: tuple[int, ...]
    response: Response


def best_first(responses: Sequence[Written]) -> list[Written]:
    """Stable, so that equal scores keep the order in which they were drawn."""
    return sorted(responses, key=lambda written: -written.response.logprob)


def shown_score(logprob: float) -> float:
    """As many digits as do not depend on the batch."""
    return round(logprob, 4)


class ResponseBuilder:
    """Gathers the tokens of one response."""

    def __init__(self, model: LanguageModel, stop_words: Sequence[str] = ()) -> None:
        from convmodel_cli.model.text import TextStream

        self._stream = TextStream(model, stop_words)
        self._logprobs: list[float] = []
        self._finish = "interrupted"

    @property
    def stopped(self) -> bool:
        """Whether a stop word has ended it: no more tokens are wanted."""
        return self._stream.stopped

    @property
    def text(self) -> str:
        return self._stream.text

    def finish(self) -> str:
        """What is held back, when no more tokens are wanted."""
        return self._stream.finish()

    def add(self, token: Token) -> str:
        """Take the next token; returns the characters that are certain now."""
        if token.id is not None or token.finish == "stop":  # the sep that ends a response is a choice like any other
            self._logprobs.append(token.logprob)
        piece = self._stream.finish() if token.id is None else self._stream.add(token.id)
        self._finish = "stop" if self._stream.stopped else token.finish or self._finish
        return piece

    def written(self) -> Written:
        """The response so far; "interrupted" unless its last token said otherwise."""
        mean = sum(self._logprobs) / len(self._logprobs) if self._logprobs else 0.0
        ids = self._stream.ids
        return Written(ids, Response(self._stream.text, self._finish, shown_score(mean), len(ids)))
