"""What is reported of responses: while one is written, and when it is done. The other events are in `events.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Response:
    """A response: `finish` is "stop" if it ended by itself, "length" if it was cut, "interrupted" if it was stopped.

    `logprob` is the mean log-probability of its tokens under the model, before any sampling setting.
    """

    text: str
    finish: str
    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The responses to one context, best first; `problem` in their place if the context could not be read."""

    context: tuple[str, ...]
    responses: tuple[Response, ...] = ()
    problem: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether a response says nothing."""
        return any(not response.text.strip() for response in self.responses)


@dataclass(frozen=True, slots=True)
class Talked:
    """A conversation of the model with itself, as a record that `fit` reads, or None while it has a single turn.

    `ended_early`: the model said nothing that could be a turn.
    """

    record: Any
    ended_early: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """The next characters of a response that is being written; never a part of a character."""

    text: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """What no longer fits the context and is not shown to the model: the oldest turns, and the start of the newest."""

    turns: int
    tokens_of_newest: int

    @property
    def what(self) -> str:
        """In words."""
        parts = []
        if self.turns:
            parts.append(f"the oldest {self.turns:,} turns" if self.turns > 1 else "the oldest turn")
        if self.tokens_of_newest:
            parts.append(f"the first {self.tokens_of_newest:,} tokens of the newest turn")
        return " and ".join(parts)
