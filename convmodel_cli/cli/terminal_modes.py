"""How a terminal behaves while a program neither reads from it nor has left it to somebody else."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

_MARK_PASTES, _NO_MARKS = b"\x1b[?2004h", b"\x1b[?2004l"


class QuietTerminal:
    """Keeps what is typed to the terminal on stdin out of what is written there, for whoever reads it next.

    Keys are not echoed, and Ctrl-C throws none of them away. If there is a terminal that is `drawn_on`, they come one
    by one, and it marks where a pasted block begins and ends; otherwise in lines. Windows has nothing to keep quiet.
    """

    def __init__(self, drawn_on: TextIO | None) -> None:
        self._drawn_on = drawn_on
        self._found: Any = None
        self._quiet: Any = None

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Quiet inside; as it was found while the program is suspended, and afterwards."""
        if sys.platform == "win32":
            yield
            return
        import termios  # there is none on Windows

        self._found = found = termios.tcgetattr(sys.stdin.fileno())
        self._quiet = quiet = [*found[:6], found[6].copy()]
        quiet[3] = quiet[3] & ~termios.ECHO | termios.NOFLSH
        if self._drawn_on is not None:
            quiet[0] &= ~termios.ICRNL
            quiet[3] &= ~termios.ICANON
            quiet[6][termios.VMIN], quiet[6][termios.VTIME] = 1, 0
        suspending = signal.getsignal(signal.SIGTSTP)
        if suspending is not signal.SIG_IGN:
            signal.signal(signal.SIGTSTP, self._on_suspend)
        self._behave(quiet, _MARK_PASTES)
        try:
            yield
        finally:
            signal.signal(signal.SIGTSTP, suspending)
            self._behave(found, _NO_MARKS)

    @contextmanager
    def as_found(self) -> Iterator[None]:
        """As it was found, within `quiet`."""
        self._behave(self._found, _NO_MARKS)
        try:
            yield
        finally:
            self._behave(self._quiet, _MARK_PASTES)

    def mark_pastes(self) -> None:
        """Let pasted blocks be marked again, after somebody has switched it off."""
        self._write(_MARK_PASTES)

    def _behave(self, modes: Any, marks: bytes) -> None:
        if sys.platform != "win32":
            import termios

            with suppress(termios.error):  # it has hung up
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, modes)
            self._write(marks)

    def _write(self, marks: bytes) -> None:
        """Not through the stream: a signal may have come while that writes."""
        if sys.platform != "win32" and self._drawn_on is not None:
            with suppress(OSError):
                os.write(self._drawn_on.fileno(), marks)

    def _on_suspend(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if sys.platform != "win32":
            import termios

            now = termios.tcgetattr(sys.stdin.fileno())
            self._behave(self._found, _NO_MARKS)
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # and here it stands still
            signal.signal(signal.SIGTSTP, self._on_suspend)
            self._behave(now, _MARK_PASTES)
