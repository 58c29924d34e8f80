"""Spools, the store of conversations, and what is found by their keys."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from conftest import TALKS, Convmodel
from convmodel_cli.data.conversations import digest, hold_out
from convmodel_cli.data.duplicates import find_duplicates, find_overlap
from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.spool import Spool
from convmodel_cli.data.store import Conversations
from convmodel_cli.errors import StorageError
from helpers import made_up_conversations, weights_digest, write_conversations, write_jsonl

KINDS = [
    Conversation(("a", "b"), file="x.jsonl", line=3),
    Conversation(("a\n", "日本語 🙂\u2028"), (True, False), None, "p", "x.jsonl", 9),
    Conversation(("a", "b", "c"), None, (False, True, False), "", "y.jsonl", 1),
    Conversation(("d", "e")),
]


@pytest.fixture(params=[64 * 2**20, 50], ids=["in memory", "in a file"])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many bytes a spool keeps in memory."""
    monkeypatch.setattr("convmodel_cli.data.spool.IN_MEMORY_BYTES", request.param)
    return int(request.param)


def test_a_spool_gives_back_what_was_appended_at_any_time(limit: int) -> None:
    spool = Spool()
    written = b""
    generator = np.random.default_rng(0)
    for size in generator.integers(0, 40, 300).tolist():
        part = generator.bytes(size)
        spool.append(part)
        written += part
        start, end = sorted(generator.integers(0, len(written) + 1, 2).tolist())
        assert bytes(spool.read(start, end)) == written[start:end]
        assert bytes(spool.read(len(written) - size, len(written))) == part
    assert len(spool) == len(written)
    assert spool.as_array(np.uint8).tobytes() == written


def test_a_spool_without_bytes_is_an_empty_array(limit: int) -> None:
    assert Spool().as_array(np.int32).shape == (0,)


def test_the_file_of_a_spool_lies_in_the_temporary_folder_and_has_no_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("convmodel_cli.data.spool.IN_MEMORY_BYTES", 10)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool()
    spool.append(b"x" * 100)
    open_files = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert [name for name in open_files if name.startswith(str(tmp_path))]
    assert list(tmp_path.iterdir()) == []
    assert bytes(spool.read(0, 100)) == b"x" * 100


def test_a_full_temporary_folder_is_a_storage_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("convmodel_cli.data.spool.IN_MEMORY_BYTES", 10)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: Path("/dev/full").open("r+b", buffering))  # noqa: SIM115
    with pytest.raises(StorageError) as caught:
        Spool().append(b"x" * 100)
    assert str(caught.value) == f"{tmp_path}: cannot be written: {os.strerror(errno.ENOSPC)}"
    assert "TMPDIR" in caught.value.hint


def test_a_run_whose_conversations_do_not_fit_into_the_temporary_folder_exits_7_before_torch(tmp_path: Path) -> None:
    data = write_conversations(tmp_path / "data.jsonl", made_up_conversations(100))
    script = (
        "import resource, sys; from convmodel_cli.cli.main import run; from convmodel_cli.data import spool; "
        "spool.IN_MEMORY_BYTES = 1000; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); "
        f"code = run(['fit', {data!r}]); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False, env=environment
    )
    assert done.returncode == 7, done.stderr
    assert f"error: {tmp_path}: cannot be written" in done.stderr and "Traceback" not in done.stderr


def test_a_store_gives_back_equal_conversations(limit: int) -> None:
    stored = Conversations(KINDS)
    assert list(stored) == KINDS
    assert [stored[index] for index in range(-4, 4)] == KINDS + KINDS
    assert [stored.where(index) for index in range(4)] == [item.where for item in KINDS]
    assert len(stored) == 4 and KINDS[1] in stored
    with pytest.raises(IndexError):
        stored[4]


def test_views_share_the_store(limit: int) -> None:
    conversations = made_up_conversations(100)
    stored = Conversations(conversations)
    odd = stored[1::2]
    assert list(odd) == conversations[1::2]
    assert list(odd[5:8]) == conversations[11:17:2]
    assert odd[-1] == conversations[99] and odd.where(0) == "made-up:2"
    assert odd.content_keys.tolist() == stored.content_keys[1::2].tolist()
    assert list(stored) == conversations


def test_a_digest_is_the_same_for_a_list_a_store_and_a_view_and_sees_all_that_is_trained_on(limit: int) -> None:
    stored = Conversations([*KINDS, *KINDS])
    assert digest(KINDS) == digest(Conversations(KINDS)) == digest(stored[4:]) == digest(iter(KINDS))
    first = KINDS[0]
    others = [
        [first, KINDS[1]],
        [KINDS[1], first],
        [Conversation(("a", "c")), KINDS[1]],
        [Conversation(("a", "b"), learn=(True, False)), KINDS[1]],
        [Conversation(("a", "b"), (False, True)), KINDS[1]],
        [Conversation(("a", "b"), persona="q"), KINDS[1]],
        [Conversation(("a", "b", "a\n")), KINDS[1]],
    ]
    assert len({digest(other) for other in others}) == len(others)


def test_what_is_held_out_does_not_depend_on_the_store(limit: int) -> None:
    conversations = made_up_conversations(100)
    parts = hold_out(conversations, (0.9, 0.1))
    assert [list(part) for part in hold_out(Conversations(conversations), (0.9, 0.1))] == [list(part) for part in parts]
    assert len(parts[1]) == 10


def test_equal_keys_of_different_conversations_are_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convmodel_cli.data.store.loose_key", lambda _: 1)
    conversations = [*made_up_conversations(20), Conversation(("x", "y"), line=1), Conversation(("x ", "y"), line=2)]
    duplicates = list(find_duplicates(conversations))
    assert [repeat.exact for repeat in duplicates] == [False]
    assert not list(find_overlap(made_up_conversations(20), made_up_conversations(20, seed=1)))


