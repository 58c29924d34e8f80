"""Where messages are typed on a terminal that can do nothing but lines, or is to show nothing else."""

from __future__ import annotations

import signal
import sys

from convmodel_cli.cli.chat_views import PROMPT
from convmodel_cli.cli.terminal_modes import QuietTerminal
from convmodel_cli.escaping import escaped

_QUOTES = '"""'


class PlainPrompt:
    """Reads messages line by line; the terminal itself lets the user correct a line."""

    def __init__(self, terminal: QuietTerminal) -> None:
        self._terminal = terminal

    def read(self) -> str:
        """The next message; raises KeyboardInterrupt for Ctrl-C and EOFError for Ctrl-D."""
        typed = self._line(PROMPT)
        while is_open(typed):
            typed += "\n" + self._line("...> ")
        return message_of(typed)

    def change(self, speaker: str, text: str) -> str | None:
        """Ask for another text; None if there comes none."""
        self._write(f"{speaker}{escaped(text)}\n")
        try:
            return self._line(speaker) or None
        except (KeyboardInterrupt, EOFError):
            return None

    def _line(self, prompt: str) -> str:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with self._terminal.as_found():
                self._write(prompt)
                line = sys.stdin.buffer.readline()
        except KeyboardInterrupt:
            self._write("\n")
            raise
        finally:
            signal.signal(signal.SIGINT, before)
        if not line:
            self._write("\n")
            raise EOFError
        return line.removesuffix(b"\n").decode(errors="replace")

    def _write(self, text: str) -> None:
        stream = sys.stdout if sys.stdout is not None and sys.stdout.isatty() else sys.stderr
        if stream is not None:
            stream.write(text)
            stream.flush()


def is_open(typed: str) -> bool:
    """Whether the quotes around several lines are open yet."""
    text = typed.strip()
    return text.startswith(_QUOTES) and (len(text) < 2 * len(_QUOTES) or not text.endswith(_QUOTES))


def message_of(typed: str) -> str:
    """What was typed without the quotes around several lines; what stands between them is never a command."""
    text = typed.strip("\n")
    if not text.strip().startswith(_QUOTES) or is_open(text):
        return text
    quoted = text.strip().removeprefix(_QUOTES).removesuffix(_QUOTES).strip("\n")
    return "/" + quoted if quoted.startswith("/") else quoted
