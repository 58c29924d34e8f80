"""What eval and generate print."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from convmodel_cli.answer_events import Answered, Dropped, Talked
from convmodel_cli.cli.display import Screen
from convmodel_cli.escaping import one_line
from convmodel_cli.events import Measured, Note


def show_evaluation(events: Iterable[Any], screen: Screen) -> None:
    """The figures as a table or a JSON object, on stdout."""
    for event in events:
        match event:
            case Note():
                screen.say(event.text, "yellow" if event.warning else "dim")
            case Measured() if screen.settings.json:
                screen.result_json(asdict(event))
            case Measured():
                for name, value in _figures(event):
                    screen.result(f"{name:<14}{value}")


def _figures(event: Measured) -> list[tuple[str, str]]:
    rows = [("model", one_line(event.model))]
    if event.loss is not None and event.ppl is not None and event.bits_per_byte is not None:
        rows += [
            ("data", one_line(event.data or "")),
            ("conversations", f"{event.conversations:,} ({event.sequences:,} sequences, {event.targets:,} targets)"),
            ("loss", f"{event.loss:.4f} nats per token"),
            ("ppl", f"{event.ppl:.3f}"),
            ("bits per byte", f"{event.bits_per_byte:.4f}"),
        ]
    if event.probes is not None:
        rows.append(("probes", f"{event.probes['answered']} of {event.probes['total']} answered"))
    rows.append(("measured", f"speaker ids {event.speaker_ids}, {event.precision}, {event.seconds:.1f} s"))
    return rows


def show_responses(events: Iterable[Answered | Talked | Note], screen: Screen, raw: bool = False) -> None:
    """One response a line, in the order of the input; with --json one object for each context."""
    for event in events:
        match event:
            case Note():
                screen.note(event)
            case Talked():
                _show_conversation(event, screen)
            case Answered() if event.problem:
                _show_problem(event, screen)
            case Answered() if screen.settings.json:
                screen.result_json(answered_json(event))
            case Answered():
                for response in event.responses:
                    screen.response(response.text, raw)


def _show_conversation(event: Talked, screen: Screen) -> None:
    """A line of JSON that fit reads; with --json it is an object."""
    is_object = isinstance(event.record, dict) or not screen.settings.json
    screen.result_json(event.record if is_object else {"turns": event.record})


def dropped_line(event: Dropped) -> str:
    """What the model does not get to see."""
    return f"too long for the model, which is not shown {event.what}"


def answered_json(event: Answered) -> dict[str, Any]:
    return {"context": list(event.context), "responses": [asdict(response) for response in event.responses]}


def _show_problem(event: Answered, screen: Screen) -> None:
    if screen.settings.json:
        screen.result_json({"error": event.problem})
    else:
        screen.result(one_line(f"error: {event.problem}"))
