"""A run as its journal tells it, read on from where it was left: a look at a long run costs its new lines alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

Fields = dict[str, Any]


def number(value: object) -> float | None:
    """The value if it is a number that can be drawn; JSON has null for one that is not finite."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300
    return value if fits else None  # type: ignore[return-value]


def parse_object(text: bytes) -> Fields:
    """A JSON object, or an empty one for anything else."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:  # orjson refuses lone surrogates, which are no reason to show nothing
            value = json.loads(text)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


@dataclass(slots=True)
class History:
    """What was reported so far: `steps` are (step, loss, learning rate), `evaluations` and `samples` (step, event)."""

    resumed: int = 0
    started: Fields = field(default_factory=dict)
    latest: Fields = field(default_factory=dict)
    finished: Fields = field(default_factory=dict)
    peak_memory_bytes: float = 0
    steps: list[tuple[float, float | None, float | None]] = field(default_factory=list)
    evaluations: list[tuple[float, Fields]] = field(default_factory=list)
    samples: list[tuple[float, Fields]] = field(default_factory=list)
    notes: list[Fields] = field(default_factory=list)
    _offset: int = 0

    def read_on(self, path: Path) -> None:
        """Take in the lines since the last call. One that is cut or no event, as after a crash, is passed over."""
        if not path.is_file():
            return
        with path.open("rb") as stream:
            stream.seek(self._offset)
            new = stream.read()
        new = new[: new.rfind(b"\n") + 1]
        self._offset += len(new)
        for line in new.split(b"\n"):
            self._take(parse_object(line))

    def _take(self, event: Fields) -> None:
        step = number(event.get("step")) or 0
        match event.get("event"):
            case "Started":
                self.started = event
            case "Resumed":
                self.resumed += 1
            case "Stepped":
                self.latest = event
                self.peak_memory_bytes = max(self.peak_memory_bytes, number(event.get("memory_bytes")) or 0)
                self.steps.append((step, number(event.get("loss")), number(event.get("learning_rate"))))
            case "Evaluated":
                self.evaluations.append((step, event))
            case "Sampled":
                self.samples.append((step, event))
            case "Finished":
                self.finished = event
            case "Note":
                self.notes.append(event)
