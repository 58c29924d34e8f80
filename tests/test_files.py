"""Kinds of files: what each may hold, how it is counted, and how it breaks."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Convmodel
from convmodel_cli.data.conversations import (
    FileReport,
    iter_conversations,
    read_conversations,
    read_good_into,
    read_into,
)
from convmodel_cli.data.encoding import encode_conversations
from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.lines import Counts, Problem
from convmodel_cli.data.store import Conversations
from convmodel_cli.errors import DataError, ModelError, UsageError
from convmodel_cli.workflows.data import read_fit_data
from helpers import BYTES, made_up_conversations, write_jsonl

PAIRS = [(item.turns[0], item.turns[1]) for item in made_up_conversations(20)]
GOOD = b'["a", "b"]\n'
NOBODY = 65534


def report(path: Path) -> FileReport:
    return read_good_into(Conversations(), str(path))[0]


def jsonl(record: Callable[[str, str], Any]) -> bytes:
    return b"".join(json.dumps(record(*pair)).encode() + b"\n" for pair in PAIRS)


def roles(who: str, text: str, names: tuple[str, str]) -> Callable[[str, str], list[dict[str, str]]]:
    return lambda *pair: [{who: name, text: turn} for name, turn in zip(names, pair, strict=True)]


messages = roles("role", "content", ("user", "assistant"))
shared = roles("from", "value", ("human", "gpt"))
RECORDS: dict[str, Callable[[str, str], Any]] = {
    "a list of turns": lambda first, second: [first, second],
    "a list of speakers": roles("speaker", "text", ("Ann", "Bob")),
    '"turns"': lambda *pair: {"turns": pair},
    '"conversation"': lambda *pair: {"conversation": pair},
    '"messages"': lambda *pair: {"messages": messages(*pair)},
    '"conversations"': lambda *pair: {"conversations": shared(*pair)},
    '"instruction"': lambda first, second: {"instruction": first, "input": "", "output": second},
    '"prompt"': lambda first, second: {"prompt": first, "completion": second},
}
FILES = {
    "array.json": json.dumps(PAIRS, indent=1).encode(),
    "pairs.csv": b"prompt,response\n" + b"".join(f"{first},{second}\n".encode() for first, second in PAIRS),
    "pairs.tsv": b"response\tprompt\n" + b"".join(f"{second}\t{first}\n".encode() for first, second in PAIRS),
    "rows.csv": b"conversation_id,speaker,text\n"
    + b"".join(f"{number},Ann,{pair[0]}\n{number},Bob,{pair[1]}\n".encode() for number, pair in enumerate(PAIRS)),
    "text.txt": b"\n".join(f"{first}\n{second}\n".encode() for first, second in PAIRS),
    **{f"{number}.jsonl": jsonl(record) for number, record in enumerate(RECORDS.values())},
}


def token_counts(path: Path) -> list[int]:
    sequences = encode_conversations(read_conversations(str(path)), BYTES, 1000, "all")
    return [len(sequences[index].ids) for index in range(len(sequences))]


TOKEN_COUNTS = [3 + len(first) + len(second) for first, second in PAIRS]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_the_same_conversations_are_the_same_tokens_in_every_format(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(FILES[name]) if zipped else FILES[name])
    assert token_counts(path) == TOKEN_COUNTS


@pytest.mark.parametrize("shape", RECORDS)
def test_the_shapes_of_a_file_are_counted(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(jsonl(RECORDS[shape]) + b"\n" + GOOD + b"oops\n" + b'{"turns": 3}')
    shapes = ((shape, 21),) if shape == "a list of turns" else ((shape, 20), ("a list of turns", 1))
    assert report(path) == FileReport(str(path), lines=24, blank=1, accepted=21, rejected=2, shapes=shapes)


LONG = b'["' + b"x" * 60 + b'", "b"]\n'
COUNTED = [
    (GOOD, (1, 0, 1, 0)),
    (GOOD * 3 + GOOD.rstrip(), (4, 0, 4, 0)),
    (b"\xef\xbb\xbf\n \r\n\t\n" + GOOD, (4, 3, 1, 0)),
    (GOOD + b"x\r\n\n" * 3, (7, 3, 1, 3)),
    (LONG + GOOD + LONG, (3, 0, 1, 2)),
    (GOOD + LONG.rstrip(), (2, 0, 1, 1)),
    (b'["' + b"x" * 41 + b'", "b"]\n' + GOOD, (2, 0, 2, 0)),  # as long as a line may be
    (b'["' + b"x" * 42 + b'", "b"]\n' + GOOD, (2, 0, 1, 1)),
    (GOOD + b"\xff\xfe\n\0\n" + GOOD, (4, 0, 2, 2)),
]


@pytest.mark.parametrize(("content", "expected"), COUNTED)
@pytest.mark.parametrize("zipped", [False, True])
def test_accepted_rejected_and_blank_lines_are_all_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: tuple[int, ...], zipped: bool
) -> None:
    monkeypatch.setattr("convmodel_cli.data.lines.MAX_LINE_BYTES", 50)
    path = tmp_path / ("data.jsonl" + ".gz" * zipped)
    path.write_bytes(gzip.compress(content) if zipped else content)
    found = report(path)
    assert (found.lines, found.blank, found.accepted, found.rejected) == expected
    assert found.accepted + found.rejected + found.blank == found.lines


def test_the_files_of_a_run_are_reported_in_order(tmp_path: Path) -> None:
    names = [write_jsonl(tmp_path / f"{name}.jsonl", PAIRS[:count]) for name, count in (("a", 3), ("b", 4), ("c", 5))]
    data = read_fit_data((names[0], names[1]), (names[2],), None)
    assert [(found.file, found.accepted) for found in data.files] == list(zip(names, (3, 4, 5), strict=True))
    assert [data.train.where(index) for index in (0, 2, 3)] == [f"{names[0]}:1", f"{names[0]}:3", f"{names[1]}:1"]


def piped(content: bytes, path: Path) -> str:
    """A FIFO into which this is written."""
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(content,), daemon=True).start()
    return str(path)


@pytest.mark.parametrize("way", ["file", "fifo", "-"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected conversations, got an empty file"),
        (b"\n  \n\r\n", "expected conversations, got an empty file"),
        (b"\nnonsense\n", ":2: expected JSON"),
    ],
)
def test_data_without_a_conversation_exits_3_with_one_error_and_no_run(
    convmodel: Convmodel, tmp_path: Path, content: bytes, expected: str, way: str
) -> None:
    path = tmp_path / "data.jsonl"
    if way == "fifo":
        piped(content, path)
    elif way == "file":
        path.write_bytes(content)
    outcome = convmodel("fit", way if way == "-" else str(path), stdin=content)
    assert (outcome.code, outcome.out) == (3, "")
    error, hint = outcome.err.splitlines()
    assert error.startswith("error: ") and expected in error
    assert hint.startswith("hint: ")
    assert not (tmp_path / "model").exists()


def test_a_full_fifo_is_read_like_a_file(tmp_path: Path) -> None:
    path = piped(GOOD * 50_000, tmp_path / "data.jsonl")
    assert len(read_conversations(path)) == 50_000


def test_what_cannot_be_opened_exits_2_with_one_error(convmodel: Convmodel, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, expected in [("none.jsonl", "no such file"), ("folder", "got a folder"), ("x/y.jsonl", "no such file")]:
        outcome = convmodel("fit", name)
        assert (outcome.code, outcome.out) == (2, "")
        assert len([line for line in outcome.err.splitlines() if line.startswith("error: ")]) == 1
        assert expected in outcome.err


@pytest.fixture
def reading_as_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root may read everything, so that root reads the data as another user."""

    def read(*arguments: Any) -> Any:
        os.seteuid(NOBODY)
        try:
            return read_into(*arguments)
        finally:
            os.seteuid(0)

    tmp_path.chmod(0o755)
    if os.geteuid() == 0:
        monkeypatch.setattr("convmodel_cli.workflows.data.read_into", read)


