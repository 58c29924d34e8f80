"""generate --choices: which of some given responses suits a context best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from convmodel_cli.data.formats import Conversation
from convmodel_cli.errors import DataError, UsageError
from convmodel_cli.events import Answered, Response
from convmodel_cli.workflows.answer import Found, Responder, Written, best_first, shown_score


def make_ranker(
    responder: Responder, choices: Sequence[str], file: str, count: int | None
) -> Callable[[Sequence[Conversation]], list[Found]]:
    """A function that answers each context with the `count` likeliest choices of `file`, or with all; best first.

    Raises DataError for choices that are too long for the model.
    """
    encoded = responder.model.vocabulary.encode(choices)
    _check_lengths(choices, encoded, responder.max_context, file)
    longest = max(map(len, encoded)) + 1  # with the sep that ends it
    # The same context for all of them, with room for the longest.
    roomy = replace(responder, sampling=replace(responder.sampling, max_new_tokens=longest, min_new_tokens=0))

    def rank(conversations: Sequence[Conversation]) -> list[Found]:
        return [_rank(roomy, item, choices, encoded, count) for item in conversations]

    return rank


def _check_lengths(choices: Sequence[str], encoded: Sequence[Sequence[int]], max_context: int, file: str) -> None:
    most = max(2, max_context // 4) - 1  # what every context leaves for a response, but for its sep
    problems = [
        f"{file}: expected a response of at most {most:,} tokens, got {len(ids):,}: {choice[:60]}"
        for choice, ids in zip(choices, encoded, strict=True)
        if len(ids) > most
    ]
    if problems:
        hint = f"the model can be shown {max_context:,} tokens, of which a quarter is left for the response"
        raise DataError(f"{file}: {len(problems):,} of {len(choices):,} responses are too long", hint, problems)


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
        what = "the longest choice does not fit behind the context and its persona"
        if not conversation.file:
            raise UsageError(what, "shorten either")
        return [Answered((), problem=f"{conversation.where}: {what}")]
    scores = score_responses(responder.model, context, encoded, responder.compute, responder.with_types)
    ranked = best_first(
        [
            Written(tuple(ids), Response(choice, "stop", shown_score(score), len(ids)))
            for choice, ids, score in zip(choices, encoded, scores, strict=True)
        ]
    )
    answered = Answered(conversation.turns, tuple(written.response for written in ranked[:count]))
    return [dropped, answered] if dropped else [answered]
