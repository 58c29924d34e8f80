"""From the options of `chat` to a chat: who is talking, and from where."""

from __future__ import annotations

import secrets
import sys
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace

import typer

from convmodel_cli.answer_settings import ChatSettings, ResponseSettings, SamplingSettings
from convmodel_cli.cli.chat_screen import Lines, Session, chat_on_pipe, stream
from convmodel_cli.cli.chat_script import chat_by_golden, chat_by_script, read_script
from convmodel_cli.cli.chat_terminal import chat_on_terminal
from convmodel_cli.cli.display import Screen
from convmodel_cli.errors import StorageError, UsageError
from convmodel_cli.settings import ComputeSettings, ScreenSettings


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The nouns of a chat: the model, and the files that are read and written."""

    model: str
    load: str | None = None
    transcript: str | None = None
    script: str | None = None
    expect: str | None = None


def hold_chat(
    request: ChatRequest,
    settings: ChatSettings,
    surroundings: ResponseSettings,
    sampling: SamplingSettings,
    machine: ComputeSettings,
    screen_settings: ScreenSettings,
) -> None:
    """Check what can be checked without the model, load it, and talk; raises ConvmodelError."""
    from convmodel_cli.workflows.answer import open_responder
    from convmodel_cli.workflows.chat import open_chat
    from convmodel_cli.workflows.chat_files import Transcript, load_chat
    from convmodel_cli.workflows.expect import read_golden

    screen = Screen(screen_settings)
    _check(request, settings, surroundings, screen)
    golden = None if request.expect is None else read_golden(request.expect, settings.bot_first)
    script = None if request.script is None else read_script(request.script)
    saved = None if request.load is None else load_chat(request.load)
    transcript = None if request.transcript is None else Transcript(request.transcript)
    on_terminal = golden is None and script is None and sys.stdin.isatty() and not screen_settings.json
    if on_terminal:
        machine = _with_seed(machine, screen)
    lines = Lines(surroundings.raw)
    with closing(transcript) if transcript is not None else nullcontext():
        responder = open_responder(request.model, sampling, machine)
        chat = open_chat(responder, surroundings.persona, settings.bot_first)
        streaming = on_terminal and sys.stdout is not None and sys.stdout.isatty()
        session = Session(chat, screen, stream if streaming else lines, responder, transcript)
        if golden is not None:
            chat_by_golden(session, golden, lines)
        elif script is not None:
            chat_by_script(session, script, saved)
        elif on_terminal:
            chat_on_terminal(session, keep_history=not settings.no_history, saved=saved)
        else:
            chat_on_pipe(session, saved)
    if transcript is not None and transcript.failure is not None:
        raise typer.Exit(transcript.failure.exit_code)  # what it is was said when it happened


def _with_seed(machine: ComputeSettings, screen: Screen) -> ComputeSettings:
    """Draw a seed unless one is given, and say it, so that the chat can be repeated."""
    if machine.seed is not None:
        return machine
    drawn = replace(machine, seed=secrets.randbelow(1000))
    screen.say(f"seed {drawn.seed}", "dim")
    return drawn


def _check(request: ChatRequest, settings: ChatSettings, surroundings: ResponseSettings, screen: Screen) -> None:
    screen.check_raw(surroundings.raw)
    if sys.stdout is None:
        raise StorageError("standard output is closed")
    if request.script is not None and request.expect is not None:
        raise UsageError("--script and --expect exclude each other", "drop one of them")
    if request.expect is not None and request.load is not None:
        raise UsageError("--expect and --load exclude each other: each golden conversation starts anew")
    if request.load is not None and settings.bot_first:
        raise UsageError("--load and --bot-first exclude each other: the file says who begins")
    read = (request.load, request.script, request.expect)
    if request.transcript is not None and request.transcript in read:
        raise UsageError(f"--transcript: expected another file than one that is read, got {request.transcript}")
    if request.load == request.script == "-":
        raise UsageError("--load and --script cannot both read standard input", "put one of them into a file")
    if sys.stdin is None and request.script is None and request.expect is None:
        raise UsageError("standard input is closed", "pipe the turns in, or run it on a terminal")
