"""The weights of a model folder: one file that is written whole and tells its step, loss and digest."""

from __future__ import annotations

import hashlib
import json
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
_DIGEST, _VOCABULARY = "sha256", "vocabulary_sha256"
_TOKENIZER = "tokenizer.json"


def save_weights(model: LanguageModel, folder: Path, metadata: Mapping[str, str]) -> None:
    """Replace the folder's weights at once: a reader sees the old file or the new one, never a part.

    Their digest goes into the file, and that of the vocabulary in the folder, without which they mean nothing: whatever
    reads them knows that both are still the ones that were written.
    """
    tied = model.network.all_tied_weights_keys
    state = {name: tensor.detach() for name, tensor in model.network.state_dict().items() if name not in tied}
    tensors = {name: tensor.contiguous() for name, tensor in revert_weight_conversion(model.network, state).items()}
    described = {"format": "pt", **metadata, _DIGEST: _digest(tensors.keys(), tensors.__getitem__)}
    if vocabulary := _vocabulary_digest(folder):
        described[_VOCABULARY] = vocabulary
    replace_file(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata=described))


def weights_origin(folder: Path) -> tuple[int, float, str]:
    """(step, loss, run) of the folder's weights as their file says; 0, not a number and "" if it does not."""
    with safe_open(str(folder / WEIGHTS), "pt") as file:
        metadata = file.metadata() or {}
    return int(metadata.get("step", 0)), float(metadata.get("loss", "nan")), metadata.get("run", "")


def check_weights(folder: Path) -> bool:
    """Whether the weights are ours, and all of them; of others nothing is known.

    Raises ModelError for weights or a vocabulary that are not those that `save_weights` wrote.
    """
    path = folder / WEIGHTS
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata() or {}
        expected = metadata.get(_DIGEST)
        if expected and _digest(file.keys(), file.get_tensor) != expected:
            raise ModelError(
                f"{path}: damaged: the SHA-256 of its weights is not the one they were written with",
                "take a copy of the model, or train it again",
            )
    vocabulary = metadata.get(_VOCABULARY)
    if vocabulary and _vocabulary_digest(folder) != vocabulary:
        found = "another" if (folder / _TOKENIZER).is_file() else "none"
        raise ModelError(
            f"{folder / _TOKENIZER}: expected the vocabulary that the weights were trained with, got {found}",
            f"copy the {_TOKENIZER} that belongs to them there",
        )
    return bool(expected)


def _vocabulary_digest(folder: Path) -> str:
    """SHA-256 over how text becomes tokens; empty if the folder says that in no file that is known here."""
    try:
        content = json.loads((folder / _TOKENIZER).read_bytes())
        said = [content[name] for name in ("normalizer", "pre_tokenizer", "model", "added_tokens")]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _digest(names: Iterable[str], read: Callable[[str], Tensor]) -> str:
    """SHA-256 over name, kind and bytes of each tensor, which come one at a time."""
    digest = hashlib.sha256()
    for name in sorted(names):
        tensor = read(name)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
