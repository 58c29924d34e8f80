"""generate --self-chat: the model talks to itself, and what it says is data for `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from convmodel_cli.answer_events import Dropped, Talked
from convmodel_cli.data.formats import BadRecord, Conversation, parse_record, to_record
from convmodel_cli.workflows.answer import Found, Responder


@dataclass(slots=True)
class _Talk:
    """A conversation that goes on; `ids` are those of its turns as they were made, `whole` speaks of the new ones."""

    opener: Conversation
    candidate: int
    texts: list[str]
    ids: list[list[int]]
    whole: list[bool]
    persona_ids: list[int]
    dropped: Dropped | None = None
    over: bool = False


def talk_to_itself(
    responder: Responder, openers: Sequence[Conversation], turns: int, count: int, batch_size: int
) -> list[Found]:
    """`count` conversations from each opener, with `turns` more turns; one ends where what is said is no turn for fit.

    All that go on are answered together, and what is said depends on the opener and the seed alone.
    """
    talks = [
        _Talk(item, number, list(item.turns), responder.encode(item.turns, item.persona), [], persona_ids)
        for item in openers
        for persona_ids in [responder.persona_ids(item.persona)]
        for number in range(count)
    ]
    for _ in range(turns):
        going = [talk for talk in talks if not talk.over]
        if not going:
            break
        _go_on(responder, going, batch_size)
    found: list[Found] = []
    for start in range(0, len(talks), count):
        own = talks[start : start + count]
        found.append([talk.dropped for talk in own if talk.dropped][:1] + [_told(talk) for talk in own])
    return found


def _go_on(responder: Responder, talks: Sequence[_Talk], batch_size: int) -> None:
    """One more turn for each."""
    contexts = []
    for talk in talks:
        context, dropped = responder.context(talk.ids, talk.persona_ids)
        talk.dropped = talk.dropped or dropped
        contexts.append(replace(context, candidate=talk.candidate))
    for talk, [written] in zip(talks, responder.answer(contexts, batch_size=batch_size), strict=True):
        if not _is_turn(written.response.text):
            talk.over = True
            continue
        talk.texts.append(written.response.text)
        talk.ids.append(list(written.ids))
        talk.whole.append(written.response.finish == "stop")


def _is_turn(text: str) -> bool:
    try:
        parse_record([text], min_turns=1)
    except BadRecord:
        return False
    return True


def _told(talk: _Talk) -> Talked:
    """A turn that was cut off is not learned: it would teach the model to end in the middle of a sentence."""
    opener = talk.opener
    extra = len(talk.texts) - len(opener.turns)
    assistant, learn = opener.assistant, opener.learn
    if assistant is not None:  # speakers go on alternating
        assistant += tuple(assistant[-1] == bool(number % 2) for number in range(extra))
    spoken = assistant or (True,) * len(talk.texts)
    if learn is None and not all(talk.whole):
        learn = spoken[: len(opener.turns)]
    if learn is not None:
        learn += tuple(whole and mine for whole, mine in zip(talk.whole, spoken[len(opener.turns) :], strict=True))
    told = Conversation(tuple(talk.texts), assistant, learn, opener.persona)
    return Talked(to_record(told) if len(talk.texts) > 1 else None, ended_early=talk.over)
