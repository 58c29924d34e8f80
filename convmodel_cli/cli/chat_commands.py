"""The slash commands of the chat: what each is called, what it takes, and what it does."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convmodel_cli.cli.chat_settings import change_settings, describe_settings
from convmodel_cli.cli.chat_views import ANSWER, PROMPT, excerpt, tell_context, tell_history, tell_stats
from convmodel_cli.cli.display import counted
from convmodel_cli.errors import UsageError
from convmodel_cli.escaping import indented

if TYPE_CHECKING:
    from convmodel_cli.cli.chat_screen import Session

_MOST_CANDIDATES = 100
_DIGITS = 10  # more than a number of turns has; Python reads no number of thousands of digits
_UNCHANGED = "nothing has changed"


@dataclass(frozen=True, slots=True)
class Command:
    """`arguments` as they stand in the help; `run` gets what is written behind the name, without white space around."""

    arguments: str
    help: str
    run: Callable[[Session, str], None]


def split_command(line: str) -> tuple[str, str] | None:
    """(name, what is written behind it) of a slash command, or None for a turn; `//` begins a turn with a slash."""
    if not line.startswith("/") or line.startswith("//"):
        return None
    name, *argument = line.split(maxsplit=1)
    return name.lower(), "".join(argument).strip()


def find_command(name: str, argument: str = "") -> Command:
    """Raises UsageError with the nearest name, and where nothing is to stand behind the name."""
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        raise UsageError(
            f"there is no command {name}",
            f"did you mean {near[0]}?" if near else "/help lists the commands; // begins a message with a slash",
        )
    if argument and not COMMANDS[name].arguments:
        raise UsageError(f"expected nothing behind {name}, got {argument}", "// begins a message with a slash")
    return COMMANDS[name]


def _help(session: Session, _: str) -> None:
    for name, command in COMMANDS.items():
        session.screen.tell(f"{name + ' ' + command.arguments:<22}{command.help}")
    session.screen.tell(f"{'//text':<22}say /text to the model")
    session.screen.tell(
        'Enter sends, Alt-Enter begins a new line, and so does Enter after """ until the next """. '
        "A pasted block is one message. Ctrl-X Ctrl-E opens an editor, Tab completes, arrows recall. "
        "Ctrl-C stops an answer, Ctrl-D leaves.",
        "dim",
    )


def _leave(session: Session, _: str) -> None:
    session.leaving = True


def _clear(session: Session, _: str) -> None:
    session.chat.clear()
    session.screen.tell("The conversation starts over.")
    session.open()


def _undo(session: Session, argument: str) -> None:
    undone = session.chat.undo(_number(argument))
    session.screen.tell(f"taken back: {counted(len(undone), 'turn')}, from {excerpt(undone[0].text)}")


def _retry(session: Session, argument: str) -> None:
    count = _number(argument, _MOST_CANDIDATES)
    if count == 1:
        answering = session.chat.retry()
        _say_if_greedy(session)
        session.show(answering)
        return
    proposed = session.chat.propose(count)
    _say_if_greedy(session)
    for number, written in enumerate(proposed, 1):
        score = f"{number:>3}  {written.response.logprob:6.2f}  "
        session.screen.tell(indented(score, written.response.text if written.response.text.strip() else "(nothing)"))
    made = len(session.chat.candidates)
    if made < count:
        session.screen.tell(f"[stopped] after {made} of {count}", "yellow")
    if made:
        session.screen.tell("mean log-probability of a token in front; /pick 1 takes the first", "dim")


def _say_if_greedy(session: Session) -> None:
    sampling = session.chat.responder.sampling
    if sampling.greedy:
        session.screen.tell("greedy gives the same answer each time; /set greedy=off temperature=1 varies it", "yellow")
    elif sampling.beams > 1:
        session.screen.tell("a search gives the same answer each time; /set beams=1 draws instead", "yellow")


def _pick(session: Session, argument: str) -> None:
    if not argument:
        raise UsageError("expected a number, got nothing", "like /pick 2")
    session.show(session.chat.pick(_number(argument)))


def _edit(session: Session, argument: str) -> None:
    said = session.chat.turns[-2].text if len(session.chat.turns) > 1 else ""
    text = argument or (said and session.ask(PROMPT, said))
    if text is None:
        session.screen.tell(_UNCHANGED)
        return
    session.say_instead(_wanted(text, "/edit TEXT says something else instead of your last turn"))


def _fix(session: Session, argument: str) -> None:
    answered = session.chat.turns[-1].text if session.chat.turns else ""
    text = argument or (answered and session.ask(ANSWER, answered))
    if text is None:
        session.screen.tell(_UNCHANGED)
        return
    corrected = _wanted(text, "/fix TEXT corrects the last response")
    session.chat.fix(corrected)
    session.note(ANSWER, corrected)
    session.screen.tell("corrected; the conversation goes on from here, and /save keeps it")


def _good(session: Session, _: str) -> None:
    session.chat.mark(good=True)
    session.screen.tell("marked as good: /save keeps it to be learned from")


def _bad(session: Session, _: str) -> None:
    session.chat.mark(good=False)
    session.screen.tell("marked as bad: /save keeps it, and fit does not learn from it; /fix TEXT corrects it")


def _set(session: Session, argument: str) -> None:
    before = session.chat.responder
    now = session.initial if argument == "reset" else before
    sampling, seed = now.sampling, now.compute.seed
    if argument != "reset":
        sampling, seed = change_settings(sampling, seed, argument)
    session.chat.adjust(sampling, seed)
    known = describe_settings(before.sampling, before.compute.seed) if argument else []
    changed = [line for line in describe_settings(sampling, seed) if line not in known]
    for line in changed or [_UNCHANGED]:
        session.screen.tell(line)


def _persona(session: Session, argument: str) -> None:
    if argument:
        session.chat.set_persona("" if argument == "none" else argument)
    session.screen.tell(f"persona: {session.chat.persona or 'none'}")
    if not argument:
        session.screen.tell("/persona TEXT changes it, /persona none removes it", "dim")


def _save(session: Session, argument: str) -> None:
    from convmodel_cli.workflows.chat_files import save_chat

    unlearned = save_chat(session.chat, argument)
    but = f", but not from {counted(unlearned, 'turn')} marked as bad or cut off" if unlearned else ""
    session.screen.tell(f"saved {counted(len(session.chat.turns), 'turn')} to {argument}; fit learns from it{but}")


def _load(session: Session, argument: str) -> None:
    from convmodel_cli.workflows.chat_files import load_chat

    if argument in ("", "-"):  # standard input is where the chat itself comes from
        raise UsageError(f"expected the name of a file, got {argument or 'nothing'}", "like /load talks.jsonl")
    session.go_on(load_chat(argument))


def _number(text: str, most: int | None = None) -> int:
    """A number from 1, which is also what nothing means; raises UsageError."""
    if not text:
        return 1
    number = int(text) if text.isdecimal() and len(text) < _DIGITS else 0
    if number < 1 or (most is not None and number > most):
        limit = f" to {most}" if most is not None else ""
        raise UsageError(f"expected a number from 1{limit}, got {text}")
    return number


def _wanted(text: str, usage: str) -> str:
    if not text.strip():
        raise UsageError("expected text, got nothing", usage)
    return text


COMMANDS = {
    "/help": Command("", "what you can type", _help),
    "/exit": Command("", "leave; so does Ctrl-D", _leave),
    "/quit": Command("", "the same", _leave),
    "/clear": Command("", "forget the conversation and start over", _clear),
    "/undo": Command("[n]", "take back your last turn and its response, or the last n", _undo),
    "/retry": Command("[n]", "answer once more; with n, show that many to /pick from", _retry),
    "/pick": Command("k", "take number k of what /retry n has shown", _pick),
    "/edit": Command("[TEXT]", "say something else instead of your last turn", _edit),
    "/fix": Command("[TEXT]", "correct the last response", _fix),
    "/good": Command("", "mark the last response as one to learn from", _good),
    "/bad": Command("", "mark it as one not to learn from", _bad),
    "/set": Command("[name=value ...]", "show or change how responses are drawn; /set reset", _set),
    "/persona": Command("[TEXT]", "show or change who the model is to be", _persona),
    "/history": Command("", "the conversation so far", tell_history),
    "/context": Command("", "what the model still sees of it, in tokens", tell_context),
    "/save": Command("FILE.jsonl", "append the conversation to a file for fit", _save),
    "/load": Command("FILE", "go on with the last conversation in a file", _load),
    "/stats": Command("", "speed and size", tell_stats),
}
