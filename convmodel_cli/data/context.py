"""From the turns before a response to the tokens that the model is shown, which begin as in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_AFTER_PERSONA = 4  # two seps, a token to answer and one to answer with


@dataclass(frozen=True, slots=True)
class ShownContext:
    """What the model is shown; `dropped_turns` of the oldest turns and `cut_tokens` of the newest one are not."""

    ids: list[int]
    types: list[int]
    dropped_turns: int
    cut_tokens: int


def encode_context(
    turns: Sequence[Sequence[int]], persona: Sequence[int], sep_id: int, room: int, start: int = 0
) -> ShownContext:
    """The newest turns that fit into `room` tokens, none before number `start`; without turns what opens them.

    The result is a prefix of the training encoding: it ends with the sep before the response. The oldest pairs of
    turns are dropped, so that each speaker keeps its token type; if the newest turn alone does not fit, its end is
    kept.
    """
    size = _context_size(turns[start:], persona)
    while size > room and start + 2 < len(turns):
        size -= len(turns[start]) + len(turns[start + 1]) + 2
        start += 2
    if size > room and start + 1 < len(turns):
        start += 1
    kept = [list(turn) for turn in turns[start:]]
    excess = max(0, _context_size(kept, persona) - room) if kept else 0
    if excess:
        kept[0] = kept[0][excess:]
    ids = [sep_id, *persona]
    types = [start % 2] * len(ids)
    for index, turn in enumerate(kept, start):
        ids += [*turn, sep_id]
        types += [index % 2] * len(turn) + [1 - index % 2]
    return ShownContext(ids, types, start, excess)


def _context_size(turns: Sequence[Sequence[int]], persona: Sequence[int]) -> int:
    return 1 + len(persona) + sum(len(turn) + 1 for turn in turns)


def seldom_moving_start(lengths: Sequence[int], room: int) -> int:
    """The oldest turn to show of a conversation that goes on, such that it stays the same for many turns.

    `lengths` are the tokens of each turn, `room` what is left for them beside the persona. What a model has computed
    is lost when the oldest turns go, so when they must, a quarter of the room is freed at once. The result depends
    on the turns alone and not on when it is asked for: it is what answering every second turn so far has led to.
    """
    start = size = 0
    for newest, length in enumerate(lengths):
        size += length + 1
        is_answered = (len(lengths) - 1 - newest) % 2 == 0
        if is_answered and size > room:
            while size > room - room // 4 and start + 2 <= newest:
                size -= lengths[start] + lengths[start + 1] + 2
                start += 2
    return start
