"""CSV and TSV -> records: rows of `prompt,response`, or rows of `conversation_id,speaker,text`."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from convmodel_cli.data import lines
from convmodel_cli.data.formats import BadRecord

Records = Iterator[tuple[int, Any]]  # (line on which it begins, record or BadRecord)


def read_csv(stream: IO[bytes], counts: lines.Counts) -> Records:
    return _read_table(stream, counts, ",")


def read_tsv(stream: IO[bytes], counts: lines.Counts) -> Records:
    return _read_table(stream, counts, "\t")


def _read_table(stream: IO[bytes], counts: lines.Counts, delimiter: str) -> Records:
    """Rows of `prompt,response`, or of `conversation_id,speaker,text` with the rows of a conversation together."""
    rows = _rows(stream, counts, delimiter)
    try:
        line, header = next(rows)
    except StopIteration:
        return
    columns = [] if isinstance(header, BadRecord) else [name.strip() for name in header]
    twice = [name for name, count in Counter(columns).items() if name and count > 1]  # spreadsheets have nameless ones
    if twice:
        yield line, BadRecord(f'expected each column once, got "{twice[0]}" twice')
    elif {"conversation_id", "speaker", "text"} <= set(columns):
        yield from _grouped(rows, columns)
    elif "prompt" in columns and ("response" in columns or "completion" in columns):
        for number, row in rows:
            yield number, row if isinstance(row, BadRecord) else _named(row, columns)
    else:
        found = ", ".join(columns) or "none"
        yield line, BadRecord(f"expected the columns prompt,response or conversation_id,speaker,text, got {found}")


def _rows(stream: IO[bytes], counts: lines.Counts, delimiter: str) -> Records:
    """(line on which it begins, cells or BadRecord) for each row that is not blank; after a bad one it goes on."""
    csv.field_size_limit(lines.MAX_LINE_BYTES)
    text = _Text(stream, counts)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        begins = text.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except BadRecord as error:
            yield text.number, error
        except csv.Error as error:
            yield begins, BadRecord(f"expected a row of a table, got {error}")
            if "field limit" in str(error):  # a quote that never ends: what follows are no rows
                return
        else:
            if any(cell.strip() for cell in row):
                yield begins, row
            else:
                counts.blank += 1


class _Text:
    """The lines of a table as text; unlike a generator it goes on after a line that is none."""

    def __init__(self, stream: IO[bytes], counts: lines.Counts) -> None:
        self._numbered = lines.numbered_lines(stream, counts)
        self.number = 0

    def __iter__(self) -> _Text:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._numbered)
        if isinstance(line, BadRecord):
            raise line
        return lines.decode(line) + "\n"


def _named(row: list[str], columns: list[str]) -> Any:
    if len(row) != len(columns):
        return BadRecord(f"expected {len(columns)} cells as in the header, got {len(row)}")
    return dict(zip(columns, row, strict=True))


def _grouped(rows: Iterator[tuple[int, Any]], columns: list[str]) -> Records:
    parts: list[dict[str, str]] = []
    current: str | None = None
    first, size, spoilt = 0, 0, False
    done: set[str | None] = set()
    for number, row in rows:
        named = row if isinstance(row, BadRecord) else _named(row, columns)
        if isinstance(named, BadRecord):
            yield number, named
            parts, spoilt = [], True  # a conversation without one of its rows is another one
            continue
        if named["conversation_id"] != current:
            if parts:
                yield first, parts
            done.add(current)
            current, parts, first, size = named["conversation_id"], [], number, 0
            spoilt = current in done
            if spoilt:
                yield number, BadRecord(f"expected the rows of a conversation together, got {current!r} again")
        if spoilt:
            continue
        parts.append({"speaker": named["speaker"], "text": named["text"]})
        size += len(named["speaker"]) + len(named["text"])
        if size > lines.MAX_LINE_BYTES:
            yield first, lines.too_long()
            return
    if parts:
        yield first, parts
