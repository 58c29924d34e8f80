"""Files of conversations: reading them, and what is wrong with a line.

A file is JSON Lines, one record a line, perhaps gzipped; `-` is standard input. Lines are split on the byte `\\n`
alone, because text may hold other characters that Python takes for line ends.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson

from convmodel_cli.data.formats import BadRecord, Conversation, parse_record
from convmodel_cli.errors import DataError, UsageError

STDIN = "-"
STDIN_SHOWN = "<stdin>"
MAX_LINE_BYTES = 16 * 2**20
_MAX_DEPTH_OF_JSON = 1000
_EXAMPLE = 'write each conversation on one line, like ["Hello", "Hi there"]'


Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, from 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that is no record. `str()` is `file:line: what is wrong, got what`."""

    place: Place
    what: str

    def __str__(self) -> str:
        return f"{self.place.file}:{self.place.line}: {self.what}"


def shown_name(path: str) -> str:
    """The name of a file in messages."""
    return STDIN_SHOWN if path == STDIN else path


def read_conversations(path: str, min_turns: int = 2) -> list[Conversation]:
    """All conversations of a file; raises DataError that lists every bad line, UsageError if there is no such file."""
    return collect(path, iter_conversations(path, min_turns), "conversations", _EXAMPLE)


def collect(path: str, records: Iterable[Record | Problem], what: str, example: str) -> list[Record]:
    """All good records; raises DataError for all bad ones together, and if there are none at all."""
    good: list[Record] = []
    problems: list[Problem] = []
    for record in records:
        if isinstance(record, Problem):
            problems.append(record)
        else:
            good.append(record)
    if problems:
        raise bad_lines(problems, len(good), example)
    if not good:
        raise DataError(f"{shown_name(path)}: expected {what}, got an empty file", example)
    return good


def bad_lines(problems: list[Problem], accepted: int, example: str = _EXAMPLE) -> DataError:
    """One error for all bad lines."""
    lines = "1 bad line" if len(problems) == 1 else f"{len(problems):,} bad lines"
    shown = tuple(str(problem) for problem in problems)
    return DataError(f"{problems[0].place.file}: {lines}, {accepted:,} good", example, shown)


def iter_conversations(path: str, min_turns: int = 2) -> Iterator[Conversation | Problem]:
    """One conversation or problem for each line that is not blank, in the order of the file."""
    for place, record in iter_records(path, lambda line: parse_record(parse_json(line), min_turns)):
        yield record if isinstance(record, Problem) else replace(record, file=place.file, line=place.line)


def iter_records(path: str, parse: Callable[[bytes], Record]) -> Iterator[tuple[Place, Record | Problem]]:
    """What `parse` makes of each line that is not blank; it raises BadRecord for a bad one."""
    name = shown_name(path)
    for number, line in _numbered_lines(path):
        place = Place(name, number)
        if isinstance(line, str):
            yield place, Problem(place, line)
            continue
        try:
            yield place, parse(line)
        except BadRecord as error:
            yield place, Problem(place, str(error))


def _numbered_lines(path: str) -> Iterator[tuple[int, bytes | str]]:
    """(number from 1, line without its end) for each line that is not blank; a text in its place says its fault."""
    number = 0
    with open_bytes(path) as stream:
        try:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    yield number, f"expected a line of at most {MAX_LINE_BYTES:,} bytes, got a longer one"
                    _skip_line(stream)
                    continue
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                line = line.removesuffix(b"\n").removesuffix(b"\r")
                if line.strip(b" \t\r"):
                    yield number, line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield number + 1, f"expected gzip data, got a damaged stream ({error})"


def _skip_line(stream: IO[bytes]) -> None:
    while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass


@contextmanager
def open_bytes(path: str) -> Iterator[IO[bytes]]:
    """Open a file, a gzipped file or standard input for reading; raises UsageError if that cannot be done."""
    if path == STDIN:
        if sys.stdin is None:
            raise UsageError("standard input is closed", "pipe the conversations in, or name a file")
        yield sys.stdin.buffer
        return
    if Path(path).is_dir():
        raise UsageError(f"{path}: expected a file of conversations, got a folder")
    try:
        stream = Path(path).open("rb")  # noqa: SIM115  closed below; only opening it may fail here
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", _near_files(path)) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {_reason(error)}") from None
    with stream, _unzipped(stream, path) as content:
        yield content


def _unzipped(stream: IO[bytes], path: str) -> Any:
    return gzip.open(stream, "rb") if path.endswith(".gz") else stream


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _near_files(path: str) -> str:
    """What lies in the folder where the file was expected."""
    folder = Path(path).parent
    if not folder.is_dir():
        return f"there is no folder {folder} either"
    there = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith((".jsonl", ".jsonl.gz")))
    where = "this folder" if str(folder) == "." else str(folder)
    return f"{where} has {', '.join(there[:8])}" if there else f"{where} has no .jsonl file"


def parse_json(line: bytes) -> Any:
    """The value on one line of JSON; raises BadRecord with the column where it stops being JSON."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadRecord(_json_fault(line, error)) from None


def _json_fault(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as fault:
        return f"expected UTF-8, got the byte 0x{line[fault.start]:02x} in column {fault.start + 1}"
    if line.count(b"[") + line.count(b"{") > _MAX_DEPTH_OF_JSON and "recursion" in error.msg.lower():
        return "expected a list of turns, got brackets nested over a thousand deep"
    return f"expected JSON, got something else in column {error.colno} ({error.msg.split(':')[0]})"


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
