"""Probes: contexts whose answer is known, to see whether a model remembers what was said.

{"context": ["I'm Nora.", "Hello!", "What's my name?"], "answer": ["Nora"], "distractors": ["Oscar", "Lena"]}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from convmodel_cli.data.conversations import collect
from convmodel_cli.data.files import iter_parsed
from convmodel_cli.data.formats import BadRecord, parse_record
from convmodel_cli.data.lines import Counts, Place
from convmodel_cli.data.wording import describe

_EXAMPLE = 'write each probe on one line, like {"context": ["I am Nora.", "Hi!", "My name?"], "answer": ["Nora"]}'


@dataclass(frozen=True, slots=True)
class Probe:
    """A response to `context` is right if it holds every word of `answer` and none of `distractors`."""

    context: tuple[str, ...]
    answer: tuple[str, ...]
    distractors: tuple[str, ...]

    def is_answered_by(self, response: str) -> bool:
        """Whole words, upper and lower case alike."""
        return all(_holds(response, word) for word in self.answer) and not any(
            _holds(response, word) for word in self.distractors
        )


def _holds(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def read_probes(path: str) -> list[Probe]:
    """All probes of a file; raises DataError that lists every bad line."""
    return collect(path, iter_parsed(path, _parse_probe, Counts()), "probes", _EXAMPLE)


def _parse_probe(_: Place, record: Any) -> Probe:
    if not isinstance(record, dict):
        raise BadRecord(f"expected a probe, got {describe(record)}")
    for key in ("context", "answer"):
        if key not in record:
            raise BadRecord(f'expected a probe with "context" and "answer", got {describe(record)}')
    answer = _words(record["answer"], "answer")
    if not answer:
        raise BadRecord('expected at least one word in "answer", got an empty list')
    return Probe(
        context=parse_record(record["context"], min_turns=1).turns,
        answer=answer,
        distractors=_words(record.get("distractors", []), "distractors"),
    )


def _words(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word.strip() for word in value):
        raise BadRecord(f'expected "{key}" to be a list of words, got {describe(value)}')
    return tuple(value)
