"""fit --dry-run: what a run would do, told and not done."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyte
import pytest

from conftest import TALKS, Convmodel, OnATerminal
from convmodel_cli.data.encoding import histogram
from helpers import made_up_conversations, write_conversations, write_jsonl

OPTIONS = ["--vocab-size", "320", "--precision", "fp32", "--max-length", "64", "-o", "out"]


def test_everything_is_told_and_nothing_written(convmodel: Convmodel, tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(talk) + "\n" for talk in [*TALKS, TALKS[0]]) + "\n\n")
    valid = write_jsonl(tmp_path / "valid.jsonl", [TALKS[1], ["A new", "talk"]])
    before = sorted(tmp_path.iterdir())
    outcome = convmodel("fit", str(train), valid, *OPTIONS, "--dry-run")
    assert outcome.code == 0
    assert sorted(tmp_path.iterdir()) == before
    for told in (
        "9 lines: 7 good, 0 bad, 2 blank (7 a list of turns)",
        "7 conversations",
        "duplicates in TRAIN   1",
        "train.jsonl:7 is ",
        "VALID in TRAIN        1",
        "valid.jsonl:1 is ",
        "tokens of a sequence",
        "parameters, cpu fp32",
        "memory                about ",
    ):
        assert told in outcome.out
    assert "\x1b" not in outcome.out


def test_the_first_conversation_is_shown_token_by_token(convmodel: Convmodel, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", [{"turns": ["ab", "cd"], "learn": [False, True]}])
    outcome = convmodel("fit", data, *OPTIONS, "--dry-run")
    lines = outcome.out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("tokens  "))
    tokens, types, targets = (line.split()[1:] for line in lines[first : first + 3])
    assert "".join(tokens) == "<sep>ab<sep>cd<sep>"
    assert types[0] == types[1] == "0" and types[-2:] == ["1", "0"]
    learned = "".join(token for token, target in zip(tokens, targets, strict=True) if target == "x")
    assert learned == "cd<sep>"


@pytest.mark.parametrize("color", ["terminal", "always", "never"])
def test_types_have_colours_and_learned_tokens_are_bold_where_colours_are_shown(
    convmodel: Convmodel, on_a_terminal: OnATerminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, color: str
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", [{"turns": ["ab", "cd", "ef"], "learn": [False, True, False]}])
    plan = ["fit", data, *OPTIONS, "--dry-run"]
    monkeypatch.setenv("TERM", "xterm-256color")
    written = on_a_terminal(plan, []) if color == "terminal" else convmodel(*plan, "--color", color).out
    tokens, types, targets = token_table(written)
    assert [text for text, _ in tokens] == ["<sep>", "ab", "<sep>", "cd", "<sep>", "ef", "<sep>"]
    assert [text for text, _ in types] == ["0", "0", "1", "1", "0", "0", "1"]
    assert [text for text, _ in targets] == [".", ".", ".", "x", "x", ".", "."]
    if color == "never":
        assert {look for _, look in [*tokens, *types, *targets]} == {("default", False)}
        return
    of_type = {"0": "cyan", "1": "magenta"}
    for (_, token), (type_, its), (target, mark) in zip(tokens, types, targets, strict=True):
        assert token == (of_type[type_], target == "x")
        assert its == mark == (of_type[type_], False)


Look = tuple[str, bool]


def token_table(written: str) -> list[list[tuple[str, Look]]]:
    """The three lines of tokens, types and targets as a terminal shows them: (text, (colour, bold)) of each cell."""
    screen = pyte.Screen(100, 100)
    pyte.Stream(screen).feed(written.replace("\r\n", "\n").replace("\n", "\r\n"))
    first = next(row for row, line in enumerate(screen.display) if line.startswith("tokens  "))
    names, rows = ("tokens", "types", "targets"), range(first, first + 3)
    assert [screen.display[row][:8].rstrip() for row in rows] == [*names]
    starts = [cell.start() for cell in re.finditer(r"\S+", screen.display[first]) if cell.start() >= 8]
    return [
        [(screen.display[row][start:].split()[0], look_of(screen.buffer[row][start])) for start in starts]
        for row in rows
    ]


def look_of(character: Any) -> Look:
    return character.fg, character.bold


def test_json_is_one_object_that_agrees_with_the_run(convmodel: Convmodel, tmp_path: Path) -> None:
    train = write_conversations(tmp_path / "train.jsonl", made_up_conversations(40, longest_turn=40))
    run = ["fit", train, "--split", "80/10/10", *OPTIONS, "--max-steps", "20"]
    planned = json.loads(convmodel(*run, "--dry-run", "--json").out)
    assert convmodel(*run, "--json").code == 0
    record = json.loads((tmp_path / "out" / "convmodel.json").read_text())
    assert planned["run"]["train_sequences"] == record["data"]["train_sequences"]
    assert planned["run"]["train_targets"] == record["data"]["train_targets"]
    assert planned["run"]["steps"] == 20 == record["finished"]["steps"]
    assert planned["run"]["parameters"] == record["finished"]["parameters"]
    assert 0 < planned["cut_conversations"] <= 32 and planned["test_conversations"] == 4
    assert sum(part["sequences"] for part in planned["lengths"]) == planned["run"]["train_sequences"]
    assert planned["files"][0]["accepted"] == 40
    assert planned["memory_bytes"] > 4 * 3 * planned["run"]["parameters"]


def test_what_would_refuse_a_run_refuses_it_dry_too(convmodel: Convmodel, tmp_path: Path) -> None:
    bad = write_jsonl(tmp_path / "bad.jsonl", [["only one"]])
    assert convmodel("fit", bad, *OPTIONS, "--dry-run").code == 3
    assert convmodel("fit", "missing.jsonl", *OPTIONS, "--dry-run").code == 2
    good = write_jsonl(tmp_path / "good.jsonl", TALKS)
    assert convmodel("fit", good, *OPTIONS, "--base", "./missing", "--dry-run").code == 4
    assert convmodel("fit", good, *OPTIONS, "--resume", "--dry-run").code == 2


def test_hostile_text_is_shown_and_not_obeyed(convmodel: Convmodel, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", [["\x1b[31m[/x]\u202e", "\x9b\x07"]])
    outcome = convmodel("fit", data, *OPTIONS, "--dry-run", "--color", "always")
    assert outcome.code == 0
    assert "\x1b[31m" not in outcome.out and "\u202e" not in outcome.out and "\x9b" not in outcome.out


@pytest.mark.parametrize("lengths", [[1], [5, 5, 5], [2, 3, 64, 1000], list(range(1, 130))])
def test_every_sequence_is_in_one_bin(lengths: list[int]) -> None:
    import numpy as np

    bins = list(histogram(np.array(lengths), 8))
    assert sum(count for _, _, count in bins) == len(lengths)
    assert bins[-1][1] == max(lengths) and bins[0][0] == 1
    assert all(low <= high for low, high, _ in bins) and len(bins) <= 8
    assert all(before[1] + 1 == after[0] for before, after in pairwise(bins))


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], 2e-2), (["--optimizer", "adamw"], 3e-3), (["--optimizer", "adamw", "--learning-rate", "0.01"], 1e-2)],
)
def test_adamw_alone_has_a_smaller_rate_than_beside_muon(
    convmodel: Convmodel, tmp_path: Path, options: list[str], expected: float
) -> None:
    data = write_conversations(tmp_path / "train.jsonl", made_up_conversations(20))
    outcome = convmodel("fit", data, "--base", "new-tiny", "--vocab-size", "300", *options, "--dry-run", "--json")
    assert json.loads(outcome.out)["run"]["learning_rate"] == pytest.approx(expected)
