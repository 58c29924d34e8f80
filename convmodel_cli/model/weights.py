"""The weights of a model folder: one file that is written whole and tells its step, loss and digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from convmodel_cli.errors import ModelError
from convmodel_cli.model.language_model import LanguageModel
from convmodel_cli.storage import replace_file

WEIGHTS = "model.safetensors"
_DIGEST = "sha256"


def save_weights(model: LanguageModel, folder: Path, metadata: Mapping[str, str]) -> None:
    """Replace the folder's weights at once: a reader sees the old file or the new one, never a part.

    Their digest goes into the file, by which whatever reads them knows that they are still the ones that were written.
    """
    tied = model.network.all_tied_weights_keys
    state = {name: tensor.detach() for name, tensor in model.network.state_dict().items() if name not in tied}
    tensors = {name: tensor.contiguous() for name, tensor in revert_weight_conversion(model.network, state).items()}
    described = {"format": "pt", **metadata, _DIGEST: _digest(tensors.keys(), tensors.__getitem__)}
    replace_file(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata=described))


def weights_origin(folder: Path) -> tuple[int, float]:
    """(step, loss) of the folder's weights as their file says; step 0 and not a number if it does not."""
    with safe_open(str(folder / WEIGHTS), "pt") as file:
        metadata = file.metadata() or {}
    return int(metadata.get("step", 0)), float(metadata.get("loss", "nan"))


def check_weights(folder: Path) -> None:
    """Raise ModelError for weights that are not those that `save_weights` wrote; of others nothing is known."""
    path = folder / WEIGHTS
    with safe_open(str(path), "pt") as file:
        expected = (file.metadata() or {}).get(_DIGEST)
        if expected and _digest(file.keys(), file.get_tensor) != expected:
            raise ModelError(
                f"{path}: damaged: the SHA-256 of its weights is not the one they were written with",
                "take a copy of the model, or train it again",
            )


def _digest(names: Iterable[str], read: Callable[[str], Tensor]) -> str:
    """SHA-256 over name, kind and bytes of each tensor, which come one at a time."""
    digest = hashlib.sha256()
    for name in sorted(names):
        tensor = read(name)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
