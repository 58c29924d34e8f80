"""New models: a byte-level BPE trained on the conversations, and a GPT-2 of one of three sizes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from convmodel_cli.model.initial_weights import begin_with_places
from convmodel_cli.model.language_model import LanguageModel, prepare_network

_END = "<|endoftext|>"
MAX_POSITIONS = 1024


@dataclass(frozen=True, slots=True)
class Size:
    """The shape of a new GPT-2."""

    layers: int
    width: int
    heads: int


SIZES = {"new-tiny": Size(4, 256, 4), "new-small": Size(6, 512, 8), "new-medium": Size(12, 768, 12)}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> GPT2Tokenizer:
    """A byte-level BPE of at most `vocab_size` tokens; small data gives fewer. The last id is the sep token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _gpt2_tokenizer(tokenizer)


def _gpt2_tokenizer(tokenizer: Tokenizer) -> GPT2Tokenizer:
    """The same vocabulary as a `GPT2Tokenizer`, a class that every consumer of such a folder knows."""
    learned = json.loads(tokenizer.to_str())["model"]
    # Behind the others, as in GPT-2: the ids 0 and 1 are lent to the token types.
    vocab = {**learned["vocab"], _END: len(learned["vocab"])}
    merges: Any = [tuple(merge) for merge in learned["merges"]]
    return GPT2Tokenizer(vocab=vocab, merges=merges, pad_token=_END, model_max_length=MAX_POSITIONS)


def new_model(size: Size, texts: Iterable[str], vocab_size: int, seed: int) -> LanguageModel:
    """An untrained model; its vocabulary comes from the texts."""
    tokenizer = train_tokenizer(texts, vocab_size)
    sep_id = int(tokenizer.eos_token_id)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=MAX_POSITIONS,
        n_layer=size.layers,
        n_embd=size.width,
        n_head=size.heads,
        activation_function="gelu",
        bos_token_id=sep_id,
        eos_token_id=sep_id,
        pad_token_id=sep_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GPT2LMHeadModel(config)
    begin_with_places(network)
    prepare_network(network)
    return LanguageModel(network, tokenizer, sep_id)
