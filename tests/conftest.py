"""Tiny models made on the spot, one torch thread, no network."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from convmodel_cli.cli.main import run
from convmodel_cli.data.formats import Conversation
from convmodel_cli.model.compute import Compute, set_up
from convmodel_cli.model.language_model import LanguageModel, prepare_network, set_dropout
from convmodel_cli.model.new import train_tokenizer
from convmodel_cli.settings import ComputeSettings
from harness import RUN, Result, Server, make_workshop, result_of, run_on_a_terminal
from helpers import TINY_POSITIONS, made_up_conversations

torch.set_num_threads(1)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Convmodel = Callable[..., Outcome]
OnATerminal = Callable[..., str]


@pytest.fixture
def convmodel(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Convmodel:
    """Run a command line in this process, in an empty folder; `stdin` is what is piped in."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, stdin: bytes = b"") -> Outcome:
        capsys.readouterr()
        piped = tmp_path / ".stdin"
        piped.write_bytes(stdin)
        with piped.open() as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            code = run(list(arguments))
        piped.unlink()
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def conversations() -> list[Conversation]:
    """200 seeded conversations of made-up words."""
    return made_up_conversations(200)


@pytest.fixture(scope="session")
def compute() -> Compute:
    return set_up(ComputeSettings(device="cpu", precision="fp32"), for_training=True)


@pytest.fixture
def tiny(conversations: list[Conversation]) -> LanguageModel:
    """A GPT-2 of 2 layers, 64 wide, 64 positions, with random weights and a vocabulary of 300."""
    tokenizer = train_tokenizer((turn for item in conversations for turn in item.turns), 300)
    torch.manual_seed(0)
    sep = int(tokenizer.eos_token_id)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=TINY_POSITIONS,
        n_layer=2,
        n_embd=64,
        n_head=4,
        bos_token_id=sep,
        eos_token_id=sep,
        pad_token_id=sep,
    )
    network = GPT2LMHeadModel(config)
    with torch.no_grad():  # larger than the usual start, so that outputs differ clearly
        network.transformer.wte.weight.mul_(10)
    prepare_network(network)
    set_dropout(network, 0.0)
    return LanguageModel(network, tokenizer, sep)


TALKS = [
    ["Hi!", "Hello there.", "How are you?", "I am fine, thank you."],
    ["What do you eat?", "I like rice and beans.", "And to drink?", "Only water."],
    ["Where do you live?", "In a small town by the sea.", "Is it nice there?", "Yes, very nice."],
    ["Tell me a joke.", "I know no jokes, sorry."],
    ["I say 🙂", "Then I say 日本語 🙂👍🏽"],
    ["Good night!", "Sleep well."],
]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small model that knows TALKS by heart. Random weights tie too often to prove anything."""
    folder = tmp_path_factory.mktemp("trained")
    data = folder / "talks.jsonl"
    data.write_text("".join(json.dumps(talk) + "\n" for talk in TALKS), encoding="utf-8")
    output = str(folder / "model")
    code = run(
        ["fit", str(data), str(data), "-o", output, "-q", "--epochs", "60", "--batch-size", "3", "--vocab-size", "400"]
        + ["--precision", "fp32", "--learning-rate", "0.005", "--eval-every", "1000"]
    )
    assert code == 0
    return output


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Runs commands in processes of their own, which may be killed."""
    started = Server()
    yield started
    started.close()


@pytest.fixture
def on_a_terminal(server: Server, tmp_path: Path) -> OnATerminal:
    """Run a command on a pseudo-terminal; `typed` holds (what to wait for, what to type then)."""

    def run(arguments: list[str], typed: list[tuple[bytes, bytes]], **variables: str) -> str:
        return run_on_a_terminal(server, tmp_path, arguments, typed, variables)

    return run


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def uninterrupted(server: Server, workshop: Path) -> Result:
    """The result of RUN when nothing disturbs it."""
    server.run(RUN, workshop).check()
    return result_of(workshop / "out")
