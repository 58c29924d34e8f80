"""Which sequences are computed together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_PLACEMENTS = 1024  # of sequences in other orders: 128 orders of eight, 0.8 ms for three micro-batches


def cut(
    lengths: NDArray[np.int64], budget: int, max_rows: int | None = None, padded: bool = True
) -> list[NDArray[np.int64]]:
    """Cut sequences into micro-batches of at most `budget` tokens; returns indices into `lengths`.

    Longest first, so that neighbours are alike. Where they will be `padded`, padding counts. For budget 12 and
    lengths 2 6 3 5:

        6 5 .      3 2 .        two micro-batches of 2 rows: 12 and 6 places, 16 of 18 used

    A sequence longer than the budget is alone in its micro-batch.
    """
    order = np.argsort(-lengths, kind="stable")
    sums = lengths[order].cumsum()
    parts = []
    start = 0
    while start < len(order):
        before = sums[start - 1] if start else 0
        fitting = budget // lengths[order[start]] if padded else np.searchsorted(sums, before + budget, "right") - start
        rows = max(1, int(fitting))
        rows = rows if max_rows is None else min(rows, max_rows)
        parts.append(order[start : start + rows])
        start += rows
    return parts


def pack(lengths: NDArray[np.int64], budget: int, row_length: Callable[[int], int] = int) -> list[NDArray[np.int64]]:
    """Pack sequences that will not be padded into few micro-batches of at most `budget` tokens; indices as from `cut`.

    Each in turn goes into the first micro-batch with room for it, the longest first. For budget 15 and lengths
    4 7 4 6 4 5:

        7 6      5 4 4      4        longest first
        7 4 4    6 5 4               what is found

    Where these are several, other orders are tried, always the same, and the fewer the more sequences there are. The
    fewest micro-batches are taken, of as few those that are the shortest rows together, and of these those whose
    longest has the fewest tokens, which needed less memory than any other choice. `row_length` is the tokens of a row
    with what fills it up. A sequence longer than the budget is alone in its micro-batch.
    """
    sizes = lengths.tolist()
    packings = [_first_fit(np.argsort(-lengths, kind="stable").tolist(), sizes, budget)]
    if len(packings[0]) > 1:
        random = np.random.default_rng(0)
        orders = (random.permutation(len(sizes)).tolist() for _ in range(_PLACEMENTS // len(sizes)))
        packings += (_first_fit(order, sizes, budget) for order in orders)

    def cost(parts: list[list[int]]) -> tuple[int, int, int]:
        tokens = [sum(sizes[index] for index in part) for part in parts]
        return len(parts), sum(map(row_length, tokens)), max(tokens, default=0)

    return [np.array(sorted(part, key=lambda index: -sizes[index])) for part in min(packings, key=cost)]


def _first_fit(order: list[int], sizes: list[int], budget: int) -> list[list[int]]:
    parts: list[list[int]] = []
    room: list[int] = []  # left in each
    for index in order:
        for place, left in enumerate(room):
            if left >= sizes[index]:
                parts[place].append(index)
                room[place] -= sizes[index]
                break
        else:
            parts.append([index])
            room.append(budget - sizes[index])
    return parts
