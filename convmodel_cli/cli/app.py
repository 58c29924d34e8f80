"""The four commands: arguments in, one workflow each, its events to the screen."""

from __future__ import annotations

import io
import os
import secrets
import sys
import traceback
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import Annotated, Any

import typer

from convmodel_cli import __version__
from convmodel_cli.cli.options import takes_settings
from convmodel_cli.errors import BUG_EXIT_CODE, ConvmodelError, StorageError, UsageError
from convmodel_cli.settings import (
    ChatSettings,
    ComputeSettings,
    EvaluationSettings,
    GenerationSettings,
    RunSettings,
    SamplingSettings,
    ScreenSettings,
    TrainingSettings,
)

_INTERRUPTED = 130

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CONVMODEL"},
)

Model = Annotated[
    str,
    typer.Option("--model", "-m", envvar="CONVMODEL_MODEL", help="A model folder, or a name on the Hugging Face hub."),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        parts = [f"convmodel {__version__}"]
        for package in ("torch", "transformers"):
            try:
                parts.append(f"{package} {version(package)}")
            except PackageNotFoundError:
                parts.append(f"{package} missing")
        typer.echo(", ".join(parts))
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_show_version,
            is_eager=True,
            help="Show the versions and leave.",
            show_envvar=False,
        ),
    ] = False,
) -> None:
    """Train a small conversation model on your own dialogues and talk with it.

    Every option can come from the environment, like CONVMODEL_FIT_EPOCHS=3.

    [bold]convmodel fit train.jsonl valid.jsonl[/]
    [bold]convmodel chat[/]
    [bold]convmodel eval test.jsonl[/]
    [bold]convmodel generate "Hello"[/]
    """


@app.command()
@takes_settings
def fit(
    run: RunSettings,
    training: TrainingSettings,
    compute: ComputeSettings,
    screen: ScreenSettings,
    train: Annotated[
        str | None, typer.Argument(help="Conversations to train on, JSON Lines; - is standard input.")
    ] = None,
    valid: Annotated[str | None, typer.Argument(help="Conversations to validate on.")] = None,
    more_train: Annotated[
        list[str] | None, typer.Option("--train", help="More files to train on.", show_envvar=False)
    ] = None,
    more_valid: Annotated[
        list[str] | None, typer.Option("--valid", help="More files to validate on.", show_envvar=False)
    ] = None,
    base: Annotated[
        str,
        typer.Option(
            "--base",
            help="new-tiny, new-small, new-medium; a folder; or a name on the hub like gpt2.",
            show_envvar=False,
        ),
    ] = "new-tiny",
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the model.", show_envvar=False)] = "model",
) -> None:
    """Train a model and leave it in a folder.

    [bold]convmodel fit[/] trains on the packaged sample
    [bold]convmodel fit train.jsonl valid.jsonl --epochs 3[/]
    [bold]convmodel fit train.jsonl --base gpt2 -o mybot[/]

    The data is one conversation a line: \\["Hello", "Hi there"]. The only line on stdout is the model's path.
    """
    from convmodel_cli.cli.display import Screen
    from convmodel_cli.cli.fit_screen import show_fit
    from convmodel_cli.workflows.fit import FitRequest
    from convmodel_cli.workflows.fit import fit as run_fit

    request = FitRequest(_files(train, more_train), _files(valid, more_valid), base, output)
    show_fit(run_fit(request, run, training, compute), Screen(screen))


@app.command(name="eval")
@takes_settings
def eval_(
    settings: EvaluationSettings,
    compute: ComputeSettings,
    screen: ScreenSettings,
    data: Annotated[str | None, typer.Argument(help="Conversations to measure on, JSON Lines.")] = None,
    model: Model = "./model",
    probes: Annotated[
        str | None,
        typer.Option(
            "--probes", help="Contexts with known answers, to see what the model remembers.", show_envvar=False
        ),
    ] = None,
) -> None:
    """Measure a model: loss, perplexity, bits per byte, probes.

    [bold]convmodel eval test.jsonl -m model[/]
    [bold]convmodel eval test.jsonl --json --max-ppl 25[/] exits 6 if the perplexity is higher
    """
    from convmodel_cli.cli.display import Screen
    from convmodel_cli.cli.result_screens import show_evaluation
    from convmodel_cli.workflows.evaluate import EvaluationRequest, evaluate_model

    request = EvaluationRequest(model, data, probes)
    show_evaluation(evaluate_model(request, settings, compute), Screen(screen))


