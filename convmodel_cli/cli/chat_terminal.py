"""A chat with somebody at a terminal: a prompt, and what Ctrl-C does outside it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Protocol, TextIO

from convmodel_cli.cli.terminal_modes import QuietTerminal
from convmodel_cli.errors import ConvmodelError

if TYPE_CHECKING:
    from convmodel_cli.cli.chat_screen import Session
    from convmodel_cli.workflows.chat_files import SavedChat


class Prompt(Protocol):
    """Where messages are typed."""

    def read(self) -> str:
        """The next message; raises KeyboardInterrupt for Ctrl-C and EOFError for Ctrl-D."""
        ...

    def change(self, speaker: str, text: str) -> str | None:
        """Let the user change a text; None if he leaves it as it is."""
        ...


def chat_on_terminal(session: Session, keep_history: bool, saved: SavedChat | None = None) -> None:
    """A prompt that keeps the conversation until /exit or Ctrl-D."""
    drawn_on = _to_draw_on(session)
    terminal = QuietTerminal(drawn_on)
    prompt = _prompt(session, keep_history, terminal, drawn_on)
    session.ask = prompt.change
    session.screen.say("Type a message; /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.", "dim")
    interrupts = _Interrupts(session)
    with interrupts.handled(), terminal.quiet():
        with interrupts.may_break_off():
            session.open(saved)
        while not session.leaving:
            try:
                text = prompt.read()
                if text.strip():
                    with interrupts.may_break_off():
                        _follow(session, text)
            except KeyboardInterrupt:  # the line is cleared
                continue
            except EOFError:
                return


def _to_draw_on(session: Session) -> TextIO | None:
    """The stream to draw a prompt on; None if no terminal can show more than lines."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None and stream.isatty()]
    return streams[0] if streams and not session.screen.dumb else None


def _prompt(session: Session, keep_history: bool, terminal: QuietTerminal, drawn_on: TextIO | None) -> Prompt:
    if drawn_on is None:
        from convmodel_cli.cli.chat_plain_prompt import PlainPrompt

        return PlainPrompt(terminal)
    from convmodel_cli.cli.chat_prompt import DrawnPrompt

    return DrawnPrompt(session, keep_history, terminal, drawn_on)


def _follow(session: Session, text: str) -> None:
    """A turn or a command; one that cannot be followed says why, and the conversation is unchanged."""
    try:
        session.follow(text)
    except ConvmodelError as error:
        session.screen.error(error)


class _Interrupts:
    """What Ctrl-C does outside the prompt.

    The first stops the response behind the token in hand, and what was said stays. If that takes long, a second one
    breaks the computation off, and the conversation is as it was before.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._count = 0
        self._may_break_off = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        before = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def may_break_off(self) -> Iterator[None]:
        self._count, self._may_break_off = 0, True
        try:
            yield
        except KeyboardInterrupt:
            self._session.chat.memory.forget()  # it may hold half a token
            self._session.screen.tell("\nbroken off; the conversation is as it was before", "yellow")
        finally:
            self._may_break_off = False

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._count += 1
        if self._count > 1 and self._may_break_off:
            raise KeyboardInterrupt
        self._session.chat.stop()
