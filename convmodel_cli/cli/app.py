"""The four commands: arguments in, one workflow each, its events to the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from convmodel_cli import __version__
from convmodel_cli.answer_settings import ChatSettings, GenerationSettings, ResponseSettings, SamplingSettings
from convmodel_cli.cli.config import Command, Sources, use_model_folder
from convmodel_cli.cli.options import takes_settings
from convmodel_cli.settings import (
    ComputeSettings,
    EvaluationSettings,
    RunSettings,
    ScreenSettings,
    TrainingSettings,
)
from convmodel_cli.signals import stop_request

if TYPE_CHECKING:
    from convmodel_cli.workflows.fit import FitRequest

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CONVMODEL"},
)


def _file(*flags: str, help: str) -> Any:
    """An option that names a file."""
    return typer.Option(*flags, metavar="FILE", help=help, show_envvar=False)


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="CONVMODEL_MODEL",
        help="A model folder, or a name on the Hugging Face hub.",
        is_eager=True,
        callback=use_model_folder,
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

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


@app.command(cls=Command)
@takes_settings
def fit(
    run: RunSettings,
    training: TrainingSettings,
    compute: ComputeSettings,
    screen: ScreenSettings,
    sources: Sources,
    train: Annotated[
        str | None, typer.Argument(help="Conversations to train on, JSON Lines; - is standard input.")
    ] = None,
    valid: Annotated[str | None, typer.Argument(help="Conversations to validate on.")] = None,
    more_train: Annotated[list[str] | None, _file("--train", help="More files to train on.")] = None,
    more_valid: Annotated[list[str] | None, _file("--valid", help="More files to validate on.")] = None,
    base: Annotated[
        str,
        typer.Option(
            "--base",
            help="new-tiny, new-small, new-medium; a folder; or a name on the hub like gpt2.",
            show_envvar=False,
        ),
    ] = "new-tiny",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the model.", show_envvar=False)
    ] = "model",
) -> None:
    """Train a model and leave it in a folder.

    [bold]convmodel fit[/] trains on the packaged sample
    [bold]convmodel fit train.jsonl valid.jsonl --epochs 3[/]
    [bold]convmodel fit train.jsonl --base gpt2 -o mybot[/]

    The data is one conversation a line: \\["Hello", "Hi there"]. The only line on stdout is the model's path.
    """
    from convmodel_cli.workflows.fit import FitRequest

    request = FitRequest(_files(train, more_train), _files(valid, more_valid), base, output, sources)
    _fit(request, run, training, compute, screen)


def _fit(
    request: FitRequest, run: RunSettings, training: TrainingSettings, compute: ComputeSettings, screen: ScreenSettings
) -> None:
    from convmodel_cli.cli.display import Screen
    from convmodel_cli.cli.dry_run_screen import show_dry_run
    from convmodel_cli.cli.fit_screen import show_fit
    from convmodel_cli.workflows.dry_run import dry_run
    from convmodel_cli.workflows.fit import fit as run_fit

    drawn = Screen(screen)
    if run.dry_run:
        show_dry_run(dry_run(request, run, training, compute), drawn)
        return
    stop_request.announce = lambda: drawn.say("stopping as soon as this step is done; Ctrl-C leaves at once", "yellow")
    show_fit(run_fit(request, run, training, compute, stop_request), drawn)


@app.command(name="eval", cls=Command)
@takes_settings
def eval_(
    settings: EvaluationSettings,
    compute: ComputeSettings,
    screen: ScreenSettings,
    data: Annotated[str | None, typer.Argument(help="Conversations to measure on, JSON Lines.")] = None,
    model: Model = "./model",
    probes: Annotated[
        str | None, _file("--probes", help="Contexts with known answers, to see what the model remembers.")
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


@app.command(cls=Command)
@takes_settings
def generate(
    settings: GenerationSettings,
    surroundings: ResponseSettings,
    sampling: SamplingSettings,
    compute: ComputeSettings,
    screen: ScreenSettings,
    turns: Annotated[list[str] | None, typer.Argument(help="The turns of one context, oldest first.")] = None,
    model: Model = "./model",
    input: Annotated[str | None, _file("--input", "-i", help="A file of contexts, or - for standard input.")] = None,
    choices: Annotated[
        str | None,
        _file("--choices", help="Rank the responses in this file instead of writing one."),
    ] = None,
) -> None:
    """Write responses, one a line.

    [bold]convmodel generate "Hello" -n 3 --seed 7[/]
    [bold]convmodel generate "I'm Nora." "Hi Nora!" "What's my name?"[/]
    [bold]convmodel generate -i contexts.jsonl --json[/]
    [bold]convmodel generate -i contexts.jsonl --choices answers.txt[/]
    [bold]convmodel generate "Hello" --self-chat 6[/] writes a conversation
    """
    from convmodel_cli.cli.display import Screen
    from convmodel_cli.cli.result_screens import show_responses
    from convmodel_cli.workflows.generate import GenerationRequest
    from convmodel_cli.workflows.generate import generate as run_generate

    drawn = Screen(screen)
    drawn.check_raw(surroundings.raw)
    request = GenerationRequest(model, tuple(turns or ()), input, choices)
    show_responses(run_generate(request, settings, sampling, surroundings, compute), drawn, surroundings.raw)


@app.command(cls=Command)
@takes_settings
def chat(
    settings: ChatSettings,
    surroundings: ResponseSettings,
    sampling: SamplingSettings,
    compute: ComputeSettings,
    screen: ScreenSettings,
    model: Model = "./model",
    load: Annotated[
        str | None,
        _file("--load", help="Go on with the last conversation in this file."),
    ] = None,
    transcript: Annotated[
        str | None,
        _file("--transcript", help="Write down what is said, in this file."),
    ] = None,
    script: Annotated[
        str | None,
        _file("--script", help="Turns and slash commands, one a line."),
    ] = None,
    expect: Annotated[
        str | None,
        _file("--expect", help="Hold these conversations: exit 6 if a greedy response is another than theirs."),
    ] = None,
) -> None:
    """Talk with a model; it keeps the conversation.

    [bold]convmodel chat[/]
    [bold]convmodel chat -m mybot --temperature 0.6[/]
    [bold]cat turns.txt | convmodel chat[/] answers line by line
    [bold]convmodel chat --script talk.txt[/] with slash commands, as typed
    [bold]convmodel chat --expect golden.jsonl[/] a regression test in CI
    """
    from convmodel_cli.cli.chat_opening import ChatRequest, hold_chat

    hold_chat(ChatRequest(model, load, transcript, script, expect), settings, surroundings, sampling, compute, screen)


def _files(first: str | None, more: list[str] | None) -> tuple[str, ...]:
    return (*([] if first is None else [first]), *(more or []))
