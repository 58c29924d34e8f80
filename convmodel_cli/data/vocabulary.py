"""Texts -> token ids: a tokenizer, its sep token, and which texts of a conversation it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class TextEncoder(Protocol):
    """What is needed of a Hugging Face tokenizer."""

    def __call__(
        self, text: list[str], *, add_special_tokens: bool, split_special_tokens: bool, return_attention_mask: bool
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer and the id of its sep token.

    `cuts_at_spaces`: the ids of a text are those of its words one after the other, see `words_of`.
    """

    tokenizer: TextEncoder
    sep_id: int
    cuts_at_spaces: bool = False

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; text never becomes a control token."""
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def encode_persona(self, persona: str) -> list[int]:
        """The ids that stand in front of the first turn of every window: the persona and a newline."""
        return self.encode([persona_text(persona)])[0] if persona.strip() else []


def persona_text(persona: str) -> str:
    """What stands in front of the first turn."""
    return persona.strip() + "\n"


def turns_to_encode(turns: Sequence[str], persona: str) -> Sequence[str]:
    """The turns as they are encoded: behind a persona, white space before the first would melt into the newline."""
    return (turns[0].lstrip(), *turns[1:]) if persona.strip() else turns
