"""The folder of a run: what may be written where, and the records beside the weights.

Everything but the weights and the records is written at the start; a new best replaces the weights alone.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from convmodel_cli import __version__
from convmodel_cli.data.formats import Conversation, to_record
from convmodel_cli.errors import ModelError, StorageError, UsageError
from convmodel_cli.settings import is_folder_name

if TYPE_CHECKING:
    from convmodel_cli.model.language_model import LanguageModel

RECORD = "convmodel.json"
EVENTS = "events.jsonl"
REPORT = "report.html"
TEST = "test.jsonl"
_OUR_FILES = (
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template.jinja",
    "README.md",
    REPORT,
    TEST,
    EVENTS,
    RECORD,
)
_BASE_TEMPLATE = "additional_chat_templates/base.jinja"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What convmodel.json says that later commands need; the defaults stand for a folder without one."""

    speaker_ids: str = "off"
    learn: str = "auto"
    max_length: int | None = None
    max_context: int | None = None
    base: str = ""
    sample: bool = False


def check_output(output: str, overwrite: bool) -> None:
    """Refuse an output that holds something; raises UsageError. Nothing is written."""
    if not output.strip():
        raise UsageError("--output: expected a folder, got an empty name")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{output}: expected a folder for the model, got a file", "choose another one with -o")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / RECORD).is_file():
        raise UsageError(f"{output}: the folder holds other files and no run", "choose another one with -o")
    if not overwrite:
        raise UsageError(f"{output}: a run is there already", "replace it with --overwrite, or choose another with -o")


def prepare_output(output: str) -> Path:
    """Make the folder, and remove our own files of an earlier run from it; nothing else is touched."""
    folder = Path(output)
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*_OUR_FILES, _BASE_TEMPLATE):
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # it stays if there is anything else in it
            (folder / _BASE_TEMPLATE).parent.rmdir()
    return folder


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Turn a failure to write into a StorageError that names the place and the space there."""
    try:
        yield
    except Exception as error:
        # The libraries in Rust raise errors of their own, which only their words tell from others.
        if not isinstance(error, OSError) and "(os error " not in str(error) and "I/O error" not in str(error):
            raise
        there = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
        free = shutil.disk_usage(there).free
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"{folder}: cannot be written: {reason} ({free:,} bytes free on its disk)", "choose another place with -o"
        ) from error


def write_model_files(model: LanguageModel, folder: Path) -> None:
    """Everything of a Hugging Face folder but the weights."""
    from convmodel_cli.model.checkpoint import save_everything_but_weights

    with storing(folder):
        save_everything_but_weights(model, folder)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Replace convmodel.json at once."""
    from convmodel_cli.model.checkpoint import replace_file

    content = orjson.dumps({"convmodel": __version__, "versions": _versions(), **record}, option=orjson.OPT_INDENT_2)
    with storing(folder):
        replace_file(folder / RECORD, lambda path: path.write_bytes(content + b"\n"))


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "tokenizers", "safetensors")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def check_model(name: str) -> None:
    """Refuse a folder that is not there, before anything heavy is imported; raises ModelError."""
    path = Path(name).expanduser()
    if path.is_file() or (is_folder_name(name) and not path.is_dir()):
        raise ModelError(
            f"{name}: expected a model folder, got {'a file' if path.exists() else 'nothing there'}",
            f"train one with: convmodel fit -o {name}",
        )


def read_record(folder: str) -> RunRecord:
    """The record of a run, or the defaults for a folder that has none."""
    path = Path(folder).expanduser() / RECORD
    if not path.is_file():
        return RunRecord()
    try:
        content = orjson.loads(path.read_bytes())
        settings = content["settings"]
        record = RunRecord(
            speaker_ids=settings["speaker_ids"],
            learn=settings["learn"],
            max_length=settings["max_length"],
            max_context=content["max_context"],
            base=content["base"],
            sample=content["data"]["sample"],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: expected the record of a run, got something else ({error})") from None
    for name, kind in (("speaker_ids", str), ("learn", str), ("max_length", int | None), ("max_context", int | None)):
        if not isinstance(getattr(record, name), kind):
            raise ModelError(f"{path}: expected the record of a run, got {getattr(record, name)!r} for {name}")
    return record


def as_content(record: RunRecord) -> dict[str, Any]:
    """What convmodel.json holds when nothing more is known than `record`."""
    settings = {"speaker_ids": record.speaker_ids, "learn": record.learn, "max_length": record.max_length}
    return {
        "base": record.base,
        "settings": settings,
        "data": {"sample": record.sample},
        "max_context": record.max_context,
    }


def write_test_file(folder: Path, conversations: list[Conversation]) -> None:
    """The conversations that a split set aside, as a file that `eval` reads."""
    with storing(folder):
        lines = [orjson.dumps(to_record(conversation)) + b"\n" for conversation in conversations]
        (folder / TEST).write_bytes(b"".join(lines))


def write_model_card(folder: Path, record: Mapping[str, Any]) -> None:
    """README.md, with the header that the Hugging Face hub reads."""
    valid = record["best"].get("valid")
    measured = ""
    if valid:
        measured = f"Validation: {valid['ppl']:.2f} perplexity, {valid['bits_per_byte']:.3f} bits per byte. "
    text = f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [convmodel, conversational]
---

# A conversation model

Trained with convmodel {__version__} from `{record["base"]}` on {record["data"]["train_conversations"]} conversations.
{measured}{record["parameters"]:,} parameters.

Talk with it:

    convmodel chat --model .

Or in Python, with transformers alone:

    from transformers import pipeline

    chat = pipeline("text-generation", model=".")
    chat([{{"role": "user", "content": "Hello"}}])

A conversation is shown to it as `<sep>turn<sep>turn<sep>`, where `<sep>` is the tokenizer's sep or eos token; the chat
template does that. convmodel.json beside this file records the settings, the data and the figures of the run.
"""
    with storing(folder):
        (folder / "README.md").write_text(text, encoding="utf-8")
