"""Keys and values of the tokens that have been read, in buffers that are allocated once and seldom moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST_PLACES = 64


@dataclass(frozen=True, slots=True)
class Step:
    """What one more token of each row attends to, layer by layer.

    `place` (rows, 2, heads, 1, width) is where its own keys and values are to be written, `keys` and `values`
    (rows, heads, places, width) hold them then. `hidden` (rows, 1, 1, places) is what is to be added to the scores.
    """

    place: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    hidden: Tensor | None


class KeyValues:
    """Rows of different length that end at the same place, where each of them grows.

        row 0   a b c d e f .        starts[0] = 0
        row 1   . . . g h i .        starts[1] = 3
                            ^ end

    They are one tensor of shape (layers, rows, 2, heads, places, width): keys, then values. Rows may leave, and others
    enter that are no longer than the longest has grown.
    """

    def __init__(self, layers: int, heads: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self._held = torch.empty((layers, 0, 2, heads, 0, width), dtype=dtype, device=device)
        # What is added to scores: -inf in front of a row's start, else 0.
        self._hidden = torch.empty((1, 0, 1, 1, 0, 1), dtype=dtype, device=device)
        self._starts: list[int] = []
        self._end = 0

    def __len__(self) -> int:
        """Tokens of the longest row."""
        return self._end - min(self._starts, default=self._end)

    def reserve(self, rows: int, places: int) -> None:
        """Make room for as many rows and places; what there is stays."""
        _, had_rows, *_, had_places, _ = self._held.shape
        if rows <= had_rows and places <= had_places:
            return
        rows, places = max(rows, had_rows), max(places, had_places, _LEAST_PLACES)
        self._hidden = _enlarged(self._hidden, rows, places)
        self._held = _enlarged(self._held, rows, places)

    def enter(self, lengths: Sequence[int]) -> list[int]:
        """Add a row for each, with as many tokens to be written at its end; returns the numbers of the rows."""
        first = len(self._starts)
        if not first:
            self._end = max(lengths)
        assert max(lengths) <= self._end
        self.reserve(first + len(lengths), self._end)
        for row, length in enumerate(lengths, first):
            self._starts.append(self._end - length)
            self._hidden[:, row] = 0.0
            self._hidden[:, row, :, :, : self._end - length] = -torch.inf
        return list(range(first, len(self._starts)))

    def grow(self, count: int, room: int) -> None:
        """Let the only row end `count` tokens later, which are to be written, with room for more behind them."""
        if not self._starts:
            self._starts = [0]
        self._end += count
        if self._end + room > self._places:
            self.reserve(1, max(self._end + room, self._places * 3 // 2))  # seldom, for all that it holds is moved

    def crop(self, length: int) -> None:
        """Forget all but the first tokens of the only row."""
        self._end = self._starts[0] + length if self._starts else 0

    def leave(self, rows: Sequence[int]) -> list[int]:
        """Remove rows; returns the former numbers of those that are left, in their new order."""
        order = list(range(len(self._starts)))
        for row in sorted(rows, reverse=True):
            last = len(order) - 1
            if row != last:
                self._hidden[:, row] = self._hidden[:, last]
                self._held[:, row] = self._held[:, last]
            self._starts[row], order[row] = self._starts[last], order[last]
            del self._starts[last], order[last]
        return order

    def write(self, layer: int, row: int, own: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values (2, heads, tokens, width) at the end of a row; returns all of the row's."""
        its = self._held[layer, row, :, :, self._starts[row] : self._end]
        its[:, :, -own.shape[2] :] = own
        return its[0], its[1]

    def copy(self, row: int, to: int) -> None:
        """Let a row hold what another of the same length does."""
        assert self._starts[row] == self._starts[to]
        if row != to:
            self._held[:, to, :, :, : self._end] = self._held[:, row, :, :, : self._end]

    def open_place(self) -> Step:
        """Let all rows end one place later."""
        if self._end == self._places:
            self._make_room()
        first, rows = min(self._starts), len(self._starts)
        self._end += 1
        held = self._held.narrow(1, 0, rows)
        place = held.narrow(4, self._end - 1, 1).unbind()
        keys, values = held.narrow(4, first, self._end - first).unbind(2)
        hidden = None if max(self._starts) == first else self._hidden[0, :rows, :, :, first : self._end, 0]
        return Step(place, keys.unbind(), values.unbind(), hidden)

    @property
    def _places(self) -> int:
        return self._held.shape[4]

    def _make_room(self) -> None:
        """Move all rows to the front if that gives much, else to larger buffers."""
        first = min(self._starts)
        if 4 * first < self._places:
            self.reserve(len(self._starts), 2 * self._places)
            return
        for tensor in (self._hidden, self._held):
            tensor[..., : self._end - first, :] = tensor[..., first : self._end, :].clone()
        self._starts = [start - first for start in self._starts]
        self._end -= first
        self._hidden[..., self._end :, :] = 0.0


def _enlarged(tensor: Tensor, rows: int, places: int) -> Tensor:
    """A copy with more rows and places; zeros, for what no row has written is multiplied by a weight of zero."""
    layers, had_rows, two, heads, had_places, width = tensor.shape
    larger = tensor.new_zeros((layers, rows, two, heads, places, width))
    larger[:, :had_rows, :, :, :had_places] = tensor
    return larger
