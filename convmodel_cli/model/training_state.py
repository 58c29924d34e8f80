"""What a run needs to go on bit by bit: the weights and the optimizers' state as safetensors, never as a pickle.

    model.safetensors        the weights of the step, under the names of the network in memory
    optimizer.safetensors    `optimizer.parameter.quantity`, like `0.transformer.h.0.mlp.c_fc.weight.momentum_buffer`

Random numbers need no state: those of each step are drawn from a stream keyed by seed and step.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor

from convmodel_cli.errors import ModelError, TrainingError
from convmodel_cli.model.language_model import LanguageModel
from convmodel_cli.model.optimizers import Optimizers

WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"


def save_training_state(model: LanguageModel, optimizers: Optimizers, folder: Path) -> None:
    """Write both files into the folder."""
    save_model(model.network, str(folder / WEIGHTS))
    tensors = {name: tensor.contiguous() for name, tensor in _optimizer_tensors(model, optimizers).items()}
    save_file(tensors, folder / OPTIMIZER, metadata={"tensors": str(len(tensors))})


def load_training_state(
    model: LanguageModel, optimizers: Optimizers, folder: Path, with_optimizers: bool = True
) -> None:
    """Put both back in place; raises ModelError if they are not of this model and these optimizers."""
    try:
        load_model(model.network, folder / WEIGHTS)
        if with_optimizers:
            _load_optimizers(model, optimizers, folder / OPTIMIZER)
    except (OSError, RuntimeError, SafetensorError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{folder}: expected the state of this model, got something else ({reason})") from error


def training_state_bytes(model: LanguageModel, optimizers: Optimizers) -> int:
    """About how many bytes a checkpoint takes once each parameter has its state."""
    weights = sum(parameter.numel() for parameter in model.network.parameters())
    per_optimizer: list[int] = [
        sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
        * (2 if isinstance(optimizer, torch.optim.AdamW) else 1)
        for optimizer in optimizers
    ]
    return 4 * (weights + sum(per_optimizer))


def check_finite_weights(model: LanguageModel, step: int) -> None:
    """Raise TrainingError rather than let a weight that is no number reach the disk."""
    for name, parameter in model.network.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise TrainingError(
                f"step {step}: expected finite weights, got others in {name}",
                "lower --learning-rate, or raise --warmup",
            )


def _names(model: LanguageModel) -> dict[Tensor, str]:
    return {parameter: name for name, parameter in model.network.named_parameters()}


def _optimizer_tensors(model: LanguageModel, optimizers: Optimizers) -> dict[str, Tensor]:
    names = _names(model)
    return {
        f"{number}.{names[parameter]}.{quantity}": value
        for number, optimizer in enumerate(optimizers)
        for parameter, state in optimizer.state.items()
        for quantity, value in state.items()
    }


def _load_optimizers(model: LanguageModel, optimizers: Optimizers, path: Path) -> None:
    with safe_open(str(path), "pt") as file:
        saved = (file.metadata() or {}).get("tensors")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    if str(len(tensors)) != saved:
        raise ValueError(f"{path.name} has {len(tensors)} tensors of {saved or 'an unknown number'}")
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, quantity = name.rpartition(".")
        states.setdefault(owner, {})[quantity] = tensor
    names = _names(model)
    for number, optimizer in enumerate(optimizers):
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            own = optimizer.state[parameter]
            for quantity, tensor in states.pop(f"{number}.{names[parameter]}", {}).items():
                # A copy, for the tensor is mapped from the file.
                there = own.get(quantity)
                own[quantity] = tensor.to(parameter.device, copy=True) if there is None else there.copy_(tensor)
    if states:
        raise ValueError(f"{path.name} has {min(states)}, for which there is no parameter")
