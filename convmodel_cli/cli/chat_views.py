"""What a chat shows of itself: /history, /context and /stats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convmodel_cli.cli.display import counted
from convmodel_cli.escaping import indented

if TYPE_CHECKING:
    from convmodel_cli.cli.chat_screen import Session

PROMPT = "you> "
ANSWER = "bot> "


def tell_history(session: Session, _: str) -> None:
    if not session.chat.turns:
        session.screen.tell("nothing has been said yet")
    for index, turn in enumerate(session.chat.turns):
        mark = {None: "", True: "  [good]", False: "  [bad]"}[turn.good if session.chat.is_response(index) else None]
        session.screen.tell(indented(_speaker(session, index), turn.text + mark))


def tell_context(session: Session, _: str) -> None:
    use = session.chat.context_use()
    if use.persona:
        session.screen.tell(f"{use.persona:>7,}  the persona")
    for index, (tokens, turn) in enumerate(zip(use.turns, session.chat.turns, strict=True)):
        unseen = "  (not shown any more)" if index < use.dropped else ""
        if use.cut and index == len(use.turns) - 2:
            unseen = f"  (the first {use.cut:,} tokens are not shown)"
        session.screen.tell(f"{tokens:>7,}  {_speaker(session, index)}{excerpt(turn.text)}{unseen}")
    hidden = f"; the oldest {counted(use.dropped, 'turn')} are not shown" if use.dropped else ""
    session.screen.tell(f"{use.tokens:,} of {use.most:,} tokens, seps included{hidden}")


def tell_stats(session: Session, _: str) -> None:
    chat, spent = session.chat, session.chat.spent
    model, compute = chat.responder.model, chat.responder.compute
    session.screen.tell(f"{counted(len(chat.turns), 'turn')}, {counted(spent.responses, 'response')} made here")
    if spent.responses:
        per_second = spent.tokens / spent.seconds if spent.seconds else 0.0
        session.screen.tell(f"{spent.tokens:,} tokens in {spent.seconds:.1f} s, {per_second:,.0f} tokens a second")
        session.screen.tell(f"{1000 * spent.first_seconds:,.0f} ms to the first token of the last response")
    session.screen.tell(f"{model.num_parameters:,} parameters, {compute.precision} on {compute.device.type}")


def _speaker(session: Session, index: int) -> str:
    return ANSWER if session.chat.is_response(index) else PROMPT


def excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else line[:39] + "…"
