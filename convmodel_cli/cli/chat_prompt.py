"""Where messages are typed: keys, completion, history and toolbar, on prompt_toolkit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.screen import Char
from prompt_toolkit.output import create_output

from convmodel_cli.cli.chat_commands import COMMANDS
from convmodel_cli.cli.chat_settings import NAMES, summary
from convmodel_cli.cli.display import Screen, counted
from convmodel_cli.errors import StorageError
from convmodel_cli.escaping import escaped
from convmodel_cli.storage import open_private

if TYPE_CHECKING:
    from convmodel_cli.cli.chat_screen import Session

_QUOTES = '"""'
_PROMPT = "you> "
_STEERING = "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # what prompt_toolkit shows as it is


class Prompt:
    """Reads messages for a session. Without moving bars there is no toolbar either, for screen readers."""

    def __init__(self, session: Session, keep_history: bool) -> None:
        Char.display_mappings.update({character: escaped(character) for character in _STEERING})
        self._session = session
        self._prompt: PromptSession[str] = PromptSession(
            history=_history(session.screen) if keep_history else InMemoryHistory(),
            completer=_Completer(),
            complete_while_typing=False,
            enable_open_in_editor=True,
            key_bindings=_keys(),
            multiline=True,
            bottom_toolbar=self._toolbar if session.screen.animated else None,
            output=create_output(always_prefer_tty=True),
        )

    def read(self) -> str:
        """The next message; raises KeyboardInterrupt for Ctrl-C and EOFError for Ctrl-D."""
        return _message(self._prompt.prompt(_PROMPT))

    def change(self, speaker: str, text: str) -> str | None:
        """Let the user change a text; None if he leaves it with Ctrl-C or Ctrl-D."""
        try:
            return _message(self._prompt.prompt(speaker, default=text))
        except (KeyboardInterrupt, EOFError):
            return None

    def _toolbar(self) -> str:
        chat = self._session.chat
        use = chat.context_use()
        drawing = summary(chat.responder.sampling, chat.responder.compute.seed)
        return f"ctx {use.tokens}/{use.most} · {counted(len(chat.turns), 'turn')} · {drawing}"


def _message(typed: str) -> str:
    """What was typed without the quotes around several lines; bytes that are no text become a sign for that."""
    text = typed.encode(errors="replace").decode()
    stripped = text.strip()
    if len(stripped) >= 2 * len(_QUOTES) and stripped.startswith(_QUOTES) and stripped.endswith(_QUOTES):
        return stripped.removeprefix(_QUOTES).removesuffix(_QUOTES).strip("\n")
    return text


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add(Keys.Enter)
    def _enter(event: KeyPressEvent) -> None:
        text = event.current_buffer.text.strip()
        is_open = text.startswith(_QUOTES) and not (len(text) >= 2 * len(_QUOTES) and text.endswith(_QUOTES))
        if is_open:
            event.current_buffer.insert_text("\n")
        else:
            event.current_buffer.validate_and_handle()

    @keys.add(Keys.Escape, Keys.Enter)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

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
    path = Path(state).expanduser() / "convmodel" / "history"
    try:
        open_private(path).close()
    except (StorageError, RuntimeError) as error:  # RuntimeError: no home
        screen.say(f"no history is kept: {escaped(str(error))}", "yellow")
        return InMemoryHistory()
    return _PrivateHistory(str(path))
