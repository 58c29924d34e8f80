"""What was found, in a few words, for messages that end with "got ..."."""

from __future__ import annotations

from typing import Any

_SHOWN_CHARACTERS = 40


def describe(value: Any) -> str:
    """A JSON value in a few words, for "got ..."."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        shown = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
        return f'the string "{shown}"'
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, list):
        return "an empty list" if not value else f"a list of {len(value)}"
    if not isinstance(value, dict):  # tables have more types than JSON
        return f"a value of type {type(value).__name__}"
    if not value:
        return "an empty object"
    keys = ", ".join(f'"{key}"' for key in list(value)[:5])
    return f"an object with {keys}" + (", …" if len(value) > 5 else "")
