"""Files -> records: JSON Lines, JSON arrays, CSV, TSV and text, each perhaps gzipped; Parquet; data sets of the hub.

Which kind a file is, its name says; `-` is standard input. A record is a JSON value; what conversation it holds is
the business of `formats`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from gzip import BadGzipFile
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson

from convmodel_cli.data import lines
from convmodel_cli.data.columns import HUB, read_hub, read_parquet
from convmodel_cli.data.formats import BadRecord
from convmodel_cli.data.json_records import parse_json, read_json_array
from convmodel_cli.data.lines import (
    STDIN,
    Counts,
    Place,
    Problem,
    decode,
    numbered_lines,
    open_bytes,
    shown_name,
    too_long,
)
from convmodel_cli.data.tables import read_csv, read_tsv

Parsed = TypeVar("Parsed")
Records = Iterator[tuple[int, Any]]  # (line on which it begins, record or BadRecord)


def iter_records(path: str, counts: Counts, text_too: bool = False) -> Iterator[tuple[Place, Any]]:
    """(place, record or Problem) for each record of a file, in its order; `counts` grows on the way.

    With `text_too`, a line of standard input that is no JSON is a record of one turn.
    """
    name = shown_name(path)
    for number, record in _records(path, counts, text_too):
        place = Place(name, number)
        yield place, Problem(place, str(record)) if isinstance(record, BadRecord) else record


def _records(path: str, counts: Counts, text_too: bool) -> Records:
    if path.startswith(HUB):
        yield from read_hub(path, counts)
        return
    kind = Path(path.removesuffix(".gz")).suffix.lower()
    read = _READERS.get(kind, _read_json_lines)
    if text_too and path == STDIN:
        read = _read_json_or_text
    with open_bytes(path) as stream:
        try:
            yield from read(stream, counts)
        except (EOFError, zlib.error, BadGzipFile) as error:
            counts.lines += 1  # the one that broke off
            yield counts.lines, BadRecord(f"expected gzip data, got a damaged stream ({_damage(error, counts)})")


def _damage(error: Exception, counts: Counts) -> str:
    if "Not a gzipped file" not in str(error):
        return str(error)
    return "no gzip file" if counts.lines == 1 else "something else follows it"


def iter_parsed(
    path: str, parse: Callable[[Place, Any], Parsed], counts: Counts, text_too: bool = False
) -> Iterator[Parsed | Problem]:
    """What `parse` makes of each record of a file, in its order; it raises BadRecord for one that is bad."""
    for place, record in iter_records(path, counts, text_too):
        try:
            yield record if isinstance(record, Problem) else parse(place, record)
        except BadRecord as error:
            yield Problem(place, str(error))


def _each_line(stream: IO[bytes], counts: Counts, parse: Callable[[bytes], Any]) -> Records:
    """What `parse` makes of each line that is not blank."""
    for number, line in numbered_lines(stream, counts):
        if isinstance(line, BadRecord):
            yield number, line
        elif not line.strip(b" \t\r"):
            counts.blank += 1
        else:
            try:
                yield number, parse(line)
            except BadRecord as error:
                yield number, error


def _read_json_lines(stream: IO[bytes], counts: Counts) -> Records:
    return _each_line(stream, counts, parse_json)


def _read_json_or_text(stream: IO[bytes], counts: Counts) -> Records:
    return _each_line(stream, counts, _parse_json_or_text)


def _parse_json_or_text(line: bytes) -> Any:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return [decode(line)]
    return parse_json(line) if isinstance(value, dict | list) else [decode(line)]


def _read_text(stream: IO[bytes], counts: Counts) -> Records:
    """A turn a line, a blank line between conversations."""
    turns: list[str] = []
    first = size = 0
    for number, line in numbered_lines(stream, counts):
        try:
            if isinstance(line, BadRecord):
                raise line
            text = decode(line)
        except BadRecord as error:
            yield number, error
            continue
        if text.strip():
            first, size = (first, size) if turns else (number, 0)
            size += len(line) + 1
            turns.append(text)
            if size > lines.MAX_LINE_BYTES:
                yield first, too_long()
                return
            continue
        counts.blank += 1
        if turns:
            yield first, turns
            turns = []
    if turns:
        yield first, turns


_READERS: dict[str, Callable[[IO[bytes], Counts], Records]] = {
    ".json": read_json_array,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".txt": _read_text,
    ".parquet": read_parquet,
}
