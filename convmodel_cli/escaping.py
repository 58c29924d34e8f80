"""How text that is not ours is shown, on a terminal and on a page: nothing in it can steer either."""

from __future__ import annotations

import re
from typing import Any

import orjson

# Control characters but newline and tab, DEL, C1, line separators, bidirectional controls and lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    """The text with everything that could steer a terminal written out, as in `\\x1b`."""
    return _UNSAFE.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str) -> str:
    """Escaped, and newlines and tabs written out too."""
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")


def indented(lead: str, text: str) -> str:
    """The text behind `lead`; its further lines stand under the first, so that none looks like a new beginning."""
    return lead + text.replace("\n", "\n" + " " * len(lead))


def to_json(value: Any, option: int = 0) -> bytes:
    """JSON in UTF-8. orjson writes some control characters raw; as `\\u` escapes they mean the same to a reader."""
    text = orjson.dumps(value, option=option).decode()
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text).encode()
