"""Responses to choose from: JSON strings in a `.jsonl` or `.json` file, else a line of text each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from convmodel_cli.data.conversations import collect
from convmodel_cli.data.files import iter_parsed
from convmodel_cli.data.formats import BadRecord, parse_record
from convmodel_cli.data.lines import Counts, Place, Problem, decode, numbered_lines, open_bytes, shown_name
from convmodel_cli.data.wording import describe

_EXAMPLE = "write each response on one line of text, or as a JSON string on one line of a .jsonl file"


def read_choices(path: str) -> list[str]:
    """All responses of a file, each once; raises DataError that lists every bad line."""
    is_json = path.removesuffix(".gz").endswith((".jsonl", ".json"))
    records = iter_parsed(path, _parse, Counts()) if is_json else _lines(path)
    return list(dict.fromkeys(collect(path, records, "responses to choose from", _EXAMPLE)))


def _parse(_: Place, record: Any) -> str:
    if not isinstance(record, str):
        raise BadRecord(f"expected a response as a string, got {describe(record)}")
    return _checked(record)


def _lines(path: str) -> Iterator[str | Problem]:
    with open_bytes(path) as stream:
        for number, line in numbered_lines(stream, Counts()):
            try:
                if isinstance(line, BadRecord):
                    raise line
                if line.strip():
                    yield _checked(decode(line))
            except BadRecord as error:
                yield Problem(Place(shown_name(path), number), str(error))


def _checked(text: str) -> str:
    try:
        [turn] = parse_record([text], min_turns=1).turns
    except BadRecord as error:
        raise BadRecord(str(error).removeprefix("turn 1: ")) from None
    return turn
