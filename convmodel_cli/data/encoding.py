"""From conversations to token ids, token types and targets.

    turns            Hello        How are you
    tokens    <sep>  Hello  <sep>  How  are  you  <sep>
    ids       50256  15496  50256 2437  389  345  50256
    types         0      0      1    1    1    1      0     the last sep belongs to the next speaker
    targets       .      x      x    x    x    x      x     (all turns learned)

A learned turn's targets are its tokens and the sep that closes it. `<sep>` stands for the tokenizer's sep token.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.spool import Spool
from convmodel_cli.data.windows import Part, cut_into_windows
from convmodel_cli.errors import DataError

_CONVERSATIONS_PER_CALL = 1000
_CHARACTERS_PER_CALL = 2**20
_FLAGS = (b"\0", b"\1")


class TextEncoder(Protocol):
    """What is needed of a Hugging Face tokenizer."""

    def __call__(
        self, text: list[str], *, add_special_tokens: bool, split_special_tokens: bool, return_attention_mask: bool
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer and the id of its sep token."""

    tokenizer: TextEncoder
    sep_id: int

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


@dataclass(frozen=True, slots=True)
class Tokens:
    """One sequence: `ids`, `types` and `targets`, each of shape (tokens,)."""

    ids: NDArray[np.int32]
    types: NDArray[np.uint8]
    targets: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sequences:
    """All sequences of a data set, one after the other in flat arrays; the first three may be read from a file.

    Sequence i is `ids[starts[i]:starts[i + 1]]`, likewise `types` and `targets`. `conversations[i]` is the number of
    the conversation it comes from, `num_bytes[i]` the UTF-8 bytes of what is learned in it.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.uint8]
    targets: NDArray[np.bool_]
    starts: NDArray[np.int64]
    conversations: NDArray[np.int64]
    num_bytes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> Tokens:
        part = slice(self.starts[index], self.starts[index + 1])
        return Tokens(self.ids[part], self.types[part], self.targets[part])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence."""
        return np.diff(self.starts)

    @property
    def num_targets(self) -> int:
        return int(self.targets.sum())

    @property
    def num_cut(self) -> int:
        """Conversations of which there is more than one sequence."""
        again = self.conversations[1:] == self.conversations[:-1]
        return len(set(self.conversations[1:][again].tolist()))


def histogram(lengths: NDArray[np.int64], bins: int) -> Iterator[tuple[int, int, int]]:
    """(fewest tokens, most tokens, sequences) of each bin; each is twice as wide as the one before."""
    limits = [int(lengths.max()) >> bin for bin in reversed(range(bins))]
    below = 0
    for limit in dict.fromkeys(limits):
        if limit > 0:
            yield below + 1, limit, int(((lengths > below) & (lengths <= limit)).sum())
            below = limit


def learned_turns(conversation: Conversation, learn: str) -> tuple[bool, ...]:
    """Which turns are targets: the record's own flags, else by `learn` (auto, all, responses, last)."""
    count = len(conversation.turns)
    if conversation.learn is not None:
        return conversation.learn
    if learn == "last":
        return (False,) * (count - 1) + (True,)
    if learn == "all" or (learn == "auto" and conversation.assistant is None):
        return (True,) * count
    if conversation.assistant is not None:
        return conversation.assistant
    return tuple(index % 2 == 1 for index in range(count))


def encode_conversations(
    conversations: Iterable[Conversation], vocabulary: Vocabulary, max_length: int, learn: str
) -> Sequences:
    """Encode and cut into windows of at most `max_length` tokens; sequences without targets are left out."""
    builder = _Builder(vocabulary.sep_id)
    number = 0
    for chunk in _chunks(conversations):
        encoded = iter(vocabulary.encode([text for conversation in chunk for text in _texts(conversation)]))
        for conversation in chunk:
            persona_ids = next(encoded) if conversation.persona.strip() else []
            _check_persona(conversation, persona_ids, max_length)
            head = [vocabulary.sep_id, *persona_ids]
            turn_ids = list(islice(encoded, len(conversation.turns)))
            for window in cut_into_windows(_parts(conversation, turn_ids, learn), len(head), max_length):
                if any(part.learned for part in window):
                    builder.add(number, head, window)
            number += 1
    return builder.finish()


def _chunks(conversations: Iterable[Conversation]) -> Iterator[list[Conversation]]:
    """As many at once as the tokenizer is fast with, however long they are."""
    chunk: list[Conversation] = []
    size = 0
    for conversation in conversations:
        chunk.append(conversation)
        size += sum(map(len, conversation.turns))
        if len(chunk) == _CONVERSATIONS_PER_CALL or size > _CHARACTERS_PER_CALL:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _texts(conversation: Conversation) -> list[str]:
    """The persona, if there is one, and the turns."""
    persona = [persona_text(conversation.persona)] if conversation.persona.strip() else []
    return [*persona, *turns_to_encode(conversation.turns, conversation.persona)]


def persona_text(persona: str) -> str:
    """What stands in front of the first turn."""
    return persona.strip() + "\n"


def turns_to_encode(turns: Sequence[str], persona: str) -> Sequence[str]:
    """The turns as they are encoded: behind a persona, white space before the first would melt into the newline."""
    return (turns[0].lstrip(), *turns[1:]) if persona.strip() else turns


def _check_persona(conversation: Conversation, ids: list[int], max_length: int) -> None:
    if ids and 2 * (len(ids) + 1) > max_length:
        raise DataError(
            f"{conversation.where}: expected a persona of less than half a window of {max_length} tokens, "
            f"got {len(ids)} tokens",
            "shorten it, or raise --max-length if the model's context allows it",
        )


def _parts(conversation: Conversation, turn_ids: list[list[int]], learn: str) -> list[Part]:
    learned = learned_turns(conversation, learn)
    return [
        Part(ids, index, learned[index], len(turn.encode()) if learned[index] else 0)
        for index, (ids, turn) in enumerate(zip(turn_ids, conversation.turns, strict=True))
    ]


class _Builder:
    """Collects windows into flat arrays, which many of them leave the memory for a temporary file."""

    def __init__(self, sep_id: int) -> None:
        self._sep_id = sep_id
        self._ids, self._types, self._targets = Spool(), Spool(), Spool()
        self._starts = array("q", [0])
        self._conversations = array("q")
        self._num_bytes = array("q")

    def add(self, conversation: int, head: list[int], window: list[Part]) -> None:
        ids = array("i", head)
        types = bytearray(_FLAGS[window[0].index % 2] * len(head))
        targets = bytearray(len(head))
        for part in window:
            speaker = part.index % 2
            ids.fromlist(part.ids)
            types += _FLAGS[speaker] * len(part.ids)
            if part.closed:
                ids.append(self._sep_id)
                types.append(1 - speaker)
            targets += _FLAGS[part.learned] * part.size
        self._ids.append(memoryview(ids).cast("B"))
        self._types.append(types)
        self._targets.append(targets)
        self._starts.append(self._starts[-1] + len(ids))
        self._conversations.append(conversation)
        self._num_bytes.append(sum(part.num_bytes for part in window))

    def finish(self) -> Sequences:
        return Sequences(
            ids=self._ids.as_array(np.int32),
            types=self._types.as_array(np.uint8),
            targets=self._targets.as_array(np.bool_),
            starts=np.array(self._starts, np.int64),
            conversations=np.array(self._conversations, np.int64),
            num_bytes=np.array(self._num_bytes, np.int64),
        )
