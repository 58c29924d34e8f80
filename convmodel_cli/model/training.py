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
from torch.optim import AdamW, Optimizer

from convmodel_cli.data.batching import MicroBatch, StepPlan, collate, micro_batches
from convmodel_cli.data.encoding import Sequences
from convmodel_cli.errors import TrainingError
from convmodel_cli.model.compute import Compute, evaluating, exact, is_out_of_memory, release_memory
from convmodel_cli.model.gpt2 import fused_projections
from convmodel_cli.model.gradients import clear_gradients
from convmodel_cli.model.language_model import LanguageModel, target_losses
from convmodel_cli.model.muon import GroupedMuon
from convmodel_cli.model.schedule import learning_rate_factor

Optimizers = list[Optimizer]  # each has its share of the parameters

# Measured on short runs, see benchmarks/NOTES.md.
_MOMENTUM = 0.85
_SHARE_OF_MUON = 0.5

_DROPOUT = 3  # a stream of random numbers of its own, beside those of the order and of the speaker ids


@dataclass(frozen=True, slots=True)
class Optimization:
    """How the weights change over a run of `steps` steps, with everything decided."""

    optimizer: str
    learning_rate: float
    schedule: str
    warmup: float
    weight_decay: float
    clip: float
    steps: int
    micro_batch_tokens: int


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


def build_optimizers(model: LanguageModel, optimization: Optimization) -> Optimizers:
    """AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest.

    Only matrices decay. Each parameter group has its `share` of the learning rate.
    Muon: Jordan et al. 2024; its steps are scaled to the size of AdamW's (Liu et al. 2025), so one rate serves both.
    """
    matrices, vectors, embeddings = _parameter_groups(model.network)
    groups = [
        {"params": embeddings, "weight_decay": optimization.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizers: Optimizers = []
    if optimization.optimizer == "muon":
        fused = set(fused_projections(model.network))
        shared = {"weight_decay": optimization.weight_decay, "share": _SHARE_OF_MUON}
        of_muon = [
            {"params": [weight for weight in matrices if weight not in fused], **shared},
            {"params": [weight for weight in matrices if weight in fused], "parts": 3, **shared},
        ]
        optimizers.append(GroupedMuon(of_muon, momentum=_MOMENTUM, adjust_lr_fn="match_rms_adamw"))
    else:
        groups.append({"params": matrices, "weight_decay": optimization.weight_decay})
    optimizers.append(AdamW(groups, betas=(0.9, 0.95), fused=True))
    return optimizers


def _parameter_groups(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """(matrices of the blocks, vectors, embeddings and head); each parameter is in one group."""
    tables = {module.weight for module in network.modules() if isinstance(module, nn.Embedding)}
    tables.add(network.get_output_embeddings().weight)  # type: ignore[operator]
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    embeddings: list[nn.Parameter] = []
    for parameter in network.parameters():
        group = embeddings if parameter in tables else matrices if parameter.ndim == 2 else vectors
        group.append(parameter)
    return matrices, vectors, embeddings


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
        rate = _set_learning_rate(optimizers, plan.number, optimization)
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
        batches = micro_batches(sequences, plan.sequences, plan.with_types, budget, padded=model.pads)
        try:
            return accumulate_gradients(model, batches, compute), batches, budget
        except _MemoryFull as full:
            rows, tokens = full.shape
        _clear_gradients(model)
        release_memory(compute.device)
        if rows == 1:
            raise TrainingError(
                f"step {plan.number}: out of memory with a single sequence of {tokens} tokens",
                "lower --max-length, or take a smaller --base",
            )
        budget = min(budget, rows * tokens) // 2


class _MemoryFull(Exception):  # noqa: N818  it never leaves this module
    """Memory ran out in a micro-batch of this shape (rows, tokens)."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape


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
                raise _MemoryFull(batch.ids.shape) from None
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


def _set_learning_rate(optimizers: Optimizers, step: int, optimization: Optimization) -> float:
    factor = learning_rate_factor(step, optimization.steps, optimization.warmup, optimization.schedule)
    rate = optimization.learning_rate * factor
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
    return rate


def _seed_dropout(seed: int, step: int) -> None:
    """Key the random numbers of dropout by seed and step, so that a step is the same whatever went before it."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, _DROPOUT)).generate_state(1, np.uint64)[0] >> 1))
