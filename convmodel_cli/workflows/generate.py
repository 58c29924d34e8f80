"""generate: contexts in, responses out, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice

from convmodel_cli.answer_events import Answered, Dropped, Talked
from convmodel_cli.answer_settings import GenerationSettings, ResponseSettings, SamplingSettings
from convmodel_cli.data.choices import Choice, read_choices
from convmodel_cli.data.conversations import iter_conversations
from convmodel_cli.data.formats import BadRecord, Conversation, parse_record
from convmodel_cli.data.lines import STDIN, Place, Problem, shown_name
from convmodel_cli.errors import DataError, UsageError
from convmodel_cli.events import Note
from convmodel_cli.settings import ComputeSettings
from convmodel_cli.workflows.answer import BATCH_SIZE, Found, Responder, open_responder
from convmodel_cli.workflows.choices import make_ranker
from convmodel_cli.workflows.self_chat import talk_to_itself

_BATCHES_READ_AHEAD = 8

Handler = Callable[[list[Conversation]], list[Found]]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """The nouns of a generation: the turns of one context or a file of contexts, and what may be said to them."""

    model: str
    turns: tuple[str, ...] = ()
    input: str | None = None
    choices: str | None = None


def generate(
    request: GenerationRequest,
    settings: GenerationSettings,
    sampling: SamplingSettings,
    surroundings: ResponseSettings,
    machine: ComputeSettings,
) -> Iterator[Answered | Talked | Note]:
    """Answer each context; a bad line of the input is answered by its problem, and raises DataError at the end."""
    _check(request, settings, sampling, surroundings)
    if request.choices is not None and machine.precision == "int8":
        raise UsageError("--precision int8 excludes --choices: it is for what is written", "take bf16 or fp32")
    contexts = _contexts(request)
    choices = None if request.choices is None else read_choices(request.choices)
    responder = open_responder(request.model, sampling, machine)
    handle = _handler(responder, settings, choices)
    if sampling.greedy and choices is None and (settings.num_responses or 1) > 1:
        yield Note("greedy responses to one context are all the same; --beams finds different ones", warning=True)
    remarks = _Remarks()
    for part in _parts(contexts, settings.batch_size or BATCH_SIZE):
        checked = [_checked(responder, item, surroundings.persona) for item in part]
        results = iter(handle([item for item in checked if isinstance(item, Conversation)]))
        for item in checked:
            if isinstance(item, Problem):
                yield from remarks.take("", [Answered((), problem=str(item))])
            else:
                yield from remarks.take(item.where if item.file else "", next(results))
    yield from remarks.notes()
    if remarks.problems:
        lines = "bad line, said in its place" if remarks.problems == 1 else "bad lines, said in their places"
        raise DataError(f"{shown_name(request.input or '')}: {remarks.problems:,} {lines}")


class _Remarks:
    """What is said at the end of all contexts together: each place once, or none where there is a single context."""

    def __init__(self) -> None:
        self.problems = 0
        self._said: dict[str, list[str]] = {}

    def take(self, where: str, found: Found) -> Iterator[Answered | Talked]:
        """The results among what came of one context; what else there is to say of it is kept."""
        for event in found:
            self._notice(where, event)
            if isinstance(event, Answered) or (isinstance(event, Talked) and event.record is not None):
                yield event

    def _notice(self, where: str, event: Answered | Talked | Dropped) -> None:
        match event:
            case Dropped():
                self._keep("too long for the model, which is not shown", where, event.what)
            case Talked() if event.record is None:
                self._keep("the model said nothing, and a single turn is no conversation", where)
            case Talked() if event.ended_early:
                self._keep("a conversation ended early, for the model said nothing", where)
            case Answered() if event.problem:
                self.problems += 1
            case Answered() if event.is_empty:
                self._keep("the model answered with nothing, or with white space", where)

    def _keep(self, text: str, where: str, what: str = "") -> None:
        if not where:
            self._said[f"{text} {what}".rstrip()] = []
            return
        items = self._said.setdefault(text, [])
        item = f"{where}: {what}" if what else where
        if item not in items[-1:]:  # several conversations from one opener
            items.append(item)

    def notes(self) -> Iterator[Note]:
        for text, items in self._said.items():
            yield Note(f"{text}:" if items else text, warning=True, items=tuple(items))


def _handler(responder: Responder, settings: GenerationSettings, choices: list[Choice] | None) -> Handler:
    """What is to be done with some contexts: rank choices, go on talking, or answer."""
    count, batch_size = settings.num_responses or 1, settings.batch_size or BATCH_SIZE
    if choices is not None:
        return make_ranker(responder, choices, settings.num_responses)
    if (turns := settings.self_chat) is not None:
        return lambda contexts: talk_to_itself(responder, contexts, turns, count, batch_size)
    return lambda contexts: _answer(responder, contexts, count, batch_size)


def _answer(responder: Responder, conversations: list[Conversation], count: int, batch_size: int) -> list[Found]:
    shown = [responder.context_of_text(item.turns, item.persona) for item in conversations]
    written = responder.answer([context for context, _ in shown], count, batch_size)
    return [
        [*([dropped] if dropped else []), Answered(item.turns, tuple(one.response for one in own))]
        for item, (_, dropped), own in zip(conversations, shown, written, strict=True)
    ]


def _check(
    request: GenerationRequest, settings: GenerationSettings, sampling: SamplingSettings, surroundings: ResponseSettings
) -> None:
    """Refuse what does not go together; raises UsageError."""
    if request.turns and request.input is not None:
        raise UsageError("turns and --input exclude each other", "drop one of them")
    if not request.turns and request.input is None:
        raise UsageError("nothing to answer: expected turns or --input", 'try: convmodel generate "Hello"')
    if request.choices is not None and settings.self_chat is not None:
        raise UsageError("--choices and --self-chat exclude each other", "drop one of them")
    if request.choices == request.input == STDIN:
        raise UsageError("--input and --choices cannot both be standard input", "put one of them into a file")
    if surroundings.raw and settings.self_chat is not None:
        raise UsageError("--raw and --self-chat exclude each other: conversations are written as JSON", "drop --raw")
    wanted = settings.num_responses or 1
    if request.choices is None and sampling.beams > 1 and wanted > sampling.beams:
        raise UsageError(f"--num-responses: expected at most one for each of the {sampling.beams} beams, got {wanted}")


def _contexts(request: GenerationRequest) -> Iterable[Conversation | Problem]:
    if request.input is None:
        try:
            return [parse_record(list(request.turns), min_turns=1)]
        except BadRecord as error:
            raise UsageError(f"the turns: {error}") from None
    read = iter_conversations(request.input, min_turns=1, text_too=True)
    first = next(read, None)  # opens the file, before anything heavy is imported
    if first is None:
        raise DataError(f"{shown_name(request.input)}: expected contexts, got an empty file")
    return chain([first], read)


def _parts(contexts: Iterable[Conversation | Problem], batch_size: int) -> Iterator[list[Conversation | Problem]]:
    """As many as are answered before any of them is shown."""
    remaining = iter(contexts)
    while part := list(islice(remaining, batch_size * _BATCHES_READ_AHEAD)):
        yield part


def _checked(responder: Responder, item: Conversation | Problem, persona: str) -> Conversation | Problem:
    """The item with its persona, or its problem if its own persona leaves no room."""
    if isinstance(item, Problem):
        return item
    item = replace(item, persona=item.persona or persona)
    try:
        responder.persona_ids(item.persona)
    except UsageError as error:
        if not item.file:
            raise
        return Problem(Place(item.file, item.line), str(error))
    return item
