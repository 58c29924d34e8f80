"""Tokens per second of measuring a model on conversations: ours against `Trainer.evaluate`.

    python benchmarks/evaluation.py CONVERSATIONS --shape gpt2 --tokenizer DIR
    python benchmarks/evaluation.py CONVERSATIONS --shape new-tiny

Scoring alone, without loading and encoding, after a warm-up with one conversation. The Trainer's default is fp32 with
batches of 8 in the order of the file; its best is bf16 throughout, rows of like length together, batches of 4 (of 8 and
of 16 are slower), and the loss only. Ours in bf16 keeps fp32 weights, and sums its losses in fp64. The losses differ a
little: the Trainer's is a mean of means. The floor is what the machine would do if it did nothing but the bf16 matrix
products of the layers and the head, in their own shapes; floor-kernels, if it did what else a token needs too, each of
torch's kernels alone.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import measure
from measure import Comparison, Figures

from convmodel_cli.settings import ComputeSettings

DEFAULT_BATCH_SIZE = 8
TOKENS = 4096  # of the floor's matrices, as many as are measured at once
SPEED = "tokens_per_second"
COMPARISONS = [
    Comparison("ours-bf16", "trainer-best", SPEED, ">= 3"),
    Comparison("ours-fp32", "trainer-default", SPEED, "-"),
    Comparison("ours-bf16", "trainer-best", "loss", "about 1"),
    Comparison("floor", "trainer-best", SPEED, "-"),
    Comparison("floor-kernels", "trainer-best", SPEED, "-"),
]


def prepare(options: argparse.Namespace, work: Path) -> Figures:
    from bases import prepare_model, write_first

    prepare_model(options, work)
    write_first(options.conversations, options.count, work / "data.jsonl")
    return {}


def ours(precision: str, options: argparse.Namespace, work: Path) -> Figures:
    from bases import encode, prepare_model

    from convmodel_cli.model.checkpoint import load_model
    from convmodel_cli.model.compute import default_micro_batch_tokens, evaluation_tokens, set_up
    from convmodel_cli.model.evaluation import evaluate, evaluation_batches, final_score

    machine = ComputeSettings(precision=precision, device=options.device)  # type: ignore[arg-type]
    compute = set_up(machine, for_training=False)
    model = load_model(str(prepare_model(options, work)))
    model.move_to(compute.device)
    sequences = encode(str(work / "data.jsonl"), model.tokenizer)
    length = round(float(sequences.lengths.mean()))
    training_budget = default_micro_batch_tokens(model.network.config, length, compute, model.pads)
    budget = evaluation_tokens(training_budget, model.pads)
    cut = partial(evaluation_batches, sequences, False, budget, padded=model.pads)
    final_score(evaluate(model, cut(max_rows=1, max_batches=1), compute))
    started = time.perf_counter()
    score = final_score(evaluate(model, cut(), compute))
    return result(len(sequences.ids), score.loss, time.perf_counter() - started)


def floor(options: argparse.Namespace, work: Path) -> Figures:
    from bases import prepare_model
    from floors import products
    from opponents import load_network

    config = load_network(prepare_model(options, work), best=True).config
    return products(config, TOKENS, options.device, backward=False)


def floor_of_kernels(options: argparse.Namespace, work: Path) -> Figures:
    import torch
    from bases import encode, prepare_model
    from floors import kernels
    from opponents import load_network, load_tokenizer

    from convmodel_cli.model.compute import set_up

    set_up(ComputeSettings(precision="bf16", device="cpu"), for_training=False)
    folder = prepare_model(options, work)
    sequences = encode(str(work / "data.jsonl"), load_tokenizer(folder))
    length = round(float(sequences.lengths.mean()))
    with torch.inference_mode():
        return kernels(load_network(folder, best=True).config, TOKENS, length, backward=False)


def trainer(best: bool, options: argparse.Namespace, work: Path) -> Figures:
    from bases import encode, prepare_model
    from opponents import evaluate, load_network, load_tokenizer, rows_of

    folder = prepare_model(options, work)
    sequences = encode(str(work / "data.jsonl"), load_tokenizer(folder))
    network = load_network(folder, best)
    rows = rows_of(sequences)
    evaluate(network, rows[:1], best, options.device, work, 1)
    batch_size = options.batch_size if best else DEFAULT_BATCH_SIZE
    seconds, loss = evaluate(network, rows, best, options.device, work, batch_size)
    return result(len(sequences.ids), loss, seconds)


def result(tokens: int, loss: float, seconds: float) -> Figures:
    return {SPEED: tokens / seconds, "loss": loss, "seconds": seconds, "peak_gigabytes": measure.peak_gigabytes()}


def main() -> None:
    parser = measure.make_parser(__doc__)
    parser.add_argument("conversations", metavar="CONVERSATIONS")
    measure.add_model_options(parser)
    parser.add_argument("--count", type=int, metavar="N", help="the first conversations; default all")
    parser.add_argument("--batch-size", type=int, default=4, help="of the Trainer at its best; ours decides by itself")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    contestants = {
        "ours-bf16": partial(ours, "bf16"),
        "trainer-best": partial(trainer, True),
        "ours-fp32": partial(ours, "fp32"),
        "trainer-default": partial(trainer, False),
        "floor": floor,
    }
    if options.device == "cpu":
        contestants["floor-kernels"] = floor_of_kernels
    rounds = measure.take_turns(options, contestants, prepare)
    measure.report("evaluation", rounds, COMPARISONS, model=options.model or options.shape)


if __name__ == "__main__":
    main()
