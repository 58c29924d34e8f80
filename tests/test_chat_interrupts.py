"""How a chat on a terminal is stopped: by keys, by signals, and by a window that is closed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import OpenChat

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


def test_an_interrupt_from_outside_clears_the_line_as_the_key_does(open_chat: OpenChat) -> None:
    chat = open_chat("--greedy")
    chat.prompt()
    chat.type("Tell me")
    assert chat.shows("you> Tell me")
    chat.command.kill("SIGINT")
    chat.prompt()
    assert "bot> Hello there." in chat.say("Hi!")
    chat.type(CTRL_D)
    chat.end()


def test_ctrl_c_stops_a_response_that_stays_and_the_chat_goes_on(open_chat: OpenChat, wide: str) -> None:
    chat = open_chat(*LONG, model=wide)
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


def test_ctrl_c_stops_candidates_that_take_long(open_chat: OpenChat, wide: str) -> None:
    chat = open_chat("--greedy", "--max-new-tokens", "12", model=wide)
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


def test_a_second_ctrl_c_breaks_off_what_the_first_one_cannot_stop(open_chat: OpenChat, wide: str) -> None:
    chat = open_chat("--greedy", "--max-new-tokens", "12", model=wide)
    chat.prompt()
    chat.say("What do you eat?")
    chat.say("/set greedy=off max_new_tokens=900 min_new_tokens=900 beams=4")
    chat.type("Hi!\r")
    chat.answering()
    for _ in range(40):  # the first two may come before there is anything to stop
        chat.type(CTRL_C)
        chat.rest(0.1)
        if "broken off; the conversation is as it was before" in chat.text:
            break
    chat.type(CTRL_C)
    chat.prompt()
    chat.say(SHORT)
    chat.type("And to drink?\r")  # a prompt more may have been drawn for a Ctrl-C that came late
    chat.see("bot> Only water.")
    chat.type("/history\r/exit\r")
    assert "you> Hi!" not in chat.end().rpartition("/history")[2]


def test_what_is_broken_off_within_a_token_is_as_if_it_had_not_been(open_chat: OpenChat) -> None:
    block = "convmodel_cli.model.gpt2_decoding:_Norm.__call__"  # one of several that make a token
    chat = open_chat("--greedy", signal_at=block, signal="SIGINT", nth=13, times=2)
    chat.prompt()
    assert "broken off" in chat.say("What do you eat?")
    assert "nothing has been said yet" in chat.say("/history")
    assert "bot> I like rice and beans." in chat.say("What do you eat?")
    assert "bot> Only water." in chat.say("And to drink?")
    chat.type(CTRL_D)
    chat.end()


def test_ctrl_c_stops_the_response_to_a_loaded_conversation(open_chat: OpenChat, wide: str, tmp_path: Path) -> None:
    (tmp_path / "open.jsonl").write_text('["Hi!"]\n')
    chat = open_chat(*LONG, "--load", "open.jsonl", model=wide)
    chat.see("bot> ")
    chat.type(CTRL_C)
    assert "[stopped]" in chat.prompt()
    chat.type(CTRL_D)
    chat.end()


@pytest.mark.parametrize("moment", ["at the prompt", "in a response"])
def test_a_termination_leaves_the_terminal_as_it_was(open_chat: OpenChat, wide: str, moment: str) -> None:
    chat = open_chat(*LONG, model=wide)
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


def test_a_window_that_is_closed_ends_the_chat(open_chat: OpenChat, wide: str) -> None:
    chat = open_chat()
    chat.prompt()
    assert chat.hang_up().code == 129
    chat = open_chat(*LONG, model=wide)
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
