"""Cutting a conversation that is longer than the context.

Each window trains turns of its own and shows before them
as many earlier ones as fit in half a window; with room for 12 tokens, and turns a b c of 4, 4 and 3 tokens:

    <sep> a a a a <sep> b b b b <sep>           trains a and b
    <sep> b b b b <sep> c c c <sep>             shows b again, trains c
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Part:
    """A turn or a piece of one, as it stands in a window; `closed` if its sep follows.

    `index` is the turn's place in the conversation, `num_bytes` the size of what is learned of it here; a piece has its
    share by tokens.
    """

    ids: NDArray[np.int32]
    index: int
    learned: bool
    num_bytes: int = 0
    closed: bool = True

    @property
    def size(self) -> int:
        return len(self.ids) + self.closed


def cut_into_windows(turns: list[Part], head: int, max_length: int) -> Iterator[list[Part]]:
    """The parts of each window: first those shown again, which are not learned there, then the new ones.

    Every window begins with `head` tokens (a sep and the persona) and has at most `max_length`.
    """
    return _Windows(turns, head, max_length).cut()


@dataclass(frozen=True, slots=True)
class _Windows:
    turns: list[Part]
    head: int
    max_length: int

    def cut(self) -> Iterator[list[Part]]:
        next_turn = 0
        while next_turn < len(self.turns):
            size = self.turns[next_turn].size
            if self.head + size > self.max_length:
                yield from self._cut_turn(next_turn)
                next_turn += 1
                continue
            context = self._context(next_turn, self.max_length - size)
            end = self._last_that_fits(next_turn, self.head + _size(context))
            yield context + self.turns[next_turn:end]
            next_turn = end

    def _context(self, next_turn: int, room: int) -> list[Part]:
        """The turns before `next_turn` that are shown again: whole ones, or the end of the one just before it."""
        room = min(room, self.max_length // 2) - self.head
        start = next_turn
        while start > 0 and self.turns[start - 1].size <= room:
            start -= 1
            room -= self.turns[start].size
        context = self.turns[start:next_turn]
        if not context and next_turn > 0 and room >= 2:
            before = self.turns[next_turn - 1]
            context = [replace(before, ids=before.ids[1 - room :])]
        return [_shown_again(part) for part in context]

    def _last_that_fits(self, next_turn: int, used: int) -> int:
        """Where the turns end that fit into a window of which `used` tokens are taken."""
        end = next_turn
        while end < len(self.turns) and used + self.turns[end].size <= self.max_length:
            used += self.turns[end].size
            end += 1
        return end

    def _cut_turn(self, index: int) -> Iterator[list[Part]]:
        """The windows of a turn that does not fit into one; each shows the end of the one before again."""
        turn = self.turns[index]

        def bytes_up_to(place: int) -> int:
            return turn.num_bytes * place // turn.size

        context = self._context(index, self.max_length)
        done = 0
        while True:
            room = self.max_length - self.head - _size(context)
            if turn.size - done <= room:
                yield [*context, replace(turn, ids=turn.ids[done:], num_bytes=turn.num_bytes - bytes_up_to(done))]
                return
            share = bytes_up_to(done + room) - bytes_up_to(done)
            yield [*context, replace(turn, ids=turn.ids[done : done + room], num_bytes=share, closed=False)]
            done += room
            overlap = max(0, self.max_length // 2 - self.head)
            context = [_shown_again(replace(turn, ids=turn.ids[max(0, done - overlap) : done], closed=False))]


def _shown_again(part: Part) -> Part:
    return replace(part, learned=False, num_bytes=0)


def _size(parts: list[Part]) -> int:
    return sum(part.size for part in parts)
