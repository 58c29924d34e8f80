"""A chat with what surrounds it, and how its responses are shown; a chat on a pipe."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from convmodel_cli.answer_events import Answered, Dropped, Piece, Response
from convmodel_cli.cli.chat_commands import find_command, split_command
from convmodel_cli.cli.chat_views import ANSWER, PROMPT
from convmodel_cli.cli.display import Screen, counted
from convmodel_cli.cli.result_screens import answered_json, dropped_line
from convmodel_cli.errors import DataError
from convmodel_cli.escaping import escaped

if TYPE_CHECKING:
    from convmodel_cli.workflows.answer import Responder
    from convmodel_cli.workflows.chat import Answering, Chat
    from convmodel_cli.workflows.chat_files import SavedChat, Transcript

_LONGEST_LINE = 2**20  # bytes of a turn on a pipe; far more than any model is shown
_NOTHING = "the model said nothing; /retry asks again"


class Display(Protocol):
    """How a response is shown: as it is made, or as a line when it is done."""

    def __call__(self, events: Answering, session: Session) -> None: ...


@dataclass(slots=True)
class Session:
    """A chat with what surrounds it: `initial` is what `/set reset` goes back to.

    `ask` lets the user change a text, given a prompt and the text: None if he leaves it as it is, nothing where nobody
    can be asked.
    """

    chat: Chat
    screen: Screen
    display: Display
    initial: Responder
    transcript: Transcript | None = None
    ask: Callable[[str, str], str | None] = lambda _prompt, _text: ""
    leaving: bool = False

    def open(self, saved: SavedChat | None = None) -> None:
        """Go on with what is in a file, or let the model begin, if it is to."""
        if saved is not None:
            self.go_on(saved)
        elif self.chat.bot_first and not self.chat.turns:
            self.show(self.chat.begin())

    def say(self, text: str) -> None:
        self.note(PROMPT, text)
        self.show(self.chat.say(text))

    def say_instead(self, text: str) -> None:
        """Say something else instead of the user's last turn."""
        events = self.chat.edit(text)
        self.note(PROMPT, text)
        self.show(events)

    def follow(self, line: str) -> None:
        """A turn or a slash command; `//` begins a turn with a slash."""
        command = split_command(line)
        if command is None:
            self.say(line.removeprefix("/") if line.startswith("//") else line)
        else:
            self.obey(*command)

    def obey(self, name: str, argument: str) -> None:
        """Follow a slash command; raises ConvmodelError if it cannot be followed, and nothing has changed."""
        command = find_command(name, argument)
        self.note(PROMPT, f"{name} {argument}".rstrip())
        command.run(self, argument)

    def go_on(self, saved: SavedChat) -> None:
        """Go on with a conversation that was read from a file, and answer its last turn if nobody has."""
        pending, conversation = saved.put_into(self.chat), saved.conversation
        self.screen.say(f"going on after {counted(len(conversation.turns), 'turn')} from {conversation.file}")
        if pending is not None:
            self.say(pending)

    def show(self, events: Answering) -> None:
        """Show a response while it is made."""
        self.display(events, self)
        if self.chat.turns:
            answered = self.chat.turns[-1].text
            self.note(ANSWER, answered)
            if not answered.strip():
                self.screen.say(_NOTHING, "yellow")

    def note(self, speaker: str, text: str) -> None:
        """Write it into the transcript, if there is one."""
        if self.transcript is not None and self.transcript.failure is None:
            self.transcript.write(speaker, text)
            if self.transcript.failure is not None:
                self.screen.error(self.transcript.failure)


def stream(events: Answering, session: Session) -> None:
    """The response as it is made, behind `bot> `."""
    screen = session.screen
    lead = ANSWER  # after what is announced first
    for event in events:
        if isinstance(event, Dropped):
            screen.say(dropped_line(event), "yellow")
        elif isinstance(event, Piece) and event.text:
            screen.write(lead + escaped(event.text))
            lead = ""
        elif isinstance(event, Response):
            screen.write(lead + (" [stopped]\n" if event.finish == "interrupted" else "\n"))


@dataclass(frozen=True, slots=True)
class Lines:
    """One line for each response; with --json an object."""

    raw: bool = False

    def __call__(self, events: Answering, session: Session) -> None:
        for event in events:
            if isinstance(event, Dropped):
                session.screen.say(dropped_line(event), "yellow")
            elif isinstance(event, Response):
                context = tuple(turn.text for turn in session.chat.turns[:-1])
                self.show(Answered(context, (event,)), session.screen)

    def show(self, answered: Answered, screen: Screen) -> None:
        if screen.settings.json:
            screen.result_json(answered_json(answered))
        else:
            screen.response(answered.responses[0].text, self.raw)


def chat_on_pipe(session: Session, saved: SavedChat | None = None) -> None:
    """One line in is one turn, one line out is its response."""
    session.open(saved)
    for number, line in enumerate(iter(lambda: sys.stdin.buffer.readline(_LONGEST_LINE + 1), b""), 1):
        if len(line) > _LONGEST_LINE:
            raise DataError(f"<stdin>:{number}: expected a line of at most {_LONGEST_LINE:,} bytes, got a longer one")
        line = line.removesuffix(b"\n").removesuffix(b"\r").removeprefix(codecs.BOM_UTF8 if number == 1 else b"")
        text = line.decode("utf-8", errors="replace")
        if text.encode() != line:
            session.screen.say(f"line {number}: not UTF-8; what is broken reaches the model as \ufffd", "yellow")
        if text.strip():
            session.say(text)
        else:
            session.screen.say(f"line {number}: nothing said, skipped")
