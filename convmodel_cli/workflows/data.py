"""The data of a run: which files, what is held out, what the user should know. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from convmodel_cli.data.conversations import FileReport, count_different, hold_out, read_good_into, read_into
from convmodel_cli.data.duplicates import Repeats, find_duplicates, find_overlap, gather
from convmodel_cli.data.encoding import learned_turns
from convmodel_cli.data.formats import OPTIONAL_KEYS
from convmodel_cli.data.lines import shown_name
from convmodel_cli.data.store import Conversations
from convmodel_cli.errors import DataError, UsageError
from convmodel_cli.events import Note
from convmodel_cli.settings import parse_split

_HELD_OUT = 0.05
_ENOUGH_TO_HOLD_OUT = 20
_REPEATS_SHOWN = 5
_KEYS_SHOWN = 8
_ALIKE = 0.75
SAMPLE_SHOWN = "the packaged sample"


@dataclass(frozen=True)
class FitData:
    """Conversations of a run; `valid` may be empty, `test` is what a split sets aside.

    `files` says what was found in each file, those of TRAIN first.
    """

    train: Conversations
    valid: Conversations
    test: Conversations
    sources: tuple[str, ...]
    notes: tuple[Note, ...]
    files: tuple[FileReport, ...]

    @cached_property
    def repeats(self) -> tuple[Repeats, Repeats]:
        """(conversations that stand twice in train, those of valid that are in train too)"""
        return gather(find_duplicates(self.train)), gather(find_overlap(self.train, self.valid))


def sample_file(name: str) -> Path:
    """A file of the packaged sample: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "sample_data", package.parent / "sample_data"):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"{name}: the packaged sample is missing from this installation", "reinstall convmodel")


def read_fit_data(train: tuple[str, ...], valid: tuple[str, ...], split: str | None, skip_bad: bool = False) -> FitData:
    """Read and check all files, and hold out validation data where none is given."""
    notes: list[Note] = []
    sources = tuple(shown_name(path) for path in train)
    if not train:
        if valid:
            raise UsageError("VALID is given without TRAIN", "name the file to train on first")
        train, sources = (str(sample_file("train.jsonl")),), (SAMPLE_SHOWN,)
        valid = () if split else (str(sample_file("valid.jsonl")),)
        notes.append(Note("no TRAIN given: training on the packaged sample conversations"))
    if split and valid:
        raise UsageError("--split and VALID exclude each other", "drop one of them")
    conversations, held = Conversations(), Conversations()
    files = tuple(_read(conversations, path, skip_bad, notes) for path in train)
    files += tuple(_read(held, path, skip_bad, notes) for path in valid)
    test = Conversations()
    if split:
        conversations, held, test = _split(conversations, split, sources, notes)
    elif not valid:
        conversations, held = _hold_out(conversations, notes)
    return FitData(conversations, held, test, sources, tuple(notes), files)


def _hold_out(conversations: Conversations, notes: list[Note]) -> tuple[Conversations, Conversations]:
    """(to train, to validate)"""
    if count_different(conversations) < _ENOUGH_TO_HOLD_OUT:
        few = f"fewer than {_ENOUGH_TO_HOLD_OUT} different conversations and no VALID: the best is by training loss"
        notes.append(Note(few, warning=True))
        return conversations, Conversations()
    train, valid = hold_out(conversations, (1 - _HELD_OUT, _HELD_OUT))
    notes.append(Note(f"no VALID given: {len(valid)} of {len(conversations)} conversations held out"))
    return train, valid


def notes_on_repeats(duplicates: Repeats, overlap: Repeats) -> Iterator[Note]:
    """What the user should know of conversations that stand more than once."""
    if duplicates.count:
        yield Note(
            f"conversations that stand twice in TRAIN: {duplicates.count:,} ({_shown(duplicates)})", warning=True
        )
    if overlap.count:
        yield Note(
            f"conversations of VALID that are in TRAIN too, so that its figures are too good: {overlap.count:,} "
            f"({_shown(overlap)})",
            warning=True,
        )


def _shown(repeats: Repeats) -> str:
    pairs = [
        f"{repeat.where} {'is' if repeat.exact else 'is nearly'} {repeat.first}"
        for repeat in repeats.shown[:_REPEATS_SHOWN]
    ]
    return ", ".join(pairs) + (", …" if repeats.count > len(pairs) else "")


def check_learned(data: FitData, learn: str) -> None:
    """Refuse data of which nothing would be learned; raises DataError."""
    for name, part in ((", ".join(data.sources), data.train), ("the validation data", data.valid)):
        if part and not any(any(learned_turns(conversation, learn)) for conversation in part):
            raise DataError(f"{name}: expected turns to learn, got none", "check --learn and the learn flags")


def _read(conversations: Conversations, path: str, skip_bad: bool, notes: list[Note]) -> FileReport:
    """Append what a file holds."""
    if skip_bad:
        report, problems = read_good_into(conversations, path)
        if problems:
            found = f"{report.rejected:,} bad skipped, {report.accepted:,} good, {report.blank:,} blank"
            notes.append(Note(f"{report.file}: {found}", warning=True, items=tuple(problems)))
    else:
        report = read_into(conversations, path)
    notes.extend(_notes_on_keys(report))
    return report


def _notes_on_keys(report: FileReport) -> Iterator[Note]:
    """Name the keys that nothing is meant by: one of them may be a misspelt `learn`."""
    meant = {key: get_close_matches(key, OPTIONAL_KEYS, 1, _ALIKE) for key, _ in report.unread}
    listed = [
        f"{key} ({count:,}" + (f"; did you mean {meant[key][0]}?)" if meant[key] else ")")
        for key, count in sorted(report.unread, key=lambda unread: not meant[unread[0]])
    ]
    if listed:
        more = ", …" if len(listed) > _KEYS_SHOWN else ""
        text = f"{report.file}: keys that are not read: {', '.join(listed[:_KEYS_SHOWN])}{more}"
        yield Note(text, warning=any(meant.values()))


def _split(
    conversations: Conversations, split: str, sources: tuple[str, ...], notes: list[Note]
) -> tuple[Conversations, ...]:
    """(to train, to validate, to test)"""
    different = count_different(conversations)
    if different < 3:
        raise DataError(f"{sources[0]}: expected at least 3 different conversations to split, got {different}")
    train, valid, test = hold_out(conversations, parse_split(split))
    if not train:
        raise DataError(f"{sources[0]}: --split {split} leaves nothing to train on of {different} conversations")
    notes.append(Note(f"split {split}: {len(train)} to train, {len(valid)} to validate, {len(test)} to test"))
    return train, valid, test
