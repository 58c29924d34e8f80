"""Signals that ask the program to stop.

Until work has begun that is worth saving they end it at once, with the exit code of the signal. From `hold` on they
only leave word, which `check` finds at the next good moment; a second Ctrl-C ends the program at once again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from convmodel_cli.errors import Stopped

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 75}


class StopRequest:
    """Whether the user has asked a run to stop, and what happens when he does."""

    def __init__(self) -> None:
        self._name = ""
        self._held = False
        self.announce: Callable[[], None] = lambda: None

    def install(self) -> None:
        """Handle the signals that this system has."""
        for name in EXIT_CODES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._handle)

    def hold(self) -> None:
        """From now on wait for `check`."""
        self._held = True

    def release(self) -> None:
        """Signals end the program at once again."""
        self._held, self._name = False, ""

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self._name:
            raise Stopped(f"by {self._name}", EXIT_CODES[self._name])

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self._held or (self._name and name == "SIGINT"):
            raise KeyboardInterrupt if name == "SIGINT" else SystemExit(EXIT_CODES[name])
        self._name = self._name or name
        self.announce()


stop_request = StopRequest()
