"""A chat without anybody at the keyboard: from a script, or against a golden file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from convmodel_cli.cli.chat_commands import find_command, split_command
from convmodel_cli.cli.chat_screen import Lines, Session
from convmodel_cli.cli.display import counted
from convmodel_cli.cli.result_screens import dropped_line
from convmodel_cli.errors import ConvmodelError, UsageError
from convmodel_cli.events import Dropped

if TYPE_CHECKING:
    from convmodel_cli.workflows.expect import Golden


def chat_by_script(session: Session, script: Iterable[tuple[str, str]]) -> None:
    """Turns and commands, each with the place where it stands; raises ConvmodelError at a command that fails."""
    session.open()
    for place, line in script:
        command = split_command(line)
        if command is None:
            session.say(line.removeprefix("/") if line.startswith("//") else line)
            continue
        try:
            session.obey(*command)
        except ConvmodelError as error:
            error.args = (f"{place}: {command[0]}: {error}",)
            raise
        if session.leaving:
            return


def read_script(path: str) -> list[tuple[str, str]]:
    """(place, line) of each line that is not blank; raises UsageError for a command that does not exist."""
    from convmodel_cli.workflows.chat_files import read_lines

    script = read_lines(path)
    for place, line in script:
        command = split_command(line)
        try:
            if command is not None:
                find_command(command[0])
        except UsageError as error:
            raise UsageError(f"{place}: {error}", error.hint) from None
    return script


def chat_by_golden(session: Session, golden: Golden) -> None:
    """Say what the golden conversations say; raises GateMissed at the first response that is another."""
    from convmodel_cli.workflows.expect import say_and_compare

    count = 0
    for event in say_and_compare(session.chat, golden):
        if isinstance(event, Dropped):
            session.screen.say(dropped_line(event), "yellow")
        else:
            count += 1
            Lines().show(event, session.screen)
    session.screen.say(f"{counted(count, 'response')} as expected")
