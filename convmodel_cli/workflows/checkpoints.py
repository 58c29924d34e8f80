"""Checkpoints of a run: what it needs to go on bit by bit, or nothing.

    OUTPUT/checkpoints/step-000120/
        model.safetensors optimizer.safetensors     tensors
        state.json                                  how far the run has come, and of which data and settings it is
        manifest.json                               size and SHA-256 of each of the other files

A checkpoint is written under another name and renamed when all of it is on the disk; once it has its name, it is never
written to.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from convmodel_cli.errors import ModelError
from convmodel_cli.escaping import to_json
from convmodel_cli.storage import commit_folder, make_durable, need_space, storing

CHECKPOINTS = "checkpoints"
STATE = "state.json"
MANIFEST = "manifest.json"
_NAME = re.compile(r"step-\d{6,}")
_HALF = re.compile(r"\.step-\d{6,}\.(new|old)")  # being written, being removed


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sound checkpoint; `unknown` are files in it that do not belong there."""

    path: Path
    state: dict[str, Any]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Damage:
    """A checkpoint that cannot be used; `reason` names the file and what is wrong with it."""

    path: Path
    reason: str


def save_checkpoint(
    output: Path, step: int, state: dict[str, Any], write_tensors: Callable[[Path], None], size: int, keep: int
) -> Path:
    """Commit a checkpoint of about `size` bytes, then remove all but the newest `keep`; raises StorageError."""
    folder = output / CHECKPOINTS
    target = folder / f"step-{step:06d}"
    temporary = folder / f".{target.name}.new"
    with storing(folder):
        if not folder.is_dir():
            folder.mkdir()
            make_durable(output)
        remove_half_checkpoints(output)
        need_space(folder, size, "a checkpoint")
        temporary.mkdir()
        try:
            write_tensors(temporary)
            (temporary / STATE).write_bytes(to_json(state) + b"\n")
            (temporary / MANIFEST).write_bytes(_manifest(temporary))
            if target.exists():  # a damaged one, which this run has passed over
                _remove(target)
            commit_folder(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _remove_beyond(folder, step, keep)
    return target


def find_checkpoints(output: Path) -> list[Path]:
    """The committed checkpoints, newest first."""
    folder = output / CHECKPOINTS
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted((path for path in found if not path.is_symlink()), key=_step, reverse=True)


def newest_sound(output: Path) -> tuple[Checkpoint | None, list[Damage]]:
    """(the newest checkpoint that is whole, the damaged ones that are newer); raises ModelError if all are damaged."""
    damaged: list[Damage] = []
    for path in find_checkpoints(output):
        checked = check_checkpoint(path)
        if isinstance(checked, Checkpoint):
            return checked, damaged
        damaged.append(checked)
    if damaged:
        reasons = "; ".join(f"{damage.path.name}: {damage.reason}" for damage in damaged)
        raise ModelError(
            f"{output / CHECKPOINTS}: no checkpoint is whole ({reasons})",
            f"{output} still holds the best model so far; start over with --overwrite",
        )
    return None, []


def check_checkpoint(path: Path) -> Checkpoint | Damage:
    """Compare each file with the manifest, and read the state."""
    try:
        content = (path / MANIFEST).read_bytes()
        files = dict(orjson.loads(content)["files"])
        # One way to write it and no other: whatever was changed in it shows.
        if content != _as_manifest(files) or not files:
            raise ValueError
    except FileNotFoundError:
        return Damage(path, f"{MANIFEST} is missing")
    except (OSError, ValueError, KeyError, TypeError):
        return Damage(path, f"{MANIFEST} is damaged")
    for name, expected in files.items():
        reason = _compare(path / name, expected)
        if reason:
            return Damage(path, f"{name} {reason}")
    if STATE not in files:
        raise ModelError(f"{path}: expected {STATE}, which says where the run was, got none")
    unknown = {entry.name for entry in path.iterdir()} - files.keys() - {MANIFEST}
    return Checkpoint(path, orjson.loads((path / STATE).read_bytes()), tuple(sorted(unknown)))


def remove_checkpoints(output: Path) -> None:
    """Remove all of them, and what a crash left of others; nothing else that may lie there."""
    folder = output / CHECKPOINTS
    if not folder.is_dir() or folder.is_symlink():
        return
    remove_half_checkpoints(output)
    for path in reversed(find_checkpoints(output)):
        _remove(path)
    if not any(folder.iterdir()):
        folder.rmdir()


def remove_half_checkpoints(output: Path) -> None:
    """Remove what a crash left of checkpoints that were being written or removed."""
    folder = output / CHECKPOINTS
    if folder.is_dir():
        for path in folder.iterdir():
            if _HALF.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)


def _compare(path: Path, expected: Any) -> str:
    """What is wrong with a file, or an empty string."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != expected["size"]:
        return f"is damaged: expected {expected['size']:,} bytes, got {size:,}"
    return "" if _sha256(path) == expected["sha256"] else "is damaged: its SHA-256 is not the one in the manifest"


def _manifest(folder: Path) -> bytes:
    files = sorted(folder.iterdir())
    return _as_manifest({path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in files})


def _as_manifest(files: dict[str, Any]) -> bytes:
    known = {name: {"size": entry["size"], "sha256": entry["sha256"]} for name, entry in files.items()}
    return orjson.dumps({"files": known}) + b"\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _remove_beyond(folder: Path, step: int, keep: int) -> None:
    """Remove checkpoints of later steps, which a resumed run has passed over as damaged, and the oldest ones."""
    paths = find_checkpoints(folder.parent)
    later = [path for path in paths if _step(path) > step]
    for path in [*later, *paths[len(later) + keep :]]:
        _remove(path)


def _remove(path: Path) -> None:
    """Take the name away first, so that half a checkpoint never counts."""
    doomed = path.with_name(f".{path.name}.old")
    path.rename(doomed)
    shutil.rmtree(doomed)
