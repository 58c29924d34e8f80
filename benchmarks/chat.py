"""Time to the first token of a chat's answer at turn 20, against computing the whole history again.

    python benchmarks/chat.py [CONVERSATIONS] [--base new-tiny|new-small|new-medium] [--chats 7]

Holds chats of 20 turns a side with a new model and 1,024 positions. At the last turn it takes, in turn, the time to the
first token with what is remembered, without it, and from transformers' own generate. Prints one JSON line with medians
over the chats.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from itertools import chain, islice
from typing import Any

import torch
import transformers

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.data.conversations import read_conversations
from convmodel_cli.model.compute import set_up
from convmodel_cli.model.decoding import prepared
from convmodel_cli.model.generation import Memory
from convmodel_cli.model.new import SIZES, new_model
from convmodel_cli.settings import ComputeSettings
from convmodel_cli.workflows.answer import Responder
from convmodel_cli.workflows.chat import Chat, open_chat
from convmodel_cli.workflows.data import sample_file

GOAL = 0.2
TURNS = 20
TOKENS = 12  # of a response, about those of a turn in real conversations


def seconds_to_first_token(chat: Chat, text: str) -> float:
    started = time.perf_counter()
    next(iter(chat.say(text)))
    return time.perf_counter() - started


def seconds_of_library(responder: Responder, context: Any) -> float:
    """transformers' generate, asked for one token."""
    network: Any = responder.model.network
    started = time.perf_counter()
    ids = torch.tensor([context.ids])
    with torch.inference_mode():
        network.generate(
            input_ids=ids,
            token_type_ids=torch.tensor([context.types]),
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=1,
            pad_token_id=responder.model.sep_id,
        )
    return time.perf_counter() - started


def measure(responder: Responder, turns: list[str]) -> dict[str, float]:
    """Seconds at the last of these turns; the others are said first."""
    chat = open_chat(responder)
    for text in turns[:-1]:
        for _ in chat.say(text):
            pass
    said = [*(turn.ids for turn in chat.turns), responder.encode(turns[-1:], "")[0]]
    context, _ = responder.context(said)
    remembered = seconds_to_first_token(chat, turns[-1])
    chat.memory = Memory()
    recomputed = seconds_to_first_token(chat, turns[-1])
    return {
        "remembered": remembered,
        "recomputed": recomputed,
        "library": seconds_of_library(responder, context),
        "tokens": len(context.ids),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("conversations", nargs="?", default=str(sample_file("test.jsonl")))
    parser.add_argument("--base", default="new-tiny", choices=list(SIZES))
    parser.add_argument("--chats", type=int, default=7)
    options = parser.parse_args()
    conversations = read_conversations(options.conversations)
    compute = set_up(ComputeSettings(), for_training=False)
    turns = chain.from_iterable(conversation.turns for conversation in conversations)
    model = prepared(new_model(SIZES[options.base], list(turns), 4096, seed=0), compute)
    sampling = SamplingSettings(max_new_tokens=TOKENS, min_new_tokens=TOKENS)
    responder = Responder(model, compute, sampling, model.max_positions, with_types=True)
    said = chain.from_iterable(conversation.turns for conversation in conversations)
    chats = [list(islice(said, TURNS)) for _ in range(options.chats + 1)]
    measured = [measure(responder, chat) for chat in chats][1:]  # the first one warms up
    median = {key: statistics.median(each[key] for each in measured) for key in measured[0]}
    shares = sorted(each["remembered"] / each["recomputed"] for each in measured)
    result = {
        "benchmark": "chat",
        "base": options.base,
        "context_tokens": median.pop("tokens"),
        "milliseconds": {key: round(1000 * seconds, 2) for key, seconds in median.items()},
        "share": round(statistics.median(shares), 3),
        "spread": [round(shares[0], 3), round(shares[-1], 3)],
        "share_of_library": round(statistics.median(each["remembered"] / each["library"] for each in measured), 3),
        "goal": GOAL,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "machine": f"{platform.machine()}, {compute.threads} threads, {compute.precision}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
