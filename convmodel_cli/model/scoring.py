"""How likely a given response is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convmodel_cli.data.batching import MicroBatch, pad
from convmodel_cli.data.encoding import Tokens
from convmodel_cli.errors import TrainingError
from convmodel_cli.model.compute import Compute, evaluating, is_out_of_memory, release_memory
from convmodel_cli.model.generation import Context
from convmodel_cli.model.language_model import LanguageModel, target_losses
from convmodel_cli.model.sampling import check_numbers

_ROWS = 16


def score_responses(
    model: LanguageModel,
    context: Context,
    responses: Sequence[Sequence[int]],
    compute: Compute,
    with_types: bool,
    ended: bool = True,
) -> list[float]:
    """Mean log-probability of the tokens of each response to the context; with that of the sep if they have `ended`.

    Raises ModelError if it is no number, TrainingError if memory runs out.
    """
    ending = [model.sep_id] if ended else []
    rows = [[*response, *ending] for response in responses]
    scores: list[float] = []
    for start in range(0, len(rows), _ROWS):
        scores += _score(model, context, rows[start : start + _ROWS], compute, with_types)
    return scores


def _score(
    model: LanguageModel, context: Context, rows: list[list[int]], compute: Compute, with_types: bool
) -> list[float]:
    """The scores of some rows, by halves if they do not fit into memory."""
    try:
        with evaluating(model.network), compute.forward():
            losses = target_losses(model, _batch(context, rows, with_types).to(compute.device))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(rows) == 1:
            raise TrainingError(f"out of memory with a context of {len(context.ids):,} tokens", "shorten it") from None
        release_memory(compute.device)
        middle = len(rows) // 2
        halves = rows[:middle], rows[middle:]
        return [score for half in halves for score in _score(model, context, half, compute, with_types)]
    check_numbers(float(losses.max()))
    return [-float(own.double().mean()) for own in losses.cpu().split([len(row) for row in rows])]


def _batch(context: Context, responses: Sequence[Sequence[int]], with_types: bool) -> MicroBatch:
    """The context with each of the responses, which are the targets."""
    shown = len(context.ids)
    parts = [
        Tokens(
            ids=np.array([*context.ids, *response], np.int32),
            types=np.array([*context.types, *[context.types[-1]] * len(response)], np.uint8),
            targets=np.arange(shown + len(response)) >= shown,
        )
        for response in responses
    ]
    return pad(parts, np.full(len(parts), with_types), num_bytes=0)
