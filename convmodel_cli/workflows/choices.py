"""generate --choices: which of some given responses suits a context best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from convmodel_cli.answer_events import Answered, Response
from convmodel_cli.data.choices import Choice
from convmodel_cli.data.context import LEAST_AFTER_PERSONA
from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.lines import Problem
from convmodel_cli.errors import DataError, UsageError
from convmodel_cli.workflows.answer import Found, Responder
from convmodel_cli.workflows.response import Written, best_first, shown_score


def make_ranker(
    responder: Responder, choices: Sequence[Choice], count: int | None
) -> Callable[[Sequence[Conversation]], list[Found]]:
    """A function that answers each context with the `count` likeliest choices, or with all; best first.

    Raises DataError for choices that are too long for the model.
    """
    encoded = responder.model.vocabulary.encode([choice.text for choice in choices])
    _check_lengths(choices, encoded, responder.max_context)

    def rank(conversations: Sequence[Conversation]) -> list[Found]:
        return [_rank(responder, item, choices, encoded, count) for item in conversations]

    return rank


def _check_lengths(choices: Sequence[Choice], encoded: Sequence[Sequence[int]], max_context: int) -> None:
    most = max_context - LEAST_AFTER_PERSONA
    problems = [
        str(Problem(choice.place, f"expected a response of at most {most:,} tokens, got {len(ids):,}"))
        for choice, ids in zip(choices, encoded, strict=True)
        if len(ids) > most
    ]
    if problems:
        message = f"{choices[0].place.file}: {len(problems):,} of {len(choices):,} responses are too long"
        hint = f"the model can be shown {max_context:,} tokens, context and response together"
        raise DataError(message, hint, problems)


def _rank(
    responder: Responder,
    conversation: Conversation,
    choices: Sequence[Choice],
    encoded: Sequence[Sequence[int]],
    count: int | None,
) -> Found:
    """The same context for all of them, with room for the longest."""
    from convmodel_cli.model.scoring import score_responses

    persona = responder.persona_ids(conversation.persona)
    room = responder.max_context - max(map(len, encoded)) - 1  # for the sep that ends it
    if room < len(persona) + LEAST_AFTER_PERSONA - 1:
        what = "the longest choice does not fit behind the context and its persona"
        if not conversation.file:
            raise UsageError(what, "shorten either")
        return [Answered((), problem=f"{conversation.where}: {what}")]
    turns = responder.encode(conversation.turns, conversation.persona)
    context, dropped = responder.context(turns, persona, room=room)
    scores = score_responses(responder.model, context, encoded, responder.compute, responder.with_types)
    ranked = best_first(
        [
            Written(tuple(ids), Response(choice.text, "stop", shown_score(score), len(ids)))
            for choice, ids, score in zip(choices, encoded, scores, strict=True)
        ]
    )
    answered = Answered(conversation.turns, tuple(written.response for written in ranked[:count]))
    return [dropped, answered] if dropped else [answered]
