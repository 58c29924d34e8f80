"""Tokens per second of one response: ours against transformers' generate and CTranslate2.

    python benchmarks/decoding.py CONVERSATIONS --shape gpt2 --tokenizer DIR
    python benchmarks/decoding.py CONVERSATIONS --shape new-tiny
    python benchmarks/decoding.py CONVERSATIONS --model DIR --valid VALID

After 64 tokens of real conversations, 96 greedy tokens, none of which may end the response; one stream. The time has
the context in it. CTranslate2 has as many threads as the others, and in int8 also one alone, which makes it faster.
`in-turn` is ours and generate in one process, which answer each context one after the other: a machine whose speed
changes within seconds is the same for both, and what counts is the median of the responses' ratios.
The floors are what a response would be if a token were nothing but the products of one row with the matrices of the
layers and the head, each as fast as ours. `--valid` adds the perplexity of each precision on its first 20
conversations, which needs a trained model.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import measure
from measure import Comparison, Figures

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.settings import ComputeSettings
from convmodel_cli.workflows.answer import open_responder

CONTEXT_TOKENS = 64
CONVERSATIONS = 20  # whose perplexity is measured
PRECISIONS = ("fp32", "int8")
SPEED, PPL, TIMES = "tokens_per_second", "ppl", "times_generate"
Respond = Callable[[tuple[int, ...]], int]  # the tokens of a context -> how many were written
GOALS = {"gpt2": (">= 1.2", ">= 3", ">= 1.5"), "new-tiny": (">= 4", ">= 4", "-")}


def prepare(options: argparse.Namespace, work: Path) -> Figures:
    from bases import prepare_model

    prepare_model(options, work)
    return {}


def contexts(options: argparse.Namespace, tokenizer: Any) -> list[tuple[int, ...]]:
    """The last tokens in front of a sep token, from as many conversations as there are responses, and one more."""
    from bases import encode

    sequences = encode(options.conversations, tokenizer)
    found = []
    for index in range(len(sequences)):
        ids = sequences[index].ids.tolist()
        end = next((at for at in range(CONTEXT_TOKENS, len(ids)) if ids[at] == tokenizer.eos_token_id), None)
        if end is not None:
            found.append(tuple(ids[end + 1 - CONTEXT_TOKENS : end + 1]))
        if len(found) > options.responses:
            return found
    raise SystemExit(f"{options.conversations}: expected {options.responses + 1} conversations that are long enough")


def rate(options: argparse.Namespace, respond: Respond, context: tuple[int, ...]) -> float:
    """Tokens per second of a response."""
    started = time.perf_counter()
    written = respond(context)
    seconds = time.perf_counter() - started
    assert written == options.tokens, written
    return written / seconds


def timed(options: argparse.Namespace, tokenizer: Any, respond: Respond) -> Figures:
    """The median over responses; the first one warms up."""
    rates = [rate(options, respond, context) for context in contexts(options, tokenizer)]
    return {SPEED: statistics.median(rates[1:]), "peak_gigabytes": measure.peak_gigabytes()}


def our_respond(precision: str, options: argparse.Namespace, work: Path) -> tuple[Any, Respond]:
    """(tokenizer, how a context is answered)"""
    from bases import prepare_model

    sampling = SamplingSettings(greedy=True, max_new_tokens=options.tokens, min_new_tokens=options.tokens)
    machine = ComputeSettings(precision=precision, device="cpu")  # type: ignore[arg-type]
    responder = open_responder(str(prepare_model(options, work)), sampling, machine)

    def respond(ids: tuple[int, ...]) -> int:
        from convmodel_cli.model.generation import Context

        events = responder.stream(Context(ids, (0,) * len(ids), options.tokens), None)
        *_, (_, builder) = events
        return builder.written().response.tokens

    return responder.model.tokenizer, respond


def library_respond(options: argparse.Namespace, work: Path) -> tuple[Any, Respond]:
    from bases import prepare_model
    from opponents import generate, load_network, load_tokenizer

    folder = prepare_model(options, work)
    network, tokenizer = load_network(folder, best=False).eval(), load_tokenizer(folder)
    end, limits = int(tokenizer.eos_token_id), {"max_new_tokens": options.tokens, "min_new_tokens": options.tokens}
    return tokenizer, lambda ids: len(generate(network, [ids], end, **limits)[0])


def ours(precision: str, options: argparse.Namespace, work: Path) -> Figures:
    return timed(options, *our_respond(precision, options, work))


def library(options: argparse.Namespace, work: Path) -> Figures:
    return timed(options, *library_respond(options, work))


def in_turn(precision: str, options: argparse.Namespace, work: Path) -> Figures:
    tokenizer, by_library = library_respond(options, work)
    _, by_ours = our_respond(precision, options, work)
    pairs = [
        (rate(options, by_ours, context), rate(options, by_library, context))
        for context in contexts(options, tokenizer)
    ][1:]
    our_rates, library_rates = zip(*pairs, strict=True)
    return {
        TIMES: statistics.median(own / other for own, other in pairs),
        SPEED: statistics.median(our_rates),
        "generate_tokens_per_second": statistics.median(library_rates),
    }


def ctranslate2(precision: str, threads: int | None, options: argparse.Namespace, work: Path) -> Figures:
    import torch
    from bases import prepare_model
    from opponents import convert_to_ctranslate2, load_tokenizer

    folder = prepare_model(options, work)
    tokenizer = load_tokenizer(folder)
    converted = work / f"ctranslate2-{precision}"
    generator = convert_to_ctranslate2(folder, precision, threads or torch.get_num_threads(), converted)

    def respond(ids: tuple[int, ...]) -> int:
        [result] = generator.generate_batch(
            [tokenizer.convert_ids_to_tokens(list(ids))],
            max_length=options.tokens,
            min_length=options.tokens,
            sampling_topk=1,
            include_prompt_in_result=False,
        )
        return len(result.sequences_ids[0])

    return timed(options, tokenizer, respond)


def floor(precision: str, options: argparse.Namespace, work: Path) -> Figures:
    from bases import prepare_model
    from floors import products_of_decoding
    from opponents import load_network

    from convmodel_cli.model.compute import set_up

    set_up(ComputeSettings(precision=precision, device="cpu"), for_training=False)  # type: ignore[arg-type]
    return products_of_decoding(load_network(prepare_model(options, work), best=False).config, precision)


def perplexity(precision: str, options: argparse.Namespace, work: Path) -> Figures:
    """Of the first conversations, read token by token, as a response is made."""
    from bases import encode, prepare_model

    from convmodel_cli.model.checkpoint import load_model
    from convmodel_cli.model.compute import set_up
    from convmodel_cli.model.decoding import make_decoder, prepared
    from convmodel_cli.model.generation import Context

    compute = set_up(ComputeSettings(precision=precision, device="cpu"), for_training=False)  # type: ignore[arg-type]
    model = prepared(load_model(str(prepare_model(options, work))), compute)
    sequences = encode(options.valid, model.tokenizer)
    nats, targets = 0.0, 0
    for number in range(min(CONVERSATIONS, len(sequences))):
        first, *rest = sequences[number].ids.tolist()
        decoder = make_decoder(model, compute, False, None)
        logits = decoder.read([Context((first,), (0,), len(rest))])
        for token in rest:
            nats -= float(logits.double().log_softmax(-1)[0, token])
            logits = decoder.step([token])
        targets += len(rest)
    return {PPL: math.exp(nats / targets), "targets": targets}


def comparisons(shape: str) -> list[Comparison]:
    fp32, int8, int8_both = GOALS.get(shape, ("-",) * 3)
    return [
        Comparison("ours-fp32", "generate-fp32", SPEED, fp32),
        Comparison("ours-int8", "generate-fp32", SPEED, int8),
        Comparison("ours-int8", "ctranslate2-int8", SPEED, int8_both),
        Comparison("ours-int8", "ctranslate2-int8-one-thread", SPEED, int8_both),
        Comparison("ours-fp32", "ctranslate2-float32", SPEED, "-"),
        Comparison("floor-fp32", "generate-fp32", SPEED, "-"),
        Comparison("floor-int8", "generate-fp32", SPEED, "-"),
        Comparison("floor-int8", "ctranslate2-int8-one-thread", SPEED, "-"),
        Comparison("perplexity-int8", "perplexity-fp32", PPL, "<= 1.005"),
    ]


def main() -> None:
    parser = measure.make_parser(__doc__)
    parser.add_argument("conversations", metavar="CONVERSATIONS")
    measure.add_model_options(parser)
    parser.add_argument("--valid", metavar="FILE", help="also the perplexity of each precision on this file")
    parser.add_argument("--tokens", type=int, default=96, help="of each response")
    parser.add_argument("--responses", type=int, default=5, help="in each round; their median counts")
    options = parser.parse_args()
    contestants = {
        **{f"in-turn-{precision}": partial(in_turn, precision) for precision in PRECISIONS},
        **{f"ours-{precision}": partial(ours, precision) for precision in PRECISIONS},
        **{f"floor-{precision}": partial(floor, precision) for precision in PRECISIONS},
        "generate-fp32": library,
        "ctranslate2-float32": partial(ctranslate2, "float32", None),
        "ctranslate2-int8": partial(ctranslate2, "int8", None),
        "ctranslate2-int8-one-thread": partial(ctranslate2, "int8", 1),
    }
    if options.valid is not None:
        contestants |= {f"perplexity-{precision}": partial(perplexity, precision) for precision in PRECISIONS}
    rounds = measure.take_turns(options, contestants, prepare)
    about = {
        "model": options.model or options.shape,
        "context_tokens": CONTEXT_TOKENS,
        "new_tokens": options.tokens,
        "in_turn": {"spread": measure.spreads(rounds, TIMES), "goals": GOALS.get(options.shape, ("-",) * 3)[:2]},
    }
    measure.report("decoding", rounds, comparisons(options.shape), **about)


if __name__ == "__main__":
    main()
