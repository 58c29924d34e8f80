"""Which weights are changed by which optimizer, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from convmodel_cli.model.compute import Compute
from convmodel_cli.model.gpt2 import fused_projections
from convmodel_cli.model.language_model import LanguageModel
from convmodel_cli.model.muon import GroupedMuon
from convmodel_cli.model.schedule import learning_rate_factor

Optimizers = list[Optimizer]  # each has its share of the parameters

# Measured on short runs, see benchmarks/NOTES.md.
_MOMENTUM = 0.85
_SHARE_OF_MUON = 0.5


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


def build_optimizers(model: LanguageModel, optimization: Optimization, compute: Compute) -> Optimizers:
    """AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest.

    Only matrices decay. Each parameter group has its `share` of the learning rate.
    Muon: Jordan et al. 2024; its steps are scaled to the size of AdamW's (Liu et al. 2025), so one rate serves both of
    a run.
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
        optimizers.append(GroupedMuon(of_muon, dtype=compute.dtype, momentum=_MOMENTUM, adjust_lr_fn="match_rms_adamw"))
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


def allocate_moments(optimizer: AdamW) -> None:
    """Make the state that its first step would make, by the names that torch gives it."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"] if weight.requires_grad]
    for weight in weights:
        moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[weight] = {"step": torch.zeros((), device=weight.device), **moments}


def set_learning_rate(optimizers: Optimizers, step: int, optimization: Optimization) -> float:
    factor = learning_rate_factor(step, optimization.steps, optimization.warmup, optimization.schedule)
    rate = optimization.learning_rate * factor
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
    return rate