@pytest.mark.usefixtures("reading_as_nobody")
def test_a_file_without_permission_exits_2(convmodel: Convmodel, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD)
    path.chmod(0)
    outcome = convmodel("fit", "data.jsonl")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[0] == "error: data.jsonl: cannot be read: Permission denied"
    assert outcome.err.count("error: ") == 1


def test_bad_lines_are_shown_up_to_20_and_all_of_them_if_asked_for(convmodel: Convmodel, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [*PAIRS, *range(25)])
    few = convmodel("fit", path)
    assert (few.code, few.err.count("expected a list of turns, got the number")) == (3, 20)
    assert "... and 5 more (-v lists all)" in few.err and "25 bad lines, 20 good" in few.err
    everything = convmodel("fit", path, "-v")
    assert (everything.code, everything.err.count("expected a list of turns, got the number")) == (3, 25)
    assert "more (-v" not in everything.err


def test_skipped_lines_are_counted_and_shown_up_to_20_and_all_of_them_if_asked_for(
    convmodel: Convmodel, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [*PAIRS, *range(25)])
    with Path(path).open("a") as file:
        file.write("\n\n\n")
    options = ["--skip-bad", "--max-steps", "1", "--vocab-size", "300"]
    few = convmodel("fit", path, "-o", "few", *options)
    assert few.code == 0
    assert f"{path}: 25 bad skipped, 20 good, 3 blank" in few.err
    assert (
        few.err.count(": expected a list of turns, got the number") == 20 and "... and 5 more (-v lists all)" in few.err
    )
    everything = convmodel("fit", path, "-o", "all", *options, "-v")
    assert everything.err.count(": expected a list of turns, got the number") == 25 and "more (-v" not in everything.err


