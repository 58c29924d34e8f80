"""What a run looks like: a bar that moves on a terminal, a line for each evaluation everywhere, a table at the end."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from convmodel_cli.cli.display import Screen, counted, duration, gigabytes, short_count, sparkline
from convmodel_cli.escaping import escaped, one_line
from convmodel_cli.events import (
    Checkpointed,
    Evaluated,
    EvaluationStepped,
    Finished,
    Note,
    Resumed,
    Sampled,
    Saved,
    Started,
    Stepped,
)

_MOST_LINES = 60
_SMOOTHING = 0.9
_JSON_KEYS = (
    "model", "best_step", "steps", "epochs", "valid", "tokens_seen", "seconds", "tokens_per_second",
    "peak_memory_bytes", "parameters", "stopped",
)  # fmt: skip


def show_fit(events: Iterable[Any], screen: Screen) -> None:
    """Draw a run as it goes; the only line on stdout is the model's path, or the JSON object."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}"),
        console=screen.console,
        disable=not screen.animated,
        transient=True,
        redirect_stdout=False,  # or what is meant for a file would go to the terminal
    )
    drawing = _Drawing(screen, progress)
    try:
        for event in events:
            drawing.draw(event)
    finally:
        progress.stop()


class _Drawing:
    def __init__(self, screen: Screen, progress: Progress) -> None:
        self._screen = screen
        self._progress = progress
        self._task: TaskID | None = None
        self._every = 1
        self._evaluations = 0
        self._smoothed = math.nan
        self._last = 0
        self._line_of = -1  # the step of the last evaluation that has a line

    def draw(self, event: Any) -> None:
        match event:
            case Note():
                self._screen.note(event)
            case Started():
                self._start(event)
            case Resumed():
                self._screen.say(f"going on after step {event.step:,}, from {event.path}")
                self._start(event.run, done=event.step)
            case Stepped():
                self._step(event)
            case EvaluationStepped() if self._task is not None:
                self._progress.update(self._task, description=f"evaluating {event.share:4.0%}")
            case Evaluated():
                self._evaluated(event)
            case Sampled() if event.step == self._line_of and (self._screen.animated or self._screen.settings.verbose):
                self._screen.say(f"  {sample_line(event)}", "dim")
            case Saved() if self._screen.settings.verbose:
                self._screen.say(f"saved the weights of step {event.step} in {event.path}", "dim")
            case Checkpointed() if self._screen.settings.verbose:
                self._screen.say(f"checkpoint of step {event.step} in {event.path}", "dim")
            case Finished() if event.stopped == "interrupted":
                self._result(event, "")
            case Finished():
                self._finish(event)

    def _start(self, event: Started, done: int = 0) -> None:
        self._last = event.steps
        self._every = max(1, math.ceil((event.steps / event.eval_every + 2) / (_MOST_LINES - 18)))
        self._screen.say(
            f"training {event.base} ({short_count(event.parameters)} parameters) on "
            f"{counted(event.train_conversations, 'conversation')}, {counted(event.train_targets, 'token')} to learn: "
            f"{counted(event.steps, 'step')} of {event.batch_size}, {counted(event.epochs, 'epoch')}, "
            f"{event.device} {event.precision}, {counted(event.threads, 'thread')}"
        )
        if event.train_sequences > event.train_conversations:
            sequences = counted(event.train_sequences, "sequence")
            self._screen.say(
                f"long conversations are cut at {event.max_length:,} tokens into {sequences} in all", "dim"
            )
        self._progress.start()
        self._task = self._progress.add_task("starting", total=event.steps, completed=done, figures="")

    def _step(self, event: Stepped) -> None:
        before = self._smoothed
        self._smoothed = event.loss if math.isnan(before) else _SMOOTHING * before + (1 - _SMOOTHING) * event.loss
        if self._task is None:
            return
        arrow = "▼" if math.isnan(before) or self._smoothed <= before else "▲"
        figures = (
            f"{event.step}/{event.steps} · loss {self._smoothed:.3f} {arrow} · lr {event.learning_rate:.1e} · "
            f"{short_count(event.tokens_per_second)} tok/s · {gigabytes(event.memory_bytes)} · "
            f"ETA {duration(event.seconds_left)}"
        )
        description = f"epoch {event.epoch}/{event.epochs}"
        self._progress.update(self._task, completed=event.step, description=description, figures=figures)

    def _evaluated(self, event: Evaluated) -> None:
        self._evaluations += 1
        if (self._evaluations - 1) % self._every and event.step != self._last:
            return
        self._line_of = event.step or -1  # what an untrained model says is not worth a line
        self._screen.say(evaluation_line(event), "bold" if event.best and self._screen.animated else "")

    def _finish(self, event: Finished) -> None:
        self._progress.stop()
        for name, value in _summary(event).items():
            self._screen.say(f"{name:<13}{value}")
        if event.sample is not None:
            self._screen.say(sample_line(event.sample))
        if event.best_step == 0:
            self._screen.say("no step made the model better: what is saved is the untrained one", "yellow")
        self._screen.say(f"next: {shlex.join(['convmodel', 'chat', '--model', str(event.model)])}", "bold")
        self._result(event, escaped(str(event.model)))

    def _result(self, event: Finished, text: str) -> None:
        """A JSON object of the figures, or the text."""
        if self._screen.settings.json:
            content = asdict(event)
            self._screen.result_json({key: content[key] for key in _JSON_KEYS})
        elif text:
            self._screen.result(text)


def evaluation_line(event: Evaluated) -> str:
    """`Ep 1 (Step 000120): Train loss 2.913, Val loss 3.004, ppl 20.2, tokens 123456`."""
    valid = ""
    if event.valid_loss is not None:
        ppl = math.exp(min(event.valid_loss, 700.0))
        valid = f", Val loss {event.valid_loss:.3f}, ppl {ppl:.1f}"
    return (
        f"Ep {event.epoch} (Step {event.step:06d}): Train loss {event.train_loss:.3f}{valid}, "
        f"tokens {event.tokens_seen}"
    )


def sample_line(event: Sampled) -> str:
    """`What's my name? / I don't know. / I'm Nora. → Hello Nora.`"""
    return f"{one_line(' / '.join(event.context))} → {one_line(event.response)}"


def _summary(event: Finished) -> dict[str, str]:
    rows = {
        "best step": f"{event.best_step:,} of {event.steps:,}"
        + ("" if event.stopped == "done" else f" (stopped: {event.stopped})"),
        **_valid_rows(event),
        "tokens": f"{event.tokens_seen:,} learned",
        "time": f"{duration(event.seconds)}, {short_count(event.tokens_per_second)} tok/s in the steps",
        "peak memory": gigabytes(event.peak_memory_bytes),
        "train loss": _curve([train for _, train, _ in event.losses]),
    }
    if event.valid is not None:
        rows["valid loss"] = _curve([valid for _, _, valid in event.losses if valid is not None])
    return rows


def _valid_rows(event: Finished) -> dict[str, str]:
    if event.valid is None:
        return {}
    rows = {
        "loss": f"{event.valid['loss']:.4f} nats per token, {event.valid['bits_per_byte']:.3f} bits per byte",
        "ppl": f"{event.valid['ppl']:.2f}",
    }
    if event.portability:
        rows["portability"] = (
            f"ppl {event.portability['with_speaker_ids']:.2f} here, "
            f"{event.portability['without_speaker_ids']:.2f} in other tools, which do not pass speaker ids"
        )
    return rows


def _curve(losses: list[float]) -> str:
    return f"{sparkline(losses)}  {losses[0]:.3f} to {losses[-1]:.3f}"
