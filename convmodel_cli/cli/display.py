"""Where output goes and how it looks: results to stdout, everything said about them to stderr.

Text that is not ours (data, responses, names, messages of other libraries) passes `escaped` before it is shown.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.text import Text

from convmodel_cli.errors import ConvmodelError, DataError, Stopped, StorageError, UsageError
from convmodel_cli.escaping import escaped, one_line, to_json
from convmodel_cli.settings import ScreenSettings

if TYPE_CHECKING:
    from convmodel_cli.events import Note

_BAD_LINES_SHOWN = 20


class _Lasting:
    """A stream whose reader may leave, or its terminal, or its room: what is said about the work must not end it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._whatever_happens():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._whatever_happens():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _whatever_happens(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class Screen:
    """The two streams of one command."""

    def __init__(self, settings: ScreenSettings) -> None:
        self.settings = settings
        on_terminal = sys.stderr is not None and sys.stderr.isatty()
        dumb = os.environ.get("TERM") == "dumb" or bool(os.environ.get("CI"))
        self.animated = on_terminal and not dumb and not settings.no_progress and not settings.quiet
        self.dumb = dumb
        # Without a file rich would take stdout, which is for the result.
        self.console = self._console(io.StringIO() if sys.stderr is None else _Lasting(sys.stderr), self.animated)

    def _console(self, stream: Any, animated: bool) -> Console:
        on_terminal = stream is not None and stream.isatty()
        colored = self.settings.color == "always" or (
            self.settings.color == "auto" and on_terminal and not self.dumb and "NO_COLOR" not in os.environ
        )
        return Console(
            file=stream,
            force_terminal=animated or colored,
            no_color=not colored,
            highlight=False,
            markup=False,
            emoji=False,
            color_system="auto" if colored else None,
        )

    def result(self, text: str) -> None:
        """A line of the result."""
        self.write(text + "\n")

    def result_lines(self, lines: Iterable[Text]) -> None:
        """Lines of the result that may have colour; what is in them is escaped already."""
        console = self._console(sys.stdout, animated=False)
        for line in lines:
            console.print(line, soft_wrap=True)

    @property
    def result_width(self) -> int:
        """Characters in a line of stdout."""
        return self._console(sys.stdout, animated=False).width

    def write(self, text: str) -> None:
        """A part of a line of the result, visible at once."""
        if sys.stdout is None:
            raise StorageError("standard output is closed")
        sys.stdout.write(text)
        sys.stdout.flush()

    def check_raw(self, raw: bool) -> None:
        """Refuse to write what a model made as it is where it could do harm; raises UsageError."""
        if raw and self.settings.json:
            raise UsageError("--raw and --json exclude each other: JSON has its own way to write control characters")
        if raw and sys.stdout is not None and sys.stdout.isatty():
            raise UsageError(
                "--raw writes control characters as they are, and standard output is a terminal",
                "send it to a file or a pipe",
            )

    def response(self, text: str, raw: bool = False) -> None:
        """A response on a line of its own; `raw` as it is, line breaks and all."""
        self.result(text if raw else one_line(text))

    def result_json(self, value: dict[str, Any] | list[Any]) -> None:
        """JSON on a line, parts of an object that are None left out; JSON readers may be terminals too."""
        present = {key: part for key, part in value.items() if part is not None} if isinstance(value, dict) else value
        self.result(to_json(present).decode())

    def say(self, text: str, style: str = "") -> None:
        """A line about the result, unless the user wants quiet."""
        if not self.settings.quiet:
            self.tell(text, style)

    def tell(self, text: str, style: str = "") -> None:
        """What the user has asked for, also when he wants quiet. A terminal wraps between words; a file does not."""
        self.console.print(Text(escaped(text), style=style), soft_wrap=not self.console.is_terminal)

    def note(self, note: Note) -> None:
        """A note with its items: the first of them, then the count."""
        style = "yellow" if note.warning else "dim"
        self.say(note.text, style)
        shown = note.items if self.settings.verbose else note.items[:_BAD_LINES_SHOWN]
        for item in shown:
            self.say(item, style)
        if len(note.items) > len(shown):
            self.say(f"... and {len(note.items) - len(shown):,} more (-v lists all)", style)

    def error(self, error: ConvmodelError) -> None:
        """What went wrong and what to do; bad lines first, then their count."""
        problems = error.problems if isinstance(error, DataError) else ()
        shown = problems if self.settings.verbose else problems[:_BAD_LINES_SHOWN]
        for problem in shown:
            self._line("error: ", problem, "bold red")
        if len(problems) > len(shown):
            self._line("", f"... and {len(problems) - len(shown):,} more (-v lists all)", "")
        if len(problems) != 1:
            label = "stopped: " if isinstance(error, Stopped) else "error: "
            self._line(label, str(error), "bold red")
        if error.hint:
            self.advise("hint", error.hint)

    def advise(self, label: str, text: str) -> None:
        """What to do, also when the user wants quiet."""
        self._line(f"{label}: ", text, "cyan")

    def _line(self, label: str, text: str, style: str) -> None:
        self.console.print(Text.assemble((label, style), escaped(text)), soft_wrap=not self.console.is_terminal)


def sparkline(values: Sequence[float], width: int = 48) -> str:
    """The course of some numbers in a line of at most `width` bars; one that is not finite is a cross."""
    bars = "▁▂▃▄▅▆▇█"
    if len(values) > width:
        values = [values[round(place * (len(values) - 1) / (width - 1))] for place in range(width)]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(bars[round((value - low) * scale)] if math.isfinite(value) else "×" for value in values)


def counted(number: int, noun: str) -> str:
    """`1 step` or `2 steps`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """`3:12` or `1:03:12`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def short_count(number: float) -> str:
    """`8.2k` or `124M`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
