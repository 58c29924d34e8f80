"""Model folders and the hub: load and save. Knows transformers, safetensors and the folder's files, never runs code
that comes with a model and never reads a pickle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.errors import ModelError
from convmodel_cli.model.chat_template import install_chat_template
from convmodel_cli.model.language_model import LanguageModel, keeps_cache, prepare_network
from convmodel_cli.model.weights import WEIGHTS, check_weights
from convmodel_cli.settings import is_folder_name

_HUB_PATIENCE_SECONDS = 3.0
_NEW_SEP = "<sep>"
_FROM_FOLDER = {"local_files_only": True, "trust_remote_code": False}


def load_model(name: str) -> LanguageModel:
    """Load a folder, or a model of the Hugging Face hub (from the cache if the hub cannot be reached); fp32 weights.

    Raises ModelError that names what is missing and what to do.
    """
    location, options = _locate(name, needs_weights=True)
    tokenizer = _try_to_load(name, lambda: AutoTokenizer.from_pretrained(location, **options))
    network = _try_to_load(name, lambda: _load_network(name, location, options))
    sep_id = choose_sep(tokenizer)
    if len(tokenizer) > network.get_input_embeddings().weight.shape[0]:
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    prepare_network(network)
    if not keeps_cache(network):
        raise ModelError(
            f"{name}: expected a model that keeps keys and values of what it has read, got {network.config.model_type}"
        )
    return LanguageModel(network, tokenizer, sep_id)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer alone; raises ModelError."""
    location, options = _locate(name, needs_weights=False)
    tokenizer: PreTrainedTokenizerBase = _try_to_load(name, lambda: AutoTokenizer.from_pretrained(location, **options))
    return tokenizer


def _means_folder(name: str) -> bool:
    return Path(name).is_dir() or is_folder_name(name)


def _locate(name: str, needs_weights: bool) -> tuple[str, dict[str, Any]]:
    """(where to load from, options of every loading call)"""
    if not _means_folder(name) and _hub_answers(name):
        return name, {"trust_remote_code": False}
    # Even told to use local files, transformers asks the hub for extras, with long retries; a folder it leaves alone.
    location = Path(name).expanduser() if _means_folder(name) else _cached(name)
    if needs_weights:
        _check_folder(location)
    elif not location.is_dir():
        raise ModelError(f"{name}: expected a folder with a tokenizer, got nothing there")
    return str(location), _FROM_FOLDER


def _cached(name: str) -> Path:
    """The folder in the hub's cache that holds this model; raises ModelError if there is none."""
    try:
        return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise ModelError(
            f"{name}: there is no such folder here, the Hugging Face hub cannot be reached, and the model is not in "
            f"its cache {huggingface_hub.constants.HF_HUB_CACHE}",
            "connect once to download it, or copy the model into a folder and name that (./folder); "
            "convmodel fit --base new-tiny needs neither",
        ) from None


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: expected a model folder, got {'a file' if folder.exists() else 'nothing there'}",
            f"train a model with: convmodel fit -o {folder}",
        )
    there = sorted(entry.name for entry in folder.iterdir())
    if "config.json" not in there:
        listed = ", ".join(there[:8]) or "nothing"
        raise ModelError(f"{folder}: expected a model folder, got one without config.json", f"it holds {listed}")
    if not any(name.endswith(".safetensors") for name in there):
        pickles = [name for name in there if name.endswith((".bin", ".pt", ".pth"))]
        found = f"{pickles[0]}, which could run code when it is read" if pickles else "no weights"
        raise ModelError(
            f"{folder}: expected {WEIGHTS}, got {found}",
            "convert it on a machine you trust, with save_pretrained of transformers" if pickles else "",
        )


def _hub_answers(name: str) -> bool:
    """Ask the hub for this model; a hub that does not answer within seconds is left alone, for its retries are long."""
    if huggingface_hub.is_offline_mode():
        return False
    try:
        huggingface_hub.get_hf_file_metadata(
            huggingface_hub.hf_hub_url(name, "config.json"), timeout=_HUB_PATIENCE_SECONDS
        )
    except GatedRepoError:
        raise ModelError(
            f"{name}: the hub wants you to accept the model's terms first",
            f"open https://huggingface.co/{name}, accept them, and run: hf auth login",
        ) from None
    except HFValidationError:
        raise ModelError(
            f"{name}: expected a folder or a name like gpt2 or owner/model, got neither",
            "a folder is written with a slash, like ./model",
        ) from None
    except EntryNotFoundError:
        raise ModelError(f"{name}: the hub has this repository, but no config.json in it") from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"{name}: the hub has no such model, or you may not see it",
            "check the name; a folder is written with a slash, like ./model",
        ) from None
    except Exception:  # no network, proxies, time-outs: each library below has errors of its own for them
        return False
    return True


def _try_to_load(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ModelError:
        raise
    except Exception as error:  # the libraries raise nearly every kind for a broken or missing file
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError(f"{name}: expected a causal language model, but it cannot be loaded: {reason}") from error


def _load_network(name: str, location: str, options: dict[str, Any]) -> Any:
    is_ours = (Path(location) / WEIGHTS).is_file() and check_weights(Path(location))
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        location, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
    )
    network, report = loaded
    missing = sorted(report["missing_keys"]) + [str(key[0]) for key in report["mismatched_keys"]]
    if missing:
        listed = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ModelError(f"{name}: expected all weights of the model, got none for {listed}", "the file is incomplete")
    if is_ours and (unknown := sorted(report["unexpected_keys"])):
        raise ModelError(
            f"{name}: expected the config.json that the weights were trained with, got one without {unknown[0]}",
            "copy the config.json that belongs to them there",
        )
    return network


def choose_sep(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the sep token: the tokenizer's own, else its eos token; only one with neither gets a new token.

    Setting another string as sep on a tokenizer that does not know it falls on the unknown id, and changes after
    save and reload; a choice that is derived from what the tokenizer already has cannot.
    """
    sep = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    if sep is None:
        tokenizer.add_special_tokens({"sep_token": _NEW_SEP})
        sep = tokenizer.sep_token_id
    return int(sep)


def generation_config(model: LanguageModel) -> GenerationConfig:
    """How other tools are to generate, and transformers' own `generate` here.

    The repetition penalty stays out: they would apply it to the sep token too, and responses would run on.
    """
    sampling = SamplingSettings()
    return GenerationConfig(
        eos_token_id=model.sep_id,
        pad_token_id=model.sep_id if model.tokenizer.pad_token_id is None else model.tokenizer.pad_token_id,
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_new_tokens=sampling.max_new_tokens,
    )


def save_everything_but_weights(model: LanguageModel, folder: Path) -> None:
    """Write config, tokenizer with our chat template, and generation defaults that other tools understand."""
    install_chat_template(model.tokenizer, model.sep_id)
    if model.tokenizer.pad_token_id is None:
        model.tokenizer.pad_token = str(model.tokenizer.convert_ids_to_tokens(model.sep_id))
    model.tokenizer.save_pretrained(folder)
    model.network.config.architectures = [type(model.network).__name__]
    model.network.config.save_pretrained(folder)
    generation_config(model).save_pretrained(folder)


def load_weights(model: LanguageModel, folder: Path) -> None:
    """Put the folder's weights back into a model of the same shape, in place; raises ModelError if they are damaged."""
    network = _try_to_load(str(folder), lambda: _load_network(str(folder), str(folder), _FROM_FOLDER))
    model.network.load_state_dict(network.state_dict())
