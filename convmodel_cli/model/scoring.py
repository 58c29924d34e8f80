"""How likely a given response is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from convmodel_cli.data.batching import MicroBatch
from convmodel_cli.model.compute import Compute, evaluating
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

    Raises ModelError if it is no number.
    """
    ending = [model.sep_id] if ended else []
    rows = [[*response, *ending] for response in responses]
    scores = []
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        with evaluating(model.network), compute.forward():
            losses = target_losses(model, _batch(context, part, with_types).to(compute.device))
        check_numbers(float(losses.max()))
        scores += [-float(own.double().mean()) for own in losses.cpu().split([len(row) for row in part])]
    return scores


def _batch(context: Context, responses: Sequence[Sequence[int]], with_types: bool) -> MicroBatch:
    """The context with each of the responses, which are the targets."""
    shown = len(context.ids)
    shape = (len(responses), shown + max(map(len, responses)))
    ids, types, targets = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    ids[:, :shown], types[:, :shown], types[:, shown:] = context.ids, context.types, context.types[-1]
    for row, response in enumerate(responses):
        ids[row, shown : shown + len(response)] = response
        targets[row, shown : shown + len(response)] = True
    places = np.flatnonzero(targets)
    return MicroBatch(
        ids=torch.from_numpy(ids),
        types=torch.from_numpy(types) if with_types else None,
        with_types=torch.full((len(responses),), with_types),
        predict_from=torch.from_numpy(places - 1),
        target_ids=torch.from_numpy(ids.reshape(-1)[places]),
        num_tokens=int(targets.sum()) + shown * len(responses),
        num_bytes=0,
    )
