"""How the benchmarks compare: contestants in processes of their own, in turn, and ratios within rounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPT = """
import os
import measure

def prepare(options, work):
    (work / "turns").write_text("")
    return {}

def turn(seconds):
    def take(options, work):
        with (work / "turns").open("a") as file:
            file.write("x")
        number = len((work / "turns").read_text())
        return {"seconds": seconds * number, "process": os.getpid(), "text": "no figure"}
    return take

parser = measure.make_parser("a race")
rounds = measure.take_turns(parser.parse_args(), {"ours": turn(1), "other": turn(2)}, prepare)
assert len({each[name]["process"] for each in rounds for name in each}) == sum(map(len, rounds))
measure.report("race", rounds, [measure.Comparison("ours", "other", "seconds", "<= 1")])
"""


def race(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    script = folder / "race.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    command = [sys.executable, str(script), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_contestants_take_turns_and_are_compared_within_their_rounds(tmp_path: Path) -> None:
    done = race(tmp_path, "--runs", "3")
    result = json.loads(done.stdout)
    assert result["runs"] == 3
    assert result["medians"]["ours"]["seconds"] == 3  # 1, 3 and 5: it begins each round
    assert result["medians"]["other"]["seconds"] == 8  # 4, 8 and 12
    [ratio] = result["ratios"]
    assert ratio["ratio"] == pytest.approx(3 / 8)
    assert ratio["spread"] == pytest.approx([1 / 4, 5 / 12], abs=1e-4)
    assert ratio["goal"] == "<= 1"


def test_a_contestant_may_run_alone_and_is_compared_with_none(tmp_path: Path) -> None:
    result = json.loads(race(tmp_path, "--runs", "1", "--only", "ours").stdout)
    assert list(result["medians"]) == ["ours"]
    assert result["ratios"] == []


def test_an_unknown_contestant_is_refused_with_those_there_are(tmp_path: Path) -> None:
    done = race(tmp_path, "--only", "theirs")
    assert done.returncode == 1
    assert "expected ours, other, got theirs" in done.stderr


@pytest.mark.parametrize(
    "script", sorted(path.name for path in BENCHMARKS.glob("*.py") if "main()" in path.read_text())
)
def test_every_benchmark_says_in_its_first_lines_how_it_is_run(script: str) -> None:
    assert f"python benchmarks/{script}" in (BENCHMARKS / script).read_text(encoding="utf-8").split('"""')[1]
    assert f"python benchmarks/{script}" in (BENCHMARKS / "README.md").read_text(encoding="utf-8")
