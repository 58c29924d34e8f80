"""Responses to choose from: JSON strings in a `.jsonl` or `.json` file, else a line of text each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from convmodel_cli.data.conversations import collect
from convmodel_cli.data.files import iter_parsed
from convmodel_cli.data.formats import BadRecord, parse_record
from convmodel_cli.data.lines import Counts, Place, Problem, decode, numbered_lines, open_bytes, shown_name
from convmodel_cli.data.wording import describe

_EXAMPLE = "write each response on one line of text, or as a JSON string on one line of a .jsonl file"


@dataclass(frozen=True, slots=True)
class Choice:
    """A response that may be given, and where it stands."""

    text: str
    place: Place


def read_choices(path: str) -> list[Choice]:
    """All responses of a file, each once; raises DataError that lists every bad line."""
    is_json = path.removesuffix(".gz").endswith((".jsonl", ".json"))
    records = iter_parsed(path, _parse, Counts()) if is_json else _lines(path)
    first: dict[str, Choice] = {}
    for choice in collect(path, records, "responses to choose from", _EXAMPLE):
        first.setdefault(choice.text, choice)
    return list(first.values())


def _parse(place: Place, record: Any) -> Choice:
    if not isinstance(record, str):
        raise BadRecord(f"expected a response as a string, got {describe(record)}")
    return _checked(place, record)


def _lines(path: str) -> Iterator[Choice | Problem]:
    with open_bytes(path) as stream:
        for number, line in numbered_lines(stream, Counts()):
            place = Place(shown_name(path), number)
            try:
                if isinstance(line, BadRecord):
                    raise line
                if line.strip():
                    yield _checked(place, decode(line))
            except BadRecord as error:
                yield Problem(place, str(error))


def _checked(place: Place, text: str) -> Choice:
    try:
        [turn] = parse_record([text], min_turns=1).turns
    except BadRecord as error:
        raise BadRecord(str(error).removeprefix("turn 1: ")) from None
    return Choice(turn, place)
