"""Contexts in words -> responses in words: what chat, generate, eval's probes and fit's samples have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from convmodel_cli.answer_events import Answered, Dropped, Talked
from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.data.context import LEAST_AFTER_PERSONA, encode_context
from convmodel_cli.data.vocabulary import turns_to_encode
from convmodel_cli.errors import ModelError, TrainingError, UsageError
from convmodel_cli.settings import ComputeSettings
from convmodel_cli.workflows.record import RunRecord, read_record
from convmodel_cli.workflows.response import ResponseBuilder, Written, best_first
from convmodel_cli.workflows.run_folder import check_model

if TYPE_CHECKING:
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.generation import Context, Memory
    from convmodel_cli.model.language_model import LanguageModel

BATCH_SIZE = 32

Found = Sequence[Answered | Talked | Dropped]  # what came of one context


@dataclass(frozen=True, slots=True)
class Responder:
    """A loaded model with everything that decides its responses.

    `max_context` limits context and response together, in tokens; `with_types`: the model is shown token types.
    """

    model: LanguageModel
    compute: Compute
    sampling: SamplingSettings
    max_context: int
    with_types: bool

    def encode(self, turns: Sequence[str], persona: str) -> list[list[int]]:
        """The ids of each turn, as in training."""
        return self.model.vocabulary.encode(turns_to_encode(turns, persona) if turns else turns)

    def persona_ids(self, persona: str) -> list[int]:
        """The ids of the persona; raises UsageError if it leaves no room for a turn and a response."""
        ids = self.model.vocabulary.encode_persona(persona)
        most = self.max_context - LEAST_AFTER_PERSONA
        if len(ids) > most:
            raise UsageError(
                f"the persona: expected at most {most} tokens, for the model can be shown {self.max_context}, "
                f"got {len(ids)}",
                "shorten it",
            )
        return ids

    def context_room(self, persona_ids: Sequence[int]) -> int:
        """Tokens that a context may take, its sep and its persona included."""
        from convmodel_cli.model.generation import context_room

        return context_room(self.sampling.max_new_tokens, self.max_context, 1 + len(persona_ids))

    def context(
        self, turns: Sequence[Sequence[int]], persona_ids: Sequence[int] = (), start: int = 0, room: int | None = None
    ) -> tuple[Context, Dropped | None]:
        """(what the model is shown of the encoded turns from number `start` on, what did not fit into it)

        It may take `room` tokens, or as many as leave enough for a response.
        """
        from convmodel_cli.model.generation import Context

        room = self.context_room(persona_ids) if room is None else room
        shown = encode_context(turns, persona_ids, self.model.sep_id, room, start)
        max_response = min(self.sampling.max_new_tokens, self.max_context - len(shown.ids))
        dropped = Dropped(shown.dropped_turns, shown.cut_tokens)
        fits = not (shown.dropped_turns or shown.cut_tokens)
        return Context(tuple(shown.ids), tuple(shown.types), max_response), None if fits else dropped

    def context_of_text(self, turns: Sequence[str], persona: str = "") -> tuple[Context, Dropped | None]:
        """As `context`, for turns in words; raises UsageError for a persona that is too long."""
        return self.context(self.encode(turns, persona), self.persona_ids(persona))

    def answer(self, contexts: Sequence[Context], count: int = 1, batch_size: int = BATCH_SIZE) -> list[list[Written]]:
        """`count` responses to each context, best mean log-probability first, whatever the batch."""
        if self.sampling.by_library:
            found = [self._by_library(context, count) for context in contexts]
            return [best_first([builder.written() for builder in builders]) for builders in found]
        rows = [replace(context, candidate=context.candidate + k) for context in contexts for k in range(count)]
        written = self._answer_all(rows, batch_size)
        return [best_first(written[start : start + count]) for start in range(0, len(rows), count)]

    def stream(self, context: Context, memory: Memory | None) -> Iterator[tuple[str, ResponseBuilder]]:
        """(characters that are new, response so far) while a response to one context is written.

        What a `memory` holds is not computed again.
        """
        from convmodel_cli.model.generation import respond

        if self.sampling.by_library:
            [builder] = self._by_library(context, 1)
            yield builder.text, builder
            return
        builder = ResponseBuilder(self.model, self.sampling.stop_word)
        tokens = respond(self.model, [context], self.sampling, self.compute, self.with_types, memory)
        with self._enough_memory(context):
            for token in tokens:
                yield builder.add(token), builder
                if builder.stopped:
                    return

    def _answer_all(self, contexts: Sequence[Context], batch_size: int) -> list[Written]:
        """One response to each, by smaller batches if these do not fit into memory; TrainingError if one does not.

        A response does not depend on the batch, so those that were begun are as good as new.
        """
        from convmodel_cli.model.compute import is_out_of_memory, release_memory

        batch_size = min(batch_size, len(contexts))
        done: dict[int, Written] = {}
        while remaining := [number for number in range(len(contexts)) if number not in done]:
            answers = self._answer_together([contexts[number] for number in remaining], batch_size)
            try:
                done.update((remaining[number], written) for number, written in answers)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if batch_size == 1:
                    longest = max((contexts[number] for number in remaining), key=lambda context: len(context.ids))
                    raise _out_of_memory(longest) from None
                batch_size //= 2
            release_memory(self.compute.device)
        return [done[number] for number in range(len(contexts))]

    @contextmanager
    def _enough_memory(self, context: Context) -> Iterator[None]:
        """Raise TrainingError if memory runs out."""
        from convmodel_cli.model.compute import is_out_of_memory

        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise _out_of_memory(context) from None

    def _answer_together(self, contexts: Sequence[Context], batch_size: int) -> Iterator[tuple[int, Written]]:
        """(number of the context, its response), as they are finished."""
        from convmodel_cli.model.generation import respond

        builders = [ResponseBuilder(self.model, self.sampling.stop_word) for _ in contexts]
        ended: set[int] = set()
        tokens = respond(
            self.model, contexts, self.sampling, self.compute, self.with_types, ended=ended, batch_size=batch_size
        )
        for token in tokens:
            builder = builders[token.row]
            builder.add(token)
            if builder.stopped:
                ended.add(token.row)
            if builder.stopped or token.finish:
                yield token.row, builder.written()

    def _by_library(self, context: Context, count: int) -> list[ResponseBuilder]:
        from convmodel_cli.model.library_generation import respond_by_library

        found = respond_by_library(self.model, context, self.sampling, self.compute, self.with_types, count)
        return [self._gather(context, ids, ended) for ids, ended in found]

    def _gather(self, context: Context, ids: list[int], ended: bool) -> ResponseBuilder:
        """The response that these tokens make, as far as a stop word lets them, with its score."""
        from convmodel_cli.model.generation import Token
        from convmodel_cli.model.scoring import score_responses
        from convmodel_cli.model.text import TextStream

        stream = TextStream(self.model, self.sampling.stop_word)
        for number, token in enumerate(ids, 1):
            stream.add(token)
            if stream.stopped:
                ids, ended = ids[:number], False
                break
        [score] = score_responses(self.model, context, [ids], self.compute, self.with_types, ended)
        builder = ResponseBuilder(self.model, self.sampling.stop_word)
        for token in ids:
            builder.add(Token(0, token, score))
        if not builder.stopped:
            builder.add(Token(0, None, score, "stop" if ended else "length"))
        return builder


def _out_of_memory(context: Context) -> TrainingError:
    return TrainingError(f"out of memory in the response to {len(context.ids):,} tokens", "lower --max-new-tokens")


def open_responder(name: str, sampling: SamplingSettings, machine: ComputeSettings) -> Responder:
    """Load a model to answer with; raises ModelError, and UsageError for a machine that has no such device."""
    if machine.precision == "int8" and sampling.by_library:
        raise UsageError("--precision int8 excludes --beams and --generate-option", "take bf16 or fp32")
    check_model(name)
    record = read_record(name)

    from convmodel_cli.model.checkpoint import load_model
    from convmodel_cli.model.compute import set_up
    from convmodel_cli.model.decoding import prepared

    compute = set_up(machine, for_training=False)
    if sampling.by_library:
        from convmodel_cli.model.library_generation import check_options

        check_options(sampling)
    model = load_model(name)
    model.move_to(compute.device)
    model = prepared(model, compute)
    responder = make_responder(model, compute, sampling, record)
    if responder.max_context < LEAST_AFTER_PERSONA:
        raise ModelError(
            f"{name}: expected a model that can be shown at least {LEAST_AFTER_PERSONA} tokens, "
            f"got {responder.max_context}"
        )
    return responder


def make_responder(model: LanguageModel, compute: Compute, sampling: SamplingSettings, record: RunRecord) -> Responder:
    """A model answers within what its run has taught it: as many tokens, and with token types or without."""
    with_types = record.speaker_ids != "off" and model.takes_types
    return Responder(model, compute, sampling, record.max_context or model.max_positions, with_types)
