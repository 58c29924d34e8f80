"""Every event as a line of events.jsonl, on its way to the screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import orjson

from convmodel_cli.events import EvaluationStepped

Event = TypeVar("Event")


def journal(events: Iterable[Event], path: Path) -> Iterator[Event]:
    """Pass events on, each written first; the moving parts of an evaluation are not worth a line."""
    with path.open("ab") as stream:
        for event in events:
            if not isinstance(event, EvaluationStepped):
                stream.write(_line(event))
                stream.flush()
            yield event


def _line(event: Any) -> bytes:
    fields = orjson.loads(orjson.dumps(event))
    return orjson.dumps({"event": type(event).__name__, **fields}) + b"\n"
