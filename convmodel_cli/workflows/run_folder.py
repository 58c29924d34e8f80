"""The folder of a run: what may be written where, and the records beside the weights.

Everything but the weights and the records is written at the start; a new best replaces the weights alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmodel_cli import __version__
from convmodel_cli.data.formats import Conversation, to_record
from convmodel_cli.errors import ModelError, UsageError
from convmodel_cli.escaping import one_line, to_json
from convmodel_cli.settings import RunSettings, is_folder_name
from convmodel_cli.storage import LOCK, check_unlocked, make_durable, replace_file, storing, temporaries
from convmodel_cli.workflows.checkpoints import find_checkpoints, remove_checkpoints, remove_half_checkpoints
from convmodel_cli.workflows.record import RECORD

if TYPE_CHECKING:
    from convmodel_cli.model.language_model import LanguageModel

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


def check_output(output: str, run: RunSettings) -> None:
    """Refuse an output that another process uses, or that holds something; nothing is written.

    Raises UsageError and StorageError.
    """
    if not output.strip():
        raise UsageError("--output: expected a folder, got an empty name")
    if any("\ud800" <= character <= "\udfff" for character in output):
        raise UsageError("--output: expected UTF-8 text, got other bytes")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{output}: expected a folder for the model, got a file", "choose another one with -o")
    if folder.is_dir():
        check_unlocked(folder)
        check_content(folder, run)


def check_content(folder: Path, run: RunSettings) -> None:
    """Refuse a folder that holds a run, unless it is to go on or to go, or anything else; raises UsageError."""
    if (folder / RECORD).is_file():
        if not (run.overwrite or run.resume):
            raise UsageError(
                f"{folder}: a run is there already",
                "go on with it with --resume, replace it with --overwrite, or choose another with -o",
            )
    elif run.resume and find_checkpoints(folder):
        return  # the record is lost, and what the run needs is not
    elif set(folder.iterdir()) - {folder / LOCK, *temporaries(folder, _OUR_FILES)}:
        raise UsageError(f"{folder}: the folder holds other files and no run", "choose another one with -o")


def clear_output(folder: Path) -> None:
    """Remove our own files of an earlier run from the folder, but for the record; nothing else is touched."""
    clear_temporaries(folder)
    with storing(folder):
        remove_checkpoints(folder)
        for path in our_files(folder):
            if path.name != RECORD:
                path.unlink()
        with suppress(OSError):  # it stays if there is anything else in it
            (folder / _BASE_TEMPLATE).parent.rmdir()


def our_files(folder: Path) -> list[Path]:
    """What is there of the files that a run writes."""
    return [folder / name for name in (*_OUR_FILES, _BASE_TEMPLATE) if (folder / name).exists()]


def clear_temporaries(folder: Path) -> None:
    """Remove what a crash left half written."""
    with storing(folder):
        remove_half_checkpoints(folder)
        for path in temporaries(folder, _OUR_FILES):
            path.unlink()


def write_model_files(model: LanguageModel, folder: Path) -> None:
    """Everything of a Hugging Face folder but the weights."""
    from convmodel_cli.model.checkpoint import save_everything_but_weights

    with storing(folder):
        save_everything_but_weights(model, folder)
        for path in our_files(folder):
            make_durable(path)
        make_durable(folder)


def check_model(name: str) -> None:
    """Refuse a folder that is not there, before anything heavy is imported; raises ModelError."""
    path = Path(name).expanduser()
    if path.is_file() or (is_folder_name(name) and not path.is_dir()):
        raise ModelError(
            f"{name}: expected a model folder, got {'a file' if path.exists() else 'nothing there'}",
            f"train one with: convmodel fit -o {name}",
        )


def write_test_file(folder: Path, conversations: Iterable[Conversation]) -> None:
    """The conversations that a split set aside, as a file that `eval` reads."""
    with storing(folder), (folder / TEST).open("wb") as stream:
        for conversation in conversations:
            stream.write(to_json(to_record(conversation)) + b"\n")


def write_model_card(folder: Path, record: Mapping[str, Any]) -> None:
    """README.md, with the header that the Hugging Face hub reads."""
    valid = record["best"].get("valid")
    measured = ""
    if valid:
        measured = f"Validation: {valid['ppl']:.2f} perplexity, {valid['bits_per_byte']:.3f} bits per byte. "
    base = one_line(record["base"])
    text = f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [convmodel, conversational]
---

# A conversation model

Trained with convmodel {__version__} from `{base}` on {record["data"]["train_conversations"]} conversations.
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
        replace_file(folder / "README.md", lambda path: path.write_text(text, encoding="utf-8"))
