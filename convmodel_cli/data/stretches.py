"""Who says how much in sequences, and from that the types and targets of their tokens, for many sequences at once.

A sequence is its head (a sep and perhaps a persona) and its turns, or pieces of turns, each of which is a stretch of
tokens of one speaker, closed by a sep unless the turn goes on elsewhere:

    tokens     <sep>   Hello <sep>   How are you <sep>
    stretches  .....   ...........   .................
    sizes          1             2                   4      in tokens, with the sep
    speakers       0             0                   1      whose type the tokens have; a closing sep has the other's
    learned        .             x                   x
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from convmodel_cli.data.windows import Part
from convmodel_cli.data.words import ID_BYTES


class Stretches:
    """The stretches of some sequences, one after the other."""

    def __init__(self) -> None:
        self._bytes = array("q")  # of the packed ids; the sep of a head is in them, one that closes is not
        self._speakers, self._learned, self._closed = bytearray(), bytearray(), bytearray()
        self._heads = array("q")  # which stretches begin a sequence

    def append_whole(self, head_bytes: int, turns: list[bytes], learned: tuple[bool, ...]) -> None:
        """What `append` does, in a fraction of the time, for the one window of most conversations."""
        self._append_head(head_bytes, 0)
        self._bytes.extend(map(len, turns))
        self._speakers += (b"\0\1" * len(turns))[: len(turns)]
        self._learned += bytes(learned)
        self._closed += b"\1" * len(turns)

    def append(self, head_bytes: int, window: list[Part]) -> None:
        """A sequence of these parts behind a head."""
        self._append_head(head_bytes, window[0].index % 2)
        self._bytes.extend(part.ids.nbytes for part in window)
        self._speakers += bytes(part.index % 2 for part in window)
        self._learned += bytes(part.learned for part in window)
        self._closed += bytes(part.closed for part in window)

    def _append_head(self, head_bytes: int, speaker: int) -> None:
        self._heads.append(len(self._bytes))
        self._bytes.append(head_bytes)
        self._speakers.append(speaker)
        self._learned.append(False)
        self._closed.append(False)

    def tokens(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
        """Types and targets of all tokens, and how many each sequence has."""
        closed = np.frombuffer(self._closed, np.uint8)
        sizes = np.array(self._bytes, np.int64) // ID_BYTES + closed
        types = np.repeat(np.frombuffer(self._speakers, np.uint8), sizes)
        types[np.cumsum(sizes)[closed == 1] - 1] ^= 1
        targets = np.repeat(np.frombuffer(self._learned, np.uint8), sizes)
        return types, targets, np.add.reduceat(sizes, self._heads) if self._heads else sizes
