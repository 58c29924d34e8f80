"""What is pasted is one message, and what is typed while the model answers is for the next prompt."""

from __future__ import annotations

import pytest

from conftest import OpenChat
from terminal import Terminal

LONG = ["--max-new-tokens", "200", "--min-new-tokens", "200"]
CTRL_C, CTRL_D, CTRL_U = b"\x03", b"\x04", b"\x15"


def pasted(text: str) -> bytes:
    """As a terminal sends it: lines end as if they were typed."""
    return b"\x1b[200~" + text.replace("\n", "\r").encode() + b"\x1b[201~"


def leave(chat: Terminal) -> str:
    chat.type(CTRL_C + CTRL_D)
    return chat.end()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("What do\nyou eat?", "What do\nyou eat?"),
        ("Hi!\n", "Hi!"),
        ("\n\nHi!\n\n", "Hi!"),
        ("/clear\n/exit\nHi", "/clear\n/exit\nHi"),
        ("\n/fix it\nnow\n", "/fix it\nnow"),
        ("//a comment\ncode", "//a comment\ncode"),
        ("Hi\n/exit\n", "Hi\n/exit"),
        ("crlf\r\nlines", "crlf\nlines"),
    ],
)
def test_pasted_lines_are_one_message_whatever_they_are(open_chat: OpenChat, block: str, message: str) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    chat.type(pasted(block) if "\r" not in block else b"\x1b[200~" + block.encode() + b"\x1b[201~")
    chat.say(b"")
    shown = message.replace("\n", "\r\n     ")
    assert chat.say("/history").rpartition("you> /history\r\r\n")[2].startswith(f"you> {shown}\r\nbot> ")
    leave(chat)


def test_a_pasted_line_is_as_if_it_were_typed(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    chat.say("Hi!")
    chat.type(pasted("/clear\n"))
    assert "starts over" in chat.say(b"")
    chat.say("Hi!")
    chat.type("/fix ")
    chat.type(pasted("/one\ntwo"))
    assert "corrected" in chat.say(b"")
    assert "bot> /one\r\n     two  [good]" in chat.say("/history")
    leave(chat)


def test_what_is_pasted_while_the_model_answers_is_one_message_too(open_chat: OpenChat, wide: str) -> None:
    chat = open_chat(*LONG, model=wide)
    chat.prompt()
    chat.type("Hi!\r")
    chat.see("bot> ")
    assert chat.written.rindex(b"\x1b[?2004h") > chat.written.rindex(b"\x1b[?2004l")  # or it would not be marked
    chat.type(pasted("/clear\n/exit"))
    chat.prompt()
    assert chat.shows("you> //clear\n     /exit")
    leave(chat)


def test_what_is_typed_while_the_model_answers_is_for_the_next_prompt(open_chat: OpenChat, wide: str) -> None:
    chat = open_chat(*LONG, model=wide)
    chat.prompt()
    chat.type("Hi!\r")
    chat.see("bot> ")
    chat.type(b"/sx\x7ftats\rone\x1b\rtwo")  # with a key taken back, and Alt-Enter
    said = chat.prompt()
    assert "/s" not in said and "stats" not in said
    assert "2 turns, 1 response made here" in chat.prompt()
    assert chat.shows("\nyou> one\n     two\n")
    chat.type(CTRL_C + b"Hi!\r")
    chat.see("bot> ")
    chat.type(b"kept" + CTRL_C)
    chat.see("[stopped]")
    assert chat.shows("\nyou> kept\n")
    chat.type(CTRL_U + b"Hi!\r")
    chat.see("bot> ")
    chat.type(CTRL_D)  # leaves when it has answered
    chat.end()


def test_a_huge_pasted_block_is_taken(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    chat.type(pasted("So many words that nobody reads them.\n" * 5300))
    said = chat.say(b"")
    assert "too long for the model, which is not shown the first" in said and "bot> " in said
    assert chat.say("/undo")
    assert "bot> Hello there." in chat.say("Hi!")
    leave(chat)


def test_pasted_control_characters_are_shown_and_not_obeyed(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    chat.type(pasted("a\x00b\x07c\x1b]0;title\x07d\x1b[2Je\x9b31mf\x7fg\x03h\x04i\x1ag\u202e"))
    chat.say(b"")
    assert r"you> a\x00b\x07c\x1b]0;title\x07d\x1b[2Je\x9b31mf\x7fg\x03h\x04i\x1ag\u202e" in chat.say("/history")
    leave(chat)
    assert not any(code in chat.written for code in (b"\x07", b"\x1b]", b"\xc2\x9b", "\u202e".encode()))


def test_pasted_colour_codes_do_not_break_the_prompt(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    assert "Hello there." in chat.say(b"\x1b[31mHi!")
    leave(chat)
    assert "Unhandled" not in chat.text
