"""chat --expect: whether a model still answers as it is known to."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from convmodel_cli.answer_events import Answered, Dropped, Response
from convmodel_cli.data.formats import Conversation
from convmodel_cli.errors import DataError, GateMissed, UsageError
from convmodel_cli.workflows.chat import Chat
from convmodel_cli.workflows.chat_files import read_chats


@dataclass(frozen=True, slots=True)
class Golden:
    """Conversations that the model is to hold again, each ending with a response."""

    conversations: tuple[Conversation, ...]


def read_golden(path: str, bot_first: bool) -> Golden:
    """Conversations of what is said and what is to be answered; raises DataError for one that ends with the user."""
    conversations = read_chats(path)
    for conversation in conversations:
        responses = conversation.assistant or [index % 2 == (not bot_first) for index in range(len(conversation.turns))]
        if not responses[-1]:
            raise DataError(
                f"{conversation.where}: expected a response at the end, got a turn without one",
                "write what is said and what is to be answered in turn",
            )
    return Golden(tuple(conversations))


def say_and_compare(chat: Chat, golden: Golden) -> Iterator[Answered | Dropped]:
    """Say the user's turns and compare the greedy responses with the conversation's.

    Raises GateMissed with a diff at the first that differs.
    """
    own_persona, own_bot_first = chat.persona, chat.bot_first
    chat.adjust(replace(chat.responder.sampling, greedy=True, beams=1, generate_option=()), 0)
    for conversation in golden.conversations:
        chat.clear()
        try:
            chat.set_persona(conversation.persona or own_persona)
        except UsageError as error:
            raise UsageError(f"{conversation.where}: {error}", error.hint) from None
        chat.bot_first = conversation.assistant[0] if conversation.assistant else own_bot_first
        turns = conversation.turns
        for index in filter(chat.is_response, range(len(turns))):
            for event in chat.say(turns[index - 1]) if index else chat.begin():
                if isinstance(event, Dropped):
                    yield event
                if isinstance(event, Response):
                    yield Answered(turns[:index], (event,))
                    _compare(f"{conversation.where}: turn {index + 1}", turns[index], event.text)


def _compare(where: str, expected: str, got: str) -> None:
    if got != expected:
        diff = [line.rstrip("\n") for line in difflib.ndiff(expected.split("\n"), got.split("\n"))]
        raise GateMissed("\n".join([f"{where}: expected another response (- expected, + got):", *diff]))
