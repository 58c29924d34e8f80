"""Files of conversations: reading them, what is wrong with them, and setting some aside."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from convmodel_cli.data.files import iter_parsed
from convmodel_cli.data.formats import BadRecord, Conversation, parse_record, shape_of, unread_keys
from convmodel_cli.data.json_records import ARRAY_BEGINS
from convmodel_cli.data.lines import Counts, Place, Problem, shown_name
from convmodel_cli.data.store import Conversations, as_record, in_store
from convmodel_cli.data.texts import Texts
from convmodel_cli.errors import DataError

Record = TypeVar("Record")
_EXAMPLE = 'write each conversation on one line, like ["Hello", "Hi there"]'
_MOST_UNREAD = 100
_NAME_IT_JSON = "a JSON array that goes over several lines belongs into a file named .json"


@dataclass(frozen=True, slots=True)
class FileReport:
    """What was found in a file, each figure counted by itself.

    In JSON Lines `accepted + rejected + blank` is `lines`; elsewhere a conversation may have several lines.
    `shapes` says how many of the accepted ones have each shape, the most frequent first, and `unread` how many have
    a key by which nothing is meant.
    """

    file: str
    lines: int
    blank: int
    accepted: int
    rejected: int
    shapes: tuple[tuple[str, int], ...]
    unread: tuple[tuple[str, int], ...] = ()


def read_conversations(path: str) -> Conversations:
    """All conversations of a file; raises DataError that lists every bad line, UsageError if there is no such file."""
    conversations = Conversations()
    read_into(conversations, path)
    return conversations


def read_into(conversations: Conversations, path: str) -> FileReport:
    """Append the conversations of a file; raises DataError for all bad lines together, and if none is there."""
    report, problems = read_good_into(conversations, path)
    if problems:
        raise _bad_lines(path, problems, report.accepted, _EXAMPLE)
    return report


def read_good_into(conversations: Conversations, path: str) -> tuple[FileReport, Texts]:
    """Append the good conversations of a file and say what is wrong with the others; raises DataError if none is."""
    counts, shapes, unread = Counts(), Counter[str](), Counter[str]()
    before = len(conversations)
    problems = _sort(_iter_counted(path, 2, False, counts, shapes, unread), conversations.append)
    accepted = len(conversations) - before
    if not accepted:
        raise _bad_lines(path, problems, 0, _EXAMPLE) if problems else _empty(path, "conversations", _EXAMPLE)
    found = tuple(shapes.most_common()), tuple(unread.most_common())
    return FileReport(shown_name(path), counts.lines, counts.blank, accepted, len(problems), *found), problems


def collect(path: str, records: Iterable[Record | Problem], what: str, example: str) -> list[Record]:
    """All good records; raises DataError for all bad ones together, and if there are none at all."""
    good: list[Record] = []
    problems = _sort(records, good.append)
    if problems:
        raise _bad_lines(path, problems, len(good), example)
    if not good:
        raise _empty(path, what, example)
    return good


def _sort(records: Iterable[Record | Problem], keep: Callable[[Record], None]) -> Texts:
    """Keep the good ones and return what is wrong with the bad ones."""
    problems = Texts()
    for record in records:
        if isinstance(record, Problem):
            problems.append(str(record))
        else:
            keep(record)
    return problems


def _empty(path: str, what: str, example: str) -> DataError:
    return DataError(f"{shown_name(path)}: expected {what}, got an empty file", example)


def _bad_lines(path: str, problems: Texts, accepted: int, example: str) -> DataError:
    """One error for all bad lines."""
    lines = "1 bad line" if len(problems) == 1 else f"{len(problems):,} bad lines"
    hint = _NAME_IT_JSON if problems[0].endswith(ARRAY_BEGINS) else example
    return DataError(f"{shown_name(path)}: {lines}, {accepted:,} good", hint, problems)


def iter_conversations(path: str, min_turns: int = 2, text_too: bool = False) -> Iterator[Conversation | Problem]:
    """One conversation or problem for each record of the file, in its order."""
    return _iter_counted(path, min_turns, text_too, Counts(), Counter(), Counter())


def _iter_counted(
    path: str, min_turns: int, text_too: bool, counts: Counts, shapes: Counter[str], unread: Counter[str]
) -> Iterator[Conversation | Problem]:
    def parse(place: Place, record: Any) -> Conversation:
        bare = parse_record(record, min_turns)
        shapes[shape_of(record)] += 1
        for key in unread_keys(record):
            if key in unread or len(unread) < _MOST_UNREAD:
                unread[key] += 1
        return Conversation(bare.turns, bare.assistant, bare.learn, bare.persona, place.file, place.line)

    return iter_parsed(path, parse, counts, text_too)


def parse_given(record: Any, what: str, min_turns: int) -> Conversation:
    """The conversation in a record that stands in no file; raises DataError that says `what` it was."""
    try:
        return parse_record(record, min_turns)
    except BadRecord as error:
        raise DataError(f"{what}: {error}") from None


def count_different(conversations: Conversations) -> int:
    """How many there are without those that are said again."""
    return len(_different(conversations.content_keys))


def _different(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each key once, in rising order; `np.unique` takes eight times the memory."""
    ordered = np.sort(keys)
    first = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    return np.asarray(ordered[first])


def hold_out(conversations: Iterable[Conversation], shares: tuple[float, ...]) -> tuple[Conversations, ...]:
    """Split by content into parts of these shares: the same conversation always falls into the same part.

    Conversations are ranked by the key of their content, so that the shares are exact to one conversation and
    neither the order of the file nor a seed matters; equal conversations stay together. Parts keep the file's order.
    """
    stored = in_store(conversations)
    keys = stored.content_keys
    different = _different(keys)
    rank = np.searchsorted(different, keys)
    bounds = _bounds(len(different), shares)
    return tuple(stored.choose(np.flatnonzero((rank >= start) & (rank < end))) for start, end in bounds)


def _bounds(count: int, shares: tuple[float, ...]) -> list[tuple[int, int]]:
    """Start and end of each part; every part but the first has at least one if its share is not 0."""
    sizes = [max(1, round(count * share)) if share > 0 else 0 for share in shares[1:]]
    starts = [0, count - sum(sizes)]
    for size in sizes:
        starts.append(starts[-1] + size)
    return list(pairwise(starts))


def digest(conversations: Iterable[Conversation]) -> str:
    """SHA-256 over everything that is trained on, in order: turns, roles, learn flags and personas."""
    records = conversations.records() if isinstance(conversations, Conversations) else map(as_record, conversations)
    total = hashlib.sha256()
    for record in records:
        total.update(record)
    return total.hexdigest()
