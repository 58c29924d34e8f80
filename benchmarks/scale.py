"""What more data costs: time and memory of reading, checking and encoding, and of training, as data grows tenfold.

    python benchmarks/scale.py CONVERSATIONS [--sizes 100 1000 10000 100000] [--lines 1000000] [--train-sizes 90 900]

Sizes are numbers of conversations: those of the file, again and again, each time with another number in the first turn.
Their vocabulary is that of `new-tiny` for the file. Checking includes the search for conversations that stand twice,
and everything else that `fit` does before it has a model. `--lines` are as many exchanges of two turns, each a line,
which is the harder case: more lines for the same bytes. A file is read again until 20 seconds are over, and its times
are means. Rates are megabytes of the file for a second of processor time, on however many cores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Generator, Iterator
from functools import partial
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

import measure
from measure import Comparison, Figures
from ours import watch_fit

from convmodel_cli.data.vocabulary import Vocabulary
from convmodel_cli.settings import RunSettings, TrainingSettings
from convmodel_cli.workflows.fit import FitRequest, read_data

Result = TypeVar("Result")
RATE, MEMORY = "megabytes_per_cpu_second", "peak_gigabytes"
MAX_LENGTH = 1024
LEAST_SECONDS = 20  # of reading a file in a turn; in less than that the speed of the machine may double


def prepare(options: argparse.Namespace, work: Path) -> Figures:
    from bases import make_base

    make_base("new-tiny", work / "base", None, options.conversations)
    lines = Path(options.conversations).read_text(encoding="utf-8").splitlines()
    conversations = [json.loads(line) for line in lines]
    for size in {*options.sizes, *options.train_sizes}:
        write(work / f"{size}.jsonl", conversations, size)
    if options.lines:
        exchanges = [turns[at : at + 2] for turns in conversations for at in range(0, len(turns) - 1, 2)]
        write(work / "lines.jsonl", exchanges, options.lines)
    write(work / "valid.jsonl", conversations, 1)
    return {}


def write(file: Path, conversations: list[list[str]], size: int) -> None:
    """As many conversations; no two are the same."""
    copies = (
        json.dumps([f"{number} {turns[0]}", *turns[1:]], ensure_ascii=False)
        for number in count()
        for turns in conversations
    )
    with file.open("w", encoding="utf-8") as out:
        out.writelines(line + "\n" for line in islice(copies, size))


def read(name: str, _: argparse.Namespace, work: Path) -> Figures:
    """Everything that `fit` does with the data before the first step, in its order, over and over; means."""
    from convmodel_cli.model.checkpoint import load_model

    vocabulary = load_model(str(work / "base")).vocabulary
    request = FitRequest((str(work / f"{name}.jsonl"),), (str(work / "valid.jsonl"),))
    before_gigabytes = measure.peak_gigabytes()
    started, cpu_started = time.perf_counter(), time.process_time()
    times = 0
    while times == 0 or time.perf_counter() - started < LEAST_SECONDS:
        tokens = read_once(request, vocabulary)
        times += 1
    seconds, cpu_seconds = (time.perf_counter() - started) / times, (time.process_time() - cpu_started) / times
    megabytes = (work / f"{name}.jsonl").stat().st_size / 1e6
    return {
        "seconds": seconds,
        "times": times,
        "cpu_seconds": cpu_seconds,
        "megabytes": megabytes,
        "seconds_per_megabyte": seconds / megabytes,
        RATE: megabytes / cpu_seconds,
        "tokens": tokens,
        MEMORY: measure.peak_gigabytes(),
        "gigabytes_beyond_model": measure.peak_gigabytes() - before_gigabytes,
    }


def read_once(request: FitRequest, vocabulary: Vocabulary) -> int:
    """The number of tokens."""
    from convmodel_cli.data.encoding import encode_conversations

    data = outcome(read_data(request, RunSettings(), TrainingSettings()))
    return len(encode_conversations(data.train, vocabulary, MAX_LENGTH, "all").ids)


def outcome(notes: Generator[Any, None, Result]) -> Result:
    """What a generator returns at its end."""
    while True:
        try:
            next(notes)
        except StopIteration as end:
            result: Result = end.value
            return result


def train(size: int, _: argparse.Namespace, work: Path) -> Figures:
    """One epoch, without evaluations between its steps."""
    training = TrainingSettings(epochs=1, batch_size=16, eval_every=1_000_000)
    watched = watch_fit(work, training, str(work / "base"), train=f"{size}.jsonl")
    return {
        "step_seconds": watched.step_seconds,
        "step_seconds_per_token": watched.step_seconds / watched.finished.tokens_seen,
        MEMORY: measure.peak_gigabytes(),
    }


def comparisons(kind: str, sizes: list[int], time_figure: str) -> Iterator[Comparison]:
    for smaller, larger in pairwise(sizes):
        names = f"{kind}-{larger}", f"{kind}-{smaller}"
        yield Comparison(*names, time_figure, "0.95 to 1.05")
        yield Comparison(*names, MEMORY, "about 1")


def main() -> None:
    parser = measure.make_parser(__doc__)
    parser.add_argument("conversations", metavar="CONVERSATIONS")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 1_000, 10_000, 100_000], metavar="N")
    parser.add_argument("--lines", type=int, default=1_000_000, help="0 leaves them out")
    parser.add_argument("--train-sizes", type=int, nargs="*", default=[90, 900], metavar="N")
    options = parser.parse_args()
    contestants = {f"read-{size}": partial(read, str(size)) for size in options.sizes}
    if options.lines:
        contestants["read-lines"] = partial(read, "lines")
    contestants |= {f"train-{size}": partial(train, size) for size in options.train_sizes}
    rounds = measure.take_turns(options, contestants, prepare)
    pairs = [
        *comparisons("read", options.sizes, "seconds_per_megabyte"),
        *comparisons("train", options.train_sizes, "step_seconds_per_token"),
    ]
    measure.report("scale", rounds, pairs, lines=options.lines, goal_of_lines=f"{RATE} >= 5")


if __name__ == "__main__":
    main()
