"""JSON -> records, strictly: each key once, and where it stops being JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

import orjson

from convmodel_cli.data.formats import BadRecord, describe
from convmodel_cli.data.lines import BOM, decode


def parse_json(line: bytes) -> Any:
    """The value on one line of JSON; raises BadRecord with the column where it stops being JSON."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        decode(line)  # says which byte it is, if it is not UTF-8
        fault = error.msg.split(":")[0]
        found = describe(line.decode()[error.colno - 1 :])
        raise BadRecord(f"expected JSON, got something else in column {error.colno}: {found} ({fault})") from None
    if isinstance(value, dict | list) and b"{" in line:
        _check_keys(line.decode())
    return value


def _check_keys(text: str) -> None:
    """Refuse an object that has a key twice, of which parsers silently keep the last."""
    try:
        json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise BadRecord("expected a conversation, got brackets nested too deep") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadRecord(f'expected each key once, got "{twice}" twice')
    return record


def read_json_array(stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """The elements of one JSON array, wherever on its lines they begin."""
    try:
        text = decode(stream.read().removeprefix(BOM))
        yield from _elements(text)
    except BadRecord as error:
        yield 1, error


def _elements(text: str) -> Iterator[tuple[int, Any]]:
    decoder = json.JSONDecoder(object_pairs_hook=_without_duplicates)
    position = _skip_space(text, 0)
    if text[position : position + 1] != "[":
        raise BadRecord("expected a JSON array of conversations, got something else")
    position = _skip_space(text, position + 1)
    line, counted = 1, 0
    while text[position : position + 1] != "]":
        line += text.count("\n", counted, position)
        counted = position
        try:
            record, position = decoder.raw_decode(text, position)
        except (json.JSONDecodeError, RecursionError, BadRecord) as error:
            fault = error.msg if isinstance(error, json.JSONDecodeError) else error
            yield line, BadRecord(f"expected JSON up to the end of the array, got something else ({fault})")
            return
        yield line, record
        position = _skip_space(text, position)
        if text[position : position + 1] == ",":
            position = _skip_space(text, position + 1)
        elif text[position : position + 1] != "]":
            yield line, BadRecord("expected a comma or ] after this conversation, got something else")
            return


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n"):
        position += 1
    return position
