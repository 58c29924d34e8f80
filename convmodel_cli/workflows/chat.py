"""chat: a conversation with a model, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convmodel_cli.events import Dropped, Piece, Response
from convmodel_cli.settings import ChatSettings, ComputeSettings, SamplingSettings
from convmodel_cli.workflows.answer import Limits, ResponseBuilder, check_persona, fit_context
from convmodel_cli.workflows.record import read_record
from convmodel_cli.workflows.run_folder import check_model

if TYPE_CHECKING:
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.generation import Memory
    from convmodel_cli.model.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """A turn as it was said. A response keeps the ids it was made of: encoding its text again could differ."""

    text: str
    ids: tuple[int, ...]


@dataclass(slots=True)
class Chat:
    """The state of a chat. `turns` alternate, the user's first; `memory` holds what the model has computed of them."""

    model: LanguageModel
    compute: Compute
    sampling: SamplingSettings
    limits: Limits
    with_types: bool
    memory: Memory
    persona: str = ""
    turns: list[ChatTurn] = field(default_factory=list)
    _said_dropped: bool = False
    _stopping: bool = False

    def say(self, text: str) -> Iterator[Dropped | Piece | Response]:
        """Take the user's turn and answer it: pieces of text as they are made, at last the whole response.

        From this call on, before the first piece is asked for, `stop` stops this response.
        """
        self._stopping = False
        return self._answer(text)

    def _answer(self, text: str) -> Iterator[Dropped | Piece | Response]:
        from convmodel_cli.model.generation import respond

        turn = ChatTurn(text, tuple(self._encode(text)))
        turns = [list(said.ids) for said in (*self.turns, turn)]
        persona = self.model.vocabulary.encode_persona(self.persona)
        context, dropped = fit_context(turns, persona, self.model.sep_id, self.limits)
        if dropped is not None and (dropped.tokens_of_newest or not self._said_dropped):
            self._said_dropped = True
            yield dropped
        builder = ResponseBuilder(self.model)
        for token in respond(self.model, [context], self.sampling, self.compute, self.with_types, self.memory):
            piece = builder.add(token)
            if piece:
                yield Piece(piece)
            if self._stopping:
                break
        response = builder.response()
        if builder.ids or response.finish == "stop":
            self.turns += [turn, ChatTurn(response.text, builder.ids)]
        yield response

    def stop(self) -> None:
        """Stop the response that is being made, after the token in hand; what was said stays."""
        self._stopping = True

    def clear(self) -> None:
        """Forget the conversation; the persona stays."""
        self.turns.clear()
        self._said_dropped = False

    def _encode(self, text: str) -> list[int]:
        first = not self.turns and self.persona.strip()
        return self.model.vocabulary.encode([text.lstrip() if first else text])[0]


def open_chat(model_name: str, settings: ChatSettings, sampling: SamplingSettings, machine: ComputeSettings) -> Chat:
    """Load a model to talk with."""
    check_model(model_name)
    record = read_record(model_name)

    from convmodel_cli.model.checkpoint import load_model
    from convmodel_cli.model.compute import set_up
    from convmodel_cli.model.generation import Memory

    compute = set_up(machine, for_training=False)
    model = load_model(model_name)
    model.move_to(compute.device)
    limits = Limits(sampling.max_new_tokens, record.max_context or model.max_positions)
    check_persona(model.vocabulary.encode_persona(settings.persona), limits.max_context)
    with_types = record.speaker_ids != "off" and model.takes_types
    return Chat(model, compute, sampling, limits, with_types, Memory(), persona=settings.persona)
