"""A chat with somebody at a terminal: what is shown, in which bytes, and where it goes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Convmodel, OpenChat
from convmodel_cli.cli.main import run

LONG = ["--min-new-tokens", "3000", "--max-new-tokens", "3000"]
SHORT = "/set min_new_tokens=1 max_new_tokens=12 greedy=on beams=1"
CTRL_C, CTRL_D = b"\x03", b"\x04"


def test_a_chat_on_a_terminal_keeps_the_conversation_and_obeys_commands(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    assert "bot> I like rice and beans." in chat.say("What do you eat?")
    assert "bot> Only water." in chat.say("And to drink?")
    assert "did you mean /history" in chat.say("/histroy")
    assert "you> And to drink?\r\nbot> Only water.\r\n" in chat.say("/history")
    assert "starts over" in chat.say("/clear")
    chat.type("/exit\r")
    chat.end()


def test_a_terminal_that_is_resized_while_it_answers_shows_the_next_prompt(open_chat: OpenChat, wide: str) -> None:
    chat = open_chat(*LONG, model=wide)
    chat.prompt()
    chat.type("Hi!\r")
    chat.see("bot> ")
    chat.resize(30, 10)
    chat.rest(0.1)
    chat.type(CTRL_C)
    chat.prompt()
    chat.resize(60, 12)
    chat.type("What is")
    chat.see("What is")
    chat.rest(0.1)
    assert "you> What is" in chat.shown
    chat.type(CTRL_C + CTRL_D)
    chat.end()


def test_twenty_columns_are_enough(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy", columns=20, rows=12)
    chat.prompt()
    chat.say("What do you eat?")
    chat.rest(0.1)
    assert "you> What do you eat\n     ?\nbot> I like rice and\n beans.\nyou>" in chat.shown
    assert "ctx 14/28 · 2 turns" in chat.shown
    chat.type(CTRL_D)
    chat.end()


@pytest.mark.parametrize("variable", [{"TERM": "dumb"}, {"CI": "1"}], ids=str)
def test_a_terminal_without_codes_gets_none(open_chat: OpenChat, wide: str, variable: dict[str, str]) -> None:
    chat = open_chat("--greedy", *LONG, model=wide, environment={**variable, "FORCE_COLOR": "1"})
    chat.see("you> ")
    chat.type("Hi!\r")
    chat.see("bot> ")
    chat.type("ahead")
    chat.type(CTRL_C)
    said = chat.see("[stopped]\r\nyou> ")
    assert "ahead" not in said
    chat.type(CTRL_C)
    chat.see("^C\r\nyou> ")
    chat.type(SHORT + "\r")
    chat.see("you> ")
    chat.type("/clear\r")
    chat.see("you> ")
    chat.type('"""\r')
    chat.see("...> ")
    chat.type('What do you eat?"""\r')
    chat.see("bot> I like rice and beans.\r\nyou> ")
    chat.type("/edit\r")
    chat.see("you> What do you eat?\r\nyou> ")
    chat.type("Hi!\r")
    chat.see("bot> Hello there.\r\nyou> ")
    chat.type(CTRL_D)
    text = chat.end()
    assert b"\x1b" not in chat.written and "\r" not in text.replace("\r\n", "\n")
    assert "ctx" not in text


