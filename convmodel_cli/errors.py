"""What can go wrong, in words a user can act on.

    ConvmodelError            exit code
    ├── UsageError                2   options, arguments, an output that exists
    ├── DataError                 3   a file of conversations
    ├── ModelError                4   a model, a tokenizer, a checkpoint, the hub
    ├── TrainingError             5   the run cannot go on
    ├── GateMissed                6   a figure is worse than the user allows
    ├── StorageError              7   full, read-only, in use
    └── Stopped          75/130/143   a signal

A message reads *where: what is wrong, got what*; the hint says what to do. Everything else that is raised is our bug.
"""

from __future__ import annotations

from collections.abc import Sequence

BUG_EXIT_CODE = 1


class ConvmodelError(Exception):
    """Base of all errors that a user can cause; `str()` is the message without the hint.

    `resumable`: the command left a checkpoint from which the same command with --resume goes on.
    """

    exit_code = BUG_EXIT_CODE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.resumable = False


class UsageError(ConvmodelError):
    """Options or arguments that cannot be followed."""

    exit_code = 2


class DataError(ConvmodelError):
    """A file of conversations that cannot be used.

    `problems` holds one message per bad line, oldest first, where the error speaks for several.
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message, hint)
        self.problems = problems


class ModelError(ConvmodelError):
    """A model or tokenizer that is missing, unreadable or refused."""

    exit_code = 4


class TrainingError(ConvmodelError):
    """A run that cannot go on.

    `conversations` are the numbers, from 0, of the training conversations that may have to do with it.
    """

    exit_code = 5

    def __init__(self, message: str, hint: str = "", conversations: tuple[int, ...] = ()) -> None:
        super().__init__(message, hint)
        self.conversations = conversations


class GateMissed(ConvmodelError):  # noqa: N818  it reports a finding, not a fault
    """A figure is worse than the limit the user gave."""

    exit_code = 6


class StorageError(ConvmodelError):
    """The output cannot be written."""

    exit_code = 7


class Stopped(ConvmodelError):  # noqa: N818  being stopped is no fault
    """A signal ended the command; what was finished before it is kept."""

    def __init__(self, message: str, exit_code: int, hint: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code
