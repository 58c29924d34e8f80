"""generate: contexts in, responses out, in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from convmodel_cli.data.conversations import iter_conversations
from convmodel_cli.data.formats import BadRecord, Conversation, parse_record
from convmodel_cli.data.lines import Place, Problem, shown_name
from convmodel_cli.errors import DataError, UsageError
from convmodel_cli.events import Answered, Dropped, Response
from convmodel_cli.settings import ComputeSettings, GenerationSettings, SamplingSettings
from convmodel_cli.workflows.answer import Limits, answer_all, check_persona, make_context
from convmodel_cli.workflows.record import read_record
from convmodel_cli.workflows.run_folder import check_model

if TYPE_CHECKING:
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.language_model import LanguageModel

_BATCH_SIZE = 16
_BATCHES_READ_AHEAD = 8


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """The nouns of a generation: the turns of one context, or a file of contexts."""

    model: str
    turns: tuple[str, ...] = ()
    input: str | None = None


def generate(
    request: GenerationRequest,
    settings: GenerationSettings,
    sampling: SamplingSettings,
    machine: ComputeSettings,
) -> Iterator[Answered | Dropped]:
    """Answer each context; a bad line of the input is answered by its problem, and raises DataError at the end."""
    contexts = _contexts(request)
    check_model(request.model)
    record = read_record(request.model)

    from convmodel_cli.model.checkpoint import load_model
    from convmodel_cli.model.compute import set_up

    compute = set_up(machine, for_training=False)
    model = load_model(request.model)
    model.move_to(compute.device)
    responder = _Responder(
        model,
        compute,
        settings,
        sampling,
        Limits(sampling.max_new_tokens, record.max_context or model.max_positions),
        with_types=record.speaker_ids != "off" and model.takes_types,
    )
    problems = 0
    remaining = iter(contexts)
    while part := list(islice(remaining, responder.batch_size * _BATCHES_READ_AHEAD)):
        for answered in responder.answer(part):
            problems += isinstance(answered, Answered) and bool(answered.problem)
            yield answered
    if problems:
        raise DataError(f"{request.input}: {problems} bad line{'s' * (problems > 1)}, said in their places")


def _contexts(request: GenerationRequest) -> Iterable[Conversation | Problem]:
    if request.turns and request.input is not None:
        raise UsageError("turns and --input exclude each other", "drop one of them")
    if request.turns:
        try:
            return [parse_record(list(request.turns), min_turns=1)]
        except BadRecord as error:
            raise UsageError(f"the turns: {error}") from None
    if request.input is None:
        raise UsageError("nothing to answer: expected turns or --input", 'try: convmodel generate "Hello"')
    read = iter_conversations(request.input, min_turns=1, text_too=True)
    first = next(read, None)  # opens the file, before anything heavy is imported
    if first is None:
        raise DataError(f"{shown_name(request.input)}: expected contexts, got an empty file")
    return chain([first], read)


@dataclass(frozen=True, slots=True)
class _Responder:
    """A loaded model with everything that decides its responses."""

    model: LanguageModel
    compute: Compute
    settings: GenerationSettings
    sampling: SamplingSettings
    limits: Limits
    with_types: bool

    @property
    def batch_size(self) -> int:
        return self.settings.batch_size or _BATCH_SIZE

    def answer(self, part: list[Conversation | Problem]) -> Iterator[Answered | Dropped]:
        """Answer a part of the input, in its order."""
        count = self.settings.num_responses
        checked = [self._checked(item) for item in part]
        contexts = []
        for item in checked:
            for candidate in range(count if isinstance(item, Conversation) else 0):
                assert isinstance(item, Conversation)
                context, dropped = make_context(self.model, item.turns, self._persona(item), self.limits, candidate)
                contexts.append(context)
                if dropped is not None and candidate == 0:
                    yield dropped
        responses: dict[int, Response] = dict(
            answer_all(self.model, contexts, self.sampling, self.compute, self.with_types, self.batch_size)
        )
        number = 0
        for item in checked:
            if isinstance(item, Problem):
                yield Answered(context=(), problem=str(item))
                continue
            own = [responses[number + candidate] for candidate in range(count)]
            number += count
            # Stable, so that equal scores keep the order in which they were drawn.
            yield Answered(item.turns, tuple(sorted(own, key=lambda response: -response.logprob)))

    def _persona(self, item: Conversation) -> str:
        return item.persona or self.settings.persona

    def _checked(self, item: Conversation | Problem) -> Conversation | Problem:
        """The item, or its problem if its own persona leaves no room."""
        if isinstance(item, Problem) or not item.file:
            return item
        try:
            check_persona(self.model.vocabulary.encode_persona(self._persona(item)), self.limits.max_context)
        except UsageError as error:
            return Problem(Place(item.file, item.line), str(error))
        return item
