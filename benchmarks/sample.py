"""`convmodel fit` on the packaged sample, the whole command, and how many of its probes the model answers.

python benchmarks/sample.py [--max-steps N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

import measure
from measure import Figures

from convmodel_cli.workflows.data import sample_file

GOAL = "<= 90 seconds, and >= 90 of 100 probes answered"


def command_and_eval(options: argparse.Namespace, work: Path) -> Figures:
    model = str(work / f"model-{time.time_ns()}")
    started = time.perf_counter()
    limit = [] if options.max_steps is None else ["--max-steps", str(options.max_steps)]
    finished = json.loads(convmodel("fit", "-o", model, "--json", *limit))
    seconds = time.perf_counter() - started
    measured = json.loads(convmodel("eval", "-m", model, "--probes", str(sample_file("probes.jsonl")), "--json"))
    return {
        "seconds": seconds,
        "probes": measured["probes"]["answered"],
        "valid_loss": finished["valid"]["loss"],
        "steps": finished["steps"],
        "tokens_per_second": finished["tokens_per_second"],
        "peak_gigabytes": finished["peak_memory_bytes"] / 1e9,
    }


def convmodel(*arguments: str) -> str:
    command = [*measure.CONVMODEL, *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def main() -> None:
    parser = measure.make_parser(__doc__)
    parser.add_argument("--max-steps", type=int, help="end early, to see whether the script works")
    rounds = measure.take_turns(parser.parse_args(), {"fit": command_and_eval})
    spread = {figure: measure.spreads(rounds, figure)["fit"] for figure in ("seconds", "probes")}
    measure.report("sample", rounds, goal=GOAL, spread=spread)


if __name__ == "__main__":
    main()
