"""Chats on the disk: saved for `fit`, loaded to go on with, written down as they are held."""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import dataclass
from gzip import BadGzipFile
from io import FileIO
from pathlib import Path

from convmodel_cli.data.conversations import collect, iter_conversations
from convmodel_cli.data.formats import BadRecord, Conversation, parse_record, to_record
from convmodel_cli.data.lines import Counts, decode, numbered_lines, open_bytes, shown_name
from convmodel_cli.errors import DataError, StorageError, UsageError
from convmodel_cli.escaping import escaped, indented, to_json
from convmodel_cli.storage import from_home, open_private
from convmodel_cli.workflows.chat import Chat

_EXAMPLE = 'write each conversation on one line, like ["Hello", "Hi there"]'


def conversation_of(chat: Chat) -> Conversation:
    """The conversation as `fit` learns it: what is marked as no good is not learned, nor a response that was cut off.

    It would teach the model to end in the middle of a sentence. Of a conversation that came with roles the user's
    turns are not learned either.
    """
    responses = tuple(chat.is_response(index) for index in range(len(chat.turns)))
    assistant = responses if chat.has_roles or chat.bot_first else None
    learn = tuple(
        turn.whole and (is_response or not chat.has_roles) if turn.good is None else turn.good
        for turn, is_response in zip(chat.turns, responses, strict=True)
    )
    by_itself = assistant or (True,) * len(learn)  # what fit learns without flags
    marked = any(turn.good is not None for turn in chat.turns)
    texts = tuple(turn.text for turn in chat.turns)
    persona = chat.persona if chat.persona.strip() else ""
    return Conversation(texts, assistant, None if learn == by_itself and not marked else learn, persona)


def save_chat(chat: Chat, path: str) -> int:
    """Append the conversation to a file as a line that `fit` reads; returns how many responses it will not learn.

    Raises UsageError for what `fit` would refuse.
    """
    if not path.endswith(".jsonl"):
        raise UsageError(f"expected the name of a .jsonl file, got {path or 'nothing'}", "like /save talks.jsonl")
    if not chat.turns:
        raise UsageError("there is nothing to save yet", "say something first")
    conversation = conversation_of(chat)
    record = to_record(conversation)
    try:
        parse_record(record, min_turns=2)
    except BadRecord as error:
        raise UsageError(f"fit would not learn from this conversation: {error}", "/fix or /undo it") from None
    _append_line(from_home(path), to_json(record))
    learned = conversation.learn or (True,) * len(chat.turns)
    return sum(chat.is_response(index) and not learns for index, learns in enumerate(learned))


def _append_line(path: Path, line: bytes) -> None:
    """Raises StorageError, and the file is as it was; a line that somebody left unfinished is closed first."""
    try:
        with path.open("ab+", buffering=0) as stream:
            size = stream.tell()
            if size:
                stream.seek(-1, 2)
                line = line if stream.read(1) == b"\n" else b"\n" + line
            _write_whole(stream, line + b"\n", size)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise StorageError(f"{path}: cannot be written: {reason}", "save it in another place") from None


def _write_whole(stream: FileIO, content: bytes, size: int) -> None:
    """Append all of the content, or nothing, to the `size` bytes that are there."""
    try:
        while content:
            content = content[stream.write(content) :]
    except OSError:
        with suppress(OSError):
            stream.truncate(size)
        raise


@dataclass(frozen=True, slots=True)
class SavedChat:
    """A conversation to go on with."""

    conversation: Conversation

    def put_into(self, chat: Chat) -> str | None:
        """Go on with it; returns the user's last turn if that has no response yet; raises UsageError."""
        try:
            return chat.put(self.conversation)
        except UsageError as error:
            raise UsageError(f"{self.conversation.where}: {error}", error.hint) from None


def load_chat(path: str) -> SavedChat:
    """The last conversation of a file, which is the newest one that was saved there; raises DataError, UsageError."""
    return SavedChat(read_chats(path)[-1])


def read_lines(path: str) -> list[tuple[str, str]]:
    """(place, line) of each line that is not blank; raises DataError for what is no text."""
    place = shown_name(path)
    found = []
    with open_bytes(path) as content:
        try:
            for number, line in numbered_lines(content, Counts()):
                place = f"{shown_name(path)}:{number}"
                if isinstance(line, BadRecord):
                    raise line
                text = decode(line)
                if text.strip():
                    found.append((place, text))
        except BadRecord as error:
            raise DataError(f"{place}: {error}") from None
        except (EOFError, zlib.error, BadGzipFile):
            raise DataError(f"{shown_name(path)}: expected gzip data, got something else or a part of it") from None
    return found


def read_chats(path: str) -> list[Conversation]:
    """All conversations of a file; raises DataError that lists every bad line."""
    return collect(path, iter_conversations(str(from_home(path)), min_turns=1), "conversations", _EXAMPLE)


class Transcript:
    """Writes down what is said, line by line, in a file that only its owner can read.

    A failure to write does not end the chat: it is kept in `failure`, and nothing more is written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._stream = open_private(from_home(path))
        self.failure: StorageError | None = None

    def write(self, speaker: str, text: str) -> None:
        """A turn or a command; further lines of it are indented."""
        if self.failure is not None:
            return
        try:
            self._stream.write(indented(speaker, escaped(text)) + "\n")
            self._stream.flush()
        except OSError as error:
            self.failure = StorageError(f"{self._path}: cannot be written: {error.strerror or error}")

    def close(self) -> None:
        with suppress(OSError):  # said when the line was written
            self._stream.close()