def test_of_several_that_are_alike_the_one_that_is_exactly_so_is_named() -> None:
    train = [
        Conversation(("HI", "there"), file="t", line=1),
        Conversation(("Hi", "there"), file="t", line=2),
        Conversation(("Hi", "there"), file="t", line=3),
    ]
    [repeat] = find_overlap(train, [Conversation(("Hi", "there"), file="v", line=1)])
    assert (repeat.first, repeat.exact) == ("t:2", True)
    [repeat] = find_overlap(train, [Conversation(("hi", "THERE"), file="v", line=1)])
    assert (repeat.first, repeat.exact) == ("t:1", False)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (("a b", "c"), ("a", "b c"), False),
        (("a  b ", " c"), ("a b", "c"), True),
        (("a\tb", "c"), ("a b", "c"), True),
        (("STRASSE", "c"), ("straße", "C"), True),
        (("cafe\u0301", "c"), ("caf\u00e9", "c"), True),
        (("a", "b", "c"), ("a", "b c"), False),
    ],
)
def test_conversations_are_nearly_the_same_if_case_space_and_composition_alone_differ(
    one: tuple[str, ...], other: tuple[str, ...], alike: bool
) -> None:
    assert len(list(find_duplicates([Conversation(one), Conversation(other)]))) == alike


def test_a_run_from_temporary_files_gives_the_very_weights_of_one_in_memory(
    convmodel: Convmodel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = write_conversations(tmp_path / "train.jsonl", made_up_conversations(60))
    options = ["--precision", "fp32", "--vocab-size", "320", "--epochs", "1", "--batch-size", "16"]
    assert convmodel("fit", data, "-o", "memory", *options).code == 0
    monkeypatch.setattr("convmodel_cli.data.spool.IN_MEMORY_BYTES", 100)
    assert convmodel("fit", data, "-o", "file", *options).code == 0
    assert weights_digest(tmp_path / "memory") == weights_digest(tmp_path / "file")


def test_repeats_of_a_run_are_counted_with_both_places_warned_of_and_recorded(
    convmodel: Convmodel, tmp_path: Path
) -> None:
    talks = [[f"question {number} café", f"answer {number}"] for number in range(20)]
    nearly = [["QUESTION 7  café", "answer 7"], ["question 8 cafe\u0301", "answer 8 "]]
    train = write_jsonl(tmp_path / "train.jsonl", [*talks, *talks[:4]])
    valid = write_jsonl(tmp_path / "valid.jsonl", [TALKS[0], *talks[10:13], *nearly])
    outcome = convmodel("fit", train, valid, "-o", "out", "--max-steps", "1", "--vocab-size", "300", "--json")
    assert outcome.code == 0
    assert "stand twice in TRAIN: 4 (" in outcome.err and "so that its figures are too good: 5 (" in outcome.err
    record = json.loads((tmp_path / "out" / "convmodel.json").read_text())["data"]
    four = [{"where": f"{train}:{21 + number}", "first": f"{train}:{1 + number}", "exact": True} for number in range(4)]
    assert record["duplicates"] == {"count": 4, "shown": four}
    pairs = [(2, 11, True), (3, 12, True), (4, 13, True), (5, 8, False), (6, 9, False)]
    five = [{"where": f"{valid}:{line}", "first": f"{train}:{first}", "exact": exact} for line, first, exact in pairs]
    assert record["overlap"] == {"count": 5, "shown": five}


def test_many_repeats_are_all_counted_and_a_thousand_of_each_kind_recorded(
    convmodel: Convmodel, tmp_path: Path
) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [*TALKS, *[TALKS[0]] * 1500])
    valid = write_jsonl(tmp_path / "valid.jsonl", [TALKS[1]] * 1200)
    fit = ["fit", train, valid, "-o", "out", "--max-steps", "1", "--eval-batches", "1", "--vocab-size", "300"]
    outcome = convmodel(*fit, "--dry-run")
    assert "duplicates in TRAIN   1,500\n" in outcome.out and "VALID in TRAIN        1,200\n" in outcome.out
    assert "... and 1,480 more (--json lists 1,000)" in outcome.out
    outcome = convmodel(*fit)
    assert "stand twice in TRAIN: 1,500 (" in outcome.err and "so that its figures are too good: 1,200 (" in outcome.err
    record = json.loads((tmp_path / "out" / "convmodel.json").read_text())["data"]
    assert [record[name]["count"] for name in ("duplicates", "overlap")] == [1500, 1200]
    assert [len(record[name]["shown"]) for name in ("duplicates", "overlap")] == [1000, 1000]
    assert record["duplicates"]["shown"][999]["where"] == f"{train}:1006"
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert ": 1,500</summary>" in page and "and 1,480 more; convmodel.json lists 1,000" in page


def test_of_keys_that_texts_share_each_text_has_its_own_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convmodel_cli.data.store.loose_key", lambda _: 1)
    texts = ["a", "b", "c", "B", "a", "c", "b"]
    said = [Conversation((text, "x"), file="t", line=line) for line, text in enumerate(texts, 1)]
    found = [(repeat.where, repeat.first, repeat.exact) for repeat in find_duplicates(said)]
    assert found == [("t:4", "t:2", False), ("t:5", "t:1", True), ("t:6", "t:3", True), ("t:7", "t:2", True)]
    overlap = [(repeat.first, repeat.exact) for repeat in find_overlap(said[:4], [said[6], said[4], said[3]])]
    assert overlap == [("t:2", True), ("t:1", True), ("t:4", True)]
