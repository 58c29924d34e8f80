"""Texts -> token ids by way of their words, each different one of which the tokenizer sees once.

Words come back all the time, so a dictionary knows nearly all of a text before the tokenizer is asked.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

_KEPT_CHARACTERS = 2**21
_ENTRY_CHARACTERS = 16  # what an entry takes beside its characters, so that short ones are bounded too

ID_BYTES = array("i").itemsize


class WordTable:
    """Encodes texts to packed ids: 32-bit integers in the machine's order, `ID_BYTES` each.

    `encode` gives the ids of each of some texts; `at_spaces` says that it may be asked for words, see `words_of`.
    """

    def __init__(self, encode: Callable[[Sequence[str]], list[list[int]]], at_spaces: bool) -> None:
        self._encode = encode
        self._cut: Callable[[str], list[str]] = words_of if at_spaces else lambda text: [text]
        self._known: dict[str, bytes] = {}
        self._size = 0

    def pack(self, texts: Sequence[str]) -> list[bytes]:
        """The packed ids of each text."""
        if self._size > _KEPT_CHARACTERS:
            self._known.clear()
            self._size = 0
        packed: list[bytes] = []
        new: list[int] = []
        for place, text in enumerate(texts):
            try:
                packed.append(self._join(text))
            except KeyError:
                packed.append(b"")
                new.append(place)
        # One by one: a difference of sets would look at all that are known.
        self._learn({word for place in new for word in self._cut(texts[place]) if word not in self._known})
        for place in new:
            packed[place] = self._join(texts[place])
        return packed

    def _join(self, text: str) -> bytes:
        """The packed ids of a text; raises KeyError if there is a new word in it."""
        return b"".join(map(self._known.__getitem__, self._cut(text)))  # no list of words outlives its text

    def _learn(self, new: set[str]) -> None:
        words = sorted(new)  # a set of texts has another order in each process
        self._size += sum(map(len, words)) + _ENTRY_CHARACTERS * len(words)
        for word, ids in zip(words, self._encode(words), strict=True):
            self._known[word] = array("i", ids).tobytes()


def words_of(text: str) -> list[str]:
    """The words of a text, each with the space before it; a text with any other white space is one word.

    A byte-level tokenizer cuts a text before each single space, so it gives words the ids that they have in the text.
    Where several spaces or lines meet it looks further.
    """
    if "  " in text or not text.isprintable():
        return [text]
    return text.replace(" ", "\0 ").split("\0")  # NUL is not printable
