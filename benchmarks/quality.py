"""What a given time of training buys: `fit` with its defaults against transformers' Trainer at its best.

    python benchmarks/quality.py TRAIN VALID [--epochs 2] [--short-steps 40]

Bits per byte on VALID, comparable between tokenizers, and seconds. The Trainer trains a model of new-tiny's shape, with
the weights that transformers gives a new model, for one epoch and for two; its seconds are those of its steps alone.
Those of `fit` are all it takes but imports: reading, the vocabulary, training, evaluations, checkpoints, the report.
The short run is to reach the Trainer's result after one epoch. How long each run is, is fixed beforehand, and its
learning rate falls to its end.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import measure
from measure import Comparison, Figures
from ours import watch_fit

from convmodel_cli.settings import TrainingSettings

SECONDS, STEP_SECONDS, BITS = "seconds", "step_seconds", "bits_per_byte"
COMPARISONS = [
    Comparison("ours", "trainer-two-epochs", SECONDS, "<= 1"),
    Comparison("ours", "trainer-two-epochs", BITS, "bits per byte of ours <= 0.87"),
    Comparison("ours-short", "trainer-one-epoch", SECONDS, "<= 0.2"),
    Comparison("ours-short", "trainer-one-epoch", STEP_SECONDS, "-"),
    Comparison("ours-short", "trainer-one-epoch", BITS, "<= 1"),
]


def prepare(options: argparse.Namespace, work: Path) -> Figures:
    from bases import make_base, write_first

    for name, file in (("train", options.train), ("valid", options.valid)):
        write_first(file, options.conversations, work / f"{name}.jsonl")
    make_base("new-tiny", work / "base", None, str(work / "train.jsonl"))
    return {}


def run(work: Path, training: TrainingSettings) -> Figures:
    watched = watch_fit(work, training)
    finished = watched.finished
    assert finished.valid is not None
    return {
        SECONDS: watched.seconds,
        STEP_SECONDS: watched.step_seconds,
        BITS: finished.valid["bits_per_byte"],
        "steps": finished.steps,
        "tokens_per_second": finished.tokens_per_second,
        "peak_gigabytes": measure.peak_gigabytes(),
    }


def ours(options: argparse.Namespace, work: Path) -> Figures:
    return run(work, TrainingSettings(epochs=options.epochs))


def ours_short(options: argparse.Namespace, work: Path) -> Figures:
    return run(work, TrainingSettings(epochs=1, max_steps=options.short_steps))


def trainer(epochs: int, options: argparse.Namespace, work: Path) -> Figures:
    from bases import encode
    from opponents import bits_per_byte, load_network, load_tokenizer, rows_of, train

    tokenizer = load_tokenizer(work / "base")
    rows = rows_of(encode(str(work / "train.jsonl"), tokenizer))
    network = load_network(work / "base", best=True)
    seconds = train(network, rows, True, "cpu", work, batch_size=options.batch_size, rate=options.rate, epochs=epochs)
    bits = bits_per_byte(network, encode(str(work / "valid.jsonl"), tokenizer))
    return {SECONDS: seconds, STEP_SECONDS: seconds, BITS: bits}


def main() -> None:
    parser = measure.make_parser(__doc__)
    parser.add_argument("train", metavar="TRAIN")
    parser.add_argument("valid", metavar="VALID")
    parser.add_argument("--epochs", type=int, help="of fit; default: its own")
    parser.add_argument("--short-steps", type=int, default=40, help="steps of the short run")
    parser.add_argument("--batch-size", type=int, default=16, help="of the Trainer")
    parser.add_argument("--rate", type=float, default=1e-3, help="of the Trainer")
    parser.add_argument("--conversations", type=int, metavar="N", help="the first of each file; default all")
    options = parser.parse_args()
    contestants = {
        "ours": ours,
        "trainer-two-epochs": partial(trainer, 2),
        "ours-short": ours_short,
        "trainer-one-epoch": partial(trainer, 1),
    }
    rounds = measure.take_turns(options, contestants, prepare)
    measure.report("quality", rounds, COMPARISONS, epochs=options.epochs, short_steps=options.short_steps)


if __name__ == "__main__":
    main()
