"""Files of conversations: reading them, what is wrong with them, and setting some aside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

from convmodel_cli.data.files import iter_parsed
from convmodel_cli.data.formats import Conversation, parse_record
from convmodel_cli.data.lines import Place, Problem, shown_name
from convmodel_cli.errors import DataError

Record = TypeVar("Record")
_EXAMPLE = 'write each conversation on one line, like ["Hello", "Hi there"]'


def read_conversations(path: str) -> list[Conversation]:
    """All conversations of a file; raises DataError that lists every bad line, UsageError if there is no such file."""
    return collect(path, iter_conversations(path), "conversations", _EXAMPLE)


def read_good_conversations(path: str) -> tuple[list[Conversation], list[Problem]]:
    """(good conversations, what is wrong with the others); raises DataError only if none is good."""
    good, problems = sort_out(iter_conversations(path))
    if problems and not good:
        raise bad_lines(problems, 0)
    return good or collect(path, [], "conversations", _EXAMPLE), problems


def collect(path: str, records: Iterable[Record | Problem], what: str, example: str) -> list[Record]:
    """All good records; raises DataError for all bad ones together, and if there are none at all."""
    good, problems = sort_out(records)
    if problems:
        raise bad_lines(problems, len(good), example)
    if not good:
        raise DataError(f"{shown_name(path)}: expected {what}, got an empty file", example)
    return good


def sort_out(records: Iterable[Record | Problem]) -> tuple[list[Record], list[Problem]]:
    """(good ones, bad ones), each in order."""
    good: list[Record] = []
    problems: list[Problem] = []
    for record in records:
        if isinstance(record, Problem):
            problems.append(record)
        else:
            good.append(record)
    return good, problems


def bad_lines(problems: list[Problem], accepted: int, example: str = _EXAMPLE) -> DataError:
    """One error for all bad lines."""
    lines = "1 bad line" if len(problems) == 1 else f"{len(problems):,} bad lines"
    shown = tuple(str(problem) for problem in problems)
    return DataError(f"{problems[0].place.file}: {lines}, {accepted:,} good", example, shown)


def iter_conversations(path: str, min_turns: int = 2, text_too: bool = False) -> Iterator[Conversation | Problem]:
    """One conversation or problem for each record of the file, in its order."""

    def parse(place: Place, record: Any) -> Conversation:
        return replace(parse_record(record, min_turns), file=place.file, line=place.line)

    return iter_parsed(path, parse, text_too)


def content_key(conversation: Conversation) -> str:
    """A digest of what is said, equal for equal conversations wherever they stand."""
    parts = (conversation.persona, *conversation.turns)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def hold_out(conversations: list[Conversation], shares: tuple[float, ...]) -> tuple[list[Conversation], ...]:
    """Split by content into parts of these shares: the same conversation always falls into the same part.

    Conversations are ranked by the digest of their content, so that the shares are exact to one conversation and
    neither the order of the file nor a seed matters; equal conversations stay together. Parts keep the file's order.
    """
    keys = [content_key(conversation) for conversation in conversations]
    ranked = sorted(set(keys))
    bounds = _bounds(len(ranked), shares)
    part_of = {key: part for part, (start, end) in enumerate(bounds) for key in ranked[start:end]}
    parts: tuple[list[Conversation], ...] = tuple([] for _ in shares)
    for key, conversation in zip(keys, conversations, strict=True):
        parts[part_of[key]].append(conversation)
    return parts


def _bounds(count: int, shares: tuple[float, ...]) -> list[tuple[int, int]]:
    """Start and end of each part; every part but the first has at least one if its share is not 0."""
    sizes = [max(1, round(count * share)) if share > 0 else 0 for share in shares[1:]]
    starts = [0, count - sum(sizes)]
    for size in sizes:
        starts.append(starts[-1] + size)
    return list(pairwise(starts))


def digest(conversations: Iterable[Conversation]) -> str:
    """SHA-256 over what is said, in order."""
    total = hashlib.sha256()
    for conversation in conversations:
        total.update(content_key(conversation).encode())
    return total.hexdigest()
