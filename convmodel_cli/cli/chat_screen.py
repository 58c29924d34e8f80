"""The chat on a terminal and on a pipe."""

from __future__ import annotations

import difflib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from convmodel_cli.cli.display import Screen
from convmodel_cli.cli.result_screens import answered_json, dropped_line
from convmodel_cli.escaping import escaped, one_line
from convmodel_cli.events import Answered, Dropped, Piece, Response

if TYPE_CHECKING:
    from convmodel_cli.workflows.chat import Chat

_COMMANDS = {
    "/help": "what you can type",
    "/clear": "forget the conversation and start over",
    "/history": "the conversation so far",
    "/exit": "leave; so does Ctrl-D",
    "/quit": "the same",
}
_PROMPT = "you> "
_ANSWER = "bot> "


def chat_on_pipe(chat: Chat, screen: Screen) -> None:
    """One line in is one turn, one line out is its response."""
    for number, line in enumerate(sys.stdin.buffer, 1):
        text = line.decode("utf-8", errors="replace").removesuffix("\n").removesuffix("\r")
        if not text.strip():
            screen.say(f"line {number}: nothing said, skipped")
            continue
        context = (*(turn.text for turn in chat.turns), text)
        for event in chat.say(text):
            _announce(event, screen)
            if isinstance(event, Response):
                answered = Answered(context, (event,))
                if screen.settings.json:
                    screen.result_json(answered_json(answered))
                else:
                    screen.result(one_line(event.text))


def chat_on_terminal(chat: Chat, screen: Screen) -> None:
    """A prompt that keeps the conversation until /exit or Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.keys import Keys

    # Pasted colour codes look like mouse events to the prompt, which stumbles over them.
    keys = KeyBindings()
    keys.add(Keys.Vt100MouseEvent)(lambda _: None)
    screen.say("Type a message; /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.", "dim")
    session: PromptSession[str] = PromptSession(key_bindings=keys)
    with _interrupts_stop(chat):  # the prompt reads Ctrl-C as a key, everywhere else it is a signal
        while True:
            try:
                text = session.prompt(_PROMPT)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text.startswith("/") and not text.startswith("//"):
                if _obey(text.strip(), chat, screen) == "leave":
                    return
            elif text.strip():
                _answer(chat, text[1:] if text.startswith("//") else text, screen)


def _answer(chat: Chat, text: str, screen: Screen) -> None:
    """Stream the response."""
    lead = _ANSWER  # after what is announced first
    for event in chat.say(text):
        _announce(event, screen)
        if isinstance(event, Piece):
            screen.write(lead + escaped(event.text))
            lead = ""
        elif isinstance(event, Response):
            screen.write(lead + (" [stopped]\n" if event.finish == "interrupted" else "\n"))


@contextmanager
def _interrupts_stop(chat: Chat) -> Iterator[None]:
    """Let Ctrl-C stop the response instead of breaking off a computation half way; what was said stays."""

    def on_interrupt(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        chat.stop()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _announce(event: object, screen: Screen) -> None:
    if isinstance(event, Dropped):
        screen.say(dropped_line(event), "yellow")


def _obey(command: str, chat: Chat, screen: Screen) -> str:
    """Follow a slash command; returns "leave" if the chat is over."""
    match command.split()[0].lower():
        case "/exit" | "/quit":
            return "leave"
        case "/clear":
            chat.clear()
            screen.say("The conversation starts over.")
        case "/help":
            for name, meaning in _COMMANDS.items():
                screen.say(f"{name:<10}{meaning}")
            screen.say(f"{'//text':<10}say /text to the model")
        case "/history":
            for index, turn in enumerate(chat.turns):
                screen.say((_PROMPT, _ANSWER)[index % 2] + turn.text)
        case unknown:
            near = difflib.get_close_matches(unknown, _COMMANDS, 1)
            hint = f"; did you mean {near[0]}?" if near else "; /help lists the commands"
            screen.say(f"there is no command {unknown}{hint}", "yellow")
    return "stay"
