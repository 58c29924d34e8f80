"""What a failure in the middle of a run means for the user."""

from __future__ import annotations

from collections.abc import Callable

from convmodel_cli.errors import ConvmodelError, TrainingError

_LINES_SHOWN = 5


def with_lines(error: TrainingError, where: Callable[[int], str]) -> TrainingError:
    """The error with the lines of the data that may have to do with it; `where` tells the place of a conversation."""
    if not error.conversations:
        return error
    shown = ", ".join(where(number) for number in error.conversations[:_LINES_SHOWN])
    more = len(error.conversations) - _LINES_SHOWN
    lines = f"{shown} and {more:,} more" if more > 0 else shown
    hint = f"{error.hint}; with another setting a run goes on by --resume --allow-changes"
    return TrainingError(f"{error}, with {lines}", hint, error.conversations)


def explained(error: RuntimeError | MemoryError) -> ConvmodelError:
    """The error for a failure of torch whose meaning is known; any other is raised again."""
    from convmodel_cli.model.compute import is_out_of_memory

    if is_out_of_memory(error):
        return TrainingError("out of memory outside of a forward pass", "take a smaller --base, or --max-length")
    if "deterministic" in str(error):
        return TrainingError(str(error).split(". ")[0], "run without --deterministic, or on another --device")
    raise error
