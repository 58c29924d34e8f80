"""convmodel.json: what a run was made of, what came out of it, and what later commands need to know of it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from convmodel_cli import __version__
from convmodel_cli.data.conversations import digest
from convmodel_cli.errors import ModelError
from convmodel_cli.escaping import to_json
from convmodel_cli.events import Finished, Sampled
from convmodel_cli.settings import RunSettings, TrainingSettings
from convmodel_cli.storage import replace_file, storing
from convmodel_cli.workflows.data import SAMPLE_SHOWN, FitData
from convmodel_cli.workflows.plan import RunPlan, resolved_settings
from convmodel_cli.workflows.state import RunState

if TYPE_CHECKING:
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.language_model import LanguageModel

RECORD = "convmodel.json"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What convmodel.json says that later commands need; the defaults stand for a folder without one."""

    speaker_ids: str = "off"
    learn: str = "auto"
    max_length: int | None = None
    max_context: int | None = None
    base: str = ""
    sample: bool = False


def run_record(
    base: str,
    sources: Mapping[str, str],
    data: FitData,
    plan: RunPlan,
    run: RunSettings,
    training: TrainingSettings,
    compute: Compute,
    model: LanguageModel,
) -> dict[str, Any]:
    """What convmodel.json says of this run; `settings` are all that another run needs to be the same."""
    duplicates, overlap = data.repeats
    machine = {"device": compute.device.type, "precision": compute.precision, "threads": compute.threads}
    settings = {**resolved_settings(plan, training), "split": run.split, "skip_bad": run.skip_bad, **machine}
    return {
        "base": base,
        "settings": settings,
        "sources": {name: sources[name] for name in settings if name in sources},
        "data": {
            "train": list(data.sources),
            "valid": [file.file for file in data.files[len(data.sources) :]],
            "sample": data.sources == (SAMPLE_SHOWN,),
            **describe_sets(data),
            "train_sequences": len(plan.train),
            "train_targets": plan.train.num_targets,
            "duplicates": asdict(duplicates),
            "overlap": asdict(overlap),
        },
        "processor": compute.processor,
        "parameters": model.num_parameters,
        "max_context": plan.max_context,
        "best": {"step": None, "loss": None, "valid": None},
    }


def describe_sets(data: FitData) -> dict[str, Any]:
    """How many conversations there are to train and to validate on, and their digests."""
    return {
        "train_conversations": len(data.train),
        "valid_conversations": len(data.valid),
        "train_sha256": digest(data.train),
        "valid_sha256": digest(data.valid),
    }


def surroundings(record: Mapping[str, Any]) -> dict[str, str]:
    """What is no setting, and yet the last bits of a run depend on it."""
    return {"convmodel": __version__, **_versions(), "processor": record["processor"]}


def best_figures(state: RunState) -> dict[str, Any]:
    """What the record says of the best evaluation so far."""
    best = state.best_valid
    figures = None if best is None else {"loss": best.loss, "ppl": best.ppl, "bits_per_byte": best.bits_per_byte}
    return {"step": state.best_step, "loss": state.best_loss, "valid": figures}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Replace convmodel.json at once."""
    content = to_json({"convmodel": __version__, "versions": _versions(), **record}, orjson.OPT_INDENT_2)
    with storing(folder):
        replace_file(folder / RECORD, lambda path: path.write_bytes(content + b"\n"))


def read_finished(folder: Path) -> Finished | None:
    """How the run in the folder ended, or None if it did not; raises ModelError for a record that is damaged."""
    finished = read_content(folder).get("finished")
    if finished is None:
        return None
    try:
        known = {setting.name: finished[setting.name] for setting in fields(Finished)}
        known["sample"] = known["sample"] and Sampled(**known["sample"])
        known["losses"] = tuple(tuple(row) for row in known["losses"])
        return Finished(**{**known, "model": str(folder)})
    except (KeyError, TypeError) as error:
        raise _no_record(folder / RECORD, error) from None


def read_content(folder: Path) -> dict[str, Any]:
    """All of convmodel.json, empty if there is none; raises ModelError if it is damaged."""
    path = folder / RECORD
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError) as error:
        raise _no_record(path, error) from None
    if not isinstance(content, dict):
        raise _no_record(path, TypeError(type(content).__name__))
    return content


def _no_record(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path}: expected the record of a run, got something else ({error})")


@cache
def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def read_record(folder: str) -> RunRecord:
    """The record of a run, or the defaults for a folder that has none."""
    path = Path(folder).expanduser() / RECORD
    content = read_content(path.parent)
    if not content:
        return RunRecord()
    try:
        settings = content["settings"]
        record = RunRecord(
            speaker_ids=settings["speaker_ids"],
            learn=settings["learn"],
            max_length=settings["max_length"],
            max_context=content["max_context"],
            base=content["base"],
            sample=content["data"]["sample"],
        )
    except (KeyError, TypeError) as error:
        raise _no_record(path, error) from None
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
