"""Where messages are typed: what each key does, and what is shown beside it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from conftest import OpenChat
from convmodel_cli.cli.chat_plain_prompt import is_open, message_of
from terminal import Terminal

CTRL_C, CTRL_D, CTRL_U, CTRL_Z, EDITOR = b"\x03", b"\x04", b"\x15", b"\x1a", b"\x18\x05"
UP, ALT_ENTER = b"\x1b[A", b"\x1b\r"


def leave(chat: Terminal) -> str:
    chat.type(CTRL_C + CTRL_D)
    return chat.end()


def test_tab_completes_commands_settings_and_files(open_chat: OpenChat, tmp_path: Path) -> None:
    (tmp_path / "a long name.jsonl").touch()
    chat = open_chat("--greedy")
    chat.prompt()
    for typed, completed in (
        ("/hi", "/history"), ("/set temp", "/set temperature="), ("/set greedy=on rese", "/set greedy=on reset"),
        ("/load a", "/load a long name.jsonl"), ("/save a lo", "/save a long name.jsonl"),
        ("//hi", "//hi"), ("hi /hi", "hi /hi"), ("/load b", "/load b"),
    ):  # fmt: skip
        chat.type(typed + "\t")
        assert chat.shows(f"\nyou> {completed}\n")
        chat.type(CTRL_C)
        chat.prompt()
    leave(chat)


def test_a_menu_shows_what_tab_could_mean(open_chat: OpenChat) -> None:
    chat = open_chat()
    chat.prompt()
    for typed, choices in (("/s", ["/set", "/save", "/stats"]), ("/set m", ["min_p=", "max_new_tokens="])):
        chat.type(typed + "\t")
        assert all(chat.shows(f" {choice}\n") for choice in choices)
        chat.type(CTRL_C)
        chat.prompt()
    leave(chat)


def test_several_lines_can_be_typed(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    chat.say(b"one" + ALT_ENTER + b"two")
    chat.type('"""\r/exit\rthree\r')
    chat.say('"""')
    said = chat.say("/history")
    assert "you> one\r\n     two\r\nbot> " in said
    assert "you> /exit\r\n     three\r\nbot> " in said
    leave(chat)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("Hi!", "Hi!"), (" Hi! ", " Hi! "), ("Hi!\n", "Hi!"), ("/exit", "/exit"), ('"""', '"""'), ('"""a', '"""a'),
        ('"""a"""', "a"), ('"""\na\nb\n"""', "a\nb"), ('"""/exit"""', "//exit"), ('"""//a"""', "///a"),
        ('""""""', ""), ('say """a"""', 'say """a"""'),
    ],
)  # fmt: skip
def test_quotes_around_lines_are_no_part_of_the_message(typed: str, message: str) -> None:
    assert message_of(typed) == message
    assert is_open(typed) == (typed in ('"""', '"""a'))


def test_an_editor_can_be_opened(open_chat: OpenChat, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nstty -a >stty\ncat $1 >was\nprintf 'What do\\nyou eat?\\n' >$1\n")
    editor.chmod(0o755)
    chat = open_chat("--greedy", environment={"VISUAL": "", "EDITOR": str(editor)})
    chat.prompt()
    chat.type(b"a draft" + EDITOR)
    chat.see("bot> ")
    chat.prompt()
    assert "you> What do\r\n     you eat?\r\nbot> " in chat.say("/history")
    assert (tmp_path / "was").read_text() == "a draft"
    modes = (tmp_path / "stty").read_text().replace(";", " ").split()
    assert {"echo", "icanon", "isig", "icrnl"} <= set(modes)
    leave(chat)


def test_an_editor_that_leaves_no_text_leaves_the_draft(open_chat: OpenChat, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nprintf 'no \\377 text' >$1\n")
    editor.chmod(0o755)
    chat = open_chat("--greedy", environment={"VISUAL": "", "EDITOR": str(editor)})
    chat.prompt()
    chat.type(b"Hi!" + EDITOR)
    chat.see("error: the prompt: 'utf-8' codec can't decode byte 0xff")
    chat.prompt()
    assert chat.shows("\nyou> Hi!\n")
    assert "Hello there." in chat.say(b"")
    leave(chat)


def test_arrows_recall_what_was_said_in_another_chat(open_chat: OpenChat, tmp_path: Path) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    chat.say("Good night!")
    chat.type("/fix\r")
    chat.prompt("bot>")
    chat.say(" Really.")
    leave(chat)
    history = tmp_path / "convmodel" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    chat = open_chat("--greedy")
    chat.prompt()
    chat.type(UP)
    assert chat.shows("you> /fix\n")  # and not the correction, which was no message
    chat.type(UP)
    assert chat.shows("you> Good night!\n")
    assert "Sleep well." in chat.say(b"")
    leave(chat)
    written = history.read_bytes()
    chat = open_chat("--greedy", "--no-history")
    chat.prompt()
    chat.say(UP + b"Hi!")
    assert "you> Hi!\r\nbot> Hello there." in chat.say("/history")
    leave(chat)
    assert history.read_bytes() == written


def test_the_toolbar_shows_the_context_the_turns_and_how_responses_are_drawn(open_chat: OpenChat) -> None:
    chat = open_chat("--seed", "71", "--max-new-tokens", "12")
    for typed, shown in (
        ("", "ctx 1/28 · 0 turns · T 0.8 · p 0.95 · seed 71"),
        ("/set temperature=1.5 seed=3", "ctx 1/28 · 0 turns · T 1.5 · p 0.95 · seed 3"),
        ("/set greedy=on", "ctx 1/28 · 0 turns · greedy"),
        ("Hi!", "ctx 8/28 · 2 turns · greedy"),
        ("/set max_new_tokens=3000", "ctx 8/28 · 2 turns · greedy"),
        ("/set min_new_tokens=3000", "ctx 8/28 · 2 turns · greedy"),
        ("Hi!", "ctx 28/28 · 4 turns · greedy"),
    ):
        if typed:
            chat.say(typed)
        assert chat.shows(f"\n{shown}")
    leave(chat)


def test_edit_and_fix_offer_the_text_to_change(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    chat.say("Hi!")
    chat.type("/edit\r")
    chat.prompt()
    chat.see("Hi!")
    assert "bot> I like rice and beans." in chat.say(CTRL_U + b"What do you eat?")
    chat.type("/fix\r")
    chat.prompt("bot>")
    chat.see("I like rice and beans.")
    chat.say(b" And fish.")
    chat.type("/fix\r")
    chat.prompt("bot>")
    chat.type(b" Or meat." + CTRL_C)
    assert "nothing has changed" in chat.prompt()
    chat.type("/edit\r")
    chat.prompt()
    chat.type(CTRL_U + CTRL_D)
    assert "nothing has changed" in chat.prompt()
    assert "you> What do you eat?\r\nbot> I like rice and beans. And fish.  [good]\r\n" in chat.say("/history")
    leave(chat)


def test_ctrl_z_is_no_part_of_a_message(open_chat: OpenChat) -> None:
    """There is nobody here to come back to; a shell is needed to stand still."""
    chat = open_chat("--greedy")
    chat.prompt()
    chat.type(CTRL_Z)
    chat.prompt()
    assert "bot> Hello there." in chat.say("Hi!")
    leave(chat)
