"""A terminal to sit in front of: types to a command that thinks it is alone with a person, and sees what he sees."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Callable
from typing import Any, Protocol

import pyte

from harness import Ended

_SECONDS = 30  # until a test gives up
_CODES = re.compile(rb"(?:\x1b\[[0-?]*[ -/]*[@-~])*")
_BRACKETED_PASTE, _CURSOR, _MOUSE = 2004 << 5, 25 << 5, 1000 << 5


class _Emulator(pyte.Screen):
    """Tells a program that asks where the cursor is."""

    answer: Callable[[str], None]

    def write_process_input(self, data: str) -> None:
        self.answer(data)


class Command(Protocol):
    """What sits on the other side."""

    def kill(self, name: str = "SIGKILL") -> None: ...

    def wait(self) -> Ended: ...


class Terminal:
    """A command on a pseudo-terminal. `written` is every byte of it so far, `parts` as they came.

    `start` gets the name of the terminal and the environment, and starts the command.
    """

    def __init__(
        self,
        start: Callable[[str, dict[str, str]], Command],
        environment: dict[str, str],
        columns: int = 100,
        rows: int = 40,
    ) -> None:
        usual = {"TERM": "xterm-256color", "CI": "", "COLUMNS": "", "LINES": ""}
        self._emulator = _Emulator(columns, rows)
        self._emulator.answer = self.type
        self._stream = pyte.ByteStream(self._emulator)
        self._master, slave = pty.openpty()
        self.resize(columns, rows)
        self._found = self.modes
        self.parts: list[bytes] = []
        self._seen = 0
        self._open = True  # the command holds it
        self._ended: Ended | None = None
        self.command = start(os.ttyname(slave), {**usual, **environment})
        os.close(slave)

    def type(self, keys: bytes | str) -> None:
        """Press keys, however many: what is written back meanwhile is read."""
        left = keys.encode() if isinstance(keys, str) else keys
        os.set_blocking(self._master, False)
        while left:
            try:
                left = left[os.write(self._master, left) :]
            except BlockingIOError:
                self._read(0.01)
        os.set_blocking(self._master, True)

    def see(self, text: str) -> str:
        """Wait until the text is written, behind what was waited for before; returns what stands in between."""
        letters = (re.escape(bytes([byte])) for byte in text.encode())
        return self._wait(_CODES.pattern.join(letters), text)

    def prompt(self, text: str = "you>") -> str:
        """Wait for the next prompt; returns what was written before it."""
        return self._wait(rb"\x1b\[6n.*?" + text.encode(), f"prompt {text}")

    def _wait(self, pattern: bytes, what: str) -> str:
        end = time.monotonic() + _SECONDS
        while True:
            found = re.compile(pattern, re.DOTALL).search(self.written, self._seen)
            if found:
                before = self.written[self._seen : found.start()]
                self._seen = found.end()
                return _plain(before)
            assert self._open and time.monotonic() < end, f"waiting for {what!r}\n{self.shown}\n{self.text[-2000:]!r}"
            self._read(0.1)

    def say(self, text: bytes | str) -> str:
        """Type a line at the prompt; returns what comes of it until the next prompt, what was typed included."""
        self.type(text if isinstance(text, bytes) else text.encode())
        self.type(b"\r")
        return self.prompt()

    def answering(self) -> None:
        """Wait until Ctrl-C is no key any more: the command is at work."""
        end = time.monotonic() + _SECONDS
        while not self.modes[3] & termios.ISIG:
            assert self._open and time.monotonic() < end, self.shown
            self._read(0.01)

    def shows(self, text: str) -> bool:
        """Wait until the text stands on the screen, of which only what has changed is written."""
        end = time.monotonic() + _SECONDS
        while text not in self.shown and self._open and time.monotonic() < end:
            self._read(0.1)
        return text in self.shown

    def rest(self, seconds: float) -> None:
        """Look on for a while."""
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end:
            self._read(0.02)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._emulator.resize(rows, columns)

    def hang_up(self) -> Ended:
        """Close the window, and wait for the command to end."""
        os.close(self._master)
        self._open = False
        self._ended = self.command.wait()
        return self._ended

    def end(self, code: int = 0) -> str:
        """Wait for the command to end, and make sure that it leaves the terminal as it was; returns the text."""
        end = time.monotonic() + _SECONDS
        while self._open and time.monotonic() < end:
            self._read(0.1)
        modes = self.modes
        ended = self.close()
        assert ended.code == code, f"exit {ended.code}, expected {code}\n{self.shown}\n{self.text[-2000:]!r}"
        assert "Traceback" not in self.text and "internal error" not in self.text, self.text
        assert modes == self._found
        assert not self._emulator.mode & {_BRACKETED_PASTE, _MOUSE} and _CURSOR in self._emulator.mode
        return self.text

    def close(self) -> Ended:
        """Be done with it, even if the command goes on."""
        if self._ended is None:
            if self._open:
                self.command.kill()
            self._ended = self.command.wait()
            os.close(self._master)
        return self._ended

    @property
    def written(self) -> bytes:
        return b"".join(self.parts)

    @property
    def text(self) -> str:
        """What was written without the codes that steer the terminal."""
        return _plain(self.written)

    @property
    def shown(self) -> str:
        """What stands on the screen."""
        return "\n".join(line.rstrip() for line in self._emulator.display).rstrip()

    @property
    def modes(self) -> Any:
        return termios.tcgetattr(self._master)

    def _read(self, seconds: float) -> None:
        if not select.select([self._master], [], [], seconds)[0]:
            return
        try:
            part = os.read(self._master, 65536)
        except BlockingIOError:
            return
        except OSError:  # the command has ended
            self._open = False
            return
        self.parts.append(part)
        self._stream.feed(part)


def _plain(written: bytes) -> str:
    return _CODES.sub(b"", written).decode(errors="replace")
