"""Models of random weights for the benchmarks, and the conversations they are given."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, PreTrainedTokenizerBase

from convmodel_cli.data.conversations import read_conversations
from convmodel_cli.data.encoding import Sequences, Vocabulary, encode_conversations
from convmodel_cli.model.new import MAX_POSITIONS, SIZES, new_model

_END = "<|endoftext|>"


def turns_of(*files: str) -> Iterator[str]:
    return chain.from_iterable(conversation.turns for file in files for conversation in read_conversations(file))


def make_base(shape: str, folder: Path, tokenizer_folder: str | None, *files: str) -> None:
    """Write a GPT-2 of this shape with random weights: GPT-2's own, or a new model with a vocabulary from the files."""
    tokenizer: PreTrainedTokenizerBase
    if shape == "gpt2":
        tokenizer = read_gpt2_tokenizer(tokenizer_folder)
        sep = tokenizer.eos_token_id
        config = GPT2Config(**dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), sep))
    else:
        model = new_model(SIZES[shape], turns_of(*files), 4096, seed=0)
        tokenizer, config = model.tokenizer, model.network.config
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)  # with the weights that transformers gives a new model
    tokenizer.save_pretrained(folder)


def read_gpt2_tokenizer(folder: str | None) -> GPT2Tokenizer:
    """GPT-2's own vocabulary from the two files it was published as."""
    if folder is None:
        raise SystemExit("--tokenizer: expected a folder with GPT-2's vocab.json and merges.txt, got none")
    vocab = json.loads((Path(folder) / "vocab.json").read_text(encoding="utf-8"))
    lines = (Path(folder) / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges: Any = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return GPT2Tokenizer(vocab=vocab, merges=merges, pad_token=_END, model_max_length=MAX_POSITIONS)


def encode(file: str, tokenizer: PreTrainedTokenizerBase) -> Sequences:
    """The conversations of a file just as `fit` encodes them."""
    vocabulary = Vocabulary(tokenizer, int(tokenizer.eos_token_id))
    return encode_conversations(read_conversations(file), vocabulary, MAX_POSITIONS, "all")


def write_first(file: str, count: int | None, to: Path) -> None:
    """The first conversations of a JSON Lines file, or all of them."""
    lines = Path(file).read_text(encoding="utf-8").splitlines(keepends=True)
    to.write_text("".join(lines[:count]), encoding="utf-8")


def prepare_model(options: argparse.Namespace, work: Path) -> Path:
    """The folder of the model that takes part, which the first one to ask makes."""
    if options.model is not None:
        return Path(options.model)
    if not (work / "model").exists():
        make_base(options.shape, work / "model", options.tokenizer, options.conversations)
    return work / "model"
