"""Tiny models made on the spot, one torch thread, no network."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase

from convmodel_cli.answer_settings import SamplingSettings
from convmodel_cli.cli.chat_screen import Lines, Session
from convmodel_cli.cli.display import Screen
from convmodel_cli.cli.main import run
from convmodel_cli.data.formats import Conversation
from convmodel_cli.model.compute import Compute, set_up
from convmodel_cli.model.language_model import LanguageModel, prepare_network, set_dropout
from convmodel_cli.model.new import train_tokenizer
from convmodel_cli.settings import ComputeSettings, ScreenSettings
from convmodel_cli.workflows.answer import open_responder
from convmodel_cli.workflows.chat import open_chat as begin_chat
from harness import RUN, Child, Result, Server, make_workshop, result_of, run_on_a_terminal
from helpers import TINY_POSITIONS, made_up_conversations, small_llama

if TYPE_CHECKING:
    from terminal import Terminal

torch.set_num_threads(1)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Convmodel = Callable[..., Outcome]
OpenChat = Callable[..., "Terminal"]
OnATerminal = Callable[..., str]
Replay = Callable[..., None]


@pytest.fixture
def convmodel(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Convmodel:
    """Run a command line in this process, in an empty folder; `stdin` is what is piped in, None closes it."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, stdin: bytes | None = b"") -> Outcome:
        capsys.readouterr()
        with _closed() if stdin is None else _holding(stdin, tmp_path / ".stdin") as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            code = run(list(arguments))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@contextmanager
def _holding(content: bytes, path: Path) -> Iterator[TextIO]:
    path.write_bytes(content)
    with path.open() as stream:
        yield stream
    path.unlink()


@contextmanager
def _closed() -> Iterator[None]:
    """As after `<&-`: Python has no stdin, and the next file that is opened gets its number."""
    kept = os.dup(0)
    os.close(0)
    try:
        yield None
    finally:
        os.dup2(kept, 0)
        os.close(kept)


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
    return without_dropout(network, tokenizer, sep)


def without_dropout(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sep_id: int) -> LanguageModel:
    prepare_network(network)
    set_dropout(network, 0.0)
    return LanguageModel(network, tokenizer, sep_id)


@pytest.fixture(params=["packed", "padded", "llama"])
def any_model(request: pytest.FixtureRequest, tiny: LanguageModel) -> LanguageModel:
    """`tiny` as it is computed on a CPU, as it is computed on any other device, and a model without token types."""
    model = tiny
    if request.param == "padded":
        tiny.network.register_forward_hook(_see_nothing)
    if request.param == "llama":
        model = without_dropout(small_llama(tiny.tokenizer), tiny.tokenizer, tiny.sep_id)
    assert (model.pads, model.takes_types) == (request.param != "packed", request.param != "llama")
    return model


def _see_nothing(*_: object) -> None:
    """A hook: transformers calls it, and so has to compute what it hangs on."""


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
        ["fit", str(data), str(data), "-o", output, "-q", "--epochs", "30", "--batch-size", "6", "--vocab-size", "400"]
        + ["--precision", "fp32", "--learning-rate", "0.005", "--eval-every", "1000"]
    )
    assert code == 0
    return output


@pytest.fixture(scope="session")
def wide(trained: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model, which may be shown more than it has learned to look at, so that a response may take seconds."""
    folder = tmp_path_factory.mktemp("wide") / "model"
    shutil.copytree(trained, folder)
    record = json.loads((folder / "convmodel.json").read_text(encoding="utf-8"))
    (folder / "convmodel.json").write_text(json.dumps({**record, "max_context": 1024}), encoding="utf-8")
    return str(folder)


@pytest.fixture
def replay(convmodel: Convmodel, wide: str, tmp_path: Path) -> Replay:
    """Hold the chat of a transcript, greedily, and compare everything that is written.

    In the transcript `> ` stands before a line of the script and `! ` before what is to be on stderr; the other lines
    are to be on stdout.
    """

    def compare(transcript: str, *options: str, code: int = 0, model: str = wide) -> None:
        lines = textwrap.dedent(transcript).strip("\n").split("\n")
        script, said = ([line[1:].removeprefix(" ") for line in lines if line[:1] == lead] for lead in ">!")
        answers = [line for line in lines if line[:1] not in (">", "!")]
        (tmp_path / "talk.txt").write_text("\n".join(script), encoding="utf-8")
        outcome = convmodel("chat", "-m", model, "--greedy", "--script", "talk.txt", *options)
        assert outcome.err == "".join(line + "\n" for line in said)
        assert outcome.out == "".join(line + "\n" for line in answers)
        assert outcome.code == code

    return compare


@pytest.fixture
def session(wide: str) -> Session:
    """A greedy chat of this process in which nothing has been said."""
    machine = ComputeSettings(device="cpu", precision="fp32")
    responder = open_responder(wide, SamplingSettings(greedy=True), machine)
    return Session(begin_chat(responder), Screen(ScreenSettings()), Lines(), responder)


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


@pytest.fixture
def open_chat(server: Server, trained: str, tmp_path: Path) -> Iterator[OpenChat]:
    """Open a chat on a terminal; `model` is another than the trained one."""
    from terminal import Terminal

    opened: list[Terminal] = []

    def open_one(
        *arguments: str,
        model: str = trained,
        columns: int = 100,
        rows: int = 40,
        environment: dict[str, str] | None = None,
        **options: Any,
    ) -> Terminal:
        command = ["chat", "-m", model, "--threads", "1", *arguments]

        def start(name: str, variables: dict[str, str]) -> Child:
            return server.start(command, tmp_path, terminal=name, environment=variables, **options)

        opened.append(Terminal(start, {"XDG_STATE_HOME": str(tmp_path), **(environment or {})}, columns, rows))
        return opened[-1]

    yield open_one
    for terminal in opened:
        terminal.close()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def uninterrupted(server: Server, workshop: Path) -> Result:
    """The result of RUN when nothing disturbs it."""
    server.run(RUN, workshop).check()
    return result_of(workshop / "out")
