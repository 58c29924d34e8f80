"""Speed and memory of training: `fit` against transformers' Trainer on the same conversations.

    python benchmarks/training.py TRAIN --shape gpt2 --tokenizer DIR [--conversations 64] [--batch-size 8]
    python benchmarks/training.py TRAIN --shape new-tiny --batch-size 16

One epoch from the same random weights, with AdamW at the same rate, on the same sequences. Tokens per second count real
tokens, never padding, over the steps of training alone; memory is the most of the whole process. The Trainer's default
is fp32 with dropout 0.1; its best is bf16, grouped by length, with the activation in one kernel and without dropout.
`--jemalloc FILE` adds its best with that allocator preloaded. The floor is what the machine would do if it did nothing
but the bf16 matrix products of the layers and the head, forward and backward, measured in their own shapes;
floor-kernels, if it did what else a token and a step of AdamW need too, each of torch's kernels alone.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path

import measure
from measure import Comparison, Figures
from ours import watch_fit

from convmodel_cli.settings import ComputeSettings, TrainingSettings

RATES = {"gpt2": 5e-5}
OTHER_RATE = 1e-3
TOKENS = 2048  # of the floor's matrices
GOALS = {
    "gpt2": (">= 8", ">= 3.5", ">= 2", "<= 0.25", "<= 0.67"),
    "new-tiny": (">= 8", ">= 2", "-", "-", "-"),
}


def prepare(options: argparse.Namespace, work: Path) -> Figures:
    from bases import encode, make_base, write_first
    from opponents import load_tokenizer

    write_first(options.train, options.conversations, work / "train.jsonl")
    write_first(options.train, 1, work / "valid.jsonl")  # something to evaluate, as little as can be
    make_base(options.shape, work / "base", options.tokenizer, str(work / "train.jsonl"))
    tokens = len(encode(str(work / "train.jsonl"), load_tokenizer(work / "base")).ids)
    (work / "tokens").write_text(str(tokens), encoding="utf-8")
    return {"tokens": tokens}


def ours(dropout: float, options: argparse.Namespace, work: Path) -> Figures:
    training = TrainingSettings(
        epochs=1,
        batch_size=options.batch_size,
        optimizer="adamw",
        dropout=dropout,
        learning_rate=RATES.get(options.shape, OTHER_RATE),
        eval_every=1_000_000,
    )
    watched = watch_fit(work, training, str(work / "base"), options.device)
    return figures(options, work, watched.step_seconds)


def trainer(best: bool, options: argparse.Namespace, work: Path) -> Figures:
    from bases import encode
    from opponents import load_network, load_tokenizer, rows_of, train

    rows = rows_of(encode(str(work / "train.jsonl"), load_tokenizer(work / "base")))
    rate = RATES.get(options.shape, OTHER_RATE)
    network = load_network(work / "base", best)
    seconds = train(network, rows, best, options.device, work, batch_size=options.batch_size, rate=rate)
    return figures(options, work, seconds)


def figures(options: argparse.Namespace, work: Path, seconds: float) -> Figures:
    import torch

    tokens = int((work / "tokens").read_text(encoding="utf-8"))
    on_device = options.device == "cuda"
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_device else measure.peak_gigabytes()
    return {"tokens_per_second": tokens / seconds, "peak_gigabytes": peak, "seconds": seconds}


def floor(options: argparse.Namespace, work: Path) -> Figures:
    """Tokens per second if training were nothing but its bf16 matrix products, forward and backward."""
    from floors import products
    from opponents import load_network

    return products(load_network(work / "base", best=True).config, TOKENS, options.device, backward=True)


def floor_of_kernels(options: argparse.Namespace, work: Path) -> Figures:
    from bases import encode
    from floors import kernels, optimizing
    from opponents import load_network, load_tokenizer

    from convmodel_cli.model.compute import set_up

    set_up(ComputeSettings(precision="bf16", device="cpu"), for_training=True)
    sequences = encode(str(work / "train.jsonl"), load_tokenizer(work / "base"))
    length = round(float(sequences.lengths.mean()))
    config = load_network(work / "base", best=True).config
    of_tokens = kernels(config, TOKENS, length, backward=True)
    of_step, of_first_step = optimizing(config)
    tokens, steps = len(sequences.ids), math.ceil(len(sequences) / options.batch_size)
    seconds = tokens / of_tokens["tokens_per_second"] + of_step * steps
    return {
        "tokens_per_second": tokens / seconds,
        "tokens_per_second_in_new_memory": tokens / (seconds + of_first_step - of_step),
        "kernels_alone": of_tokens["tokens_per_second"],
    }


def comparisons(shape: str) -> list[Comparison]:
    default, best, preloaded, memory_default, memory_best = GOALS.get(shape, ("-",) * 5)
    speed, memory = "tokens_per_second", "peak_gigabytes"
    return [
        Comparison("ours-dropout", "trainer-default", speed, default),
        Comparison("ours", "trainer-best", speed, best),
        Comparison("ours", "trainer-best-jemalloc", speed, preloaded),
        Comparison("ours-dropout", "trainer-default", memory, memory_default),
        Comparison("ours", "trainer-best", memory, memory_best),
        Comparison("ours", "floor", speed, ">= 0.55" if shape == "gpt2" else "-"),
        Comparison("floor", "trainer-best", speed, "-"),
        Comparison("floor-kernels", "trainer-best", speed, "-"),
    ]


def main() -> None:
    parser = measure.make_parser(__doc__)
    parser.add_argument("train", metavar="TRAIN")
    parser.add_argument("--shape", default="gpt2", choices=measure.SHAPES)
    parser.add_argument("--tokenizer", metavar="DIR", help="GPT-2's vocab.json and merges.txt, for the shape gpt2")
    parser.add_argument("--conversations", type=int, metavar="N", help="the first of TRAIN; default all")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--jemalloc", metavar="FILE", help="libjemalloc.so.2, to preload it for the Trainer")
    options = parser.parse_args()
    contestants = {
        "floor": floor,
        "ours-dropout": partial(ours, 0.1),
        "trainer-default": partial(trainer, False),
        "ours": partial(ours, 0.0),
        "trainer-best": partial(trainer, True),
    }
    if options.device == "cpu":
        contestants["floor-kernels"] = floor_of_kernels
    preload = {}
    if options.jemalloc is not None:
        if not Path(options.jemalloc).is_file():
            parser.error(f"--jemalloc: expected a library, got nothing at {options.jemalloc}")
        contestants["trainer-best-jemalloc"] = contestants["trainer-best"]
        preload["trainer-best-jemalloc"] = options.jemalloc
    rounds = measure.take_turns(options, contestants, prepare, preload)
    about = {"shape": options.shape, "batch_size": options.batch_size, "device": options.device}
    measure.report("training", rounds, comparisons(options.shape), **about)


if __name__ == "__main__":
    main()
