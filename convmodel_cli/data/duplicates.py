"""Conversations that stand more than once: in one set, or in two that should share none.

Equal keys make candidates, of which the texts are compared before one is reported; keys take no memory to speak of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convmodel_cli.data.content import exact_text, loose_text
from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.store import Conversations, in_store


@dataclass(frozen=True, slots=True)
class Repeat:
    """`where` says what `first` says; not `exact` if they differ in case, white space or composed characters."""

    where: str
    first: str
    exact: bool


def find_duplicates(conversations: Iterable[Conversation]) -> Iterator[Repeat]:
    """Conversations that repeat an earlier one of the same set."""
    stored = in_store(conversations)
    keys = stored.loose_keys
    firsts: dict[int, list[int]] = {}  # of each key, one for each text that has it
    for index in np.flatnonzero(_stand_twice(keys)).tolist():
        known = firsts.setdefault(int(keys[index]), [])
        first = _first_alike(stored[index], stored, known)
        if first is None:
            known.append(index)
        else:
            yield _repeat(stored[index], first)


def find_overlap(train: Iterable[Conversation], valid: Iterable[Conversation]) -> Iterator[Repeat]:
    """Conversations of the second set that the first one holds too; of several there, one that is exactly alike."""
    held, asked = in_store(train), in_store(valid)
    _, different = np.unique(held.content_keys, return_index=True)
    different.sort()
    held = held.choose(different)
    order = np.argsort(held.loose_keys, kind="stable")
    keys = held.loose_keys[order]
    begins = np.searchsorted(keys, asked.loose_keys, "left")
    ends = np.searchsorted(keys, asked.loose_keys, "right")
    for index in np.flatnonzero(ends > begins).tolist():
        conversation = asked[index]
        first = _first_alike(conversation, held, order[begins[index] : ends[index]].tolist())
        if first is not None:
            yield _repeat(conversation, first)


def _stand_twice(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which keys are not the only ones of their kind."""
    ordered = np.sort(keys)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated) == 0:
        return np.zeros(len(keys), np.bool_)
    return np.asarray(repeated.take(np.searchsorted(repeated, keys), mode="clip") == keys)


def _first_alike(conversation: Conversation, among: Conversations, candidates: list[int]) -> Conversation | None:
    """The first candidate that says exactly the same, else the first that nearly does."""
    others = [among[index] for index in candidates]
    exactly = [other for other in others if exact_text(other) == exact_text(conversation)]
    nearly = [other for other in others if loose_text(other) == loose_text(conversation)]
    return next(iter(exactly or nearly), None)


def _repeat(conversation: Conversation, first: Conversation) -> Repeat:
    return Repeat(conversation.where, first.where, exact_text(conversation) == exact_text(first))