def test_without_progress_there_is_no_toolbar(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy", "--no-progress")
    chat.prompt()
    chat.rest(0.2)
    chat.say("Hi!")
    chat.type(CTRL_D)
    assert "ctx" not in chat.end()


@pytest.mark.parametrize("color", ["NO_COLOR", "--color never"])
def test_colour_can_be_refused(open_chat: OpenChat, color: str) -> None:
    if color == "NO_COLOR":
        chat = open_chat("--greedy", environment={"NO_COLOR": "1"})
    else:
        chat = open_chat("--greedy", "--color", "never")
    chat.prompt()
    chat.type("/s\t\t")  # a menu
    chat.see("/stats")
    chat.type(CTRL_C)
    chat.prompt()
    chat.say("/nonsense")
    chat.type(CTRL_D)
    chat.end()
    codes = {code for codes in re.findall(rb"\x1b\[([0-9;]*)m", chat.written) for code in codes.split(b";")}
    assert codes <= {b"", b"0", b"1", b"2", b"4", b"7"}  # bold, dim, underlined and reversed are no colours


def test_a_file_gets_the_responses_and_nothing_else(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy", apart=[1])
    chat.prompt()
    chat.say("What do you eat?")
    chat.say("/history")
    chat.say("And to drink?")
    chat.type(CTRL_D)
    text = chat.end()
    assert chat.close().out == "I like rice and beans.\nOnly water.\n"
    assert "you> What do you eat?" in text


def test_files_get_no_codes_when_only_the_keyboard_is_a_terminal(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy", apart=[1, 2])
    chat.type("What do you eat?\r")
    chat.type("/exit\r")
    chat.end()
    ended = chat.close()
    assert ended.out == "I like rice and beans.\n"
    assert ended.err.endswith("leaves.\nyou> you> ") and "\x1b" not in ended.err


def test_a_full_disk_ends_a_chat(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy", apart=[1], out="/dev/full")
    chat.prompt()
    chat.type("Hi!\r")
    assert "the output: No space left on device" in chat.end(7)


def test_bytes_that_are_no_text_become_a_sign_for_that(open_chat: OpenChat, convmodel: Convmodel, trained: str) -> None:
    outcome = convmodel("chat", "-m", trained, "--greedy", stdin=b"Hi!\nI \xff say \xf0\x9f\n\n")
    assert outcome.code == 0 and outcome.out.startswith("Hello there.\n") and outcome.out.count("\n") == 2
    assert "line 2: not UTF-8; what is broken reaches the model as \ufffd" in outcome.err
    chat = open_chat("--greedy")
    chat.prompt()
    chat.say(b"I \xff say \xf0\x9f")
    assert "you> I \ufffd say \ufffd\r\n" in chat.say("/history")
    chat.type(CTRL_D)
    chat.end()


@pytest.fixture(scope="module")
def speaker_of_signs(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A model whose tokens are bytes wherever it says something but letters, and what it says."""
    said = "e\u0301 👩\u200d👩\u200d👧 日本語 👍🏽🙂"
    folder = tmp_path_factory.mktemp("signs")
    (folder / "talk.jsonl").write_text(json.dumps(["Hi!", said]))
    options = ["--base", str(workshop / "tiny"), "-o", str(folder / "model"), "-q", "--epochs", "60", "--dropout", "0"]
    options += ["--batch-size", "1", "--learning-rate", "0.01", "--precision", "fp32", "--eval-every", "100"]
    assert run(["fit", str(folder / "talk.jsonl"), *options]) == 0
    return str(folder / "model"), said


def test_signs_of_many_bytes_are_streamed_whole(open_chat: OpenChat, speaker_of_signs: tuple[str, str]) -> None:
    model, said = speaker_of_signs
    chat = open_chat("--greedy", model=model)
    chat.prompt()
    before = len(chat.parts)
    assert f"bot> {said}\r\n" in chat.say("Hi!")
    written = [part.decode() for part in chat.parts[before:]]  # raises if a part ends within a character
    assert "\ufffd" not in "".join(written)
    assert said.encode() in chat.written
    chat.type(CTRL_D)
    chat.end()


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_a_closed_stream_is_said_before_the_model_is_loaded(tmp_path: Path, closed: str) -> None:
    command = f"{sys.executable} -m convmodel_cli chat -m nowhere {closed}"
    done = subprocess.run(["bash", "-c", command], input=b"Hi!\n", capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == (2 if closed == "<&-" else 7)
    assert done.stderr.startswith(b"error: standard ") and b"Traceback" not in done.stderr


def test_a_reader_that_leaves_early_ends_a_chat_in_any_locale(trained: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m convmodel_cli chat -m {trained} --greedy | head -1; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        ["bash", "-c", command],
        input="I say 🙂\n".encode() * 40, capture_output=True, cwd=tmp_path, env=environment, check=True,
    )  # fmt: skip
    assert done.stdout.decode() == "Then I say 日本語 🙂👍🏽\n0\n"
    assert b"Traceback" not in done.stderr and b"rror" not in done.stderr


def test_a_line_that_does_not_end_is_refused_before_it_fills_the_memory(convmodel: Convmodel, trained: str) -> None:
    outcome = convmodel("chat", "-m", trained, "--greedy", stdin=b"Hi!\n" + b"a" * (2**20 + 1))
    assert (outcome.code, outcome.out) == (3, "Hello there.\n")
    assert outcome.err == "error: <stdin>:2: expected a line of at most 1,048,576 bytes, got a longer one\n"
