"""What was found, and what is wrong with it, in a few words."""

from __future__ import annotations

import re
from typing import Any

_SHOWN_CHARACTERS = 40
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


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


def fault_of_turn(turn: Any) -> str:
    """What is wrong with a turn of a conversation; empty if nothing is."""
    if not isinstance(turn, str):
        return f"expected a string, got {describe(turn)}"
    if not turn.strip():
        return f"expected text, got {'an empty string' if not turn else 'only white space'}"
    if "\0" in turn:
        return "expected text, got a NUL character in it"
    if not turn.isascii() and _LONE_SURROGATE.search(turn):
        return "expected text, got half of a surrogate pair in it"
    return ""
