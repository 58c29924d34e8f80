"""Files -> lines: opening, unzipping, decoding, and where a line stands.

Lines end with the byte `\\n` and nothing else, because text may hold other characters that Python takes for line ends.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from convmodel_cli.data.formats import BadRecord
from convmodel_cli.errors import UsageError

STDIN = "-"
STDIN_SHOWN = "<stdin>"
MAX_LINE_BYTES = 16 * 2**20
BOM = b"\xef\xbb\xbf"
# What no line of UTF-8 begins with, the longest first.
_BEGINNINGS = {
    b"\xff\xfe\0\0": "UTF-32 (save it as UTF-8)",
    b"\xff\xfe": "UTF-16 (save it as UTF-8)",
    b"\xfe\xff": "UTF-16 (save it as UTF-8)",
    b"\x1f\x8b": "gzip data (unzip it, or name its file .gz)",
}
_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")


@dataclass(slots=True)
class Counts:
    """What has been seen of a file so far: its lines, and how many of them are blank."""

    lines: int = 0
    blank: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, from 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is no record. `str()` is `file:line: what is wrong, got what`."""

    place: Place
    what: str

    def __str__(self) -> str:
        return f"{self.place.file}:{self.place.line}: {self.what}"


def shown_name(path: str) -> str:
    """The name of a file in messages and records, where a name that is not UTF-8 has escapes."""
    return STDIN_SHOWN if path == STDIN else path.encode(errors="backslashreplace").decode()


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
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UsageError(f"{path}: cannot be read: {reason}") from None
    with stream, _unzipped(stream, path) as content:
        yield content


def _unzipped(stream: IO[bytes], path: str) -> Any:
    return gzip.open(stream, "rb") if path.endswith(".gz") else stream


def _near_files(path: str) -> str:
    """What lies in the folder where the file was expected."""
    folder = Path(path).parent
    if not folder.is_dir():
        return f"there is no folder {folder} either"
    there = sorted(entry.name for entry in folder.iterdir() if entry.name.removesuffix(".gz").endswith(_ENDINGS))
    where = "this folder" if str(folder) == "." else str(folder)
    return f"{where} has {', '.join(there[:8])}" if there else f"{where} has no file of conversations"


def numbered_lines(stream: IO[bytes], counts: Counts) -> Iterator[tuple[int, bytes | BadRecord]]:
    """(number from 1, line without its end), blank ones too; an over-long line is skipped and reported."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        counts.lines += 1
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield counts.lines, BadRecord(f"expected a line of at most {MAX_LINE_BYTES:,} bytes, got a longer one")
            continue
        if counts.lines == 1:
            line = line.removeprefix(BOM)
        yield counts.lines, line.removesuffix(b"\n").removesuffix(b"\r")


def too_long() -> BadRecord:
    """A conversation of many lines that never ends must not fill the memory."""
    return BadRecord(f"expected a conversation of at most {MAX_LINE_BYTES:,} bytes, got a longer one")


def decode(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as fault:
        raise not_utf_8(fault, f" in column {fault.start + 1}") from None


def not_utf_8(fault: UnicodeDecodeError, where: str = "") -> BadRecord:
    """What stands there instead, by how it begins, or the byte that is none of UTF-8's."""
    known = next((name for beginning, name in _BEGINNINGS.items() if fault.object.startswith(beginning)), None)
    return BadRecord(f"expected UTF-8, got {known or f'the byte 0x{fault.object[fault.start]:02x}{where}'}")
