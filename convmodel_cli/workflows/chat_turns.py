"""What a chat consists of: its turns, what the model sees of them, and what they have taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """A turn as it was said. A response keeps the ids it was made of: encoding its text again could differ.

    `good` is what the user thinks of it, if anything; `whole` unless it is a response that was cut or stopped.
    """

    text: str
    ids: tuple[int, ...]
    good: bool | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class ContextUse:
    """What the model sees of the conversation: `tokens` of at most `most`; `turns` are the tokens of each turn.

    The oldest `dropped` turns are not shown, nor the first `cut` tokens of what the user said last. `tokens` holds
    the seps and the persona too.
    """

    tokens: int
    most: int
    persona: int
    turns: tuple[int, ...]
    dropped: int
    cut: int


@dataclass(slots=True)
class Spent:
    """What the responses of a chat have taken; `first_seconds` is the time to the first token of the last one."""

    responses: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first_seconds: float = 0.0
