"""What a turn, a persona or an instruction may be: text that says something and that every tokenizer takes."""

from __future__ import annotations

import re
from typing import Any

from convmodel_cli.data.wording import describe

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def fault_of_text(value: Any) -> str:
    """What is wrong with what should be text, in words; empty if nothing is."""
    if not isinstance(value, str):
        return f"expected a string, got {describe(value)}"
    if not value.strip():
        return f"expected text, got {'an empty string' if not value else 'only white space'}"
    if "\0" in value:
        return "expected text, got a NUL character in it"
    if not value.isascii() and _LONE_SURROGATE.search(value):
        return "expected text, got half of a surrogate pair in it"
    return ""
