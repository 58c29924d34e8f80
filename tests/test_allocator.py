"""A training tells glibc how to hand out memory, for which its process begins again."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from convmodel_cli import __main__, allocator, collector
from convmodel_cli.cli import main as command_line
from convmodel_cli.signals import stop_request

_HAS_GLIBC = sys.platform == "linux" and os.confstr("CS_GNU_LIBC_VERSION").startswith("glibc 2.")  # type: ignore[union-attr]

PROGRAM = """
import os, sys
from convmodel_cli import allocator
print("begun", flush=True)
allocator.restart()
print(sys.argv[1:], sys.stdin.read(), os.environ["GLIBC_TUNABLES"])
"""


@pytest.fixture
def begun_again(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would be executed instead of this process, on a machine with a glibc that nobody has told anything."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    monkeypatch.setattr(os, "confstr", lambda _name: "glibc 2.36")
    monkeypatch.setattr(sys, "platform", "linux")
    for name in allocator._OURS:
        monkeypatch.delenv(name, raising=False)
    return calls


@pytest.mark.skipif(not _HAS_GLIBC, reason="there is no glibc to be told")
def test_a_process_begins_again_once_with_its_arguments_and_its_input() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in allocator._OURS}
    command = [sys.executable, "-c", PROGRAM, "--name", "a b"]
    done = subprocess.run(command, input="text", capture_output=True, text=True, env=environment, check=True)
    expected = f"['--name', 'a b'] text {allocator._OURS['GLIBC_TUNABLES']}"
    assert done.stdout.splitlines() == ["begun", "begun", expected]


def test_the_same_command_line_is_executed(begun_again: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "convmodel_cli", "fit", "a b.jsonl"])
    monkeypatch.setenv("OF_THE_USER", "1")
    allocator.restart()
    [(program, arguments, environment)] = begun_again
    assert program == sys.executable
    assert arguments == [sys.executable, "-X", "dev", "-m", "convmodel_cli", "fit", "a b.jsonl"]
    assert environment == {**os.environ, **allocator._OURS} and environment["OF_THE_USER"] == "1"


@pytest.mark.parametrize("libc", ["glibc 2.34", "glibc", "", None, "musl 1.2"])
def test_a_libc_that_cannot_be_told_is_left_alone(
    libc: str | None, begun_again: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "confstr", lambda _name: libc)
    allocator.restart()
    assert not begun_again


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE"])
def test_what_the_user_has_told_stands(
    name: str, begun_again: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "")
    allocator.restart()
    assert not begun_again


def test_another_system_is_left_alone(begun_again: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    allocator.restart()
    assert not begun_again


@pytest.mark.usefixtures("begun_again")
def test_a_process_that_cannot_begin_again_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_call: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "execve", refuse)
    allocator.restart()


@pytest.mark.parametrize(("command", "count"), [("fit", 1), ("generate", 0), ("--help", 0)])
def test_only_a_training_begins_again(
    command: str, count: int, begun_again: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["convmodel", command])
    monkeypatch.setattr(command_line, "main", lambda: None)
    monkeypatch.setattr(stop_request, "install", lambda: None)
    monkeypatch.setattr(collector, "pause", lambda: None)
    __main__.main()
    assert len(begun_again) == count
