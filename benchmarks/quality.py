"""What a given time of training buys: `fit` with its defaults against transformers' Trainer at its best.

    python benchmarks/quality.py TRAIN VALID [--epochs 2] [--short-steps 40]

Bits per byte on VALID, comparable between tokenizers, and seconds. The Trainer trains a model of new-tiny's shape for one
epoch and for two; its seconds are those of its steps alone. Those of `fit` are all it takes: reading, the vocabulary,
training, evaluations, checkpoints, the report. The short run is to reach the Trainer's result after one epoch. How long
each run is, is fixed beforehand, and its learning rate falls to its end.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import measure
from measure import Comparison, Figures

from convmodel_cli.events import Evaluated, Finished
from convmodel_cli.settings import ComputeSettings, RunSettings, TrainingSettings
from convmodel_cli.workflows.fit import FitRequest, fit

SECONDS, BITS = "seconds", "bits_per_byte"
COMPARISONS = [
    Comparison("ours", "trainer-two-epochs", SECONDS, "<= 1"),
    Comparison("ours", "trainer-two-epochs", BITS, "bits per byte of ours <= 0.87"),
    Comparison("ours-short", "trainer-one-epoch", SECONDS, "<= 0.2"),
    Comparison("ours-short", "trainer-one-epoch", BITS, "<= 1"),
]


def prepare(options: argparse.Namespace, work: Path) -> Figures:
    from bases import make_base, write_first

    for name, file in (("train", options.train), ("valid", options.valid)):
        write_first(file, options.conversations, work / f"{name}.jsonl")
    make_base("new-tiny", work / "base", None, str(work / "train.jsonl"))
    return {}


def run(options: argparse.Namespace, work: Path, training: TrainingSettings) -> Figures:
    started = time.perf_counter()
    files = (str(work / "train.jsonl"),), (str(work / "valid.jsonl"),)
    request = FitRequest(*files, output=str(work / f"model-{time.time_ns()}"))
    finished = None
    evaluation_seconds = 0.0
    for event in fit(request, RunSettings(), training, ComputeSettings()):
        if isinstance(event, Evaluated):
            evaluation_seconds += event.seconds
        if isinstance(event, Finished):
            finished = event
    assert finished is not None and finished.valid is not None
    return {
        SECONDS: time.perf_counter() - started,
        BITS: finished.valid["bits_per_byte"],
        "steps": finished.steps,
        "tokens_per_second": finished.tokens_per_second,
        "evaluation_seconds": evaluation_seconds,
    }


def ours(options: argparse.Namespace, work: Path) -> Figures:
    return run(options, work, TrainingSettings(epochs=options.epochs))


def ours_short(options: argparse.Namespace, work: Path) -> Figures:
    return run(options, work, TrainingSettings(epochs=1, max_steps=options.short_steps))


def trainer(work: Path, epochs: int) -> Figures:
    from bases import encode
    from opponents import bits_per_byte, load_network, load_tokenizer, rows_of, train

    tokenizer = load_tokenizer(work / "base")
    rows = rows_of(encode(str(work / "train.jsonl"), tokenizer))
    network = load_network(work / "base", best=True)
    seconds = train(network, rows, True, "cpu", work, batch_size=16, rate=1e-3, epochs=epochs)
    return {SECONDS: seconds, BITS: bits_per_byte(network, encode(str(work / "valid.jsonl"), tokenizer))}


def trainer_one_epoch(options: argparse.Namespace, work: Path) -> Figures:
    return trainer(work, 1)


def trainer_two_epochs(options: argparse.Namespace, work: Path) -> Figures:
    return trainer(work, 2)


def main() -> None:
    parser = measure.make_parser(__doc__)
    parser.add_argument("train", metavar="TRAIN")
    parser.add_argument("valid", metavar="VALID")
    parser.add_argument("--epochs", type=int, help="of fit; default: its own")
    parser.add_argument("--short-steps", type=int, default=40, help="steps of the short run")
    parser.add_argument("--conversations", type=int, metavar="N", help="the first of each file; default all")
    options = parser.parse_args()
    contestants = {
        "ours": ours,
        "trainer-two-epochs": trainer_two_epochs,
        "ours-short": ours_short,
        "trainer-one-epoch": trainer_one_epoch,
    }
    rounds = measure.take_turns(options, contestants, prepare)
    measure.report("quality", rounds, COMPARISONS, epochs=options.epochs, short_steps=options.short_steps)


if __name__ == "__main__":
    main()
