"""Data and models that several tests need."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from convmodel_cli.data.formats import Conversation
from convmodel_cli.data.vocabulary import Vocabulary

TINY_POSITIONS = 64


class BytesTokenizer:
    """One id for each byte, from 1."""

    def __call__(self, text: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1 + byte for byte in turn.encode()] for turn in text]}


BYTES = Vocabulary(BytesTokenizer(), sep_id=0)


def made_up_conversations(count: int, longest_turn: int = 6, seed: int = 0) -> list[Conversation]:
    """Conversations of two to six turns of made-up words."""
    random_numbers = random.Random(seed)
    words = ["".join(random_numbers.choice("abcdefgh") for _ in range(3)) for _ in range(40)]

    def turn() -> str:
        return " ".join(random_numbers.choice(words) for _ in range(random_numbers.randint(1, longest_turn)))

    return [
        Conversation(tuple(turn() for _ in range(random_numbers.randint(2, 6))), file="made-up", line=line)
        for line in range(1, count + 1)
    ]


def write_jsonl(path: Path, records: Iterable[object]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def write_conversations(path: Path, conversations: Sequence[Conversation]) -> str:
    return write_jsonl(path, [list(item.turns) for item in conversations])


def small_llama(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A Llama of 2 layers, 64 wide, with random weights that are large enough for outputs to differ clearly.

    As with many of its kind the end of a text is the padding too.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=TINY_POSITIONS,
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    network = LlamaForCausalLM(config)
    with torch.no_grad():
        network.model.embed_tokens.weight.normal_(0, 0.2)  # the padding's too, which would be 0
        network.lm_head.weight.mul_(10)
    return network


def weights_digest(folder: Path, name: str = "model.safetensors") -> str:
    """SHA-256 over names, types, shapes and bytes of a file's tensors; its header may be ordered anyhow."""
    total = hashlib.sha256()
    for key, tensor in sorted(load_file(folder / name).items()):
        total.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()
