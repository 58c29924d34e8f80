"""The loop: one optimizer step after another."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from convmodel_cli.data.batching import MicroBatch, StepPlan, micro_batches
from convmodel_cli.data.encoding import Sequences
from convmodel_cli.errors import TrainingError
from convmodel_cli.model.compute import Compute, exact
from convmodel_cli.model.language_model import LanguageModel, target_losses
from convmodel_cli.model.schedule import learning_rate_factor


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
    """`loss` is the mean over the step's targets before its update; `tokens` counts real ones, not padding."""

    plan: StepPlan
    loss: float
    gradient_norm: float
    learning_rate: float
    targets: int
    tokens: int
    seconds: float


def build_optimizers(model: LanguageModel, optimization: Optimization) -> list[Optimizer]:
    """AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest.

    Only matrices decay. Each parameter group keeps its share of the peak learning rate in `peak`.
    Muon: Jordan et al. 2024; its steps are scaled to the size of AdamW's (Liu et al. 2025), so one rate serves both.
    """
    matrices, vectors, embeddings = _parameter_groups(model.network)
    groups = [
        {"params": embeddings, "weight_decay": optimization.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizers: list[Optimizer] = []
    if optimization.optimizer == "muon":
        optimizers.append(Muon(matrices, weight_decay=optimization.weight_decay, adjust_lr_fn="match_rms_adamw"))
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
    optimizers: list[Optimizer],
    plans: Iterable[StepPlan],
    sequences: Sequences,
    optimization: Optimization,
    compute: Compute,
) -> Iterator[StepDone]:
    """Train `model` in place, yielding after each optimizer step.

    Raises TrainingError before a step whose loss or gradient is not finite.
    """
    for plan in plans:
        started = time.perf_counter()
        model.network.train()
        rate = _set_learning_rate(optimizers, plan.number, optimization)
        batches = micro_batches(sequences, plan.sequences, plan.with_types, optimization.micro_batch_tokens)
        loss = accumulate_gradients(model, batches, compute)
        norm = nn.utils.clip_grad_norm_(model.network.parameters(), optimization.clip or math.inf).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"step {plan.number}: expected finite numbers, got a loss of {loss} and a gradient norm of {norm}",
                "lower --learning-rate, or raise --warmup",
            )
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield StepDone(
            plan,
            loss,
            norm,
            rate,
            targets=sum(batch.num_targets for batch in batches),
            tokens=sum(batch.num_tokens for batch in batches),
            seconds=time.perf_counter() - started,
        )


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
        except torch.OutOfMemoryError as error:
            rows, tokens = batch.ids.shape
            raise TrainingError(
                f"out of memory in a micro-batch of {rows} sequences of {tokens} tokens",
                "lower --micro-batch-tokens, which changes no result, or --max-length",
            ) from error
        total += float(exact(losses.detach()).sum())
    return total / num_targets


def _set_learning_rate(optimizers: list[Optimizer], step: int, optimization: Optimization) -> float:
    factor = learning_rate_factor(step, optimization.steps, optimization.warmup, optimization.schedule)
    rate = optimization.learning_rate * factor
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    return rate


def seed_everything(compute: Compute) -> None:
    """Seed the random numbers of dropout; everything else draws from streams of its own."""
    torch.manual_seed(compute.seed)
