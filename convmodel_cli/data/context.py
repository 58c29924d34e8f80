"""From the turns before a response to the tokens that the model is shown, which begin as in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShownContext:
    """What the model is shown; `dropped_turns` of the oldest turns and `cut_tokens` of the newest one are not."""

    ids: list[int]
    types: list[int]
    dropped_turns: int
    cut_tokens: int


def encode_context(turns: Sequence[Sequence[int]], persona: Sequence[int], sep_id: int, room: int) -> ShownContext:
    """The newest turns that fit into `room` tokens.

    The result is a prefix of the training encoding: it ends with the sep before the response. The oldest pairs of
    turns are dropped, so that each speaker keeps its token type; if the newest turn alone does not fit, its end is
    kept.
    """
    start = 0
    while _context_size(turns[start:], persona) > room and start + 2 < len(turns):
        start += 2
    if _context_size(turns[start:], persona) > room and start + 1 < len(turns):
        start += 1
    kept = [list(turn) for turn in turns[start:]]
    excess = max(0, _context_size(kept, persona) - room)
    kept[0] = kept[0][excess:]
    ids = [sep_id, *persona]
    types = [start % 2] * len(ids)
    for index, turn in enumerate(kept, start):
        ids += [*turn, sep_id]
        types += [index % 2] * len(turn) + [1 - index % 2]
    return ShownContext(ids, types, start, excess)


def _context_size(turns: Sequence[Sequence[int]], persona: Sequence[int]) -> int:
    return 1 + len(persona) + sum(len(turn) + 1 for turn in turns)
