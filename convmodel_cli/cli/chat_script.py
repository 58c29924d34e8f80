"""A chat without anybody at the keyboard: from a script, or against a golden file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from convmodel_cli.answer_events import Dropped
from convmodel_cli.cli.chat_commands import find_command, split_command
from convmodel_cli.cli.chat_screen import Lines, Session
from convmodel_cli.cli.chat_views import ANSWER, PROMPT
from convmodel_cli.cli.display import counted
from convmodel_cli.cli.result_screens import dropped_line
from convmodel_cli.errors import ConvmodelError, UsageError

if TYPE_CHECKING:
    from convmodel_cli.workflows.chat_files import SavedChat
    from convmodel_cli.workflows.expect import Golden


def chat_by_script(session: Session, script: Iterable[tuple[str, str]], saved: SavedChat | None = None) -> None:
    """Turns and commands, each with the place where it stands; raises ConvmodelError at a command that fails."""
    session.open(saved)
    for place, line in script:
        try:
            session.follow(line)
        except ConvmodelError as error:
            command = split_command(line)
            error.args = (f"{place}: {command[0] + ': ' if command else ''}{error}",)
            raise
        if session.leaving:
            return


def read_script(path: str) -> list[tuple[str, str]]:
    """(place, line) of each line that is not blank; raises UsageError for what is no command."""
    from convmodel_cli.workflows.chat_files import read_lines

    script = read_lines(path)
    for place, line in script:
        command = split_command(line)
        try:
            if command is not None:
                find_command(*command)
        except UsageError as error:
            raise UsageError(f"{place}: {error}", error.hint) from None
    return script


def chat_by_golden(session: Session, golden: Golden, lines: Lines) -> None:
    """Say what the golden conversations say; raises GateMissed at the first response that is another."""
    from convmodel_cli.workflows.expect import say_and_compare

    count = 0
    for event in say_and_compare(session.chat, golden):
        if isinstance(event, Dropped):
            session.screen.say(dropped_line(event), "yellow")
        else:
            count += 1
            for said in event.context[-1:]:
                session.note(PROMPT, said)
            session.note(ANSWER, event.responses[0].text)
            lines.show(event, session.screen)
    session.screen.say(f"{counted(count, 'response')} as expected")
