"""The loop: one optimizer step after another."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import increment_version
from torch.optim import AdamW

from convmodel_cli.data.batching import MicroBatch, StepPlan, collate, micro_batches
from convmodel_cli.data.encoding import Sequences
from convmodel_cli.errors import TrainingError
from convmodel_cli.model.compute import Compute, evaluating, exact, is_out_of_memory, release_memory
from convmodel_cli.model.gradients import clear_gradients, gradient_of
from convmodel_cli.model.language_model import LanguageModel, target_losses
from convmodel_cli.model.optimizers import (
    Optimization,
    Optimizers,
    allocate_moments,
    build_optimizers,
    set_learning_rate,
)

_DROPOUT = 3  # a stream of random numbers of its own, beside those of the order and of the speaker ids


@dataclass(frozen=True, slots=True)
class StepDone:
    """`loss` is the mean over the step's targets before its update; `tokens` counts real ones, not padding.

    `micro_batch_tokens` is the budget it was done with, which is smaller than it was if memory ran out.
    """

    plan: StepPlan
    loss: float
    gradient_norm: float
    learning_rate: float
    targets: int
    tokens: int
    micro_batch_tokens: int
    seconds: float


def prepare(model: LanguageModel, optimization: Optimization, compute: Compute) -> Optimizers:
    """Build the optimizers; give weights, gradients and AdamW's moments memory of their own before steps need any.

    Weights loaded from a file are mapped from it: the first step would copy them page by page, and a write to the
    file would change those not copied yet. What is made among that which a step needs for a while cuts its memory into
    pieces.
    """
    for parameter in model.network.parameters():
        parameter.data = parameter.data.clone()
        if parameter.requires_grad and not model.pads:
            gradient_of(parameter)
    _clear_gradients(model)
    optimizers = build_optimizers(model, optimization, compute)
    for optimizer in optimizers:
        if isinstance(optimizer, AdamW):
            allocate_moments(optimizer)
    return optimizers


def train(
    model: LanguageModel,
    optimizers: Optimizers,
    plans: Iterable[StepPlan],
    sequences: Sequences,
    optimization: Optimization,
    compute: Compute,
) -> Iterator[StepDone]:
    """Train `model` in place, yielding after each optimizer step.

    Raises TrainingError before a step whose loss or gradient is not finite. When memory runs out, the step is done
    again in micro-batches of half the size, and so are those after it.
    """
    budget = optimization.micro_batch_tokens
    for plan in plans:
        started = time.perf_counter()
        model.network.train()
        rate = set_learning_rate(optimizers, plan.number, optimization)
        loss, batches, budget = _accumulate_in_memory(model, plan, sequences, budget, compute)
        norm = nn.utils.clip_grad_norm_(model.network.parameters(), optimization.clip or math.inf).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _not_finite(model, plan, sequences, loss, norm, compute)
        for optimizer in optimizers:
            optimizer.step()
        increment_version(model.network.parameters())  # fused optimizers change weights and do not tell
        _clear_gradients(model)
        yield StepDone(
            plan,
            loss,
            norm,
            rate,
            targets=sum(batch.num_targets for batch in batches),
            tokens=sum(batch.num_tokens for batch in batches),
            micro_batch_tokens=budget,
            seconds=time.perf_counter() - started,
        )


def _accumulate_in_memory(
    model: LanguageModel, plan: StepPlan, sequences: Sequences, budget: int, compute: Compute
) -> tuple[float, list[MicroBatch], int]:
    """Accumulate the step's gradients, with a smaller budget each time that memory runs out.

    Returns its loss, its micro-batches and the budget that was small enough; raises TrainingError if one sequence
    alone is too much.
    """
    while True:
        _seed_dropout(compute.seed, plan.number)
        batches = micro_batches(sequences, plan.sequences, plan.with_types, budget, model.row_length)
        try:
            return accumulate_gradients(model, batches, compute), batches, budget
        except _MemoryFull as full:
            rows = len(full.batch.lengths)
            tokens = full.batch.ids.numel() if model.pads else full.batch.num_tokens
        _clear_gradients(model)
        release_memory(compute.device)
        if rows == 1:
            raise TrainingError(
                f"step {plan.number}: out of memory with a single sequence of {tokens} tokens",
                "lower --max-length, or take a smaller --base",
            )
        budget = min(budget, tokens) // 2


class _MemoryFull(Exception):  # noqa: N818  it never leaves this module
    """Memory ran out in this micro-batch."""

    def __init__(self, batch: MicroBatch) -> None:
        super().__init__()
        self.batch = batch


def accumulate_gradients(model: LanguageModel, batches: list[MicroBatch], compute: Compute) -> float:
    """Add the step's gradients to the parameters and return its loss.

    Every micro-batch is divided by the targets of the whole step, not by its own: the step is the same however it is
    cut, and long conversations count by their tokens.
    """
    num_targets = sum(batch.num_targets for batch in batches)
    total = 0.0
    for batch in batches:
        try:
            with compute.forward():
                losses = target_losses(model, batch.to(compute.device))
            (losses.sum() / num_targets).backward()
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise _MemoryFull(batch) from None
            raise
        total += float(exact(losses.detach()).sum())
    return total / num_targets


def _not_finite(
    model: LanguageModel, plan: StepPlan, sequences: Sequences, loss: float, norm: float, compute: Compute
) -> TrainingError:
    """The error for a step that broke; it knows the sequences whose own loss is broken, or else all of the step."""
    broken = []
    for place, row in enumerate(plan.sequences.tolist()):
        batch = collate(sequences, [row], plan.with_types[place : place + 1])
        with evaluating(model.network), compute.forward():
            if not math.isfinite(float(target_losses(model, batch.to(compute.device)).sum())):
                broken.append(row)
    rows = broken or plan.sequences.tolist()
    return TrainingError(
        f"step {plan.number}: expected finite numbers, got a loss of {loss} and a gradient norm of {norm}",
        "lower --learning-rate, or raise --warmup",
        conversations=tuple(dict.fromkeys(sequences.conversations[rows].tolist())),
    )


def _clear_gradients(model: LanguageModel) -> None:
    if model.pads:
        model.network.zero_grad()
    else:
        clear_gradients(model.network.parameters())


def _seed_dropout(seed: int, step: int) -> None:
    """Key the random numbers of dropout by seed and step, so that a step is the same whatever went before it."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, _DROPOUT)).generate_state(1, np.uint64)[0] >> 1))
