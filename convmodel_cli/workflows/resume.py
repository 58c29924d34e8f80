"""Going on with a run that broke off: where it was, and whether it is still the same run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from convmodel_cli.errors import ModelError
from convmodel_cli.events import Note
from convmodel_cli.workflows.checkpoints import Checkpoint, newest_sound
from convmodel_cli.workflows.data import FitData
from convmodel_cli.workflows.record import describe_sets, read_content, surroundings
from convmodel_cli.workflows.run_folder import EVENTS
from convmodel_cli.workflows.state import RunState

# These decide when a run ends and what it shows, not what it learns; the last two are seen in its data.
_FREE_TO_CHANGE = ("max_time", "sample", "split", "skip_bad")
# With another of these the losses of before and after cannot be compared.
_MEASURE = ("VALID", "--learn", "--max-length", "--speaker-ids", "--eval-batches")
# With another of these the sequences of an epoch, or their order, are others.
_ORDER = ("TRAIN", "--learn", "--max-length", "--seed")
# With another of these there is another model.
_FIXED = ("--base", "--vocab-size")
_PARTS = ("run", "surroundings", "progress", "journal_bytes", "changes", "max_context")
_NONE = "none"


@dataclass(frozen=True, slots=True)
class Resumption:
    """A checkpoint to go on from; `changes` are what is no longer the same, as `name: old -> new`.

    `surroundings` are changes too, of libraries and processor, on which the last bits depend.
    """

    checkpoint: Checkpoint
    changes: tuple[str, ...]
    surroundings: tuple[str, ...] = ()

    @property
    def measures_otherwise(self) -> bool:
        """Whether a loss from now on cannot be compared with those before."""
        return self._changes_any(_MEASURE)

    @property
    def orders_otherwise(self) -> bool:
        """Whether a place in the order of an epoch says nothing any more."""
        return self._changes_any(_ORDER)

    @property
    def has_other_optimizer(self) -> bool:
        return self._changes_any(("--optimizer",))

    @property
    def has_other_budget(self) -> bool:
        return self._changes_any(("--micro-batch-tokens",))

    def keeps_best(self, state: RunState, step: int, is_of_run: bool) -> bool:
        """Whether the best weights of the state are there, or will be again, when those that are there are of `step`.

        Those from beyond the checkpoint come again if they are of the run as it goes on now.
        """
        return step == state.best_step or (step >= state.step and is_of_run)

    def _changes_any(self, names: tuple[str, ...]) -> bool:
        return any(change.startswith(tuple(f"{name}:" for name in names)) for change in self.changes)


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
    settings = {
        "--" + name.replace("_", "-"): str(_NONE if value is None else value)
        for name, value in record["settings"].items()
        if name not in _FREE_TO_CHANGE
    }
    return {
        **_sets(record["data"]),
        "--base": record["base"],
        **settings,
    }


def run_key(record: Mapping[str, Any]) -> str:
    """The identity of a run, short enough for its weights to carry it."""
    return hashlib.sha256(orjson.dumps(identity(record), option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _sets(data: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.upper(): f"{data[f'{name}_conversations']:,} conversations, SHA-256 {data[f'{name}_sha256'][:12]}"
        for name in ("train", "valid")
    }


def data_changes(record: Mapping[str, Any], data: FitData) -> tuple[str, ...]:
    """What is other about the data than the record of a run says."""
    return _differences(_sets(record["data"]), _sets(describe_sets(data)))


def compare(checkpoint: Checkpoint, record: Mapping[str, Any], allow_changes: bool) -> Resumption:
    """Raise ModelError with each difference between the run of the checkpoint and this one, unless they are allowed."""
    changes = _differences(checkpoint.state["run"], identity(record))
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
    return Resumption(checkpoint, changes, _differences(checkpoint.state["surroundings"], surroundings(record)))


def _differences(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """`name: old -> new` for each that is not the same."""
    return tuple(
        f"{name}: {old.get(name, _NONE)} -> {new.get(name, _NONE)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


def notes_on_changes(resumption: Resumption, output: Path) -> Iterator[Note]:
    """What goes on otherwise than it began."""
    for change in resumption.changes:
        yield Note(f"changed: {change}", warning=True)
    if resumption.surroundings:
        listed = "; ".join(resumption.surroundings)
        yield Note(f"changed: {listed}: the run goes on, but no longer to the very same bits", warning=True)
    if resumption.has_other_optimizer:
        yield Note("another optimizer: its averages start afresh", warning=True)
    if resumption.orders_otherwise:
        yield Note("another order: the epoch begins anew, so that nothing of it is left out", warning=True)
    journal = output / EVENTS
    lost = int(resumption.checkpoint.state["journal_bytes"]) - (journal.stat().st_size if journal.exists() else 0)
    if lost > 0:
        yield Note(f"{journal}: {lost:,} bytes of what was reported are gone, and the report lacks them", warning=True)
