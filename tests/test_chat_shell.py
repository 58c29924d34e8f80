"""A chat that a shell has started: it stands still when it is told to, and speaks UTF-8 wherever it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Ended
from terminal import Terminal

LONG = ["--min-new-tokens", "3000", "--max-new-tokens", "3000"]
SHORT = "/set min_new_tokens=1 max_new_tokens=12"
CTRL_C, CTRL_D, CTRL_Z = b"\x03", b"\x04", b"\x1a"

OpenShell = Callable[..., Terminal]


class Shell:
    """A shell at a terminal, one that leaves the terminal to a suspended program as that has left it."""

    def __init__(self, terminal: str, environment: dict[str, str]) -> None:
        handle = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
        self._process = subprocess.Popen(
            ["sh", "-i"], env={**os.environ, "PS1": "% ", **environment},
            preexec_fn=lambda: os.login_tty(os.dup(handle)),
        )  # fmt: skip
        os.close(handle)

    def kill(self, name: str = "SIGKILL") -> None:
        self._process.send_signal(getattr(signal, name))

    def wait(self) -> Ended:
        return Ended(self._process.wait(), "", "")


@pytest.fixture
def open_shell(tmp_path: Path) -> Iterator[OpenShell]:
    opened: list[Terminal] = []

    def open_one(**variables: str) -> Terminal:
        opened.append(Terminal(Shell, {"XDG_STATE_HOME": str(tmp_path), **variables}))
        return opened[-1]

    yield open_one
    for terminal in opened:
        terminal.close()


@pytest.mark.slow
def test_a_chat_stands_still_and_goes_on_as_a_shell_wants(open_shell: OpenShell, wide: str) -> None:
    shell = open_shell()
    shell.type(f"{sys.executable} -m convmodel_cli chat -m {wide} --threads 1 --greedy {' '.join(LONG)}\r")
    shell.prompt()
    shell.type("Hi!\r")
    shell.see("bot> ")
    quiet = shell.modes
    shell.type(CTRL_Z)
    shell.see("Stopped")
    shell.type("stty -a\r")
    assert {"icanon", "icrnl", "echo"} <= set(shell.see("echoke").split())
    shell.type("fg\r")
    shell.rest(0.3)
    assert shell.modes == quiet
    shell.type(b"kept" + CTRL_C)
    shell.see("[stopped]")
    assert shell.shows("\nyou> kept\n")
    shell.type(CTRL_Z)
    shell.see("Stopped")
    shell.type("echo $?\r")
    shell.see("148")
    shell.type("fg\r")
    shell.prompt()
    assert shell.shows("\nyou> kept\n")
    shell.type(CTRL_C + f"{SHORT}\r".encode())
    shell.see("greedy")
    shell.prompt()
    shell.say("/clear")
    assert "bot> Hello there.\r\n" in shell.say("Hi!")
    shell.type(CTRL_D)
    shell.see("%")
    shell.type("exit\r")
    shell.end()


@pytest.mark.slow
def test_a_chat_on_a_terminal_speaks_utf_8_in_any_locale(open_shell: OpenShell, trained: str) -> None:
    shell = open_shell(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    shell.type(f"{sys.executable} -m convmodel_cli chat -m {trained} --threads 1 --greedy\r")
    shell.prompt()
    assert "bot> Then I say 日本語 🙂👍🏽\r\n" in shell.say("I say 🙂")
    shell.type(CTRL_D)
    shell.see("%")
    shell.type("exit\r")
    shell.end()
