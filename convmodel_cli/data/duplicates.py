"""Conversations that stand more than once: in one set, or in two that should share none."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from convmodel_cli.data.conversations import content_key
from convmodel_cli.data.formats import Conversation


@dataclass(frozen=True, slots=True)
class Repeat:
    """`where` says what `first` says; not `exact` if they differ in case, white space or composed characters."""

    where: str
    first: str
    exact: bool


def find_duplicates(conversations: Iterable[Conversation]) -> Iterator[Repeat]:
    """Conversations that repeat an earlier one of the same set."""
    seen: dict[str, Conversation] = {}
    for conversation in conversations:
        first = seen.setdefault(_loose_key(conversation), conversation)
        if first is not conversation:
            yield _repeat(conversation, first)


def find_overlap(train: Iterable[Conversation], valid: Iterable[Conversation]) -> Iterator[Repeat]:
    """Conversations of the second set that the first one holds too."""
    known: dict[str, Conversation] = {}
    for conversation in train:
        known.setdefault(content_key(conversation), conversation)
        known.setdefault(_loose_key(conversation), conversation)
    for conversation in valid:
        first = known.get(content_key(conversation)) or known.get(_loose_key(conversation))
        if first is not None:
            yield _repeat(conversation, first)


def _repeat(conversation: Conversation, first: Conversation) -> Repeat:
    exact = (conversation.persona, conversation.turns) == (first.persona, first.turns)
    return Repeat(conversation.where, first.where, exact)


def _loose_key(conversation: Conversation) -> str:
    """Equal for conversations that differ in nothing but case, white space or composed characters."""
    turns = (" ".join(unicodedata.normalize("NFC", turn).casefold().split()) for turn in conversation.turns)
    return "\x1f".join((conversation.persona, *turns))
