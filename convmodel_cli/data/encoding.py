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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress, islice

import numpy as np
from numpy.typing import NDArray

from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.spool import Spool
from convmodel_cli.data.stretches import Stretches
from convmodel_cli.data.vocabulary import Vocabulary, persona_text, turns_to_encode
from convmodel_cli.data.windows import Part, cut_into_windows
from convmodel_cli.data.words import ID_BYTES, WordTable
from convmodel_cli.errors import DataError

_CONVERSATIONS_PER_CALL = 1000
_CHARACTERS_PER_CALL = 2**20


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
    builder = _Builder(vocabulary.sep_id, max_length)
    table = WordTable(vocabulary.encode, vocabulary.cuts_at_spaces)
    number = 0
    for chunk in _chunks(conversations):
        packed = iter(table.pack([text for conversation in chunk for text in _texts(conversation)]))
        for conversation in chunk:
            persona = next(packed) if conversation.persona.strip() else b""
            _check_persona(conversation, len(persona) // ID_BYTES, max_length)
            turns = list(islice(packed, len(conversation.turns)))
            builder.add(number, conversation, persona, turns, learned_turns(conversation, learn))
            number += 1
        builder.flush()
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


def _check_persona(conversation: Conversation, size: int, max_length: int) -> None:
    if size and 2 * (size + 1) > max_length:
        raise DataError(
            f"{conversation.where}: expected a persona of less than half a window of {max_length} tokens, "
            f"got {size} tokens",
            "shorten it, or raise --max-length if the model's context allows it",
        )


def _parts(conversation: Conversation, turns: list[bytes], learned: tuple[bool, ...]) -> list[Part]:
    return [
        Part(np.frombuffer(ids, np.int32), index, learned[index], len(turn.encode()) if learned[index] else 0)
        for index, (ids, turn) in enumerate(zip(turns, conversation.turns, strict=True))
    ]


class _Builder:
    """Collects sequences into flat arrays, which many of them leave the memory for a temporary file.

    What is known of the stretches of a sequence becomes types and targets for many sequences at once, in `flush`.
    """

    def __init__(self, sep_id: int, max_length: int) -> None:
        self._sep = array("i", [sep_id]).tobytes()
        self._max_length = max_length
        self._ids, self._types, self._targets = Spool(), Spool(), Spool()
        self._stretches = Stretches()
        self._sizes: list[NDArray[np.int64]] = []
        self._conversations = array("q")
        self._num_bytes = array("q")

    def add(
        self, number: int, conversation: Conversation, persona: bytes, turns: list[bytes], learned: tuple[bool, ...]
    ) -> None:
        """Append a conversation, of which persona and turns are packed ids."""
        head = self._sep + persona
        room = self._max_length * ID_BYTES - len(head)
        if sum(map(len, turns)) + len(turns) * ID_BYTES <= room:
            if any(learned):
                said = "".join(compress(conversation.turns, learned))
                self._stretches.append_whole(len(head), turns, learned)
                self._append(number, head + self._sep.join([*turns, b""]), len(said.encode()))
            return
        for window in cut_into_windows(_parts(conversation, turns, learned), len(head) // ID_BYTES, self._max_length):
            if any(part.learned for part in window):
                self._stretches.append(len(head), window)
                ids = b"".join(part.ids.tobytes() + self._sep * part.closed for part in window)
                self._append(number, head + ids, sum(part.num_bytes for part in window))

    def _append(self, number: int, ids: bytes, num_bytes: int) -> None:
        self._ids.append(ids)
        self._conversations.append(number)
        self._num_bytes.append(num_bytes)

    def flush(self) -> None:
        """Make types and targets of what has been added since the last time."""
        types, targets, sizes = self._stretches.tokens()
        self._types.append(types.data)
        self._targets.append(targets.data)
        self._sizes.append(sizes)
        self._stretches = Stretches()

    def finish(self) -> Sequences:
        """Everything that has been added and flushed."""
        return Sequences(
            ids=self._ids.as_array(np.int32),
            types=self._types.as_array(np.uint8),
            targets=self._targets.as_array(np.bool_),
            starts=np.cumsum(np.concatenate([np.zeros(1, np.int64), *self._sizes])),
            conversations=np.array(self._conversations, np.int64),
            num_bytes=np.array(self._num_bytes, np.int64),
        )
