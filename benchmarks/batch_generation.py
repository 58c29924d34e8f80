"""Responses per second to many contexts, as `generate -i` writes them, against transformers' generate in batches of 8.

    python benchmarks/batch_generation.py CONVERSATIONS --shape gpt2 --tokenizer DIR --max-new-tokens 32
    python benchmarks/batch_generation.py CONVERSATIONS --model DIR

Contexts are real conversations cut in front of a turn, each somewhere else. Greedy, without token types, in the same
precision on both sides. The opponent pads on the left, and takes its contexts sorted by length. The responses of a
model of random weights never end, so they all have `--max-new-tokens`; a trained model's have lengths of their own.
`same_text` is the share of responses that are the same to the letter on both sides. The floor is what a CPU would do if
it did nothing but the bf16 matrix products: of the layers for the tokens that are read, of the last one as far as keys
and values, and of the layers and the head for all but the last token of each response, in steps of as many rows as ours
takes; `floor-attention` also attends, in rows of the mean length and by the fastest of torch's kernels. Only random
weights have them.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import measure
from measure import Comparison, Figures, Rounds

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.settings import ComputeSettings
from convmodel_cli.workflows.answer import open_responder

SPEED = "responses_per_second"
COMPARISONS = [
    Comparison("ours-fp32", "generate-fp32", SPEED, ">= 5"),
    Comparison("ours-bf16", "generate-bf16", SPEED, ">= 5"),
    Comparison("floor-bf16", "generate-bf16", SPEED, "-"),
    Comparison("floor-attention-bf16", "generate-bf16", SPEED, "-"),
]
TOKENS = 4096  # of the floor's matrices, as many as are read at once
_BROKEN = "\N{REPLACEMENT CHARACTER}"
_STRIDE = 7  # spreads the places where conversations are cut over their lengths


def prepare(options: argparse.Namespace, work: Path) -> Figures:
    from bases import prepare_model

    prepare_model(options, work)
    return {}


def contexts(file: str, count: int) -> list[tuple[str, ...]]:
    """The turns in front of a turn, from conversations in the order of the file, and from its start again."""
    from convmodel_cli.data.conversations import read_conversations

    conversations = list(read_conversations(file))
    found = []
    for number in range(count):
        turns = conversations[number % len(conversations)].turns
        found.append(tuple(turns[: 1 + number * _STRIDE % (len(turns) - 1)]))
    return found


def ours(precision: str, options: argparse.Namespace, work: Path) -> Figures:
    from bases import prepare_model

    sampling = SamplingSettings(greedy=True, max_new_tokens=options.max_new_tokens)
    machine = ComputeSettings(precision=precision, device=options.device)  # type: ignore[arg-type]
    responder = replace(open_responder(str(prepare_model(options, work)), sampling, machine), with_types=False)
    turns = contexts(options.conversations, options.contexts)
    responder.answer([responder.context_of_text(turns[0])[0]])  # warms up
    started = time.perf_counter()
    written = responder.answer([responder.context_of_text(each)[0] for each in turns])
    return result([one.response.text for [one] in written], sum(one.response.tokens for [one] in written), started)


def library(precision: str, options: argparse.Namespace, work: Path) -> Figures:
    import torch
    from bases import prepare_model
    from opponents import generate, load_network, load_tokenizer

    folder = prepare_model(options, work)
    tokenizer: Any = load_tokenizer(folder)
    network = load_network(folder, best=True).eval().to(options.device)
    network = network.to(torch.bfloat16) if precision == "bf16" else network
    end, limit = int(tokenizer.eos_token_id), options.max_new_tokens
    turns = contexts(options.conversations, options.contexts)
    started = time.perf_counter()
    shown = [encode_context(tokenizer, each, end, network.config.n_positions - limit) for each in turns]
    order = sorted(range(len(shown)), key=lambda index: -len(shown[index]))
    responses: list[list[int]] = [[]] * len(shown)
    for start in range(0, len(order), options.batch_size):
        part = order[start : start + options.batch_size]
        found = generate(network, [shown[index] for index in part], end, max_new_tokens=limit)
        for index, response in zip(part, found, strict=True):
            responses[index] = response
    texts = [tokenizer.decode(response, clean_up_tokenization_spaces=False) for response in responses]
    return result(texts, sum(map(len, responses)), started)


def floor(options: argparse.Namespace, work: Path, *, with_attention: bool = False) -> Figures:
    from bases import prepare_model
    from floors import attention_of_decoding, products_of_decoding
    from opponents import load_network, load_tokenizer

    from convmodel_cli.model.compute import set_up
    from convmodel_cli.workflows.answer import BATCH_SIZE

    set_up(ComputeSettings(precision="bf16", device="cpu"), for_training=False)
    folder = prepare_model(options, work)
    config, tokenizer = load_network(folder, best=True).config, load_tokenizer(folder)
    end, room = int(tokenizer.eos_token_id), config.n_positions - options.max_new_tokens
    turns = contexts(options.conversations, options.contexts)
    read = sum(len(encode_context(tokenizer, each, end, room)) for each in turns)
    written = options.contexts * (options.max_new_tokens - 1)
    reading = read / products_of_decoding(config, "bf16", TOKENS, reading=True, repeats=5)["tokens_per_second"]
    writing = written / products_of_decoding(config, "bf16", BATCH_SIZE)["tokens_per_second"]
    if with_attention:
        length = read // options.contexts
        rows, places = TOKENS // length, length + options.max_new_tokens // 2
        attending = attention_of_decoding(config, rows, length, length) * (config.n_layer - 1) / config.n_layer
        reading += attending * read / (rows * length)
        writing += attention_of_decoding(config, BATCH_SIZE, 1, places, repeats=30) * written / BATCH_SIZE
    seconds = reading + writing
    return {SPEED: options.contexts / seconds, "seconds": seconds, "seconds_of_reading": reading}


def encode_context(tokenizer: Any, turns: tuple[str, ...], end: int, room: int) -> list[int]:
    """A sep token in front of the first turn and behind each; raises SystemExit if that is more than there is room."""
    encoded = tokenizer(list(turns), add_special_tokens=False, return_attention_mask=False)["input_ids"]
    ids = [end] + [token for turn in encoded for token in [*turn, end]]
    if len(ids) > room:
        raise SystemExit(f"expected contexts of at most {room} tokens, got {len(ids)}")
    return ids


def result(texts: list[str], tokens: int, started: float) -> Figures:
    seconds = time.perf_counter() - started
    rates = {SPEED: len(texts) / seconds, "tokens_per_second": tokens / seconds}
    return {**rates, "seconds": seconds, "peak_gigabytes": measure.peak_gigabytes(), "texts": texts}


def same_text(rounds: Rounds, ours: str, other: str) -> float | None:
    """The share of responses that are equal in the first round; letters that broke off, ours leaves out."""
    first = rounds[0]
    if ours not in first or other not in first:
        return None
    pairs = list(zip(first[ours]["texts"], first[other]["texts"], strict=True))
    return sum(mine == theirs.replace(_BROKEN, "") for mine, theirs in pairs) / len(pairs)


def main() -> None:
    parser = measure.make_parser(__doc__)
    parser.add_argument("conversations", metavar="CONVERSATIONS")
    measure.add_model_options(parser)
    parser.add_argument("--contexts", type=int, default=256)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8, help="of the opponent; ours decides by itself")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    contestants = {}
    for precision in ("fp32", "bf16"):
        contestants[f"ours-{precision}"] = partial(ours, precision)
        contestants[f"generate-{precision}"] = partial(library, precision)
    if options.model is None and options.device == "cpu":
        contestants["floor-bf16"] = floor
        contestants["floor-attention-bf16"] = partial(floor, with_attention=True)
    rounds = measure.take_turns(options, contestants, prepare)
    about = {"model": options.model or options.shape, "contexts": options.contexts, "limit": options.max_new_tokens}
    same = same_text(rounds, "ours-fp32", "generate-fp32")
    measure.report("batch_generation", rounds, COMPARISONS, **about, same_text=same, goal_of_same_text=1.0)


if __name__ == "__main__":
    main()
