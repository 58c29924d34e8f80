"""Files that are large, or that look small and are large: time, and memory over what the imports take."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers import made_up_conversations

_MEASURED = """
import json, time
from pathlib import Path
from convmodel_cli import collector
from convmodel_cli.data.conversations import digest, read_good_into
from convmodel_cli.data import spool
from convmodel_cli.data.store import Conversations
from convmodel_cli.workflows.data import read_fit_data

spool.IN_MEMORY_BYTES = {in_memory}
collector.pause()  # as in a command, which looks for no garbage while it reads

def peak():  # getrusage would count what the parent had before this process was its own
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024

before, started = peak(), time.perf_counter()
found = {found}
print(json.dumps(dict(found=found, seconds=time.perf_counter() - started, peak_bytes=peak() - before)))
"""


def measured(found: str, path: Path, in_memory: int = 2**26) -> dict[str, Any]:
    """The value of an expression about `path` in a process of its own, its seconds and the memory it took."""
    script = f"path = {str(path)!r}\n" + _MEASURED.replace("{found}", found).replace("{in_memory}", str(in_memory))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    print(f"{path.name}: {result}")
    return result


_READ = "(lambda r: [list(r[1]), r[0].lines, r[0].accepted])(read_good_into(Conversations(), path))"


def test_a_line_of_100_megabytes_is_refused_by_its_number_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(b'["a", "b"]\n["')
        for _ in range(100):
            file.write(b"x" * 10**6)
        file.write(b'", "b"]\n["c", "d"]\n')
    result = measured(_READ, path)
    what = "expected a line of at most 16,777,216 bytes, got a longer one"
    assert result["found"] == [[f"{path}:2: {what}"], 3, 2]
    assert result["peak_bytes"] < 100e6


def bomb(path: Path, start: bytes, content: bytes, copies: int) -> Path:
    """A zipped file of `start` and then `content` very often."""
    member = gzip.compress(content)
    with path.open("wb") as file:
        file.write(gzip.compress(start))
        for _ in range(copies):
            file.write(member)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "start", "content", "what"),
    [
        ("line.jsonl.gz", b'["a", "b"]\n', b"\0" * 2**24, ":2: expected a line of at most 16,777,216 bytes"),
        ("array.json.gz", b'[["a", "b"],\n"', b"x" * 2**24, ":2: expected a conversation of at most 16,777,216 bytes"),
        ("text.txt.gz", b"a\nb\n\n", b"x y\n" * 2**22, ":4: expected a conversation of at most 16,777,216 bytes"),
        ("rows.csv.gz", b'prompt,response\na,b\n"', b"x\n" * 2**23, ": expected a row of a table, got field larger"),
    ],
)
def test_a_gigabyte_in_a_small_zipped_file_is_refused_in_little_memory(
    tmp_path: Path, name: str, start: bytes, content: bytes, what: str
) -> None:
    result = measured(_READ, bomb(tmp_path / name, start, content, 64))
    [problem] = result["found"][0]
    assert what in problem
    assert result["found"][2] == 1
    assert result["peak_bytes"] < 400e6


@pytest.mark.slow
def test_millions_of_blank_and_of_bad_lines_are_read_in_little_memory(tmp_path: Path) -> None:
    blank = measured(_READ, bomb(tmp_path / "blank.jsonl.gz", b'["a", "b"]\n', b"\n" * 2**24, 4))
    assert blank["found"] == [[], 1 + 2**26, 1]
    assert blank["peak_bytes"] < 50e6
    count = "(lambda r: [len(r[1]), r[0].lines, r[0].accepted])(read_good_into(Conversations(), path))"
    bad = measured(count, bomb(tmp_path / "bad.jsonl.gz", b'["a", "b"]\n', b"7\n" * 2**20, 1))
    assert bad["found"] == [2**20, 1 + 2**20, 1]
    assert bad["peak_bytes"] < 150e6


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["list", "messages"])
def test_a_million_lines_are_checked_in_half_a_minute_and_memory_hardly_grows(tmp_path: Path, shape: str) -> None:
    talks = [item.turns[:2] for item in made_up_conversations(50_000, longest_turn=10)]
    path = tmp_path / "million.jsonl"
    with path.open("w") as file:
        for number in range(1_000_000):
            first, second = talks[number % len(talks)]
            turns = [f"{number} {first}", second]
            roles = [{"role": role, "content": turn} for role, turn in zip(("user", "assistant"), turns, strict=True)]
            file.write(json.dumps(turns if shape == "list" else {"messages": roles}) + "\n")
    result = measured(
        "(lambda d: [len(d.train), len(d.valid), *[r.count for r in d.repeats]])(read_fit_data((path,), (), None))",
        path,
    )
    assert result["found"] == [950_000, 50_000, 0, 0]
    assert result["seconds"] < 30
    assert result["peak_bytes"] < 200e6


@pytest.mark.slow
@pytest.mark.parametrize("nearly", [False, True], ids=["exactly", "nearly"])
def test_half_a_million_that_stand_twice_are_counted_in_half_a_minute_and_hardly_more_memory(
    tmp_path: Path, nearly: bool
) -> None:
    talks = [item.turns[:2] for item in made_up_conversations(50_000, longest_turn=10)]
    valid = tmp_path / "valid.jsonl"
    valid.write_text('["a", "b"]\n')
    peaks = []
    for different in (1_000_000, 500_000):
        path = tmp_path / f"{different}.jsonl"
        with path.open("w") as file:
            for number in range(1_000_000):
                copy, place = divmod(number, different)
                first, second = talks[place % len(talks)]
                file.write(json.dumps([f"{place} {first.upper() if nearly and copy else first}", second]) + "\n")
        result = measured(
            "(lambda r: [r[0].count, len(r[0].shown), r[1].count])"
            f"(read_fit_data((path,), ({str(valid)!r},), None).repeats)",
            path,
        )
        twice = 1_000_000 - different
        assert result["found"] == [twice, min(twice, 1000), 0]
        assert result["seconds"] < 30
        peaks.append(result["peak_bytes"])
    assert peaks[1] < peaks[0] + 30e6


@pytest.mark.slow
def test_more_conversations_take_no_more_memory_than_their_places_and_keys(tmp_path: Path) -> None:
    """What is said is kept out of memory here, so that what else grows is seen."""
    talks = [list(item.turns[:2]) for item in made_up_conversations(20_000, longest_turn=10)]
    peaks = []
    for copies in (5, 50):
        path = tmp_path / f"{copies}.jsonl"
        path.write_text("".join(json.dumps([f"{copy} {a}", b]) + "\n" for copy in range(copies) for a, b in talks))
        result = measured("digest(read_fit_data((path,), (), None).train)", path, in_memory=2**20)
        peaks.append(result["peak_bytes"])
    assert peaks[1] - peaks[0] < 900_000 * 100
