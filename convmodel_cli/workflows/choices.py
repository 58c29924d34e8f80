"""generate --choices: which of some given responses suits a context best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from convmodel_cli.data.formats import Conversation
from convmodel_cli.errors import DataError, UsageError
from convmodel_cli.events import Answered, Response
from convmodel_cli.workflows.answer import Found, Responder, Written, best_first


def make_ranker(
    responder: Responder, choices: Sequence[str], count: int | None
) -> Callable[[Sequence[Conversation]], list[Found]]:
    """A function that answers each context with the `count` likeliest choices, or with all; best first.

    Raises DataError for a choice that is too long for the model.
    """
    encoded = responder.model.vocabulary.encode(choices)
    most = max(2, responder.max_context // 4)  # what every context leaves for a response
    for choice, ids in zip(choices, encoded, strict=True):
        if len(ids) + 1 > most:
            raise DataError(f"expected choices of at most {most - 1:,} tokens, got {len(ids):,}: {choice[:60]}")
    longest = max(map(len, encoded)) + 1  # with the sep that ends it
    # The same context for all of them, with room for the longest.
    roomy = replace(responder, sampling=replace(responder.sampling, max_new_tokens=longest, min_new_tokens=0))

    def rank(conversations: Sequence[Conversation]) -> list[Found]:
        return [_rank(roomy, item, choices, encoded, count) for item in conversations]

    return rank


def _rank(
    responder: Responder,
    conversation: Conversation,
    choices: Sequence[str],
    encoded: Sequence[Sequence[int]],
    count: int | None,
) -> Found:
    from convmodel_cli.model.scoring import score_responses

    context, dropped = responder.context_of_text(conversation.turns, conversation.persona)
    if context.max_response < responder.sampling.max_new_tokens:
        raise UsageError("the persona leaves no room for the longest choice", "shorten either")
    scores = score_responses(responder.model, context, encoded, responder.compute, responder.with_types)
    ranked = best_first(
        [
            Written(tuple(ids), Response(choice, "stop", score, len(ids)))
            for choice, ids, score in zip(choices, encoded, scores, strict=True)
        ]
    )
    answered = Answered(conversation.turns, tuple(written.response for written in ranked[:count]))
    return [dropped, answered] if dropped else [answered]
