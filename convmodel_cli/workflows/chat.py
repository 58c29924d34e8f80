"""chat: a conversation with a model, turn by turn, that can be taken back, corrected and kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from convmodel_cli.answer_events import Dropped, Piece, Response
from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.data.context import seldom_moving_start
from convmodel_cli.data.formats import Conversation
from convmodel_cli.errors import UsageError
from convmodel_cli.workflows.answer import Responder
from convmodel_cli.workflows.chat_turns import ChatTurn, ContextUse, Spent
from convmodel_cli.workflows.response import Written

if TYPE_CHECKING:
    from convmodel_cli.model.generation import Context, Memory

Answering = Iterator[Dropped | Piece | Response]


@dataclass(slots=True)
class Chat:
    """The state of a chat. `turns` alternate and end with a response; `memory` holds what is computed of them.

    The user says the first turn unless `bot_first`. `candidates` are other responses to the last turn, to pick from.
    A conversation that is put in may bring a persona, a first speaker and roles of its own (`has_roles`: only the
    model's turns are learned); the next one does not keep them.
    What a method refuses raises UsageError and leaves everything as it was.
    """

    responder: Responder
    memory: Memory
    persona: str = ""
    bot_first: bool = False
    turns: list[ChatTurn] = field(default_factory=list)
    candidates: list[Written] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)
    has_roles: bool = False
    _own_persona: str = field(init=False)
    _own_bot_first: bool = field(init=False)
    _drawn: int = 0
    _said_dropped: bool = False
    _stopping: bool = False

    def __post_init__(self) -> None:
        self._own_persona, self._own_bot_first = self.persona, self.bot_first

    def say(self, text: str) -> Answering:
        """Take the user's turn and answer it: pieces of text as they are made, at last the whole response.

        From this call on, before the first piece is asked for, `stop` stops this response.
        """
        self._stopping = False
        return self._respond([*self.turns, self._turn(text, len(self.turns))], 0)

    def begin(self) -> Answering:
        """Let the model say the first turn."""
        self._stopping = False
        return self._respond([], 0)

    def retry(self) -> Answering:
        """Answer once more; the new response takes the place of the last one."""
        self._last_response()
        self._stopping = False
        return self._respond(self.turns[:-1], self._drawn)

    def edit(self, text: str) -> Answering:
        """Say something else instead of the user's last turn."""
        before = self.turns[: -2 * self._pairs(1)]
        self._stopping = False
        return self._respond([*before, self._turn(text, len(before))], 0)

    def stop(self) -> None:
        """Stop the response that is being made, after the token in hand; what was said stays."""
        self._stopping = True

    def propose(self, count: int) -> Iterator[Written]:
        """Other responses to the last turn, one after the other; `pick` takes one of those that were made."""
        self._last_response()
        self._stopping = False
        return self._propose(count)

    def _propose(self, count: int) -> Iterator[Written]:
        context, _ = self._context(self.turns[:-1])
        self.candidates = []
        for _ in range(count):
            stream = self.responder.stream(replace(context, candidate=self._drawn), self.memory)
            for _, builder in stream:  # noqa: B007  the last one is wanted
                if self._stopping:
                    return
            self._drawn += 1
            self.candidates.append(builder.written())
            yield self.candidates[-1]

    def pick(self, number: int) -> Answering:
        """Let the candidate with this number, from 1, take the place of the last response, at once."""
        if not self.candidates:
            raise UsageError("there is nothing to pick from", "/retry 3 shows three responses")
        if not 1 <= number <= len(self.candidates):
            raise UsageError(f"expected a number from 1 to {len(self.candidates)}, got {number}")
        chosen = self.candidates[number - 1]
        self.turns[-1] = _turn_of(chosen)
        return iter((Piece(chosen.response.text), chosen.response))

    def undo(self, pairs: int = 1) -> list[ChatTurn]:
        """Take back the last pairs of a user's turn and its response; returns their turns."""
        count = 2 * self._pairs(pairs)
        undone = self.turns[-count:]
        self._settle(self.turns[:-count])
        return undone

    def fix(self, text: str) -> None:
        """Put the user's words in the place of the last response."""
        self._last_response()
        self.turns[-1] = replace(self._turn(text, len(self.turns) - 1), good=True)
        self.candidates = []

    def mark(self, good: bool) -> None:
        """Say whether the last response is to be learned from."""
        self.turns[-1] = replace(self._last_response(), good=good)

    def clear(self) -> None:
        """Forget the conversation and what it has brought; a persona that was set stays."""
        self._settle([])
        self.persona, self.bot_first, self.has_roles = self._own_persona, self._own_bot_first, False
        self._said_dropped = False

    def set_persona(self, persona: str) -> None:
        """Change who the model is to be, from the next response on."""
        self.responder.persona_ids(persona)  # raises if it is too long
        self.persona = self._own_persona = persona
        if self.turns and not self.bot_first:
            self.turns[0] = replace(self._turn(self.turns[0].text, 0), good=self.turns[0].good)

    def adjust(self, sampling: SamplingSettings, seed: int) -> None:
        """Draw responses in another way from now on."""
        if sampling.by_library:
            from convmodel_cli.model.library_generation import check_options

            check_options(sampling)
        compute = replace(self.responder.compute, seed=seed)
        self.responder = replace(self.responder, sampling=sampling, compute=compute)

    def put(self, conversation: Conversation) -> str | None:
        """Go on with another conversation; returns the user's last turn if that has no response yet."""
        persona = conversation.persona or self._own_persona
        self.responder.persona_ids(persona)  # raises if it is too long
        self.has_roles = conversation.assistant is not None
        self.persona, self.bot_first = persona, conversation.assistant is not None and conversation.assistant[0]
        encoded = self.responder.encode(conversation.turns, persona)
        learn = conversation.learn or (None,) * len(encoded)
        turns = [
            ChatTurn(text, tuple(ids), learned)
            for text, ids, learned in zip(conversation.turns, encoded, learn, strict=True)
        ]
        self._said_dropped = False
        answered = self.is_response(len(turns) - 1)
        self._settle(turns if answered else turns[:-1])
        return None if answered else turns[-1].text

    def is_response(self, index: int) -> bool:
        """Whether the turn with this number is the model's."""
        return index % 2 == (0 if self.bot_first else 1)

    def context_use(self) -> ContextUse:
        """What the model sees of the conversation so far."""
        context, hidden = self._context(self.turns[:-1])
        hidden = hidden or Dropped(0, 0)
        lengths = tuple(len(turn.ids) for turn in self.turns)
        shown = len(context.ids) + sum(length + 1 for length in lengths[-1:])
        most = self.responder.max_context
        persona = len(self.responder.persona_ids(self.persona))
        return ContextUse(min(shown, most), most, persona, lengths, hidden.turns, hidden.tokens_of_newest)

    def _respond(self, before: list[ChatTurn], candidate: int) -> Answering:
        """Answer these turns; only when there is a response do the turns of the chat change."""
        started = time.perf_counter()
        context, dropped = self._context(before)
        if dropped is not None and (dropped.tokens_of_newest or not self._said_dropped):
            self._said_dropped = True
            yield dropped
        first_seconds = 0.0
        stream = self.responder.stream(replace(context, candidate=candidate), self.memory)
        for piece, builder in stream:  # noqa: B007  the last one is wanted
            first_seconds = first_seconds or time.perf_counter() - started
            yield Piece(piece)
            if self._stopping:
                break
        yield Piece(builder.finish())
        written = builder.written()
        self._settle([*before, _turn_of(written)], drawn=candidate + 1)
        spent = self.spent
        spent.seconds += time.perf_counter() - started
        spent.responses, spent.tokens = spent.responses + 1, spent.tokens + len(written.ids)
        spent.first_seconds = first_seconds
        yield written.response

    def _context(self, turns: list[ChatTurn]) -> tuple[Context, Dropped | None]:
        persona = self.responder.persona_ids(self.persona)
        return self.responder.context([turn.ids for turn in turns], persona, self._start(turns, persona))

    def _start(self, turns: list[ChatTurn], persona: list[int]) -> int:
        room = self.responder.context_room(persona) - 1 - len(persona)
        return seldom_moving_start([len(turn.ids) for turn in turns], room)

    def _settle(self, turns: list[ChatTurn], drawn: int = 1) -> None:
        """The turns are these now, and `drawn` responses to the last one have been drawn."""
        self.turns, self.candidates, self._drawn = turns, [], drawn

    def _turn(self, text: str, index: int) -> ChatTurn:
        return ChatTurn(text, tuple(self.responder.encode([text], "" if index else self.persona)[0]))

    def _last_response(self) -> ChatTurn:
        if not self.turns:
            raise UsageError("there is no response yet", "say something first")
        return self.turns[-1]

    def _pairs(self, wanted: int) -> int:
        there = len(self.turns) // 2
        if there == 0:
            raise UsageError("you have said nothing yet", "say something first")
        if not 1 <= wanted <= there:
            raise UsageError(f"expected a number from 1 to {there}, the turns you have said, got {wanted}")
        return wanted


def _turn_of(written: Written) -> ChatTurn:
    return ChatTurn(written.response.text, written.ids, whole=written.response.finish == "stop")


def open_chat(responder: Responder, persona: str = "", bot_first: bool = False) -> Chat:
    """A chat with nothing said; raises UsageError for a persona that is too long."""
    from convmodel_cli.model.generation import Memory

    responder.persona_ids(persona)
    return Chat(responder, Memory(), persona, bot_first)
