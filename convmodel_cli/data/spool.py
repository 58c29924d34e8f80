"""Bytes that are written once and read again: few in memory, many in a temporary file.

The file has no name, so it is gone with the process however that ends. `TMPDIR` says where it lies.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from convmodel_cli.errors import StorageError

IN_MEMORY_BYTES = 8 * 2**20
_BLOCK_BYTES = 256 * 2**10
Scalar = TypeVar("Scalar", bound=np.generic)


class Spool:
    """A row of bytes that grows at its end.

    Reading is fast in rising order: what lies behind the bytes that were asked for is kept at hand.
    """

    def __init__(self) -> None:
        self._memory = bytearray()  # everything, or what is not in the file yet
        self._file: int | None = None  # its descriptor
        self._in_file = 0
        self._ahead, self._ahead_from = b"", 0

    def __len__(self) -> int:
        return self._in_file + len(self._memory)

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Raises StorageError if the temporary folder cannot take it."""
        self._memory += data
        if len(self._memory) > (IN_MEMORY_BYTES if self._file is None else _BLOCK_BYTES):
            self._write_out()

    def read(self, start: int, end: int) -> bytes | bytearray:
        if self._file is None or start >= self._in_file:
            return self._memory[start - self._in_file : end - self._in_file]
        if end > self._in_file:
            self._write_out()
        if not self._ahead_from <= start <= end <= self._ahead_from + len(self._ahead):
            self._ahead = os.pread(self._file, max(_BLOCK_BYTES, end - start), start)
            self._ahead_from = start
        return self._ahead[start - self._ahead_from : end - self._ahead_from]

    def as_array(self, dtype: type[Scalar]) -> NDArray[Scalar]:
        """All bytes as an array, without a copy; nothing may be appended from then on."""
        if self._file is None:
            return np.frombuffer(self._memory, dtype)
        self._write_out()
        return np.frombuffer(mmap.mmap(self._file, self._in_file, access=mmap.ACCESS_READ), dtype)

    def _write_out(self) -> None:
        with _storing(), memoryview(self._memory) as data:
            self._file = self._open() if self._file is None else self._file
            done = 0
            while done < len(data):
                done += os.write(self._file, data[done:])
        self._in_file += done
        self._memory.clear()

    def _open(self) -> int:
        with tempfile.TemporaryFile(buffering=0) as file:
            descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, descriptor)
        return descriptor


@contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or os.environ.get("TMPDIR") or "the temporary folder"
        raise StorageError(
            f"{folder}: cannot be written: {error.strerror or error}",
            "make room for temporary files there, or name another folder in the variable TMPDIR",
        ) from None
