"""How long commands take to begin: the help, a data error, and the first token of a response.

    python benchmarks/startup.py [CONVERSATIONS] [--runs 7]

Seconds of whole processes. The data error is a bad line at the end of the file, so all of it is read. The first token
is the first byte on stdout of `generate` with a model of new-tiny's shape; beside it, what importing transformers'
GPT-2 takes alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import measure
from measure import Figures

from convmodel_cli.workflows.data import sample_file

SECONDS = "seconds"
IMPORT = "import transformers.models.gpt2.modeling_gpt2"
GOALS = {"help": "<= 0.25 s", "data-error": "<= 0.6 s", "first-token": "<= that of the import + 0.5 s"}
_DATA_ERROR = 3  # exit code


def prepare(options: argparse.Namespace, work: Path) -> Figures:
    from bases import make_base

    make_base("new-tiny", work / "model", None, options.conversations)
    text = Path(options.conversations).read_text(encoding="utf-8")
    (work / "bad.jsonl").write_text(text + '["Hello", 1]\n', encoding="utf-8")
    return {}


def whole(command: Sequence[str], exit_code: int = 0) -> Figures:
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    seconds = time.perf_counter() - started
    assert done.returncode == exit_code, done.returncode
    return {SECONDS: seconds}


def show_help(_: argparse.Namespace, __: Path) -> Figures:
    return whole([*measure.CONVMODEL, "--help"])


def data_error(_: argparse.Namespace, work: Path) -> Figures:
    return whole([*measure.CONVMODEL, "fit", str(work / "bad.jsonl"), "-o", str(work / "never")], _DATA_ERROR)


def import_alone(_: argparse.Namespace, __: Path) -> Figures:
    return whole([sys.executable, "-c", IMPORT])


def first_token(_: argparse.Namespace, work: Path) -> Figures:
    """Until the first byte, and until the process has gone."""
    command = [*measure.CONVMODEL, "generate", "Hello there", "-m", str(work / "model"), "--max-new-tokens", "1"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        seconds = time.perf_counter() - started
    return {SECONDS: seconds, "whole_seconds": time.perf_counter() - started}


def main() -> None:
    parser = measure.make_parser(__doc__, runs=7)
    parser.add_argument("conversations", nargs="?", default=str(sample_file("test.jsonl")), metavar="CONVERSATIONS")
    contestants = {
        "help": show_help,
        "data-error": data_error,
        "first-token": first_token,
        "import": import_alone,
    }
    rounds = measure.take_turns(parser.parse_args(), contestants, prepare)
    more = {}
    if {"first-token", "import"} <= rounds[0].keys():
        beyond = sorted(each["first-token"][SECONDS] - each["import"][SECONDS] for each in rounds)
        more["first_token_beyond_import"] = {"median": beyond[len(beyond) // 2], "spread": [beyond[0], beyond[-1]]}
    measure.report("startup", rounds, goals=GOALS, spread=measure.spreads(rounds, SECONDS), **more)


if __name__ == "__main__":
    main()
