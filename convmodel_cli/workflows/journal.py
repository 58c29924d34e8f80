"""Every event as a line of events.jsonl, on its way to the screen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import orjson

from convmodel_cli.events import Checkpointed, EvaluationStepped, StateReady

Event = TypeVar("Event")
_NO_PART_OF_THE_RUN = EvaluationStepped | StateReady | Checkpointed  # how it is kept, not how it goes


class Journal:
    """The file of events, cut back to its first `keep` bytes: what a run that broke off wrote after its checkpoint."""

    def __init__(self, path: Path, keep: int = 0) -> None:
        self._stream = path.open("ab")
        self._stream.truncate(keep)

    def record(self, events: Iterable[Event]) -> Iterator[Event]:
        """Pass events on, each written first."""
        with self._stream:
            for event in events:
                if not isinstance(event, _NO_PART_OF_THE_RUN):
                    self._stream.write(_line(event))
                    self._stream.flush()
                yield event

    def sync(self) -> int:
        """Wait until all that was written is on the disk; returns its size in bytes."""
        os.fsync(self._stream.fileno())
        return os.fstat(self._stream.fileno()).st_size


def _line(event: Any) -> bytes:
    fields = orjson.loads(orjson.dumps(event))
    return orjson.dumps({"event": type(event).__name__, **fields}) + b"\n"
