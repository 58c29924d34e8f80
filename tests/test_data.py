"""Files of conversations: every accepted shape, every fault with its line."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Convmodel
from convmodel_cli.data.conversations import hold_out, iter_conversations, read_conversations
from convmodel_cli.data.duplicates import find_duplicates, find_overlap
from convmodel_cli.data.formats import BadRecord, Conversation, parse_record, to_record
from convmodel_cli.data.lines import Problem
from convmodel_cli.data.probes import Probe, read_probes
from convmodel_cli.errors import DataError, UsageError
from helpers import made_up_conversations, write_jsonl


def read_lines(tmp_path: Path, *lines: bytes) -> list[Conversation | Problem]:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join(lines))
    return list(iter_conversations(str(path)))


SAME = [
    ["a b", "c"],
    [{"speaker": "Ann", "text": "a b"}, {"speaker": "Bob", "text": "c"}],
    {"conversation": ["a b", "c"]},
    {"conversations": [{"from": "human", "value": "a b"}, {"from": "gpt", "value": "c"}]},
    {"instruction": "a b", "output": "c"},
    {"instruction": "a b", "input": "", "output": "c"},
    {"instruction": "a b", "input": None, "output": "c"},
    {"turns": ["a b", "c"], "learn": None, "persona": None},
    {"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}], "persona": ""},
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


def test_a_persona_that_says_nothing_may_stand_beside_a_system_message() -> None:
    messages = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    for nothing in (None, ""):
        assert parse_record({"messages": messages, "persona": nothing}, 2).persona == "system"
    with pytest.raises(BadRecord, match=r'either a system message or "persona", got both'):
        parse_record({"messages": messages, "persona": 0}, 2)


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
    (b'[["a"], {"b": 1}]', "turn 1: expected a string, got a list of 1"),
    (b'[{"speaker": "A", "text": "a"}, {"text": "b"}]', 'part 2: expected an object with "speaker" and "text"'),
    (b'[{"speaker": "A", "text": "a"}, {"speaker": 2, "text": "b"}]', 'expected "speaker" to be a string'),
    (
        b'[{"speaker": "A", "text": "a"}, {"speaker": "B", "text": "b"}, {"speaker": "C", "text": "c"}]',
        "expected two speakers, got 3: A, B, C",
    ),
    (
        b'{"conversations": [{"from": "dog", "value": "a"}]}',
        'expected "from" to be "system", "human" or "gpt"',
    ),
    (b'{"instruction": "a", "input": 0, "output": "b"}', '"input": expected a string, got the number 0'),
    (b'{"instruction": "a", "input": [], "output": "b"}', '"input": expected a string, got an empty list'),
    (b'{"instruction": "a", "input": false, "output": "b"}', '"input": expected a string, got false'),
    (b'{"turns": ["a", "b"], "persona": 0}', '"persona": expected a string, got the number 0'),
    (b'{"turns": ["a", "b"], "learn": []}', "one flag for each of the 2 turns, got 0"),
    (b'{"turns": ["a", "b"], "learn": 0}', 'expected "learn" to be a list of true and false, got the number 0'),
    (b'{"prompt": "a", "completion": 0, "response": "b"}', '"completion": expected a string, got the number 0'),
    (b'{"instruction": "a"}', 'expected "output" beside "instruction"'),
    (b'{"turns": ["a", "b"], "turns": ["c", "d"]}', 'expected each key once, got "turns" twice'),
    (b'["a", NaN]', "expected JSON, got something else in column"),
    (b'["a", "b"] // why', "expected JSON, got something else in column"),
    (b'["a", "b"] ["c", "d"]', "expected JSON, got something else in column"),
    (b'["a", 123456789012345678901234567890]', "turn 2: expected a string, got the number"),
    (b'["a", "\\ud800"]', "expected JSON, got something else in column"),
    (b'["a", "\xc0\xaf"]', "expected UTF-8, got the byte 0xc0 in column 8"),
    (b'["a", "\xed\xa0\x80"]', "expected UTF-8, got the byte 0xed in column 8"),
    (b'["a", "b\x00"]', "expected JSON, got something else in column"),
    (b'\xef\xbb\xbf["a", "b"]', "expected JSON, got something else in column 1"),
    (b'["a",\r"b\rc"]', "expected JSON, got something else in column"),
    ('["a", "b"]'.encode("utf-16"), "expected UTF-8, got UTF-16 (save it as UTF-8)"),
    ('["a", "b"]'.encode("utf-32"), "expected UTF-8, got UTF-32 (save it as UTF-8)"),
    ('\ufeff["a", "b"]'.encode("utf-16-be"), "expected UTF-8, got UTF-16 (save it as UTF-8)"),
    (b"\x1f\x8b\x08\x00a", "expected UTF-8, got gzip data (unzip it, or name its file .gz)"),
    (b"[" * 900 + b"]" * 900, "turn 1: expected a string, got a list of 1"),
    (b"[" * 2000 + b"]" * 2000, "expected JSON, got something else in column"),
    (b'{"a":' * 1010 + b"1" + b"}" * 1010, "nested too deep"),
    (b'["a", true]', "turn 2: expected a string, got true"),
    (b'["a", {"b": 1}]', 'turn 2: expected a string, got an object with "b"'),
    (b'{"turns": []}', "expected at least two turns, got an empty list"),
    (b"{}", "got an empty object"),
    (b'{"prompt": "a"}', 'expected "completion" or "response" beside "prompt"'),
    (b'{"messages": 3}', 'expected "messages" to be a list, got the number 3'),
    (b'{"messages": [{"role": "bot", "content": "a"}]}', 'message 1: expected "role" to be "system", "user"'),
    (b'{"messages": [{"role": "user"}]}', 'message 1: expected an object with "role" and "content"'),
]


@pytest.mark.parametrize(("line", "expected"), BAD_LINES, ids=[repr(line[:40]) for line, _ in BAD_LINES])
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
    monkeypatch.setattr("convmodel_cli.data.lines.MAX_LINE_BYTES", 50)
    long = json.dumps(["x" * 300, "b"]).encode()
    first, second, third = read_lines(tmp_path, b'["a", "b"]', long, b'["c", "d"]')
    assert isinstance(second, Problem) and second.place.line == 2 and "at most 50 bytes" in second.what
    assert isinstance(first, Conversation) and isinstance(third, Conversation) and third.line == 3


FILES = {
    "spread.csv": b"prompt,response,,\na b,c,,\nd,e,,\n",
    "a.jsonl": b'["a b", "c"]\n\n["d", "e"]\n',
    "a.json": b'[\n  ["a b", "c"],\n  {"turns": ["d", "e"]}\n]\n',
    "a.csv": b'prompt,response\r\na b,c\r\n"d","e"\r\n',
    "b.csv": b"conversation_id,speaker,text\n1,Ann,a b\n1,Bob,c\n2,Ann,d\n2,Bob,e\n",
    "a.tsv": b"response\tprompt\nc\ta b\ne\td\n",
    "a.txt": b"\xef\xbb\xbfa b\nc\n\n\nd\ne",
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_conversations(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(FILES[name]) if zipped else FILES[name])
    assert [item.turns for item in read_conversations(str(path))] == [("a b", "c"), ("d", "e")]


@pytest.mark.parametrize(
    ("name", "content", "line", "expected"),
    [
        ("a.json", b'{"turns": []}', 1, "expected a JSON array of conversations"),
        ("a.json", b'[["a", "b"],\n\n["a"]]', 3, "expected at least two turns, got only one"),
        ("a.json", b'[["a", "b"]\n["c", "d"]]', 1, "expected a comma or ]"),
        ("a.json", b'[["a", "b"],\n["c"', 2, "expected JSON up to the end of the array"),
        ("a.json", b'[["a", "b"],\n{"turns": ["c", "d"], "turns": ["e", "f"]}]', 2, 'got "turns" twice'),
        ("a.json", b'[["a", "b"],\n{"turns": ["c", "d"],\n"x": NaN}]', 2, "JSON has no NaN"),
        ("a.json", b'[["a", "b"],\n{"turns": ["c", "d"], "x": [-Infinity]}]', 2, "JSON has no -Infinity"),
        ("a.json", b'[["a", "b"],\n{"turns": ["c", "d"], "x": 1e999}]', 2, "a number is too large: 1e999"),
        ("a.jsonl", b'["a", "b"]\n{"turns": ["c", "d"], "x": NaN}', 2, "expected JSON, got something else"),
        ("a.jsonl", b'["a", "b"]\n{"turns": ["c", "d"], "x": Infinity}', 2, "expected JSON, got something else"),
        ("a.jsonl", b'["a", "b"]\n{"turns": ["c", "d"], "x": 1e999}', 2, "expected JSON, got something else"),
        ("a.csv", b"question,answer\na,b\n", 1, "expected the columns prompt,response or conversation_id"),
        ("a.csv", b"prompt,response\na,b\nc\n", 3, "expected 2 cells as in the header, got 1"),
        ("a.csv", b'prompt,response\n"a\nb",c\nd,\n', 4, "expected text, got an empty string"),
        ("a.csv", b'prompt,response\na,"b\n', 2, "expected a row of a table"),
        ("a.csv", b"prompt,response,response\na,b,c\n", 1, 'expected each column once, got "response" twice'),
        ("b.csv", b"\nconversation_id,id, id ,speaker,text\n1,2,3,A,a\n", 2, 'got "id" twice'),
        ("a.tsv", b"prompt\tprompt\tresponse\na\tb\tc\n", 1, 'got "prompt" twice'),
        ("a.csv", b"prompt,response\na,\xff\n", 2, "expected UTF-8, got the byte 0xff in column 3"),
        ("b.csv", b"conversation_id,speaker,text\n1,A,a\n1,B,b\n2,A,c\n2,B,d\n1,A,e\n1,B,f\n", 6, "together"),
        ("a.txt", b"a\nb\n\nc\n\nd\ne\n", 4, "expected at least two turns, got only one"),
        ("a.txt", b"a\nb\n\xff\n", 3, "expected UTF-8, got the byte 0xff in column 1"),
    ],
)
def test_faults_of_other_files_are_reported_by_line(
    tmp_path: Path, name: str, content: bytes, line: int, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    problems = [record for record in iter_conversations(str(path)) if isinstance(record, Problem)]
    assert len(problems) >= 1
    assert problems[0].place.line == line
    assert expected in problems[0].what


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
    assert sorted(item.turns for item in [*train, *valid, *test]) == sorted(item.turns for item in doubled)
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


def test_two_hundred_bad_lines_among_eight_hundred_good_are_all_found_and_only_they(tmp_path: Path) -> None:
    kinds = [line for line, _ in BAD_LINES if not line.startswith(b"\xff\xfe")][:40]
    assert len(kinds) == 40
    bad = [line for line in kinds for _ in range(5)]
    lines: list[bytes] = []
    expected = []
    good = iter(json.dumps(list(item.turns)).encode() for item in made_up_conversations(800))
    for number in range(1000):
        if number % 5 == 4:
            expected.append(len(lines) + 1)
            lines.append(bad[number // 5])
        else:
            lines.append(next(good))
        if number % 50 == 0:
            lines.append(b"")
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join(lines))
    records = list(iter_conversations(str(path)))
    problems = [record.place.line for record in records if isinstance(record, Problem)]
    accepted = [record.line for record in records if isinstance(record, Conversation)]
    assert problems == expected
    assert len(accepted) == 800
    assert len(accepted) + len(problems) + lines.count(b"") == len(lines)


def test_repeats_are_counted_exactly_with_their_places(tmp_path: Path) -> None:
    talks = [[f"question {number} café", f"answer {number}"] for number in range(20)]
    train = write_jsonl(tmp_path / "train.jsonl", [*talks, *talks[:4]])
    nearly = [["QUESTION 7  café", "answer 7"], ["question 8 cafe\u0301", "answer 8 "]]
    valid = write_jsonl(tmp_path / "valid.jsonl", [["new", "one"], *talks[10:13], *nearly])
    duplicates = list(find_duplicates(read_conversations(train)))
    assert [(repeat.where, repeat.first) for repeat in duplicates] == [
        (f"{train}:{21 + number}", f"{train}:{1 + number}") for number in range(4)
    ]
    overlap = list(find_overlap(read_conversations(train), read_conversations(valid)))
    assert [repeat.exact for repeat in overlap] == [True] * 3 + [False] * 2
    assert [repeat.where.rsplit(":", 1)[1] for repeat in overlap] == ["2", "3", "4", "5", "6"]
    assert [repeat.first.rsplit(":", 1)[1] for repeat in overlap] == ["11", "12", "13", "8", "9"]


def write_bad_among_good(folder: Path) -> tuple[Path, Path, list[int]]:
    """(800 good lines, 200 bad of 40 kinds and 20 blank ones; the good ones alone; the numbers of the bad)"""
    kinds = [line for line, _ in BAD_LINES if not line.startswith(b"\xff\xfe")][:40]
    good = [json.dumps(list(item.turns)).encode() for item in made_up_conversations(800)]
    lines: list[bytes] = []
    numbers = []
    for number in range(200):
        lines += good[4 * number : 4 * number + 4]
        lines.append(kinds[number % 40])
        numbers.append(len(lines))
        if number % 10 == 0:
            lines.append(b" ")
    mixed, alone = folder / "mixed.jsonl", folder / "good.jsonl"
    mixed.write_bytes(b"\n".join(lines) + b"\n")
    alone.write_bytes(b"\n".join(good) + b"\n")
    return mixed, alone, numbers


def test_a_run_says_each_of_two_hundred_bad_lines_by_its_number(tmp_path: Path) -> None:
    mixed, _, numbers = write_bad_among_good(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "convmodel_cli", "fit", mixed.name, "-v"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert [int(number) for number in re.findall(r"^error: mixed\.jsonl:(\d+): ", done.stderr, re.M)] == numbers
    assert "200 bad lines, 800 good" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.jsonl", "mixed.jsonl"]


def test_skip_bad_takes_exactly_the_good_of_a_thousand_lines(
    convmodel: Convmodel, workshop: Path, tmp_path: Path
) -> None:
    mixed, alone, _ = write_bad_among_good(tmp_path)
    options = ["--base", str(workshop / "tiny"), "--dry-run", "--json"]
    outcome = convmodel("fit", str(mixed), "--skip-bad", *options)
    assert outcome.code == 0, outcome.err
    assert f"{mixed}: 200 bad skipped, 800 good, 20 blank" in outcome.err
    plan, expected = json.loads(outcome.out), json.loads(convmodel("fit", str(alone), *options).out)
    [found] = plan["files"]
    assert [found[name] for name in ("lines", "accepted", "rejected", "blank")] == [1020, 800, 200, 20]
    other = {"files", "memory_bytes"}
    assert {name: plan[name] for name in plan.keys() - other} == {name: expected[name] for name in plan.keys() - other}


def test_a_file_in_utf_16_is_refused_line_by_line_without_a_run(convmodel: Convmodel, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes("".join(f'["hello {number}", "there"]\n' for number in range(30)).encode("utf-16"))
    outcome = convmodel("fit", str(path), "-v")
    assert (outcome.code, outcome.out) == (3, "")
    assert f"error: {path}:1: expected UTF-8, got UTF-16 (save it as UTF-8)" in outcome.err
    assert "0 good" in outcome.err and "Traceback" not in outcome.err
    assert not (tmp_path / "model").exists()


def test_keys_that_are_not_read_are_named_and_misspelt_ones_first(convmodel: Convmodel, tmp_path: Path) -> None:
    records: list[dict[str, object]] = [{"turns": ["a", "b"], "id": number, "persona": ""} for number in range(30)]
    records[7]["lern"] = [False, True]
    records[8] = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "turns": None}
    path = tmp_path / "keys.jsonl"
    del records[8]["turns"]
    records[9] |= {"prompt": "a"}  # as data sets have it that say the same in two ways
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    outcome = convmodel("fit", str(path), "--dry-run", "--vocab-size", "300")
    told = " ".join(outcome.err.split())
    assert "keys that are not read: lern (1; did you mean learn?), id (29), prompt (1)" in told
    plain = tmp_path / "plain.jsonl"
    plain.write_text('["a", "b"]\n{"prompt": "a", "response": "b", "learn": [false, true]}\n' * 20)
    assert "not read" not in convmodel("fit", str(plain), "--dry-run", "--vocab-size", "300").err
