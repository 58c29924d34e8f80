"""Files -> records: JSON Lines, JSON arrays, CSV, TSV and text, each perhaps gzipped; `-` is standard input.

Which kind a file is, its name says. A record is a JSON value; what conversation it holds is the business of
`formats`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from gzip import BadGzipFile
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson

from convmodel_cli.data.formats import BadRecord
from convmodel_cli.data.json_records import parse_json, read_json_array
from convmodel_cli.data.lines import STDIN, Place, Problem, decode, numbered_lines, open_bytes, shown_name
from convmodel_cli.data.tables import read_csv, read_tsv

Parsed = TypeVar("Parsed")
Records = Iterator[tuple[int, Any]]  # (line on which it begins, record or BadRecord)


def iter_records(path: str, text_too: bool = False) -> Iterator[tuple[Place, Any]]:
    """(place, record or Problem) for each record of a file, in its order.

    With `text_too`, a line of standard input that is no JSON is a record of one turn.
    """
    name = shown_name(path)
    kind = Path(path.removesuffix(".gz")).suffix.lower()
    read = _READERS.get(kind, _read_json_lines)
    if text_too and path == STDIN:
        read = _read_json_or_text
    number = 0
    with open_bytes(path) as stream:
        try:
            for number, record in read(stream):
                place = Place(name, number)
                yield place, Problem(place, str(record)) if isinstance(record, BadRecord) else record
        except (EOFError, zlib.error, BadGzipFile) as error:
            place = Place(name, number + 1)
            reason = "no gzip file" if isinstance(error, BadGzipFile) else str(error)
            yield place, Problem(place, f"expected gzip data, got a damaged stream ({reason})")


def iter_parsed(path: str, parse: Callable[[Place, Any], Parsed], text_too: bool = False) -> Iterator[Parsed | Problem]:
    """What `parse` makes of each record of a file, in its order; it raises BadRecord for one that is bad."""
    for place, record in iter_records(path, text_too):
        try:
            yield record if isinstance(record, Problem) else parse(place, record)
        except BadRecord as error:
            yield Problem(place, str(error))


def _each_line(stream: IO[bytes], parse: Callable[[bytes], Any]) -> Records:
    """What `parse` makes of each line that is not blank."""
    for number, line in numbered_lines(stream):
        if isinstance(line, BadRecord):
            yield number, line
        elif line.strip(b" \t\r"):
            try:
                yield number, parse(line)
            except BadRecord as error:
                yield number, error


def _read_json_lines(stream: IO[bytes]) -> Records:
    return _each_line(stream, parse_json)


def _read_json_or_text(stream: IO[bytes]) -> Records:
    return _each_line(stream, _parse_json_or_text)


def _parse_json_or_text(line: bytes) -> Any:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return [decode(line)]
    return parse_json(line) if isinstance(value, dict | list) else [decode(line)]


def _read_text(stream: IO[bytes]) -> Records:
    """A turn a line, a blank line between conversations."""
    turns: list[str] = []
    first = 0
    for number, line in numbered_lines(stream):
        try:
            if isinstance(line, BadRecord):
                raise line
            text = decode(line)
        except BadRecord as error:
            yield number, error
            continue
        if text.strip():
            first = first if turns else number
            turns.append(text)
        elif turns:
            yield first, turns
            turns = []
    if turns:
        yield first, turns


_READERS: dict[str, Callable[[IO[bytes]], Records]] = {
    ".json": read_json_array,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".txt": _read_text,
}
