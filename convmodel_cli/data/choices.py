"""Responses to choose from: a line of text each, or JSON strings in a `.jsonl` or `.json` file."""

from __future__ import annotations

from typing import Any

from convmodel_cli.data.conversations import collect
from convmodel_cli.data.files import iter_parsed
from convmodel_cli.data.formats import BadRecord, parse_record
from convmodel_cli.data.lines import Counts, Place
from convmodel_cli.data.wording import describe

_EXAMPLE = "write each response on one line of a .txt file, or as a JSON string on one line of a .jsonl file"


def read_choices(path: str) -> list[str]:
    """All responses of a file, each once; raises DataError that lists every bad line."""
    found = collect(path, iter_parsed(path, _parse_choices, Counts()), "responses to choose from", _EXAMPLE)
    return list(dict.fromkeys(choice for choices in found for choice in choices))


def _parse_choices(_: Place, record: Any) -> tuple[str, ...]:
    if not isinstance(record, str | list):
        raise BadRecord(f"expected a response, got {describe(record)}")
    return parse_record([record] if isinstance(record, str) else record, min_turns=1).turns
