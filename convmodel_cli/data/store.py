"""The conversations of a run, in a few bytes each however long they are.

What is said lies in a spool, one JSON array after the other; in memory there are numbers alone:

    conversation    0     1     2            record i is the spool's bytes ends[i]:ends[i + 1]
    ends          0    21    40    77
    where         a:1   a:2   b:9            number of the file, and line
    keys          ...   ...   ...            of what is said, see `content`
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import orjson
from numpy.typing import NDArray

from convmodel_cli.data.content import content_key, loose_key
from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.spool import Spool


class Conversations(Sequence[Conversation]):
    """Checked conversations, of which each access makes a new object.

    `choose` and slices give views: they share everything with what they were taken from.
    """

    def __init__(self, given: Iterable[Conversation] = ()) -> None:
        self._shelf = _Shelf()
        self._chosen: NDArray[np.int64] | None = None  # None: all on the shelf
        for conversation in given:
            self.append(conversation)

    def append(self, conversation: Conversation) -> None:
        """Raises StorageError if the temporary folder is full."""
        assert self._chosen is None, "a view does not grow"
        self._shelf.append(conversation)

    def choose(self, indices: NDArray[np.int64]) -> Conversations:
        """Those of these numbers, in this order."""
        view = Conversations()
        view._shelf = self._shelf
        view._chosen = indices if self._chosen is None else self._chosen[indices]
        return view

    def __len__(self) -> int:
        return len(self._shelf) if self._chosen is None else len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> Conversations: ...
    def __getitem__(self, index: int | slice) -> Conversation | Conversations:
        if isinstance(index, slice):
            return self.choose(np.arange(len(self))[index])
        return self._shelf.conversation(self._place(index))

    def __iter__(self) -> Iterator[Conversation]:
        return map(self._shelf.conversation, self._places())

    def records(self) -> Iterator[bytes | bytearray]:
        """Everything that is known of each conversation but its place, as JSON."""
        return map(self._shelf.record, self._places())

    def where(self, index: int) -> str:
        """`file:line` of one of them."""
        return self._shelf.where(self._place(index))

    @property
    def content_keys(self) -> NDArray[np.uint64]:
        """A key of each conversation's exact content, the same in every process."""
        return self._of_chosen(np.array(self._shelf.content_keys, np.uint64))

    @property
    def loose_keys(self) -> NDArray[np.int64]:
        """Equal for conversations that differ in nothing but case, white space or composed characters."""
        return self._of_chosen(np.array(self._shelf.loose_keys, np.int64))

    def _of_chosen(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self._chosen is None else values[self._chosen]

    def _places(self) -> Iterable[int]:
        return range(len(self._shelf)) if self._chosen is None else map(int, self._chosen)

    def _place(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"conversation {index} of {len(self)}")
        index = index % len(self)
        return index if self._chosen is None else int(self._chosen[index])


class _Shelf:
    """What views share."""

    def __init__(self) -> None:
        self._spool = Spool()
        self._ends = array("q", [0])
        self._files: list[str] = []
        self._file_numbers = array("i")
        self._lines = array("q")
        self.content_keys = array("Q")
        self.loose_keys = array("q")

    def __len__(self) -> int:
        return len(self._lines)

    def append(self, conversation: Conversation) -> None:
        self._spool.append(as_record(conversation))
        self._ends.append(len(self._spool))
        if not self._files or self._files[-1] != conversation.file:
            self._files.append(conversation.file)
        self._file_numbers.append(len(self._files) - 1)
        self._lines.append(conversation.line)
        self.content_keys.append(content_key(conversation))
        self.loose_keys.append(loose_key(conversation))

    def record(self, place: int) -> bytes | bytearray:
        return self._spool.read(self._ends[place], self._ends[place + 1])

    def conversation(self, place: int) -> Conversation:
        turns, assistant, learn, persona = orjson.loads(self.record(place))
        return Conversation(
            tuple(turns),
            None if assistant is None else tuple(assistant),
            None if learn is None else tuple(learn),
            persona,
            self._files[self._file_numbers[place]],
            self._lines[place],
        )

    def where(self, place: int) -> str:
        file = self._files[self._file_numbers[place]]
        return Conversation((), file=file, line=self._lines[place]).where


def as_record(conversation: Conversation) -> bytes:
    """A conversation without its place as JSON, in one way only."""
    return orjson.dumps((conversation.turns, conversation.assistant, conversation.learn, conversation.persona))


def in_store(conversations: Iterable[Conversation]) -> Conversations:
    """The conversations themselves if they are in a store, else in a new one."""
    return conversations if isinstance(conversations, Conversations) else Conversations(conversations)
