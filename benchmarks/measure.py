"""What benchmarks share: contestants in processes of their own, in turn; medians of paired ratios; one JSON line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

Figures = dict[str, Any]  # of one contestant in one round; what is not a number is for the script itself
Contestant = Callable[[argparse.Namespace, Path], Figures]
Rounds = list[dict[str, Figures]]

SHAPES = ("gpt2", "new-tiny", "new-small", "new-medium")  # gpt2: new-medium's with GPT-2's own vocabulary
CONVMODEL = [sys.executable, "-m", "convmodel_cli"]
_QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
_PACKAGES = ("torch", "transformers", "accelerate", "ctranslate2", "tokenizers")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure of one contestant divided by that of another in the same round, and the goal in words."""

    ours: str
    other: str
    figure: str
    goal: str


def make_parser(description: str | None, runs: int = 3) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=runs, help="rounds, in each of which every contestant has its turn")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="leave the others out; repeatable")
    parser.add_argument("--turn-of", help=argparse.SUPPRESS)  # this process is a contestant
    parser.add_argument("--work", help=argparse.SUPPRESS)  # the folder that all contestants share
    return parser


def add_model_options(parser: argparse.ArgumentParser, shape: str = "gpt2") -> None:
    """The options that say which model takes part."""
    parser.add_argument("--shape", default=shape, choices=SHAPES)
    parser.add_argument("--tokenizer", metavar="DIR", help="GPT-2's vocab.json and merges.txt, for the shape gpt2")
    parser.add_argument("--model", metavar="DIR", help="a trained model instead of random weights")


def take_turns(
    options: argparse.Namespace,
    contestants: Mapping[str, Contestant],
    prepare: Contestant | None = None,
    preload: Mapping[str, str] | None = None,
) -> Rounds:
    """Let each contestant have its turn in each round, each time in a new process, and gather its figures.

    `prepare` runs first, in a process too, and fills the folder that all are given. `preload` names a library to
    load in front of all others for a contestant. In the process of a contestant this does not return.
    """
    if options.turn_of is not None:
        chosen = {**contestants, "prepare": prepare}[options.turn_of]
        assert chosen is not None
        print(json.dumps(chosen(options, Path(options.work))))
        raise SystemExit
    names = [name for name in contestants if not options.only or name in options.only]
    if unknown := set(options.only) - set(contestants):
        raise SystemExit(f"--only: expected {', '.join(contestants)}, got {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as work:
        if prepare is not None:
            _turn("prepare", work)
        return [{name: _turn(name, work, (preload or {}).get(name)) for name in names} for _ in range(options.runs)]


def _turn(name: str, work: str, library: str | None = None) -> Figures:
    """The figures of one contestant, from the last line that its process writes."""
    environment = {**os.environ, **_QUIET, **({"LD_PRELOAD": library} if library else {})}
    command = [sys.executable, *sys.argv, "--turn-of", name, "--work", work]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: ended with exit code {done.returncode}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {json.dumps(_numbers(figures))}", file=sys.stderr)
    return figures


def _numbers(figures: Figures) -> dict[str, float]:
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


def medians(rounds: Rounds) -> dict[str, dict[str, float]]:
    """The median of each figure of each contestant."""
    return {
        name: {key: _rounded(statistics.median(each[name][key] for each in rounds)) for key in _numbers(figures)}
        for name, figures in rounds[0].items()
    }


def compare(rounds: Rounds, comparison: Comparison) -> dict[str, Any]:
    """The median of the ratios within each round, with the lowest and the highest."""
    ours, other, figure = comparison.ours, comparison.other, comparison.figure
    ratios = sorted(each[ours][figure] / each[other][figure] for each in rounds)
    return {
        "of": f"{figure}: {ours} / {other}",
        "ratio": _rounded(statistics.median(ratios)),
        "spread": [_rounded(ratios[0]), _rounded(ratios[-1])],
        "goal": comparison.goal,
    }


def spreads(rounds: Rounds, figure: str) -> dict[str, list[float]]:
    """The lowest and the highest of a figure, for each contestant that has it."""
    found = {}
    for name in rounds[0]:
        values = [each[name][figure] for each in rounds if figure in each[name]]
        if values:
            found[name] = [_rounded(min(values)), _rounded(max(values))]
    return found


def _rounded(value: float) -> float:
    """Four digits are more than a machine with drift repeats."""
    return float(f"{value:.4g}")


def report(benchmark: str, rounds: Rounds, comparisons: Sequence[Comparison] = (), **more: Any) -> None:
    """Print the result as one JSON line; comparisons with contestants that did not take part are left out."""
    there = [each for each in comparisons if each.ours in rounds[0] and each.other in rounds[0]]
    line = {
        "benchmark": benchmark,
        **more,
        "medians": medians(rounds),
        "ratios": [compare(rounds, each) for each in there],
        "runs": len(rounds),
        "versions": versions(),
        "machine": machine(),
    }
    print(json.dumps(line))


def versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Processor and number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    amx = any(line.startswith("flags") and "amx_bf16" in line for line in lines)
    return f"{name}, {os.cpu_count()} cores{', AMX' if amx else ''}"


def peak_gigabytes() -> float:
    """The most memory this process has had; the system's own figure would count that of its parent too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e9
