"""Files of conversations: every accepted shape, every fault with its line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from convmodel_cli.data.conversations import Problem, hold_out, iter_conversations, read_conversations
from convmodel_cli.data.formats import Conversation, parse_record, to_record
from convmodel_cli.data.probes import Probe, read_probes
from convmodel_cli.errors import DataError, UsageError
from helpers import made_up_conversations, write_jsonl


def read_lines(tmp_path: Path, *lines: bytes) -> list[Conversation | Problem]:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join(lines))
    return list(iter_conversations(str(path)))


SAME = [
    ["a b", "c"],
    {"turns": ["a b", "c"]},
    {"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]},
    {"prompt": "a b", "completion": "c"},
    {"prompt": "a b", "response": "c"},
]


@pytest.mark.parametrize("record", SAME, ids=str)
def test_every_format_gives_the_same_turns(record: object) -> None:
    assert parse_record(record, 2).turns == ("a b", "c")


def test_roles_say_which_turns_are_responses_and_the_system_message_is_the_persona() -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "one"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "three"},
    ]
    conversation = parse_record({"messages": messages}, 2)
    assert conversation.turns == ("one\ntwo", "three")
    assert conversation.assistant == (False, True)
    assert conversation.persona == "Be kind."


@pytest.mark.parametrize(
    "conversation",
    [
        Conversation(("a", "b")),
        Conversation(("a", "b", "c"), learn=(True, False, True)),
        Conversation(("a", "b"), assistant=(True, False), persona="p"),
    ],
)
def test_a_written_record_reads_back_as_the_same_conversation(conversation: Conversation) -> None:
    assert parse_record(to_record(conversation), 2) == conversation


BAD_LINES = [
    (b"not json", "expected JSON, got something else in column 1"),
    (b'["a", "b"', "expected JSON, got something else in column"),
    (b'["a", "b",]', "expected JSON, got something else in column"),
    (b"['a', 'b']", "expected JSON, got something else in column 2"),
    (b"17", "expected a list of turns, got the number 17"),
    (b"null", "expected a list of turns, got null"),
    (b'"text"', 'expected a list of turns, got the string "text"'),
    (b'{"text": "a"}', 'got an object with "text"'),
    (b"[]", "expected at least two turns, got an empty list"),
    (b'["a"]', "expected at least two turns, got only one"),
    (b'["a", 7]', "turn 2: expected a string, got the number 7"),
    (b'["a", null]', "turn 2: expected a string, got null"),
    (b'["a", ["b"]]', "turn 2: expected a string, got a list of 1"),
    (b'["a", ""]', "turn 2: expected text, got an empty string"),
    (b'["a", "  \\n"]', "turn 2: expected text, got only white space"),
    (b'["a", "b\\u0000"]', "turn 2: expected text, got a NUL character in it"),
    (b'["a", "\xff"]', "expected UTF-8, got the byte 0xff in column 8"),
    (b'{"turns": "a"}', 'expected "turns" to be a list of strings, got the string "a"'),
    (b'{"turns": ["a", "b"], "learn": [true]}', "one flag for each of the 2 turns, got 1"),
    (b'{"turns": ["a", "b"], "learn": "yes"}', 'expected "learn" to be a list of true and false'),
    (b'{"turns": ["a", "b"], "persona": 1}', '"persona": expected a string, got the number 1'),
    (b'{"prompt": "a"}', 'expected "completion" or "response" beside "prompt"'),
    (b'{"messages": 3}', 'expected "messages" to be a list, got the number 3'),
    (b'{"messages": [{"role": "bot", "content": "a"}]}', 'message 1: expected the role "system", "user"'),
    (b'{"messages": [{"role": "user"}]}', 'message 1: expected an object with "role" and "content"'),
]


@pytest.mark.parametrize(("line", "expected"), BAD_LINES, ids=[line.decode("latin-1") for line, _ in BAD_LINES])
def test_a_bad_line_is_reported_with_its_number_and_what_was_found(tmp_path: Path, line: bytes, expected: str) -> None:
    good, bad, other = read_lines(tmp_path, b'["good", "one"]', line, b'["good", "two"]')
    assert isinstance(good, Conversation) and isinstance(other, Conversation)
    assert isinstance(bad, Problem)
    assert str(bad).startswith(f"{tmp_path / 'data.jsonl'}:2: ")
    assert expected in str(bad)


@pytest.mark.parametrize(
    "line",
    [
        b'\xef\xbb\xbf["a", "b"]',
        b'["a", "b"]\r',
        '["a\u2028b", "c\u0085d"]'.encode(),
        b'  ["a", "b"]  ',
        b'["\\ud83d\\ude42", "b"]',
    ],
)
def test_bom_crlf_and_odd_line_separators_are_accepted(tmp_path: Path, line: bytes) -> None:
    [record] = read_lines(tmp_path, line)
    assert isinstance(record, Conversation)
    assert len(record.turns) == 2


def test_blank_lines_are_ignored_but_counted_in_line_numbers(tmp_path: Path) -> None:
    records = read_lines(tmp_path, b"", b'["a", "b"]', b"   ", b"oops", b"")
    assert [record.line if isinstance(record, Conversation) else record.place.line for record in records] == [2, 4]


def test_all_bad_lines_are_reported_together(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [["a", "b"], 1, ["a"], ["c", "d"], None])
    with pytest.raises(DataError) as caught:
        read_conversations(path)
    assert [problem.split(": ")[0].rsplit(":", 1)[1] for problem in caught.value.problems] == ["2", "3", "5"]
    assert "3 bad lines, 2 good" in str(caught.value)


def test_gzip_is_read_like_the_plain_file_and_damage_is_an_error(tmp_path: Path) -> None:
    conversations = made_up_conversations(500)
    plain = "".join(json.dumps(list(item.turns)) + "\n" for item in conversations).encode()
    zipped = tmp_path / "data.jsonl.gz"
    zipped.write_bytes(gzip.compress(plain))
    assert [item.turns for item in read_conversations(str(zipped))] == [item.turns for item in conversations]
    for content in (gzip.compress(plain)[:-200], b"no gzip at all"):
        zipped.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_conversations(str(zipped))
        assert "expected gzip data, got a damaged stream" in caught.value.problems[-1]


def test_an_over_long_line_is_refused_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convmodel_cli.data.conversations.MAX_LINE_BYTES", 50)
    long = json.dumps(["x" * 300, "b"]).encode()
    first, second, third = read_lines(tmp_path, b'["a", "b"]', long, b'["c", "d"]')
    assert isinstance(second, Problem) and second.place.line == 2 and "at most 50 bytes" in second.what
    assert isinstance(first, Conversation) and isinstance(third, Conversation) and third.line == 3


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_a_file_without_conversations_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected conversations, got an empty file"):
        read_conversations(str(path))


def test_a_missing_file_says_what_is_there(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [["a", "b"]])
    with pytest.raises(UsageError, match="no such file") as caught:
        read_conversations(str(tmp_path / "tain.jsonl"))
    assert "train.jsonl" in caught.value.hint
    with pytest.raises(UsageError, match="got a folder"):
        read_conversations(str(tmp_path))


def test_hold_out_is_exact_independent_of_order_and_keeps_copies_together() -> None:
    conversations = made_up_conversations(100)
    doubled = conversations + conversations[:10]
    train, valid, test = hold_out(doubled, (0.8, 0.1, 0.1))
    assert sorted(item.turns for item in train + valid + test) == sorted(item.turns for item in doubled)
    turns = [{item.turns for item in part} for part in (train, valid, test)]
    assert [len(part) for part in turns] == [80, 10, 10]
    assert not turns[0] & turns[1] and not turns[0] & turns[2] and not turns[1] & turns[2]
    again = hold_out(doubled[::-1], (0.8, 0.1, 0.1))
    assert [{item.turns for item in part} for part in again] == turns


def test_a_probe_is_answered_by_all_its_words_and_no_distractor() -> None:
    probe = Probe(("What's my name?",), ("Nora",), ("Lena", "one"))
    assert probe.is_answered_by("your name is NORA!")
    assert not probe.is_answered_by("Norah")
    assert not probe.is_answered_by("Nora or Lena")
    assert probe.is_answered_by("Nora, done")


def test_bad_probes_are_reported_by_line(tmp_path: Path) -> None:
    good = {"context": ["a"], "answer": ["b"], "distractors": ["c"]}
    path = write_jsonl(tmp_path / "probes.jsonl", [good, {"context": ["a"]}, {**good, "answer": []}, 4])
    with pytest.raises(DataError) as caught:
        read_probes(path)
    assert len(caught.value.problems) == 3
