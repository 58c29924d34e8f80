"""Every event as a line of events.jsonl, on its way to the screen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import orjson

from convmodel_cli.escaping import to_json
from convmodel_cli.events import Checkpointed, EvaluationStepped, StateReady
from convmodel_cli.storage import storing

Event = TypeVar("Event")
_NO_PART_OF_THE_RUN = EvaluationStepped | StateReady | Checkpointed  # how it is kept, not how it goes


class Journal:
    """The file of events, cut back to its first `keep` bytes: what a run that broke off wrote after its checkpoint.

    If less than that is there, whole lines of it are kept.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self._folder = path.parent
        self._stream = path.open("ab", buffering=0)
        there = os.fstat(self._stream.fileno()).st_size
        if there != keep:
            self._stream.truncate(keep if there > keep else path.read_bytes().rfind(b"\n") + 1)

    def record(self, events: Iterable[Event]) -> Iterator[Event]:
        """Pass events on, each written first; raises StorageError."""
        for event in events:
            if not isinstance(event, _NO_PART_OF_THE_RUN):
                self.write(event)
            yield event

    def write(self, event: Any) -> None:
        """Raises StorageError."""
        fields = orjson.loads(orjson.dumps(event))
        left = memoryview(to_json({"event": type(event).__name__, **fields}) + b"\n")
        with storing(self._folder):
            while left:  # a disk that is nearly full takes a part, and says so only the next time
                left = left[self._stream.write(left) or 0 :]

    def sync(self) -> int:
        """Wait until all that was written is on the disk; returns its size in bytes."""
        os.fsync(self._stream.fileno())
        return os.fstat(self._stream.fileno()).st_size

    def close(self) -> None:
        self._stream.close()
