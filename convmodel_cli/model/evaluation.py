"""Loss, perplexity and bits per byte of a model on sequences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from convmodel_cli.data.batching import MicroBatch, collate
from convmodel_cli.data.encoding import Sequences
from convmodel_cli.data.packing import cut
from convmodel_cli.errors import TrainingError
from convmodel_cli.model.compute import Compute, evaluating, exact, is_out_of_memory, release_memory
from convmodel_cli.model.language_model import LanguageModel, target_losses


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over targets: `nats` of negative log-likelihood, and the UTF-8 bytes of the turns they spell."""

    nats: float = 0.0
    targets: int = 0
    num_bytes: int = 0

    @property
    def loss(self) -> float:
        """Nats per target."""
        return self.nats / self.targets

    @property
    def ppl(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers, as the loss per token is not."""
        return self.nats / math.log(2) / self.num_bytes


def evaluation_batches(
    sequences: Sequences,
    with_types: bool,
    budget: int,
    max_rows: int | None = None,
    max_batches: int | None = None,
    padded: bool = True,
) -> Iterator[MicroBatch]:
    """Micro-batches of alike lengths; `max_batches` keeps that many, spread evenly over the lengths."""
    parts = cut(sequences.lengths, budget, max_rows, padded)
    if max_batches is not None and max_batches < len(parts):
        parts = [parts[len(parts) * index // max_batches] for index in range(max_batches)]
    for part in parts:
        yield collate(sequences, part.tolist(), np.full(len(part), with_types))


def evaluate(model: LanguageModel, batches: Iterable[MicroBatch], compute: Compute) -> Iterator[Score]:
    """The score so far after each micro-batch; the last one is the score.

    It is a sum over all targets, so it does not depend on how the sequences are cut into micro-batches.
    """
    score = Score()
    for batch in batches:
        nats = _nats(model, batch, compute)
        score = Score(score.nats + nats, score.targets + batch.num_targets, score.num_bytes + batch.num_bytes)
        yield score


def _nats(model: LanguageModel, batch: MicroBatch, compute: Compute) -> float:
    """The sum over a micro-batch, by halves if it does not fit into memory; raises TrainingError if no row does."""
    try:
        with evaluating(model.network), compute.forward():
            return float(exact(target_losses(model, batch.to(compute.device))).sum())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    rows, tokens = batch.ids.shape
    if rows == 1:
        raise TrainingError(f"out of memory in the evaluation of {tokens} tokens", "lower --max-length")
    release_memory(compute.device)
    return sum(_nats(model, half, compute) for half in batch.halves())


def final_score(scores: Iterable[Score]) -> Score:
    """The score once all micro-batches are done."""
    score = Score()
    for score in scores:  # noqa: B007  the last one is wanted
        pass
    return score
