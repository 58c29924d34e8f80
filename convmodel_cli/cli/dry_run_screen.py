"""What fit --dry-run prints: the plan of a run and how its first conversation looks to the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rich.text import Text

from convmodel_cli.cli.display import Screen, counted, gigabytes, short_count
from convmodel_cli.escaping import one_line
from convmodel_cli.events import Note, Planned, TokenShown

_TOKENS_SHOWN = 120
_REPEATS_SHOWN = 20
_BAR_WIDTH = 40
_TYPE_STYLES = ("cyan", "magenta")


def show_dry_run(events: Iterable[Any], screen: Screen) -> None:
    """The plan is the result: it goes to stdout, as text or as one JSON object."""
    for event in events:
        match event:
            case Note():
                screen.note(event)
            case Planned() if screen.settings.json:
                screen.result_json(asdict(event))
            case Planned():
                screen.result_lines(_lines(event, screen.result_width))


def _lines(plan: Planned, width: int) -> Iterator[Text]:
    for file in plan.files:
        shapes = ", ".join(f"{count:,} {one_line(shape)}" for shape, count in file.shapes)
        yield Text(one_line(file.file), "bold")
        found = f"{file.accepted:,} good, {file.rejected:,} bad, {file.blank:,} blank ({shapes})"
        yield Text(f"    {counted(file.lines, 'line')}: {found}")
    for name, value in _figures(plan).items():
        yield _row(name, value)
    yield from _repeats("duplicates in TRAIN", plan.duplicates)
    yield from _repeats("VALID in TRAIN", plan.overlap)
    yield Text("\ntokens of a sequence", "bold")
    most = max(part.sequences for part in plan.lengths)
    for part in plan.lengths:
        bar = "━" * round(_BAR_WIDTH * part.sequences / most)
        yield Text(f"{part.lowest:>7,} - {part.highest:<7,} {part.sequences:>9,}  {bar}".rstrip())
    yield Text("\nthe first conversation: tokens, types, targets", "bold")
    yield from _token_rows(plan.first[:_TOKENS_SHOWN], width)
    if len(plan.first) > _TOKENS_SHOWN:
        yield Text(f"... and {len(plan.first) - _TOKENS_SHOWN:,} more tokens")


def _row(name: str, value: str) -> Text:
    return Text.assemble((f"{name:<22}", "bold"), value)


def _figures(plan: Planned) -> dict[str, str]:
    run = plan.run
    cut = "no long one is cut"
    if plan.cut_conversations:
        cut = f"{plan.cut_conversations:,} are cut at {run.max_length:,} tokens"
    figures = {
        "train": f"{counted(run.train_conversations, 'conversation')}, {counted(run.train_sequences, 'sequence')} "
        f"({cut}), {counted(run.train_targets, 'token')} to learn",
        "valid": f"{counted(run.valid_conversations, 'conversation')}, {counted(plan.valid_sequences, 'sequence')}",
    }
    if plan.test_conversations:
        figures["test"] = counted(plan.test_conversations, "conversation")
    return {
        **figures,
        "model": f"{one_line(run.base)}, {short_count(run.parameters)} parameters, {run.device} {run.precision}",
        "run": f"{counted(run.steps, 'step')} of {run.batch_size}, {counted(run.epochs, 'epoch')}, "
        f"an evaluation every {counted(run.eval_every, 'step')}, learning rate {run.learning_rate:g}",
        "memory": f"about {gigabytes(plan.memory_bytes)}",
    }


def _repeats(name: str, repeats: Any) -> Iterator[Text]:
    yield _row(name, f"{repeats.count:,}")
    for repeat in repeats.shown[:_REPEATS_SHOWN]:
        yield Text(f"    {one_line(repeat.where)} {'is' if repeat.exact else 'is nearly'} {one_line(repeat.first)}")
    if repeats.count > _REPEATS_SHOWN:
        more = f"{repeats.count - _REPEATS_SHOWN:,} more (--json lists {len(repeats.shown):,})"
        yield Text(f"    ... and {more}")


def _token_rows(tokens: tuple[TokenShown, ...], width: int) -> Iterator[Text]:
    """Three lines for as many tokens as fit next to each other, coloured by their type."""
    row: list[tuple[str, TokenShown]] = []
    used = 0
    for token in tokens:
        shown = one_line(token.text).replace(" ", "·")
        if row and used + max(len(shown), 1) + 9 > width:
            yield from _three_lines(row)
            row, used = [], 0
        row.append((shown, token))
        used += max(len(shown), 1) + 1
    yield from _three_lines(row)


def _three_lines(row: list[tuple[str, TokenShown]]) -> Iterator[Text]:
    lines = Text("tokens  "), Text("types   "), Text("targets ")
    for shown, token in row:
        cell = max(len(shown), 1) + 1
        style = _TYPE_STYLES[token.type]
        lines[0].append(shown.ljust(cell), style + " bold" if token.target else style)
        lines[1].append(str(token.type).ljust(cell), style)
        lines[2].append(("x" if token.target else ".").ljust(cell), style)
    for line in lines:
        line.rstrip()
        yield line
