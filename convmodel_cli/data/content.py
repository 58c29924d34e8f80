"""What a conversation says, without where it stands and what of it is learned: as text and as a 64-bit key.

Equal texts have equal keys. Different texts almost never do, so keys find candidates and texts decide.
"""

from __future__ import annotations

import hashlib
import unicodedata

from convmodel_cli.data.formats import Conversation

_BORDER = "\0"  # no turn holds it


def exact_text(conversation: Conversation) -> str:
    return "\x1f".join((conversation.persona, *conversation.turns))


def loose_text(conversation: Conversation) -> str:
    """Equal for conversations that differ in nothing but case, white space or composed characters."""
    turns = f"{_BORDER} ".join(conversation.turns)
    if not turns.isascii():
        turns = unicodedata.normalize("NFC", turns)
    said = " ".join(turns.casefold().split()).replace(f" {_BORDER}", _BORDER)
    return f"{conversation.persona}{_BORDER}{said}"


def content_key(conversation: Conversation) -> int:
    """The first 64 bits of SHA-256, the same in every process."""
    return int.from_bytes(hashlib.sha256(exact_text(conversation).encode()).digest()[:8])


def loose_key(conversation: Conversation) -> int:
    """A key of `loose_text` for this process alone, signed."""
    return hash(loose_text(conversation))
