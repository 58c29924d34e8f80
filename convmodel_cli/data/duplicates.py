"""Conversations that stand more than once: in one set, or in two that should share none.

Equal keys make candidates, of which the texts are compared before one is reported. Keys and places are arrays, so that
memory hardly grows however many stand more than once.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from convmodel_cli.data.content import exact_text, loose_text
from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.store import Conversations, in_store

_AT_ONCE = 8192
_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class Repeat:
    """`where` says what `first` says; not `exact` if they differ in case, white space or composed characters."""

    where: str
    first: str
    exact: bool


@dataclass(frozen=True, slots=True)
class Repeats:
    """How many there are, and the first thousand of them."""

    count: int = 0
    shown: tuple[Repeat, ...] = ()


def gather(repeats: Iterable[Repeat]) -> Repeats:
    """Count all, and keep the first."""
    coming = iter(repeats)
    shown = tuple(islice(coming, _SHOWN))
    return Repeats(len(shown) + sum(1 for _ in coming), shown)


def find_duplicates(conversations: Iterable[Conversation]) -> Iterator[Repeat]:
    """Conversations that repeat an earlier one of the same set."""
    stored = in_store(conversations)
    others: defaultdict[int, list[int]] = defaultdict(list)  # of a first one: what has its key and another text
    for pair in _compare(stored, stored, *_with_first(stored.loose_keys)):
        if pair.alike:
            yield _repeat(stored, stored, pair)
            continue
        better = _first_alike(stored, stored, pair.index, others[pair.first])
        if better is None:
            others[pair.first].append(pair.index)
        else:
            yield _repeat(stored, stored, better)


def _with_first(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(places of keys that stand further in front too, the first place of each of these keys)"""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.append(True, ordered[1:] != ordered[:-1])[: len(keys)]
    again = np.flatnonzero(~begins)
    groups = np.flatnonzero(begins)
    later, first = order[again], order[groups[np.searchsorted(groups, again) - 1]]
    by_place = np.argsort(later)
    return later[by_place], first[by_place]


def find_overlap(train: Iterable[Conversation], valid: Iterable[Conversation]) -> Iterator[Repeat]:
    """Conversations of the second set that the first one holds too; of several there, one that is exactly alike."""
    held, asked = in_store(train), in_store(valid)
    keys = held.loose_keys
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    begins = np.searchsorted(keys, asked.loose_keys, "left")
    ends = np.searchsorted(keys, asked.loose_keys, "right")
    there = np.flatnonzero(ends > begins)
    for pair in _compare(asked, held, there, _exact_or(held, asked.choose(there), order[begins[there]])):
        if pair.alike:
            yield _repeat(asked, held, pair)
            continue
        others = order[begins[pair.index] : ends[pair.index]].tolist()
        better = _first_alike(asked, held, pair.index, others)
        if better is not None:
            yield _repeat(asked, held, better)


def _exact_or(held: Conversations, asked: Conversations, others: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each that is asked for the first place that has exactly its content, else the given one."""
    if len(asked) == 0:
        return others
    order = np.argsort(held.content_keys, kind="stable")
    keys = held.content_keys[order]
    place = np.searchsorted(keys, asked.content_keys)
    found = keys.take(place, mode="clip") == asked.content_keys
    return np.where(found, order.take(place, mode="clip"), others)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A conversation of one set and one of the other that may be alike, `exact` or nearly."""

    index: int
    first: int
    exact: bool
    alike: bool


def _compare(
    asked: Conversations, held: Conversations, indices: NDArray[np.int64], firsts: NDArray[np.int64]
) -> Iterator[_Pair]:
    """Each with its first, in the order given. Many are read at once, in rising order, which a spool is fast at."""
    for start in range(0, len(indices), _AT_ONCE):
        block, candidates = indices[start : start + _AT_ONCE], firsts[start : start + _AT_ONCE]
        needed = np.unique(candidates)
        known = dict(zip(needed.tolist(), map(_digests, held.choose(needed)), strict=True))
        said = map(_digests, asked.choose(block))
        for index, first, digests in zip(block.tolist(), candidates.tolist(), said, strict=True):
            yield _pair(index, first, digests, known[first])


def _first_alike(asked: Conversations, held: Conversations, index: int, candidates: list[int]) -> _Pair | None:
    """The first candidate that says exactly the same, else the first that nearly does."""
    digests = _digests(asked[index])
    pairs = [_pair(index, other, digests, _digests(held[other])) for other in candidates]
    alike = [pair for pair in pairs if pair.alike]
    return next((pair for pair in alike if pair.exact), next(iter(alike), None))


def _pair(index: int, first: int, one: tuple[bytes, bytes], other: tuple[bytes, bytes]) -> _Pair:
    return _Pair(index, first, one[0] == other[0], one[1] == other[1])


def _digests(conversation: Conversation) -> tuple[bytes, bytes]:
    """(of the exact text, of the loose one), which stand for texts of any length."""
    exact, loose = exact_text(conversation), loose_text(conversation)
    return hashlib.sha256(exact.encode()).digest(), hashlib.sha256(loose.encode()).digest()


def _repeat(asked: Conversations, held: Conversations, pair: _Pair) -> Repeat:
    return Repeat(asked.where(pair.index), held.where(pair.first), pair.exact)
