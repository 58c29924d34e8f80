"""Writing so that a crash loses nothing: whole files or none, one writer for a folder, errors that name the place."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from convmodel_cli.errors import StorageError, UsageError

LOCK = ".lock"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_HALF = ".half"  # the name of a file that is being written ends so


def replace_file(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside the target and rename it over the target once it is on the disk."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=_HALF, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        make_durable(temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    make_durable(target.parent)


def commit_folder(temporary: Path, target: Path) -> None:
    """Rename a folder of finished files to the name by which it counts; a crash leaves it whole or not there."""
    for path in sorted(temporary.iterdir()):
        make_durable(path)
    make_durable(temporary)
    temporary.rename(target)
    make_durable(target.parent)


def make_durable(path: Path) -> None:
    """Wait until the file or folder is on the disk; a file gets the mode that the umask gives any other."""
    if sys.platform == "win32":  # it can neither sync a folder nor has it modes
        return
    if path.is_file():
        umask = os.umask(0)
        os.umask(umask)
        path.chmod(0o666 & ~umask)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_private(path: Path) -> TextIO:
    """A file to append to that nobody else can read; raises StorageError, also for a symbolic link.

    Through a link, what is private would go where somebody else wants it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    if path.is_symlink():
        raise StorageError(f"{path}: expected a file, got a symbolic link", "name another file, or remove the link")
    try:
        stream = os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from None
    try:
        # What others share, like /dev/null or a pipe, stays theirs.
        if sys.platform != "win32" and stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            os.fchmod(stream.fileno(), 0o600)
    except OSError as error:
        stream.close()
        raise StorageError(f"{path}: cannot be made private: {error.strerror or error}") from None
    return stream


def from_home(path: str) -> Path:
    """The path with the home folder for the `~` it begins with; raises UsageError if there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: expected somebody's home, got {Path(path).parts[0]}, who has none") from None


def temporaries(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """What a crash may have left in the folder of files that were to get one of these names."""
    wanted = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.\w{{8}}{re.escape(_HALF)}")
    return [path for path in folder.iterdir() if wanted.fullmatch(path.name) and not path.is_symlink()]


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Turn a failure to write into a StorageError that names the place and the space there."""
    try:
        yield
    except Exception as error:
        # The libraries in Rust raise errors of their own, which only their words tell from others.
        if not isinstance(error, OSError) and "(os error " not in str(error) and "I/O error" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or error
        place = getattr(error, "filename", None) or folder
        full = getattr(error, "errno", None) in _FULL or any(f"(os error {number})" in str(error) for number in _FULL)
        raise StorageError(
            f"{place}: cannot be written: {reason} ({free_bytes(folder):,} bytes free on the disk of {folder})",
            "free some space, or choose another place with -o" if full else "choose another place with -o",
        ) from error


def free_bytes(folder: Path) -> int:
    """Space on the disk of a folder that need not exist yet."""
    there = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    return shutil.disk_usage(there).free


def need_space(folder: Path, needed: int, what: str) -> None:
    """Raise StorageError unless the folder's disk has room for that many bytes."""
    free = free_bytes(folder)
    if free < needed:
        raise StorageError(
            f"{folder}: {what} needs {needed:,} bytes, and {free:,} are free on its disk",
            "free some space, or choose another place with -o",
        )


def check_unlocked(folder: Path) -> None:
    """Raise StorageError if another process holds the folder."""
    if (folder / LOCK).exists():
        os.close(_lock(folder)[0])


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold the folder against other runs; yields whether the system knows how to.

    It frees the folder when the process ends, however it ends.
    """
    with storing(folder):
        handle, is_held = _lock(folder)
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
    try:
        yield is_held
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        os.close(handle)


def _lock(folder: Path) -> tuple[int, bool]:
    """(an open file in the folder that holds the number of the process, whether it is locked)"""
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            is_held = _lock_file(handle)
        except OSError:
            owner = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise StorageError(
                f"{folder}: in use by another run, process {owner}", "wait for it, or choose another folder with -o"
            ) from None
        # Another run may have finished and removed the file between the two calls.
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle, is_held
        os.close(handle)


def _lock_file(handle: int) -> bool:
    """Whether the system could lock the file; raises BlockingIOError if another process holds it."""
    if sys.platform == "win32":
        return False
    import fcntl  # there is none on Windows

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network file systems have no locks
        return False
    return True
