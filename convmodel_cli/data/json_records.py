"""JSON -> records, strictly: each key once, finite numbers, and where it stops being JSON."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from typing import IO, Any, NoReturn

import orjson

from convmodel_cli.data import lines
from convmodel_cli.data.formats import BadRecord
from convmodel_cli.data.lines import Counts, decode, not_utf_8
from convmodel_cli.data.wording import describe

_BLOCK_BYTES = 64 * 2**10
_SPACE = re.compile("[ \\t\\r\\n]*")
ARRAY_BEGINS = "expected a conversation on one line, got the beginning of a JSON array over several lines"


def parse_json(line: bytes) -> Any:
    """The value on one line of JSON; raises BadRecord with the column where it stops being JSON."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if line.strip() == b"[":
            raise BadRecord(ARRAY_BEGINS) from None
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
        _STRICT.decode(text)
    except RecursionError:
        raise BadRecord("expected a conversation, got brackets nested too deep") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadRecord(f'expected each key once, got "{twice}" twice')
    return record


def _no_number(name: str) -> NoReturn:
    raise BadRecord(f"JSON has no {name}")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BadRecord(f"a number is too large: {text[:40]}")
    return value


_STRICT = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_no_number, parse_float=_finite)


def read_json_array(stream: IO[bytes], counts: Counts) -> Iterator[tuple[int, Any]]:
    """(line on which it begins, element) of one JSON array, whatever its lines are; a part of it is in memory."""
    text = _Text(stream, counts)
    try:
        yield from _elements(text)
    except BadRecord as error:
        yield text.line, error


def _elements(text: _Text) -> Iterator[tuple[int, Any]]:
    first = text.next_character()
    if not first:
        return
    if first != "[":
        raise BadRecord("expected a JSON array of conversations, got something else")
    text.step()
    while text.next_character() != "]":
        line = text.line
        yield line, text.next_value()
        behind = text.next_character()
        if behind == ",":
            text.step()
        elif behind != "]":
            yield line, BadRecord("expected a comma or ] after this conversation, got something else")
            return
    text.step()
    if text.next_character():
        raise BadRecord("expected nothing behind the array, got something else")


def _broken(fault: object) -> BadRecord:
    return BadRecord(f"expected JSON up to the end of the array, got something else ({fault})")


class _Text:
    """A stream of JSON that is read as far as needed; `line` is where it stands."""

    def __init__(self, stream: IO[bytes], counts: Counts) -> None:
        self.line = 1
        self._stream = stream
        self._counts = counts
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._ended = False

    def next_character(self) -> str:
        """The next one that is not white space, without passing it; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None  # it matches nothing too
            self._pass(match.end())
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read_on()

    def step(self) -> None:
        self._pass(self._at + 1)

    def next_value(self) -> Any:
        """Raises BadRecord if the rest does not begin with a value."""
        while True:
            fault = ""
            try:
                value, end = _STRICT.raw_decode(self._text, self._at)
                # `-3` may be the beginning of `-3.5` or `-3e+5`.
                if self._ended or not isinstance(value, int | float) or end + 3 <= len(self._text):
                    self._pass(end)
                    return value
            except json.JSONDecodeError as error:
                fault = error.msg
            except BadRecord as error:
                raise _broken(error) from None
            except (RecursionError, ValueError) as error:  # too deep, or a number of thousands of digits
                raise _broken(error) from None
            if self._ended:
                raise _broken(fault)
            if len(self._text) - self._at > lines.MAX_LINE_BYTES:
                raise lines.too_long()
            self._read_on()

    def _pass(self, end: int) -> None:
        self.line += self._text.count("\n", self._at, end)
        self._at = end

    def _read_on(self) -> None:
        """Read as much again as is waiting, so that a long value is not tried too often."""
        waiting = self._text[self._at :]
        block = self._stream.read(max(_BLOCK_BYTES, len(waiting)))
        self._counts.lines += block.count(b"\n")
        self._ended = not block
        try:
            self._text = waiting + self._utf8.decode(block, final=self._ended)
        except UnicodeDecodeError as fault:
            self.line += waiting.count("\n") + fault.object.count(b"\n", 0, fault.start)
            raise not_utf_8(fault) from None
        self._at = 0
