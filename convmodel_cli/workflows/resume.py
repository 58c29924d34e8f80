"""Going on with a run that broke off: where it was, and whether it is still the same run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convmodel_cli.errors import ModelError
from convmodel_cli.events import Note
from convmodel_cli.workflows.checkpoints import Checkpoint, newest_sound
from convmodel_cli.workflows.record import read_content

# These decide when a run ends and what it shows, not what it learns; the last two are seen in its data.
_FREE_TO_CHANGE = ("max_time", "sample", "split", "skip_bad")
# With another of these the losses of before and after cannot be compared.
_MEASURE = ("VALID", "--learn", "--max-length", "--speaker-ids", "--eval-batches")
# With another of these there is another model.
_FIXED = ("--base", "--vocab-size")
_PARTS = ("run", "progress", "journal_bytes")
_NONE = "none"


@dataclass(frozen=True, slots=True)
class Resumption:
    """A checkpoint to go on from; `changes` are what is no longer the same, as `name: old -> new`."""

    checkpoint: Checkpoint
    changes: tuple[str, ...]

    @property
    def measures_otherwise(self) -> bool:
        """Whether a loss from now on cannot be compared with those before."""
        return any(change.startswith(tuple(f"{name}:" for name in _MEASURE)) for change in self.changes)

    @property
    def has_other_optimizer(self) -> bool:
        return any(change.startswith("--optimizer:") for change in self.changes)

    @property
    def has_other_budget(self) -> bool:
        return any(change.startswith("--micro-batch-tokens:") for change in self.changes)


def find_checkpoint(output: Path) -> tuple[Checkpoint | None, list[Note]]:
    """(the checkpoint to go on from, what the user should know about it); raises ModelError if none is usable."""
    checkpoint, damaged = newest_sound(output)
    notes = [Note(f"{damage.path}: {damage.reason}; passed over", warning=True) for damage in damaged]
    if checkpoint is None:
        _check_that_nothing_is_lost(output)
        return None, [Note(f"{output}: there is no checkpoint to resume, so the run starts over", warning=True)]
    notes += [Note(f"{checkpoint.path}: {name} does not belong there", warning=True) for name in checkpoint.unknown]
    for part in _PARTS:
        if part not in checkpoint.state:
            raise ModelError(f"{checkpoint.path}: expected {part!r} in state.json, got none")
    return checkpoint, notes


def _check_that_nothing_is_lost(output: Path) -> None:
    """Only a run that `fit` began and that never came to a checkpoint may start over."""
    content = read_content(output)
    if content and "best" not in content:
        raise ModelError(
            f"{output}: expected a run to resume, got a model and no checkpoint",
            f"train it further with: convmodel fit --base {output} -o OTHER",
        )


def identity(record: Mapping[str, Any]) -> dict[str, str]:
    """What makes two runs the same run, by the names that the user knows; `record` is that of convmodel.json."""
    data = record["data"]
    settings = {
        "--" + name.replace("_", "-"): str(_NONE if value is None else value)
        for name, value in record["settings"].items()
        if name not in _FREE_TO_CHANGE
    }
    return {
        "TRAIN": f"{data['train_conversations']:,} conversations, SHA-256 {data['train_sha256'][:12]}",
        "VALID": f"{data['valid_conversations']:,} conversations, SHA-256 {data['valid_sha256'][:12]}",
        "--base": record["base"],
        **settings,
        **{f"--{name}": str(record[name]) for name in ("device", "precision", "threads")},
    }


def compare(checkpoint: Checkpoint, record: Mapping[str, Any], allow_changes: bool) -> Resumption:
    """Raise ModelError with each difference between the run of the checkpoint and this one, unless they are allowed."""
    old, new = checkpoint.state["run"], identity(record)
    changes = tuple(
        f"{name}: {old.get(name, _NONE)} -> {new.get(name, _NONE)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )
    if any(change.startswith(tuple(f"{name}:" for name in _FIXED)) for change in changes):
        raise ModelError(
            f"{checkpoint.path}: this is another model than that of the run: " + "; ".join(changes),
            "give the same --base and --vocab-size, or start another run with -o",
        )
    if changes and not allow_changes:
        raise ModelError(
            f"{checkpoint.path}: this is not the run that was broken off: " + "; ".join(changes),
            "give the same data and settings, or go on with these: --resume --allow-changes",
        )
    return Resumption(checkpoint, changes)


def notes_on_changes(resumption: Resumption) -> Iterator[Note]:
    """What goes on otherwise than it began."""
    for change in resumption.changes:
        yield Note(f"changed: {change}", warning=True)
    if resumption.has_other_optimizer:
        yield Note("another optimizer: its averages start afresh", warning=True)