@app.command()
@takes_settings
def generate(
    settings: GenerationSettings,
    sampling: SamplingSettings,
    compute: ComputeSettings,
    screen: ScreenSettings,
    turns: Annotated[list[str] | None, typer.Argument(help="The turns of one context, oldest first.")] = None,
    model: Model = "./model",
    input: Annotated[
        str | None,
        typer.Option("--input", "-i", help="A file of contexts, or - for standard input.", show_envvar=False),
    ] = None,
) -> None:
    """Write responses, one a line.

    [bold]convmodel generate "Hello" -n 3 --seed 7[/]
    [bold]convmodel generate "I'm Nora." "Hi Nora!" "What's my name?"[/]
    [bold]convmodel generate -i contexts.jsonl --json[/]
    """
    from convmodel_cli.cli.display import Screen
    from convmodel_cli.cli.result_screens import show_responses
    from convmodel_cli.workflows.generate import GenerationRequest
    from convmodel_cli.workflows.generate import generate as run_generate

    request = GenerationRequest(model, tuple(turns or ()), input)
    show_responses(run_generate(request, settings, sampling, compute), Screen(screen))


@app.command()
@takes_settings
def chat(
    settings: ChatSettings,
    sampling: SamplingSettings,
    compute: ComputeSettings,
    screen: ScreenSettings,
    model: Model = "./model",
) -> None:
    """Talk with a model; it keeps the conversation.

    [bold]convmodel chat[/]
    [bold]convmodel chat -m mybot --temperature 0.6[/]
    [bold]cat turns.txt | convmodel chat[/] answers line by line
    """
    from convmodel_cli.cli.chat_screen import chat_on_pipe, chat_on_terminal
    from convmodel_cli.cli.display import Screen
    from convmodel_cli.workflows.chat import open_chat

    if sys.stdin is None:
        raise UsageError("standard input is closed", "pipe the turns in, or run it on a terminal")
    drawn = Screen(screen)
    if not sys.stdin.isatty() or screen.json:
        chat_on_pipe(open_chat(model, settings, sampling, compute), drawn)
        return
    if compute.seed is None:
        compute = replace(compute, seed=secrets.randbelow(1000))
        drawn.say(f"seed {compute.seed}", "dim")
    chat_on_terminal(open_chat(model, settings, sampling, compute), drawn)


def _files(first: str | None, more: list[str] | None) -> tuple[str, ...]:
    return (*([] if first is None else [first]), *(more or []))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code. Every error a user can cause is a sentence on stderr."""
    if sys.stdout is None or not sys.stdout.isatty():
        os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"  # no escape codes in help on a pipe, whatever the environment
    try:
        code = app(arguments, standalone_mode=False, prog_name="convmodel")
        _flush()
    except ConvmodelError as error:
        return _fail(error, arguments)
    except _TyperUsageError as error:
        return _fail(_from_typer(error), arguments) if arguments else UsageError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except SystemExit as leaving:  # typer's answer to a reader that left early
        return 0 if isinstance(leaving.__context__, BrokenPipeError) else BUG_EXIT_CODE
    except BrokenPipeError:
        # The reader has seen enough. Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(StorageError(f"{error.filename or 'the output'}: {error.strerror or error}"), arguments)
    except Exception as error:
        return _fail_internally(error, arguments)
    return code if isinstance(code, int) else 0


# Every usage error of typer is of this kind, wherever the version at hand keeps it.
_TyperUsageError: Any = typer.BadParameter.__base__


_FP16 = "fp16 overflows without scaling the loss; bf16 is as small and as fast, and has the range of fp32"


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _from_typer(error: Any) -> UsageError:
    context = error.ctx
    command = context.command_path if context is not None else "convmodel"
    message = error.format_message()
    return UsageError(message, _FP16 if "fp16" in message else f"see: {command} --help")


def _fail(error: ConvmodelError, arguments: list[str]) -> int:
    from convmodel_cli.cli.display import Screen

    if sys.stderr is None:
        return error.exit_code
    Screen(_screen_settings(arguments)).error(error)
    return error.exit_code


def _screen_settings(arguments: list[str]) -> ScreenSettings:
    """What the user said about output, read from a command line that could not be followed."""
    words = " ".join(arguments).replace("=", " ").split()
    colors = [after for word, after in pairwise(words) if word == "--color" and after in ("always", "never")]
    color: Any = colors[-1] if colors else "auto"
    return ScreenSettings(verbose="-v" in words or "--verbose" in words, color=color)


def _fail_internally(error: Exception, arguments: list[str]) -> int:
    if "--debug" in arguments:
        traceback.print_exception(error)
    reason = str(error).strip().split("\n")[0]
    message = f"internal error: {type(error).__name__}: {reason}"
    return _fail(ConvmodelError(message, "this is a bug of convmodel; --debug shows where"), arguments) or BUG_EXIT_CODE


def main() -> None:
    """The console script. Whatever the locale, text goes out as UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
