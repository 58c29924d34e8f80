"""Model folders and the hub: load and save. Knows transformers, safetensors and the folder's files, never runs code
that comes with a model and never reads a pickle."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from convmodel_cli.errors import ModelError
from convmodel_cli.model.language_model import LanguageModel, restore_weights, use_fused_activations
from convmodel_cli.settings import is_folder_name

WEIGHTS = "model.safetensors"
_HUB_PATIENCE_SECONDS = 3.0
_NEW_SEP = "<sep>"

# Renders to the ids of the training encoding: a sep before each turn and after the last, a system message and a
# newline in front of the first turn, messages of one speaker in a row joined with a newline.
_CHAT_TEMPLATE = """\
{%- set sep = "SEP" -%}
{%- set ns = namespace(role="", persona="", turns=0) -%}
{%- for message in messages -%}
{%- if message.role == "system" -%}
{%- set ns.persona = (ns.persona + "\\n" + message.content) if ns.persona else message.content -%}
{%- elif message.role not in ("user", "assistant") -%}
{{- raise_exception("expected the role system, user or assistant, got " + message.role) -}}
{%- endif -%}
{%- endfor -%}
{%- set persona = ns.persona.strip() -%}
{%- for message in messages if message.role != "system" -%}
{%- if ns.turns == 0 and persona -%}
{{- sep + persona + "\\n" + message.content.lstrip() -}}
{%- elif message.role == ns.role -%}
{{- "\\n" + message.content -}}
{%- else -%}
{{- sep + message.content -}}
{%- endif -%}
{%- set ns.role = message.role -%}
{%- set ns.turns = ns.turns + 1 -%}
{%- endfor -%}
{{- sep -}}
"""


def load_model(name: str) -> LanguageModel:
    """Load a folder, or a model of the Hugging Face hub (from the cache if the hub cannot be reached); fp32 weights.

    Raises ModelError that names what is missing and what to do.
    """
    _be_quiet()
    if _means_folder(name):
        location = str(Path(name).expanduser())
        _check_folder(Path(location))
        return _load(location, name, local_files_only=True)
    return _load(name, name, local_files_only=not _hub_answers(name))


def _means_folder(name: str) -> bool:
    return Path(name).is_dir() or is_folder_name(name)


def _be_quiet() -> None:
    """Keep the libraries' own bars and log lines off the screen."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    huggingface_hub.utils.disable_progress_bars()


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
    except RepositoryNotFoundError:
        raise ModelError(
            f"{name}: the hub has no such model, or you may not see it",
            "check the name; a folder is written with a slash, like ./model",
        ) from None
    except Exception:  # no network, proxies, time-outs: each library below has errors of its own for them
        return False
    return True


def _load(location: str, name: str, local_files_only: bool) -> LanguageModel:
    options: dict[str, Any] = {"local_files_only": local_files_only, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, **options)
        network, report = AutoModelForCausalLM.from_pretrained(
            location, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
        )
    except Exception as error:  # the libraries raise nearly every kind for a broken or missing file
        raise _loading_failed(name, local_files_only, error) from error
    missing = sorted(report["missing_keys"]) + [str(key[0]) for key in report["mismatched_keys"]]
    if missing:
        listed = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ModelError(f"{name}: expected all weights of the model, got none for {listed}", "the file is incomplete")
    use_fused_activations(network)
    network.eval()
    return _with_sep(network, tokenizer)


def _loading_failed(name: str, local_files_only: bool, error: Exception) -> ModelError:
    if _means_folder(name) or not local_files_only:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        return ModelError(f"{name}: expected a causal language model, but it cannot be loaded: {reason}")
    return ModelError(
        f"{name}: the Hugging Face hub cannot be reached, and the model is not in the cache "
        f"{huggingface_hub.constants.HF_HUB_CACHE}",
        "connect once to download it, or copy the model into a folder and name that (./folder), "
        "or train a new model: --base new-tiny",
    )


def _with_sep(network: Any, tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    """Choose the sep token: the tokenizer's own, else its eos token; only one with neither gets a new token.

    Setting another string as sep on a tokenizer that does not know it falls on the unknown id, and changes after
    save and reload; a choice that is derived from what the tokenizer already has cannot.
    """
    sep = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    if sep is None:
        tokenizer.add_special_tokens({"sep_token": _NEW_SEP})
        sep = tokenizer.sep_token_id
    if len(tokenizer) > network.get_input_embeddings().weight.shape[0]:
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return LanguageModel(network, tokenizer, int(sep))


def save_everything_but_weights(model: LanguageModel, folder: Path, generation_defaults: Mapping[str, Any]) -> None:
    """Write config, tokenizer with our chat template, and generation defaults that other tools understand."""
    _be_quiet()
    _prepare_tokenizer(model)
    model.tokenizer.save_pretrained(folder)
    model.network.config.architectures = [type(model.network).__name__]
    model.network.config.save_pretrained(folder)
    generation = GenerationConfig(
        eos_token_id=model.sep_id, pad_token_id=model.tokenizer.pad_token_id, **generation_defaults
    )
    generation.save_pretrained(folder)


def _prepare_tokenizer(model: LanguageModel) -> None:
    tokenizer = model.tokenizer
    sep_token = str(tokenizer.convert_ids_to_tokens(model.sep_id))
    ours = _CHAT_TEMPLATE.replace("SEP", sep_token.replace("\\", "\\\\").replace('"', '\\"'))
    before = tokenizer.chat_template
    if isinstance(before, dict):
        tokenizer.chat_template = {**before, "base": before.get("base", before["default"]), "default": ours}
    elif before and before != ours:
        tokenizer.chat_template = {"default": ours, "base": before}
    else:
        tokenizer.chat_template = ours
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = sep_token


def save_weights(model: LanguageModel, folder: Path, metadata: Mapping[str, str]) -> None:
    """Replace the folder's weights at once: a reader sees the old file or the new one, never a part."""
    tied = model.network.all_tied_weights_keys
    tensors = {
        name: tensor.detach().contiguous()
        for name, tensor in model.network.state_dict().items()
        if name not in tied
    }
    replace_file(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt", **metadata}))


def load_weights(model: LanguageModel, folder: Path) -> None:
    """Put the folder's weights back into a model of the same shape, in place."""
    restore_weights(model.network, load_file(folder / WEIGHTS))


def replace_file(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside the target and rename it over the target once it is on the disk."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        _make_durable(temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _make_durable(target.parent)


def _make_durable(path: Path) -> None:
    """Wait until the file or folder is on the disk; a file gets the mode that the umask gives any other."""
    if path.is_file():
        umask = os.umask(0)
        os.umask(umask)
        path.chmod(0o666 & ~umask)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
