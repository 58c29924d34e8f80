"""Where messages are typed: keys, completion, history and toolbar, on prompt_toolkit."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.screen import Char
from prompt_toolkit.output import ColorDepth, create_output

from convmodel_cli.cli.chat_commands import COMMANDS
from convmodel_cli.cli.chat_plain_prompt import is_open, message_of
from convmodel_cli.cli.chat_settings import NAMES, summary
from convmodel_cli.cli.chat_views import PROMPT
from convmodel_cli.cli.display import Screen, counted
from convmodel_cli.cli.terminal_modes import QuietTerminal
from convmodel_cli.errors import StorageError, UsageError
from convmodel_cli.escaping import escaped
from convmodel_cli.signals import EXIT_CODES
from convmodel_cli.storage import from_home, open_private

if TYPE_CHECKING:
    from convmodel_cli.cli.chat_screen import Session

_STEERING = "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # what prompt_toolkit shows as it is


class DrawnPrompt:
    """Reads messages for a session. Without moving bars there is no toolbar either, for screen readers."""

    def __init__(self, session: Session, keep_history: bool, terminal: QuietTerminal, drawn_on: TextIO) -> None:
        Char.display_mappings.update({character: escaped(character) for character in _STEERING})
        self._session = session
        self._terminal = terminal
        self._input = _keyboard()
        self._output = create_output(drawn_on)
        self._messages = self._prompt(_history(session.screen) if keep_history else InMemoryHistory(), _keys())
        self._changes = self._prompt(InMemoryHistory(), _keys(are_messages=False))

    def read(self) -> str:
        """The next message; raises KeyboardInterrupt for Ctrl-C and EOFError for Ctrl-D."""
        return message_of(self._ask(self._messages, PROMPT))

    def change(self, speaker: str, text: str) -> str | None:
        """Let the user change a text; None if he leaves it with Ctrl-C or Ctrl-D."""
        try:
            return self._ask(self._changes, speaker, text).strip("\n")
        except (KeyboardInterrupt, EOFError):
            return None

    def _prompt(self, history: History, keys: KeyBindings) -> PromptSession[str]:
        screen = self._session.screen
        return PromptSession(
            history=history,
            completer=_Completer(),
            complete_while_typing=False,
            enable_open_in_editor=True,
            enable_suspend=True,
            key_bindings=keys,
            multiline=True,
            bottom_toolbar=self._toolbar if screen.animated else None,
            color_depth=None if screen.console.color_system else ColorDepth.MONOCHROME,
            input=self._input,
            output=self._output,
        )

    def _ask(self, prompt: PromptSession[str], speaker: str, text: str = "") -> str:
        try:
            with _signals_wait(prompt.app) as end_if_one_has_come:

                def begin() -> None:
                    end_if_one_has_come()
                    asyncio.get_running_loop().set_exception_handler(self._tell)

                return prompt.prompt(speaker, default=text, pre_run=begin, handle_sigint=False)
        finally:
            self._terminal.mark_pastes()

    def _tell(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG002
        """Say in a line what has gone wrong beside the typing, like an editor that leaves what is no text."""
        problem = StorageError(f"the prompt: {context.get('exception') or context['message']}")
        run_in_terminal(lambda: self._session.screen.error(problem))

    def _toolbar(self) -> str:
        chat = self._session.chat
        use = chat.context_use()
        drawing = summary(chat.responder.sampling, chat.responder.compute.seed)
        return f"ctx {use.tokens}/{use.most} · {counted(len(chat.turns), 'turn')} · {drawing}"


@contextmanager
def _signals_wait(application: Application[str]) -> Iterator[Callable[[], None]]:
    """Let a signal end the prompt, Ctrl-C from outside as the key does, and only then do what else it does.

    The prompt catches what is raised while it is at work, shows it, and waits for Enter. Of a Ctrl-C that comes as it
    ends its own handler would show a traceback.
    """
    came: list[int] = []
    usual: dict[int, Any] = {}

    def end_if_one_has_come() -> None:
        if came and application.future is not None and not application.future.done():
            if came[0] == signal.SIGINT:
                del came[0]
                application.exit(exception=KeyboardInterrupt, style="class:aborting")
            else:
                application.exit(exception=EOFError)

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        came.append(number)
        if application.loop is not None:
            application.loop.call_soon_threadsafe(end_if_one_has_come)

    for name in EXIT_CODES:
        number = getattr(signal, name, None)
        if number is not None and callable(signal.getsignal(number)):
            usual[number] = signal.signal(number, on_signal)
    try:
        yield end_if_one_has_come
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        for number in came:
            usual[number](number, None)


def _keyboard() -> Input:
    """Keys as UTF-8, whatever the locale."""
    keyboard = create_input()
    if sys.platform != "win32":
        from prompt_toolkit.input.posix_utils import PosixStdinReader
        from prompt_toolkit.input.vt100 import Vt100Input

        if isinstance(keyboard, Vt100Input):
            keyboard.stdin_reader = PosixStdinReader(keyboard.fileno(), errors="replace", encoding="utf-8")
    return keyboard


def _keys(are_messages: bool = True) -> KeyBindings:
    keys = KeyBindings()

    @keys.add(Keys.Enter)
    def _enter(event: KeyPressEvent) -> None:
        if is_open(event.current_buffer.text):
            event.current_buffer.insert_text("\n")
        else:
            event.current_buffer.validate_and_handle()

    @keys.add(Keys.Escape, Keys.Enter)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add(Keys.BracketedPaste)
    def _paste(event: KeyPressEvent) -> None:
        """Several pasted lines are a message whatever they begin with: a slash is written as it would be typed."""
        text = event.data.replace("\r\n", "\n").replace("\r", "\n")
        if are_messages and not event.current_buffer.text and "\n" in text.strip("\n"):
            text = text.lstrip("\n")
            text = "/" + text if text.startswith("/") else text
        event.current_buffer.insert_text(text)

    # Pasted colour codes look like mouse events to the prompt, which stumbles over them.
    keys.add(Keys.Vt100MouseEvent)(lambda _: None)
    return keys


class _Completer(Completer):
    """Commands, the names of settings behind /set, and files behind /save and /load."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or text.startswith("//"):
            return
        name, space, argument = text.partition(" ")
        if not space:
            named = (name + " " if command.arguments else name for name, command in COMMANDS.items())
            yield from _that_begin(name, named)
        elif name == "/set":
            yield from _that_begin(argument.rpartition(" ")[2], [*(f"{setting}=" for setting in NAMES), "reset"])
        elif name in ("/save", "/load"):
            rest = Document(argument, len(argument))
            yield from PathCompleter(expanduser=True).get_completions(rest, complete_event)


def _that_begin(word: str, words: Iterable[str]) -> Iterator[Completion]:
    return (Completion(each, -len(word)) for each in words if each.startswith(word))


class _PrivateHistory(FileHistory):
    """A history that is no reason to end a chat when it cannot be written."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def _history(screen: Screen) -> History:
    """What was typed before, from a file that only its owner can read; in memory if there can be none."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        path = from_home(state) / "convmodel" / "history"
        with suppress(OSError):  # said when the file is opened
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        open_private(path).close()
    except (StorageError, UsageError) as error:
        screen.say(f"no history is kept: {escaped(str(error))}", "yellow")
        return InMemoryHistory()
    return _PrivateHistory(str(path))
