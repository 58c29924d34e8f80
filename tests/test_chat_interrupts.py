"""How a chat on a terminal is stopped: by keys, by signals, by a window that is closed, and by a shell that waits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import OpenChat
from harness import Ended
from terminal import Terminal

LONG = ["--min-new-tokens", "3000", "--max-new-tokens", "3000"]
SHORT = "/set min_new_tokens=1 max_new_tokens=12 greedy=on beams=1"
CTRL_C, CTRL_D = b"\x03", b"\x04"


def letters(text: str) -> str:
    """Without what lines are broken at."""
    return "".join(text.split())


def test_ctrl_d_leaves_at_an_empty_prompt_and_nowhere_else(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    assert "Hello there." in chat.say(b"Hi!" + CTRL_D)
    chat.type(CTRL_D)
    chat.end()


def test_ctrl_c_at_the_prompt_clears_the_line(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    chat.type(b"Tell me" + CTRL_C)
    chat.prompt()
    assert "Hello there." in chat.say("Hi!")
    assert "Tell me" not in chat.say("/history")
    chat.type(CTRL_D)
    chat.end()


def test_ctrl_c_stops_a_response_that_stays_and_the_chat_goes_on(open_chat: OpenChat, endless: str) -> None:
    chat = open_chat(*LONG, model=endless)
    chat.prompt()
    chat.type("Hi!\r")
    chat.see("bot> ")
    chat.type(CTRL_C)
    said = chat.prompt()
    assert said.endswith(" [stopped]\r\n")
    assert letters("bot> " + said.removesuffix(" [stopped]\r\n")) in letters(chat.say("/history"))
    chat.say(SHORT)
    chat.say("/undo")
    assert "bot> I like rice and beans.\r\n" in chat.say("What do you eat?")
    assert "bot> Only water.\r\n" in chat.say("And to drink?")
    chat.type(CTRL_D)
    chat.end()


@pytest.mark.parametrize("made", [0, 2])
def test_ctrl_c_stops_several_candidates(open_chat: OpenChat, made: int) -> None:
    chat = open_chat(signal_at="convmodel_cli.model.generation:respond", signal="SIGINT", nth=made + 2)
    chat.prompt()
    response = re.search("bot> .*", chat.say("Hi!"))
    assert response
    said = chat.say("/retry 5")
    assert f"[stopped] after {made} of 5" in said
    assert ("/pick 1 takes the first" in said) == bool(made)
    assert response.group() in chat.say("/history")
    assert ("nothing to pick from" if made == 0 else "bot> ") in chat.say("/pick 1")
    chat.type(CTRL_D)
    chat.end()


def test_ctrl_c_stops_candidates_that_take_long(open_chat: OpenChat, endless: str) -> None:
    chat = open_chat("--greedy", "--max-new-tokens", "12", model=endless)
    chat.prompt()
    chat.say("Hi!")
    chat.say("/set max_new_tokens=200 min_new_tokens=200")
    chat.type("/retry 50\r")
    chat.see("  1  ")
    chat.type(CTRL_C)
    assert "[stopped] after 1 of 50" in chat.prompt()
    assert "bot> Hello there.\r\n" in chat.say("/history")
    chat.type(CTRL_D)
    chat.end()


def test_a_second_ctrl_c_breaks_off_what_the_first_one_cannot_stop(open_chat: OpenChat, endless: str) -> None:
    chat = open_chat("--greedy", "--max-new-tokens", "12", model=endless)
    chat.prompt()
    chat.say("What do you eat?")
    chat.say("/set greedy=off max_new_tokens=900 min_new_tokens=900 beams=4")
    chat.type("Hi!\r")
    chat.answering()
    while "broken off; the conversation is as it was before" not in chat.text:
        chat.type(CTRL_C)
        chat.rest(0.1)
    chat.type(CTRL_C)
    chat.prompt()
    chat.say(SHORT)
    assert "bot> Only water." in chat.say("And to drink?")
    assert "Hi!" not in chat.say("/history")
    chat.type(CTRL_D)
    chat.end()


def test_what_is_broken_off_within_a_token_is_as_if_it_had_not_been(open_chat: OpenChat) -> None:
    block = "transformers.models.gpt2.modeling_gpt2:GPT2Block.forward"  # one of several that make a token
    chat = open_chat("--greedy", signal_at=block, signal="SIGINT", nth=6, times=2)
    chat.prompt()
    assert "broken off" in chat.say("What do you eat?")
    assert "nothing has been said yet" in chat.say("/history")
    assert "bot> I like rice and beans." in chat.say("What do you eat?")
    assert "bot> Only water." in chat.say("And to drink?")
    chat.type(CTRL_D)
    chat.end()


def test_ctrl_c_stops_the_response_to_a_loaded_conversation(open_chat: OpenChat, endless: str, tmp_path: Path) -> None:
    (tmp_path / "open.jsonl").write_text('["Hi!"]\n')
    chat = open_chat(*LONG, "--load", "open.jsonl", model=endless)
    chat.see("bot> ")
    chat.type(CTRL_C)
    assert "[stopped]" in chat.prompt()
    chat.type(CTRL_D)
    chat.end()


@pytest.mark.parametrize("moment", ["at the prompt", "in a response"])
def test_a_termination_leaves_the_terminal_as_it_was(open_chat: OpenChat, endless: str, moment: str) -> None:
    chat = open_chat(*LONG, model=endless)
    chat.prompt()
    chat.rest(0.1)
    if moment == "in a response":
        chat.type("Hi!\r")
        chat.see("bot> ")
    chat.command.kill("SIGTERM")
    chat.end(143)


@pytest.mark.parametrize(
    ("place", "nth"),
    [
        ("prompt_toolkit.application:Application.reset", 2),
        ("prompt_toolkit.history:FileHistory.load_history_strings", 1),
        ("prompt_toolkit.renderer:Renderer.render", 1),
        ("prompt_toolkit.renderer:Renderer.render", 2),
        ("prompt_toolkit.renderer:Renderer.reset", 3),
        ("prompt_toolkit.key_binding.key_processor:KeyProcessor.process_keys", 2),
    ],
)
def test_a_termination_while_the_prompt_is_at_work_ends_the_chat(open_chat: OpenChat, place: str, nth: int) -> None:
    chat = open_chat(signal_at=place, signal="SIGTERM", nth=nth)
    chat.type("Hi!\r")
    chat.end(143)


def test_a_window_that_is_closed_ends_the_chat(open_chat: OpenChat, endless: str) -> None:
    chat = open_chat()
    chat.prompt()
    assert chat.hang_up().code == 129
    chat = open_chat(*LONG, model=endless)
    chat.prompt()
    chat.type("Hi!\r")
    chat.see("bot> ")
    assert chat.hang_up().code == 129


def test_a_chat_that_outlives_its_window_ends_when_it_finds_out(open_chat: OpenChat) -> None:
    chat = open_chat(ignored=["SIGHUP"], apart=[2])
    chat.prompt()
    chat.rest(0.3)
    ended = chat.hang_up().check(7)
    assert ended.err.endswith("error: the output: Input/output error\n")


OpenShell = Callable[..., Terminal]


class Shell:
    """A shell at a terminal, as it is there when a program is suspended."""

    def __init__(self, terminal: str, environment: dict[str, str]) -> None:
        handle = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
        self._process = subprocess.Popen(
            ["bash", "--norc", "-i"], env={**os.environ, "PS1": "% ", **environment},
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
def test_a_chat_stands_still_and_goes_on_as_a_shell_wants(open_shell: OpenShell, endless: str) -> None:
    shell = open_shell()
    shell.type(f"{sys.executable} -m convmodel_cli chat -m {endless} --threads 1 --greedy {' '.join(LONG)}\r")
    shell.prompt()
    shell.type("Hi!\r")
    shell.see("bot> ")
    quiet = shell.modes
    shell.type(b"\x1a")
    shell.see("Stopped")
    shell.type("stty -a\r")
    assert {"icanon", "icrnl", "echo"} <= set(shell.see("echoke").split())
    shell.type("fg\r")
    shell.rest(0.3)
    assert shell.modes == quiet
    shell.type(b"kept" + CTRL_C)
    shell.see("[stopped]")
    assert shell.shows("\nyou> kept\n")
    shell.type(b"\x1a")
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
