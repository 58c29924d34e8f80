"""The shapes a record may have.

    ["Hello", "Hi there"]                                             a list of turns
    [{"speaker": "Ann", "text": "Hello"}, ...]                        speakers, of whom there are two
    {"turns": ["Hello", "Hi there"]}                                  a list with room for "learn" and "persona"
    {"conversation": ["Hello", "Hi there"]}                           the same
    {"messages": [{"role": "user", "content": "Hello"}, ...]}         roles: system, user, assistant
    {"conversations": [{"from": "human", "value": "Hello"}, ...]}     roles: system, human, gpt
    {"prompt": "Hello", "completion": "Hi there"}                     one pair; "response" is accepted too
    {"instruction": "Add.", "input": "1 2", "output": "3"}            one pair; "input" may be missing

`"learn"` (a flag per turn) and `"persona"` may stand beside any of them. An optional key may be null, or "" for a text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from convmodel_cli.data.text_rules import fault_of_text
from convmodel_cli.data.wording import describe

OPTIONAL_KEYS = ("learn", "persona")
_TURNS, _SPEAKERS = "a list of turns", "a list of speakers"


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


def shape_of(record: Any) -> str:
    """The shape by which `parse_record` reads a record, in words; empty if it has none."""
    if isinstance(record, list):
        of_parts = record and isinstance(record[0], dict) and all(isinstance(part, dict) for part in record)
        return _SPEAKERS if of_parts else _TURNS
    return f'"{key}"' if (key := _shape_key(record)) else ""


def parse_record(record: Any, min_turns: int) -> Conversation:
    """The conversation in one parsed record; raises BadRecord."""
    if isinstance(record, list):
        if shape_of(record) == _SPEAKERS:
            return _parse_said(record, "part", "speaker", "text", {}, min_turns)
        return _conversation(record, _TURNS, {}, min_turns)
    if not isinstance(record, dict):
        raise BadRecord(f"expected {_TURNS}, got {describe(record)}")
    if key := _shape_key(record):
        return _SHAPES[key](record, min_turns)
    raise BadRecord(f"expected {_TURNS} or an object with {_KNOWN}, got {describe(record)}")


def unread_keys(record: Any) -> set[str]:
    """The keys of a record that was parsed by which nothing is meant."""
    shape = _shape_key(record)
    return set(record) - _READ[shape] if shape and not record.keys() <= _READ[shape] else set()


def _shape_key(record: Any) -> str:
    """The key that decides how an object is read, or an empty string."""
    for key in _SHAPES if isinstance(record, dict) else ():
        if key in record:
            return key
    return ""


def _parse_list(key: str, record: dict[str, Any], min_turns: int) -> Conversation:
    return _conversation(record[key], f'"{key}"', record, min_turns)


def _parse_instruction(record: dict[str, Any], min_turns: int) -> Conversation:
    if "output" not in record:
        raise BadRecord(f'expected "output" beside "instruction", got {describe(record)}')
    prompt = _turn(record["instruction"], '"instruction"')
    if _says(record, "input"):
        prompt += "\n" + _turn(record["input"], '"input"')
    turns = [prompt, _turn(record["output"], '"output"')]
    return _conversation(turns, '"instruction"', record, min_turns, assistant=(False, True))


def _parse_pair(record: dict[str, Any], min_turns: int) -> Conversation:
    answer = next((key for key in ("completion", "response") if key in record), None)
    if answer is None:
        raise BadRecord(f'expected "completion" or "response" beside "prompt", got {describe(record)}')
    turns = [_turn(record["prompt"], '"prompt"'), _turn(record[answer], f'"{answer}"')]
    return _conversation(turns, '"prompt"', record, min_turns, assistant=(False, True))


def _parse_messages(key: str, who: str, text: str, record: dict[str, Any], min_turns: int) -> Conversation:
    return _parse_said(record[key], "message", who, text, record, min_turns)


def _parse_said(parts: Any, what: str, who: str, text: str, record: dict[str, Any], min_turns: int) -> Conversation:
    """A list of objects that say who speaks and what; only speakers may have any name, roles are known."""
    if not isinstance(parts, list):
        raise BadRecord(f'expected "{what}s" to be a list, got {describe(parts)}')
    said = [_part(part, f"{what} {number}", who, text) for number, part in enumerate(parts, 1)]
    roles = [_ROLES.get(speaker) for speaker, _ in said]
    if who == "speaker" and None in roles:
        return _between_speakers(said, record, min_turns)
    for number, (role, (name, _)) in enumerate(zip(roles, said, strict=True), 1):
        if role is None:
            raise BadRecord(f'{what} {number}: expected "{who}" to be {_KNOWN_ROLES[who]}, got {describe(name)}')
    system = [content for role, (_, content) in zip(roles, said, strict=True) if role == "system"]
    if system and _says(record, "persona"):
        raise BadRecord('expected either a system message or "persona", got both')
    spoken = [(str(role), content) for role, (_, content) in zip(roles, said, strict=True) if role != "system"]
    speakers, turns = _join_runs(spoken)
    assistant = tuple(speaker == "assistant" for speaker in speakers)
    conversation = _conversation(turns, f'"{what}s"', record, min_turns, assistant)
    return replace(conversation, persona="\n".join(system)) if system else conversation


_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_KNOWN_ROLES = {
    "role": '"system", "user" or "assistant"',
    "from": '"system", "human" or "gpt"',
}


def _between_speakers(said: list[tuple[str, str]], record: dict[str, Any], min_turns: int) -> Conversation:
    names = list(dict.fromkeys(name for name, _ in said))
    if len(names) > 2:
        raise BadRecord(f"expected two speakers, got {len(names)}: {', '.join(names[:5])}")
    _, turns = _join_runs(said)
    return _conversation(turns, '"text"', record, min_turns)


def _part(part: Any, what: str, who: str, text: str) -> tuple[str, str]:
    if not isinstance(part, dict) or who not in part or text not in part:
        raise BadRecord(f'{what}: expected an object with "{who}" and "{text}", got {describe(part)}')
    if not isinstance(part[who], str):
        raise BadRecord(f'{what}: expected "{who}" to be a string, got {describe(part[who])}')
    return part[who], _turn(part[text], what)


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
    "turns": partial(_parse_list, "turns"),
    "conversation": partial(_parse_list, "conversation"),
    "messages": partial(_parse_messages, "messages", "role", "content"),
    "conversations": partial(_parse_messages, "conversations", "from", "value"),
    "instruction": _parse_instruction,
    "prompt": _parse_pair,
}
_KNOWN = " or ".join(", ".join(f'"{key}"' for key in _SHAPES).rsplit(", ", 1))
_BESIDE = {"instruction": ("input", "output"), "prompt": ("completion", "response")}
_READ = {key: frozenset(("", key, *OPTIONAL_KEYS, *_BESIDE.get(key, ()))) for key in _SHAPES}


def _conversation(
    turns: Any,
    what: str,
    record: dict[str, Any],
    min_turns: int,
    assistant: tuple[bool, ...] | None = None,
) -> Conversation:
    if not isinstance(turns, list):
        raise BadRecord(f"expected {what} to be a list of strings, got {describe(turns)}")
    for number, turn in enumerate(turns, 1):
        if fault := fault_of_text(turn):
            raise BadRecord(f"turn {number}: {fault}")
    if len(turns) < min_turns:
        found = "an empty list" if not turns else "only one"
        raise BadRecord(f"expected at least {'two turns' if min_turns == 2 else 'one turn'}, got {found}")
    persona = _turn(record["persona"], '"persona"') if _says(record, "persona") else ""
    return Conversation(tuple(turns), assistant, _learn_flags(record, len(turns)), persona)


def _turn(turn: Any, what: str) -> str:
    if fault := fault_of_text(turn):
        raise BadRecord(f"{what}: {fault}")
    said: str = turn
    return said


def _learn_flags(record: dict[str, Any], num_turns: int) -> tuple[bool, ...] | None:
    flags = record.get("learn")
    if flags is None:
        return None
    odd = [flag for flag in flags if not isinstance(flag, bool)] if isinstance(flags, list) else [flags]
    if odd:
        raise BadRecord(f'expected "learn" to be a list of true and false, got {describe(odd[0])}')
    if len(flags) != num_turns:
        raise BadRecord(f'expected "learn" to have one flag for each of the {num_turns} turns, got {len(flags)}')
    return tuple(flags)


def _says(record: dict[str, Any], key: str) -> bool:
    """Whether there is more at an optional key than null or an empty string, which may be an empty cell of a table."""
    return record.get(key) not in (None, "")


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
