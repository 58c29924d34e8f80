"""From sequences to tensors: the order of an epoch, its steps, and the micro-batches of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as List
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convmodel_cli.data.encoding import Sequences, Tokens
from convmodel_cli.data.packing import cut, pack

_ORDER, _SPEAKERS = 1, 2  # separate streams of random numbers for one seed and epoch


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The sequences of one step. `number` counts from 1 over the whole run, `epoch` from 1.

    `with_types[i]`: sequence `sequences[i]` is shown with its token types. `next_epoch` and `next_place` say where in
    which order the step after it begins.
    """

    number: int
    epoch: int
    sequences: NDArray[np.int64]
    with_types: NDArray[np.bool_]
    next_epoch: int
    next_place: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Sequences of one forward pass, padded on the right.

    `ids` and `types` have shape (rows, tokens), `with_types` (rows,); `types` is None if no row is shown with them.
    `target_ids` (targets,) are the tokens the loss counts and `predict_from` (targets,) the places whose output
    predicts them: each is the place before its target, counted through the flattened (rows * tokens).
    `lengths` (rows,) and `num_tokens` count real tokens, `num_bytes` the UTF-8 bytes of what is learned here.
    The padding's id is arbitrary: attention is causal and padding predicts nothing, so nothing depends on it.
    """

    ids: Tensor
    types: Tensor | None
    with_types: Tensor
    predict_from: Tensor
    target_ids: Tensor
    num_tokens: int
    num_bytes: int
    lengths: tuple[int, ...]

    @property
    def num_targets(self) -> int:
        return len(self.target_ids)

    def halves(self) -> tuple[MicroBatch, MicroBatch]:
        """The first and the last rows; `num_tokens` and `num_bytes` stay with the first."""
        middle, tokens = self.ids.shape[0] // 2, self.ids.shape[1]
        early = self.predict_from < middle * tokens
        types = (None, None) if self.types is None else (self.types[:middle], self.types[middle:])
        return (
            MicroBatch(
                self.ids[:middle],
                types[0],
                self.with_types[:middle],
                self.predict_from[early],
                self.target_ids[early],
                self.num_tokens,
                self.num_bytes,
                self.lengths[:middle],
            ),
            MicroBatch(
                self.ids[middle:],
                types[1],
                self.with_types[middle:],
                self.predict_from[~early] - middle * tokens,
                self.target_ids[~early],
                0,
                0,
                self.lengths[middle:],
            ),
        )

    def to(self, device: torch.device) -> MicroBatch:
        if device.type == "cpu":
            return self
        return MicroBatch(
            self.ids.to(device, non_blocking=True),
            None if self.types is None else self.types.to(device, non_blocking=True),
            self.with_types.to(device, non_blocking=True),
            self.predict_from.to(device, non_blocking=True),
            self.target_ids.to(device, non_blocking=True),
            self.num_tokens,
            self.num_bytes,
            self.lengths,
        )


def steps_per_epoch(num_sequences: int, batch_size: int) -> int:
    return -(-num_sequences // batch_size)


def count_steps(num_sequences: int, batch_size: int, first_epoch: int, first_place: int, epochs: int) -> int:
    """How many steps `plan_steps` yields from there to the end of all epochs."""
    if first_epoch > epochs:
        return 0
    of_first = steps_per_epoch(num_sequences - first_place, batch_size)
    return of_first + (epochs - first_epoch) * steps_per_epoch(num_sequences, batch_size)


def last_epoch(num_sequences: int, batch_size: int, first_epoch: int, first_place: int, steps: int) -> int:
    """The epoch in which so many steps from there on end."""
    after_first = max(0, steps - steps_per_epoch(num_sequences - first_place, batch_size))
    return first_epoch + -(-after_first // steps_per_epoch(num_sequences, batch_size))


def plan_steps(
    num_sequences: int,
    batch_size: int,
    epochs: int,
    seed: int,
    speaker_ids: str,
    *,
    done: int = 0,
    first_epoch: int = 1,
    first_place: int = 0,
) -> Iterator[StepPlan]:
    """The steps of a run, after `done` of them: each epoch a new permutation, whose last step may be smaller.

    Order and token types depend on seed, epoch and the sequence alone, so a run can be taken up at any place, and with
    steps of another size.
    """
    number = done
    for epoch in range(first_epoch, epochs + 1):
        order = np.random.default_rng((seed, epoch, _ORDER)).permutation(num_sequences)
        with_types = draw_speaker_ids(num_sequences, seed, epoch, speaker_ids)
        for start in range(first_place if epoch == first_epoch else 0, num_sequences, batch_size):
            number += 1
            chosen = order[start : start + batch_size]
            after = start + len(chosen)
            following = (epoch, after) if after < num_sequences else (epoch + 1, 0)
            yield StepPlan(number, epoch, chosen, with_types[chosen], *following)


def draw_speaker_ids(num_sequences: int, seed: int, epoch: int, speaker_ids: str) -> NDArray[np.bool_]:
    """Which sequences are shown with token types in this epoch, of shape (num_sequences,)."""
    if speaker_ids == "mixed":
        return np.random.default_rng((seed, epoch, _SPEAKERS)).random(num_sequences) < 0.5
    return np.full(num_sequences, speaker_ids == "on")


def micro_batches(
    sequences: Sequences,
    chosen: NDArray[np.int64],
    with_types: NDArray[np.bool_],
    budget: int,
    row_length: Callable[[int], int] | None = None,
) -> list[MicroBatch]:
    """The chosen sequences as micro-batches; `with_types` has one flag for each of them.

    They stand in a row without padding, whose length for so many tokens is `row_length`; they are padded if it is None.
    """
    lengths = sequences.lengths[chosen]
    parts = cut(lengths, budget) if row_length is None else pack(lengths, budget, row_length)
    return [collate(sequences, chosen[part].tolist(), with_types[part]) for part in parts]


def collate(sequences: Sequences, rows: List[int], with_types: NDArray[np.bool_]) -> MicroBatch:
    """Tensors of these sequences."""
    return pad([sequences[row] for row in rows], with_types, int(sequences.num_bytes[rows].sum()))


def pad(parts: List[Tokens], with_types: NDArray[np.bool_], num_bytes: int) -> MicroBatch:
    """Tensors of these sequences, whose learned turns have `num_bytes`."""
    shape = (len(parts), max(len(part.ids) for part in parts))
    ids = np.zeros(shape, np.int64)
    types = np.zeros(shape, np.int64)
    targets = np.zeros(shape, np.bool_)
    for row, part in enumerate(parts):
        ids[row, : len(part.ids)] = part.ids
        types[row, : len(part.ids)] = part.types
        targets[row, : len(part.ids)] = part.targets
    places = np.flatnonzero(targets)
    return MicroBatch(
        ids=torch.from_numpy(ids),
        types=torch.from_numpy(types) if with_types.any() else None,
        with_types=torch.from_numpy(with_types),
        predict_from=torch.from_numpy(places - 1),
        target_ids=torch.from_numpy(ids.reshape(-1)[places]),
        num_tokens=sum(len(part.ids) for part in parts),
        num_bytes=num_bytes,
        lengths=tuple(len(part.ids) for part in parts),
    )