def test_an_array_over_several_lines_in_a_jsonl_file_is_told_where_it_belongs(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n" + json.dumps(PAIRS, indent=2))
    with pytest.raises(DataError) as caught:
        read_conversations(str(path))
    assert caught.value.problems[0].startswith(f"{path}:2: expected a conversation on one line")
    assert ".json" in caught.value.hint
    path.rename(tmp_path / "data.json")
    assert len(read_conversations(str(tmp_path / "data.json"))) == 20


ZIPPED = gzip.compress(GOOD * 1000, mtime=0)  # no time in it: test ids must be the same in every process
BROKEN = [
    (ZIPPED[:-4], 1001, "Compressed file ended"),
    (ZIPPED[:-8] + b"\1\2\3\4" + ZIPPED[-4:], 1001, "CRC check failed"),
    (ZIPPED + b"trailing", 1001, "something else follows it"),
    (GOOD * 10, 1, "no gzip file"),
    (gzip.compress(GOOD * 3 + b"\n\n\n" + GOOD, mtime=0)[:-6], 8, "Compressed file ended"),
]


@pytest.mark.parametrize(("content", "line", "reason"), BROKEN)
def test_a_broken_gzip_file_is_refused_at_its_line(tmp_path: Path, content: bytes, line: int, reason: str) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_conversations(str(path))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{path}:{line}: expected gzip data, got a damaged stream (")
    assert reason in caught.value.problems[0]


class Dripping(io.BytesIO):
    """Gives one byte at a time, as if each were the end of what has come so far."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(1, size or 0))


@pytest.mark.parametrize(
    "content",
    [
        '\ufeff[["a", "日本語 🙂"], {"turns": ["c", "d\\u00e9"]}, 12, -3.5e10, true, "text", []]',
        ' [ \n["a", "b"]\n,\n17\n]\n\n',
        "[]",
        "",
        "  \n ",
    ],
)
def test_an_array_is_the_same_however_its_bytes_come(content: str) -> None:
    from convmodel_cli.data.json_records import read_json_array

    whole = json.loads(content.removeprefix("\ufeff") if content.strip() else "[]")
    counts = Counts()
    assert [value for _, value in read_json_array(Dripping(content.encode()), counts)] == whole
    assert counts.lines == content.count("\n")


@pytest.mark.parametrize(
    ("content", "line", "expected"),
    [
        (b'[["a", "b"],\n["c", "\xff"]]', 2, "expected UTF-8, got the byte 0xff"),
        ('[["a", "b"]]'.encode("utf-16"), 1, "expected UTF-8, got UTF-16 (save it as UTF-8)"),
        (b'[["a", "b"]\n] []', 2, "expected nothing behind the array"),
        (b'[["a", "b"],\n', 2, "expected JSON up to the end of the array"),
        (b'[["a", "b"],\n"' + b"x" * 300, 2, "expected a conversation of at most 100 bytes"),
        (b"nonsense", 1, "expected a JSON array"),
    ],
)
def test_a_broken_array_is_refused_at_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, line: int, expected: str
) -> None:
    monkeypatch.setattr("convmodel_cli.data.lines.MAX_LINE_BYTES", 100)
    monkeypatch.setattr("convmodel_cli.data.json_records._BLOCK_BYTES", 10)
    path = tmp_path / "data.json"
    path.write_bytes(content)
    [problem] = [item for item in iter_conversations(str(path)) if isinstance(item, Problem)]
    assert (problem.place.line, expected in problem.what) == (line, True), problem


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"a\nb\n\n" + b"c\n" * 200),
        ("a.csv", b"conversation_id,speaker,text\n1,A,a\n1,B,b\n" + b"2,A,c\n2,B,d\n" * 100),
    ],
)
def test_a_conversation_of_many_lines_that_does_not_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    monkeypatch.setattr("convmodel_cli.data.lines.MAX_LINE_BYTES", 100)
    path = tmp_path / name
    path.write_bytes(content)
    good, bad = iter_conversations(str(path))
    assert not isinstance(good, Problem) and isinstance(bad, Problem)
    assert (bad.place.line, bad.what) == (4, "expected a conversation of at most 100 bytes, got a longer one")


FIRST, SECOND = [first for first, _ in PAIRS], [second for _, second in PAIRS]
ROWS: dict[str, dict[str, Any]] = {
    "turns": {"turns": [list(pair) for pair in PAIRS], "learn": [None, *[[True, True]] * 19]},
    "messages": {"messages": [messages(*pair) for pair in PAIRS], "persona": [None] * 20},
    "conversations": {"conversations": [shared(*pair) for pair in PAIRS]},
    "prompt": {"prompt": FIRST, "response": SECOND},
    "instruction": {"instruction": FIRST, "input": [None, ""] * 10, "output": SECOND},
}


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pytest.importorskip("datasets")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=7)
    return path


@pytest.mark.parametrize("kind", ROWS)
def test_parquet_files_are_the_same_tokens_too(tmp_path: Path, kind: str) -> None:
    path = write_parquet(tmp_path / "odd [1]*.parquet", ROWS[kind])
    assert token_counts(path) == TOKEN_COUNTS
    assert report(path) == FileReport(str(path), 20, 0, 20, 0, ((f'"{kind}"', 20),))


def test_bad_rows_of_a_parquet_file_are_reported_by_number_before_torch(tmp_path: Path) -> None:
    import datetime

    rows = [["a", "b"], ["alone"], [], None, ["c", "d"]]
    path = write_parquet(tmp_path / "data.parquet", {"turns": rows, "when": [datetime.datetime(2026, 1, 1)] * 5})
    script = (
        "import sys; from convmodel_cli.cli.main import run; code = run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "fit", str(path)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 3, done.stderr
    for expected in (
        ":2: expected at least two turns, got only one",
        ":3: ",
        ":4: expected a list of turns or an object",
    ):
        assert f"error: {path}{expected}" in done.stderr
    assert "3 bad lines, 2 good" in done.stderr


def test_a_damaged_parquet_file_is_refused_by_name(convmodel: Convmodel, tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "whole.parquet", ROWS["turns"]).read_bytes()
    for content in (b"PAR1 nothing PAR1", b"", whole[:-20], whole[:100] + b"\0" * 200 + whole[300:]):
        (tmp_path / "data.parquet").write_bytes(content)
        outcome = convmodel("fit", "data.parquet")
        assert outcome.code == 3, outcome.err
        assert "error: data.parquet:" in outcome.err and "expected Parquet data, got a damaged file" in outcome.err


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A hub with one data set, in place of the real one; `asked` is what was loaded, `fault` is raised."""
    datasets = pytest.importorskip("datasets")
    state: dict[str, Any] = {"asked": [], "fault": None}

    def load_dataset(name: str, *, split: str, streaming: bool) -> Iterator[dict[str, Any]]:
        assert streaming
        state["asked"].append((name, split))
        if state["fault"] is not None:
            raise state["fault"]
        return ({"messages": None, "prompt": first, "response": second, "id": 7} for first, second in PAIRS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO())
    return state


def test_a_data_set_of_the_hub_is_streamed(hub: dict[str, Any]) -> None:
    conversations = read_conversations("hf:owner/name")
    assert [item.turns for item in conversations] == PAIRS
    assert conversations.where(4) == "hf:owner/name:5"
    assert len(read_conversations("hf:owner/name:validation")) == 20
    assert hub["asked"] == [("owner/name", "train"), ("owner/name", "validation")]


def test_a_folder_in_place_of_a_data_set_is_streamed_by_the_real_library_before_torch(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    write_jsonl(tmp_path / "train.jsonl", [{"messages": messages(*pair), "persona": None} for pair in PAIRS] + [{}])
    script = (
        "import sys; from convmodel_cli.data import columns; columns._check_reachable = lambda *_: None; "
        "from convmodel_cli.cli.main import run; code = run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    name = f"hf:{tmp_path}"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", script, "fit", name],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env=environment,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith(f"error: {name}:21: expected a list of turns or an object with"), done.stderr
    assert "\r" not in done.stderr


def test_a_data_set_that_the_hub_does_not_give_exits_4(
    convmodel: Convmodel, hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    for fault, expected in [
        (datasets.exceptions.DatasetNotFoundError("x"), "there is no such data set on the hub"),
        (ConnectionError("no route"), "the Hugging Face hub cannot be reached (no route)"),
        (ValueError("Bad split: x. Available splits: ['train']\nmore"), "cannot be read: Bad split: x."),
    ]:
        hub["fault"] = fault
        outcome = convmodel("fit", "hf:owner/name")
        assert outcome.code == 4, outcome.err
        assert f"error: hf:owner/name: {expected}" in outcome.err and "more" not in outcome.err

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no name service")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(ModelError, match="cannot be reached"):
        read_conversations("hf:owner/name")


def test_a_data_set_that_breaks_off_is_an_error_at_its_row(
    hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def rows(*_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        yield {"turns": ["a", "b"]}
        raise TimeoutError("gone")

    monkeypatch.setattr(datasets, "load_dataset", rows)
    with pytest.raises(ModelError, match="hf:owner/name: row 2 cannot be read: gone"):
        read_conversations("hf:owner/name")


def test_without_the_extra_the_error_says_how_to_install_it(
    convmodel: Convmodel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    for module in ("datasets", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("data.parquet", "hf:owner/name"):
        outcome = convmodel("fit", name)
        assert outcome.code == 2
        assert "hint: pip install 'convmodel[datasets]'" in outcome.err
    with pytest.raises(UsageError, match="expected the name of a data set"):
        read_conversations("hf:")


def test_a_bad_row_of_a_table_ends_nothing_but_itself(tmp_path: Path) -> None:
    rows = [b"prompt,response", *[b"a,b"] * 5, b"a,\xff", *[b"c,d"] * 4, b'e,"f"g', *[b"h,i"] * 3]
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\n".join(rows))
    records = list(iter_conversations(str(path)))
    problems = [record.place.line for record in records if isinstance(record, Problem)]
    good = [record.turns for record in records if isinstance(record, Conversation)]
    assert problems == [7, 12]
    assert good == [("a", "b")] * 5 + [("c", "d")] * 4 + [("h", "i")] * 3


def test_a_conversation_whose_rows_are_bad_or_come_again_is_not_taken_in_part(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = ["1,A,a", "1,B,b", "2,A,c", "2,B", "2,A,d", "2,B,e", "3,A,f", "3,B,g", "1,A,h", "1,B,i", "4,A,j", "4,B,k"]
    path.write_text("\n".join(["conversation_id,speaker,text", *rows]))
    records = list(iter_conversations(str(path)))
    assert [record.turns for record in records if isinstance(record, Conversation)] == [
        ("a", "b"),
        ("f", "g"),
        ("j", "k"),
    ]
    assert [record.place.line for record in records if isinstance(record, Problem)] == [5, 10]


def test_a_number_of_thousands_of_digits_is_a_bad_value(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    path.write_text('[["a", "b"], ["c", ' + "1" * 5000 + "]]")
    *_, last = iter_conversations(str(path))
    assert isinstance(last, Problem)
