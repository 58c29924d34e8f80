"""The shapes a record may have.

    ["Hello", "Hi there"]                                             a list of turns
    {"turns": ["Hello", "Hi there"]}                                  the same, with room for "learn" and "persona"
    {"messages": [{"role": "user", "content": "Hello"}, ...]}         roles: system, user, assistant
    {"prompt": "Hello", "completion": "Hi there"}                     one pair; "response" is accepted too

`"learn"` (a flag per turn) and `"persona"` may stand beside any of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN_CHARACTERS = 40


class BadRecord(ValueError):  # noqa: N818  the record is bad, the program is fine
    """A record that is no conversation; the message says what is wrong and what was found."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, oldest first, speakers alternating.

    `assistant` says which turns are the assistant's, or is None where the record has no roles. `learn` holds the
    record's own flag for each turn, or None. `file` and `line` (from 1) say where it stands, for messages.
    """

    turns: tuple[str, ...]
    assistant: tuple[bool, ...] | None = None
    learn: tuple[bool, ...] | None = None
    persona: str = ""
    file: str = ""
    line: int = 0

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "the conversation"


def describe(value: Any) -> str:
    """A JSON value in a few words, for "got ..."."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        shown = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
        return f'the string "{shown}"'
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, list):
        return "an empty list" if not value else f"a list of {len(value)}"
    if not value:
        return "an empty object"
    keys = ", ".join(f'"{key}"' for key in list(value)[:5])
    return f"an object with {keys}" + (", …" if len(value) > 5 else "")


def parse_record(record: Any, min_turns: int) -> Conversation:
    """The conversation in one parsed record; raises BadRecord."""
    if isinstance(record, list):
        return _conversation(record, "a list of turns", {}, min_turns)
    if not isinstance(record, dict):
        raise BadRecord(f"expected a list of turns, got {describe(record)}")
    for key, parse in _SHAPES.items():
        if key in record:
            return parse(record, min_turns)
    raise BadRecord(f"expected a list of turns or an object with {_known_keys()}, got {describe(record)}")


def _known_keys() -> str:
    names = [f'"{key}"' for key in _SHAPES]
    return ", ".join(names[:-1]) + " or " + names[-1]


def _parse_turns(record: dict[str, Any], min_turns: int) -> Conversation:
    return _conversation(record["turns"], '"turns"', record, min_turns)


def _parse_pair(record: dict[str, Any], min_turns: int) -> Conversation:
    answer = next((key for key in ("completion", "response") if key in record), None)
    if answer is None:
        raise BadRecord(f'expected "completion" or "response" beside "prompt", got {describe(record)}')
    turns = [_turn(record["prompt"], '"prompt"'), _turn(record[answer], f'"{answer}"')]
    return _conversation(turns, '"prompt"', record, min_turns, assistant=(False, True))


def _parse_messages(record: dict[str, Any], min_turns: int) -> Conversation:
    messages = record["messages"]
    if not isinstance(messages, list):
        raise BadRecord(f'expected "messages" to be a list, got {describe(messages)}')
    system: list[str] = []
    said: list[tuple[str, str]] = []
    for number, message in enumerate(messages, 1):
        role, content = _message(message, number)
        if role == "system":
            system.append(content)
        else:
            said.append((role, content))
    if system and "persona" in record:
        raise BadRecord('expected either a system message or "persona", got both')
    roles, turns = _join_runs(said)
    conversation = _conversation(
        turns, '"messages"', record, min_turns, assistant=tuple(role == "assistant" for role in roles)
    )
    if not system:
        return conversation
    return Conversation(conversation.turns, conversation.assistant, conversation.learn, "\n".join(system))


def _message(message: Any, number: int) -> tuple[str, str]:
    if not isinstance(message, dict) or "role" not in message or "content" not in message:
        raise BadRecord(f'message {number}: expected an object with "role" and "content", got {describe(message)}')
    role = message["role"]
    if role not in ("system", "user", "assistant"):
        raise BadRecord(f'message {number}: expected the role "system", "user" or "assistant", got {describe(role)}')
    return role, _turn(message["content"], f"message {number}")


def _join_runs(said: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Join what one speaker says in a row with a newline, so that speakers alternate."""
    roles: list[str] = []
    turns: list[str] = []
    for role, content in said:
        if roles and roles[-1] == role:
            turns[-1] += "\n" + content
        else:
            roles.append(role)
            turns.append(content)
    return roles, turns


_SHAPES: dict[str, Callable[[dict[str, Any], int], Conversation]] = {
    "turns": _parse_turns,
    "messages": _parse_messages,
    "prompt": _parse_pair,
}


def _conversation(
    turns: Any,
    what: str,
    record: dict[str, Any],
    min_turns: int,
    assistant: tuple[bool, ...] | None = None,
) -> Conversation:
    if not isinstance(turns, list):
        raise BadRecord(f"expected {what} to be a list of strings, got {describe(turns)}")
    checked = tuple(_turn(turn, f"turn {number}") for number, turn in enumerate(turns, 1))
    if len(checked) < min_turns:
        found = "an empty list" if not checked else "only one"
        raise BadRecord(f"expected at least {'two turns' if min_turns == 2 else 'one turn'}, got {found}")
    return Conversation(checked, assistant, _learn_flags(record, len(checked)), _persona(record))


def _turn(turn: Any, what: str) -> str:
    if not isinstance(turn, str):
        raise BadRecord(f"{what}: expected a string, got {describe(turn)}")
    if not turn.strip():
        raise BadRecord(f"{what}: expected text, got {'an empty string' if not turn else 'only white space'}")
    if "\0" in turn:
        raise BadRecord(f"{what}: expected text, got a NUL character in it")
    if _LONE_SURROGATE.search(turn):
        raise BadRecord(f"{what}: expected text, got half of a surrogate pair in it")
    return turn


def _learn_flags(record: dict[str, Any], num_turns: int) -> tuple[bool, ...] | None:
    flags = record.get("learn")
    if flags is None:
        return None
    if not isinstance(flags, list) or not all(isinstance(flag, bool) for flag in flags):
        raise BadRecord(f'expected "learn" to be a list of true and false, got {describe(flags)}')
    if len(flags) != num_turns:
        raise BadRecord(f'expected "learn" to have one flag for each of the {num_turns} turns, got {len(flags)}')
    return tuple(flags)


def _persona(record: dict[str, Any]) -> str:
    persona = record.get("persona")
    return "" if persona is None else _turn(persona, '"persona"')


def to_record(conversation: Conversation) -> Any:
    """The record that `parse_record` reads as this conversation; a plain list where that is enough."""
    extras: dict[str, Any] = {}
    if conversation.learn is not None:
        extras["learn"] = list(conversation.learn)
    if conversation.persona:
        extras["persona"] = conversation.persona
    if conversation.assistant is not None:
        messages = [
            {"role": "assistant" if is_assistant else "user", "content": turn}
            for turn, is_assistant in zip(conversation.turns, conversation.assistant, strict=True)
        ]
        return {"messages": messages, **extras}
    return {"turns": list(conversation.turns), **extras} if extras else list(conversation.turns)
